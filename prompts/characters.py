"""Decide which characters names and prompts may contain: one rule for class lists, prompt tables and printed text.

Control characters break lines of logs and of `txt` members; line separators and bidirectional overrides make a text
look like another one than it is. Marks that right-to-left scripts need stay allowed.
"""

import re

# C0 and C1 controls, DEL, line and paragraph separator, bidirectional embeddings, overrides and isolates. The pattern
# holds the characters themselves, so that Python's `re` and Arrow's RE2 read it alike.
_RANGES = ((0x00, 0x1F), (0x7F, 0x9F), (0x2028, 0x202E), (0x2066, 0x2069))
UNPRINTABLE = "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _RANGES) + "]"


def has_unprintable(text: str) -> bool:
    """Return whether ``text`` holds a control character, a line separator or a bidirectional override."""
    return re.search(UNPRINTABLE, text) is not None


def printable(text: str) -> str:
    """Return ``text`` for a terminal: what `has_unprintable` detects is replaced by its escape, such as ``\\x1b``."""
    return re.sub(UNPRINTABLE, lambda match: ascii(match[0])[1:-1], text)
