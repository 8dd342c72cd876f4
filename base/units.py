"""Write times, sizes, money and counts as people say them: minutes, megabytes, cents, 1 image.

In: seconds, bytes, dollars, numbers. Out: short texts.
"""

_TIMES = ((90, "s", 1), (5400, "min", 60), (172800, "h", 3600))
_SIZES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3))


def format_duration(seconds: float) -> str:
    """Return ``0.4 s``, ``59 s``, ``12 min``, ``3.4 h`` or ``2.1 days``."""
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    for limit, unit, size in _TIMES:
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def format_count(number: int, noun: str) -> str:
    """Return ``1 shard``, ``0 classes`` or ``16,000,000 images``; nouns in -s take -es, all others -s."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural}"


def format_set(images: int, shards: int) -> str:
    """Return ``16,000,000 images in 1,600 shards``."""
    return f"{format_count(images, 'image')} in {format_count(shards, 'shard')}"


def format_bytes(count: float) -> str:
    """Return ``999 bytes``, ``1.2 KB``, ``34.5 MB`` or ``6.7 GB``: powers of 1,000, as disks are sold."""
    for unit, size in _SIZES:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def format_dollars(dollars: float) -> str:
    """Return ``0.25 cents``, ``12 cents``, ``3.40 dollars`` or ``1,250 dollars``."""
    if dollars < 1:
        return f"{dollars * 100:.2g} cents" if dollars < 0.995 else "1.00 dollars"
    return f"{dollars:.2f} dollars" if dollars < 1000 else f"{dollars:,.0f} dollars"


def format_rate(per_second: float) -> str:
    """Return ``0.0123``, ``4.2`` or ``1,300``: three digits at most behind what is certain, no exponent."""
    digits = 0 if per_second >= 100 else 1 if per_second >= 1 else 3
    return f"{per_second:,.{digits}f}"
