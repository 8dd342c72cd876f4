"""Escapes names that somebody else chose for what they are written into: Markdown, LaTeX and spreadsheets.

In: any text, such as the name of a folder. Out: text that shows the same characters and does nothing. HTML is escaped
by Python's `html.escape`, lines of a terminal by `errors.one_line`.
"""

import re

from synclones.base.errors import one_line

# What begins markup inside a line of Markdown; an underscore between letters does not.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
}
# What makes a spreadsheet take a cell for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def markdown_text(text: str) -> str:
    """Return ``text`` for a line or a table cell of Markdown, what would end or disguise the line as its escape."""
    plain = _MARKUP.sub(lambda match: "\\" + match[0], one_line(text))
    return "".join(_ENTITIES.get(character, character) for character in plain)


def markdown_code(text: str) -> str:
    """Return ``text`` between backticks, for a line or a table cell of Markdown."""
    plain = one_line(text).replace("|", "\\|")
    if "`" not in plain:
        return f"`{plain}`"
    fence = "`" * (1 + max(map(len, re.findall("`+", plain))))
    return f"{fence} {plain} {fence}"


def latex_text(text: str) -> str:
    """Return ``text`` for a line of LaTeX, every character of its language as the command that prints it."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def csv_text(text: str) -> str:
    """Return ``text`` for a cell of a CSV file: behind an apostrophe where a spreadsheet would compute it."""
    line = one_line(text)
    return f"'{line}" if text.startswith(_FORMULA) else line
