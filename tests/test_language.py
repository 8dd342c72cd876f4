"""The language of the house: the field's words in names and texts, docstrings that begin with a verb."""

import ast
import re

import pytest
from test_house import product, read

# Names that say nothing, for which a noun of the matter stands ready.
VAGUE_NAMES = {"found", "there", "told", "said", "place", "somewhere", "thing", "things", "stuff"}
# The house's old dialect -> the field's word.
DIALECT = {"picture": "image", "pictures": "images", "likeness": "similarity"}
NOT_A_VERB = re.compile(
    r"(The|A|An|What|Whether|Which|How|Where|When|Who|Whose|Why|Of|As|For|From|With|In|On|By|All|Every|Each|One|No|Same|"
    r"True|False|If|This|That|These|It|Its|\W|\d)\b|[`(\d]"
)
INLINE_ERRORS = re.compile(r"\bErrors:|\bRaises [A-Z`]|\w\. [A-Z]\w*Error for|^[A-Z]\w*Error (for|when)", re.M)


def nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def vague_names(source: str, room: str = "") -> list[str]:
    """Locals and parameters that are called one of `VAGUE_NAMES`; in rooms of prompts a place is one of Places365."""
    vague = VAGUE_NAMES - {"place"} if room in ("prompts", "lab") else VAGUE_NAMES
    stored = [n.id for n in nodes(source) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    taken = [n.arg for n in nodes(source) if isinstance(n, ast.arg)]
    return sorted({name for name in stored + taken if name in vague})


def dialect(source: str) -> list[str]:
    """Words of the old dialect, in names and texts alike, with the field's."""
    words = re.findall(
        r"[A-Za-z]+", re.sub(r"blank picture|photograph\|picture|_", " ", source)
    )  # a reason in the rows of old sets; a caption
    return sorted({f"{word}: {DIALECT[word.lower()]}" for word in words if word.lower() in DIALECT})


def docstring_faults(source: str) -> list[str]:
    """Docstrings of public functions that begin with no verb, and errors that stand anywhere but under ``Raises:``."""
    faults = []
    for node in nodes(source):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        text = ast.get_docstring(node) or ""
        is_function = not isinstance(node, ast.ClassDef)
        property_like = is_function and any("property" in ast.unparse(d) for d in node.decorator_list)
        if is_function and not property_like and not node.name.startswith("_") and text and NOT_A_VERB.match(text):
            faults.append(f"{node.name}: begins with {text.split()[0]!r}")
        if INLINE_ERRORS.search(text):
            faults.append(f"{node.name}: errors stand under Raises:")
    return faults


@pytest.mark.parametrize("name", product())
def test_names_texts_and_docstrings_speak_the_field_s_language(name):
    source = read(name)
    assert vague_names(source, name.partition("/")[0]) + dialect(source) + docstring_faults(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def f(place): pass",
        "pictures = []",
        "x = 'a picture'",
        'def f():\n    """The sum."""',
        'def f():\n    """Add. Raises ValueError for none."""',
        'def f():\n    """Add.\n\n    Errors: ValueError for none.\n    """',
        'def f():\n    """Add. InputError for none."""',
    ],
)
def test_another_language_is_noticed(source):
    assert vague_names(source) + dialect(source) + docstring_faults(source)


def test_good_language_passes():
    source = (
        'def add(a: int) -> int:\n    """Return a + 1.\n\n    Raises:\n        ValueError: when a is none.\n    """\n'
    )
    assert vague_names(source) + dialect(source) + docstring_faults(source) == []
