"""A WordNet of thirty synsets in the database's own file format, for tests that need no package.

In: the list below. Out: ``data.noun`` and ``index.noun`` in a folder; a synset's number is its byte offset, as in the
real files.
"""

from pathlib import Path

# lemmas: (hypernyms by their first lemma#sense, the first being the one that counts; gloss)
SYNSETS: list[tuple[str, list[str], list[str], str]] = [
    ("entity#1", ["entity"], [], "that which exists"),
    ("thing#1", ["thing"], ["entity#1"], "a separate entity"),
    ("animal#1", ["animal", "beast"], ["thing#1"], "a living organism that moves"),
    ("bird#1", ["bird"], ["animal#1"], 'warm-blooded egg-laying vertebrates; "the bird sang"'),
    ("wading_bird#1", ["wading_bird", "wader"], ["bird#1"], "long-legged birds that wade in water"),
    ("crane#1", ["crane", "Crane"], ["person#1"], "a writer of that name"),
    ("crane#2", ["crane"], ["lifting_device#1"], "lifts and moves heavy objects"),
    ("crane#3", ["crane"], ["wading_bird#1"], "large long-necked wading bird"),
    ("person#1", ["person", "human"], ["animal#1"], "a human being"),
    ("device#1", ["device"], ["thing#1"], "an instrument made for a purpose"),
    ("lifting_device#1", ["lifting_device"], ["device#1"], "a device for lifting"),
    ("canine#1", ["canine", "canid"], ["animal#1"], "mammals with claws that do not retract"),
    ("domestic_animal#1", ["domestic_animal"], ["animal#1"], "tamed animals"),
    ("dog#1", ["dog", "domestic_dog"], ["canine#1", "domestic_animal#1"], "a member of the genus Canis"),
    ("cat#1", ["cat"], ["feline#1"], "feline mammal with thick soft fur"),
    ("feline#1", ["feline"], ["animal#1"], "lithe-bodied mammals"),
    ("fish#1", ["fish"], ["animal#1"], "cold-blooded aquatic vertebrates"),
    ("tench#1", ["tench"], ["cyprinid#1"], "dace-like game fish"),
    ("cyprinid#1", ["cyprinid"], ["fish#1"], "soft-finned freshwater fishes"),
    ("plant#1", ["plant"], ["thing#1"], "a living organism that does not move"),
    ("flower#1", ["flower", "bloom"], ["plant#1"], "the bloom of a plant"),
    ("tree#1", ["tree"], ["plant#1"], "a tall woody plant"),
    ("vehicle#1", ["vehicle"], ["device#1"], "carries people or goods"),
    ("car#1", ["car", "auto", "automobile"], ["vehicle#1"], "a vehicle with four wheels"),
    ("truck#1", ["truck"], ["vehicle#1"], "suitable for hauling"),
    ("digit#1", ["digit", "figure"], ["number#1"], "one of the signs of a numeral"),
    ("number#1", ["number"], ["entity#1"], "a concept of quantity"),
    ("two#1", ["two", "deuce"], ["digit#1"], "the sum of one and one"),
    ("gray_whale#1", ["gray_whale"], ["animal#1"], "a whale of northern waters"),
    ("place#1", ["place"], ["thing#1"], "a point in space"),
]
HEADER = "".join(f"  {n} This file stands for WordNet 3.0 in tests.  \n" for n in range(1, 4))


def write_wordnet(folder: Path) -> dict[str, str]:
    """Write the files and return ``lemma#sense -> wnid``."""
    offsets = {name: 0 for name, *_ in SYNSETS}
    for _ in range(2):  # eight digits each, so that the first pass already has every line's length
        at, lines = len(HEADER), []
        for name, lemmas, above, gloss in SYNSETS:
            words = " ".join(f"{lemma} 0" for lemma in lemmas)
            pointers = "".join(f"@ {offsets[target]:08d} n 0000 " for target in above)
            lines.append(f"{at:08d} 03 n {len(lemmas):02x} {words} {len(above):03d} {pointers}| {gloss}  \n")
            offsets[name] = at
            at += len(lines[-1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.noun").write_text(HEADER + "".join(lines))
    of_lemma: dict[str, list[str]] = {}
    for name, lemmas, *_ in SYNSETS:
        for lemma in dict.fromkeys(lemma.lower() for lemma in lemmas):
            of_lemma.setdefault(lemma, []).append(name)
    index = []
    for lemma, names in sorted(of_lemma.items()):
        numbers = " ".join(f"{offsets[name]:08d}" for name in names)
        index.append(f"{lemma} n {len(names)} 1 @ {len(names)} 0 {numbers}  \n")
    (folder / "index.noun").write_text(HEADER + "".join(index))
    return {name: f"n{offset:08d}" for name, offset in offsets.items()}
