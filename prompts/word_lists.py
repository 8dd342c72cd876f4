"""Lists of one text a line: the places of Places365, and users' own places and templates.

In: a UTF-8 text file. Out: texts by line number; empty lines and what follows `#` at the start of a line are left out.
"""

from functools import lru_cache
from pathlib import Path

from synclones.errors import InputError
from synclones.prompts.characters import has_unprintable

PLACES365 = Path(__file__).resolve().parent / "places365.txt"
MAX_CHARS = 500


def read_lines(path: Path, flag: str) -> dict[int, str]:
    """line number -> text.

    Errors: InputError for no file, no text, or a line that is too long, doubled, not UTF-8 or not printable.
    """
    if not path.is_file():
        raise InputError(f"{flag}: no file {str(path)!r}; give a text file with one entry a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    found = {n: line.strip() for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")}
    first: dict[str, int] = {}
    for number, text in found.items():
        if has_unprintable(text) or len(text) > MAX_CHARS:
            raise InputError(
                f"{path}:{number}: holds a control character or over {MAX_CHARS} characters; mend the line"
            )
        if first.setdefault(text, number) != number:
            raise InputError(f"{path}:{number}: {text!r} stands in line {first[text]} already; keep it once")
    if not found:
        raise InputError(f"{path}: no entries; write one a line")
    return found


@lru_cache(maxsize=4)
def places(path: Path | None) -> tuple[str, ...]:
    """The scene names of Places365 (Zhou et al. 2018) with their sub-types, or a user's own list."""
    return tuple(read_lines(path or PLACES365, "--places").values())
