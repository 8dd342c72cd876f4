"""Check model-written captions for known faults of captioners and language models.

In: a model's answer. Out: the caption in it, and its fault or none.
"""

import re

from synclones.prompts.characters import UNPRINTABLE

MAX_WORDS, MAX_LETTERS = 60, 400
REPEATS, LONGEST_REPEAT = 3, 4
# What captioners begin with when they say nothing else, and what language models write instead of a caption.
_BOILERPLATE = re.compile(
    r"^(this is |there is |here is |it is )?((a|an|the) )?((close[- ]?up|black and white|blurry) )?"
    r"(photo|photograph|picture|image|view|caption|drawing)s?( (of|with|showing))?( (a|an|the))?[ .:]*$",
    re.IGNORECASE,
)
_REFUSAL = re.compile(r"^(i'?m sorry|i am sorry|sorry|i can ?not|i can'?t|as an ai|i'?m unable)\b", re.IGNORECASE)
_LEAD = re.compile(r"^\s*(?:[-*•]|\d+[.)]|\"?caption\"?\s*[:=]|(?:sure|certainly|okay)[,!.:]?)\s*", re.IGNORECASE)
_QUOTES = "\"'“”‘’`"


def caption_in(answer: str) -> str:
    """Return the first line with content, without numbering, `Caption:`, quotes, or unprintable characters."""
    for line in re.split(r"[\r\n\u2028\u2029]+", answer):
        text, before = re.sub(UNPRINTABLE, "", line.replace("\t", " ")).strip(), None
        while text != before:
            before, text = text, _LEAD.sub("", text).strip().strip(_QUOTES).strip()
        if text and not text.endswith(":"):
            return re.sub(r"\s+", " ", text)
    return ""


def fault(caption: str) -> str:
    """Return ``empty``, ``boilerplate``, ``refusal``, ``repetition`` or ``too long``; "" for a good caption."""
    words = re.findall(r"\w+", caption.lower())
    if not words:
        return "empty"
    if _BOILERPLATE.match(caption):
        return "boilerplate"
    if _REFUSAL.match(caption):
        return "refusal"
    if len(words) > MAX_WORDS or len(caption) > MAX_LETTERS:
        return "too long"
    return "repetition" if _repeats(words) else ""


def _repeats(words: list[str]) -> bool:
    """Return whether one to four words occur three times in a row: `dog dog dog`, `and a cat and a cat and a cat`."""
    for size in range(1, LONGEST_REPEAT + 1):
        run = 0
        for at in range(size, len(words)):
            run = run + 1 if words[at] == words[at - size] else 0
            if run >= size * (REPEATS - 1):
                return True
    return False
