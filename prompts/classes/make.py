"""Write the shipped class lists with facts from other sources: WordNet's for ImageNet, CIFAR-10 and the lab.

In: a WordNet 3.0 database, the wnids of timm, the names of open_clip, and the lists' own ids. Out: the CSV files beside
this one. A test runs it and compares.

    python -m synclones.prompts.classes.make --wordnet-dir /usr/share/wordnet --out prompts/classes
"""

import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path

from synclones.base.config import load
from synclones.base.files import write_atomic
from synclones.base.process import run_main
from synclones.prompts.classes.wordnet import Sense, WordNet

HERE = Path(__file__).resolve().parent
COLUMNS = ("class_id", "name", "wordnet_name", "synset", "hypernym", "definition")


@dataclass(frozen=True, kw_only=True)
class ListsConfig:
    """Write the class lists whose hypernyms and definitions come from WordNet."""

    wordnet_dir: Path = Path("/usr/share/wordnet")
    """Folder of a WordNet 3.0 database."""
    out: Path = HERE
    """Folder of the CSV files."""


def main(argv: list[str]) -> None:
    """Write the lists."""
    config = load(ListsConfig, argv, "python -m synclones.prompts.classes.make")
    wordnet = WordNet(config.wordnet_dir)
    imagenet = imagenet_rows(wordnet)
    chosen = set(_ids("imagenet100"))
    _write(config.out, "imagenet1k", imagenet)
    _write(config.out, "imagenet100", [row for row in imagenet if row["class_id"] in chosen])
    for name in ("cifar10", "lab_digits"):
        rows = [_row(row["class_id"], row["name"], _sense(wordnet, row["name"])) for row in _read(name)]
        _write(config.out, name, rows)


def imagenet_rows(wordnet: WordNet) -> list[dict[str, str]]:
    """Return the 1,000 classes in the order of their wnids, which is that of the labels."""
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    rows = []
    for wnid, name in zip(ImageNetInfo().label_names(), IMAGENET_CLASSNAMES, strict=True):
        sense = wordnet.by_wnid(wnid)
        assert sense is not None, f"{wnid} is no noun of {wordnet.version}"
        rows.append(_row(wnid, name, sense))
    return rows


def _sense(wordnet: WordNet, name: str) -> Sense:
    """Return the most frequent sense; for zero that of the number, because the most frequent one is `nothing`."""
    return next(sense for sense in wordnet.senses(name) if name != "zero" or sense.hypernym == "digit")


def _row(class_id: str, name: str, sense: Sense) -> dict[str, str]:
    facts = (class_id, name, sense.name, sense.key, sense.hypernym, sense.definition)
    return dict(zip(COLUMNS, facts, strict=True))


def _ids(name: str) -> list[str]:
    return [row["class_id"] for row in _read(name)]


def _read(name: str) -> list[dict[str, str]]:
    with (HERE / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(out: Path, name: str, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(out / f"{name}.csv", text.getvalue().encode())


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
