"""Look up hypernyms and definitions of classes, in the class list itself or in WordNet.

In: a class list; WordNet only when the list lacks a fact. Out: one text per class, and JSON with its origin.
"""

from dataclasses import dataclass
from typing import Literal

from synclones.base.errors import InputError
from synclones.prompts.classes.lists import ClassInfo
from synclones.prompts.classes.wordnet import WNID, Sense, open_wordnet
from synclones.prompts.recipe import Bound, Inputs, class_captions, json_texts

Fact = Literal["hypernym", "definition"]


@dataclass(frozen=True)
class Facts:
    """One fact of every class."""

    texts: list[str]
    origins: list[dict[str, str]]
    """Per class the synset that the fact was read from, or nothing."""
    notes: tuple[str, ...]
    sources: dict[str, str]


def class_facts(inputs: Inputs, fact: Fact) -> Facts:
    """Return the fact of every class in order.

    Raises:
        InputError: when neither the list nor WordNet has it for a class; the message names the class.
    """
    classes = inputs.classes.classes
    senses = _look_up(inputs, [info for info in classes if not info.more.get(fact)], fact)
    facts = [info.more.get(fact) or getattr(senses[info.class_id], fact) for info in classes]
    origins = []
    for info in classes:
        synset = info.more.get("synset", "") if info.more.get(fact) else senses[info.class_id].key
        origins.append({"synset": synset} if synset else {})
    guessed = [info for info in classes if info.class_id in senses and not WNID.fullmatch(info.class_id)]
    sources = {"wordnet": open_wordnet(inputs.wordnet_dir).version} if senses else {}
    return Facts(facts, origins, _note(guessed, senses, fact), sources)


def bind_fact(inputs: Inputs, fact: Fact) -> Bound:
    """Bind the recipe `name, fact`, one caption per class."""
    facts = class_facts(inputs, fact)
    prompts = [f"{info.name}, {text}" for info, text in zip(inputs.classes.classes, facts.texts, strict=True)]
    details = [{fact: text} | origin for text, origin in zip(facts.texts, facts.origins, strict=True)]
    return Bound(class_captions(prompts, json_texts(details).to_pylist()), sources=facts.sources, notes=facts.notes)


def _look_up(inputs: Inputs, infos: list[ClassInfo], fact: Fact) -> dict[str, Sense]:
    """Return class_id -> sense: that of its wnid, else the most frequent one of its name."""
    if not infos:
        return {}
    try:
        wordnet = open_wordnet(inputs.wordnet_dir)
    except InputError as error:
        raise InputError(f"{_lacking(inputs, infos, fact)}; or make WordNet available ({error})") from None
    senses: dict[str, Sense] = {}
    for info in infos:
        sense = wordnet.by_wnid(info.class_id) if WNID.fullmatch(info.class_id) else None
        sense = sense or next(iter(wordnet.senses(info.name)), None)
        if sense is not None and getattr(sense, fact):
            senses[info.class_id] = sense
    unknown = [info for info in infos if info.class_id not in senses]
    if unknown:
        raise InputError(f"{_lacking(inputs, unknown, fact)} ({wordnet.version} has none)")
    return senses


def _lacking(inputs: Inputs, infos: list[ClassInfo], fact: Fact) -> str:
    more = f" and {len(infos) - 1} more" if len(infos) > 1 else ""
    return (
        f"--classes {inputs.classes.name}: class {infos[0].name!r} ({infos[0].class_id}){more} has no {fact}; add a "
        f"column `{fact}` to the class file"
    )


def _note(guessed: list[ClassInfo], senses: dict[str, Sense], fact: Fact) -> tuple[str, ...]:
    if not guessed:
        return ()
    examples = "; ".join(f"{info.name!r} is {senses[info.class_id].key}" for info in guessed[:3])
    more = f", and {len(guessed) - 3} more" if len(guessed) > 3 else ""
    return (
        f"{fact} from the most frequent sense of the name in WordNet: {examples}{more}; to choose another sense give "
        "its wnid as class_id",
    )
