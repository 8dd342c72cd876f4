"""Read WordNet's nouns: definition and first hypernym of a class, by wnid or by name.

In: the database files `data.noun` and `index.noun` (WordNet 3.0), from ``--wordnet-dir``, nltk's data folders, Debian's
`wordnet-base`, or downloaded once by nltk. Out: `Sense`s.

nltk parses them. It wants all word classes, a `lexnames` that Debian leaves out, and folders of its own choice, none of
which is needed here: the reader below is given nouns alone, as text in memory.
"""

import io
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError

WNID = re.compile(r"n\d{8}")
PLACES = (Path("/usr/share/wordnet"), Path("/usr/local/share/wordnet"))
FILES = ("data.noun", "index.noun", "noun.exc")
LEXNAMES = 45  # lexicographer files of WordNet 3.0; their names are not used here


@dataclass(frozen=True)
class Sense:
    """One meaning of a noun."""

    wnid: str
    key: str
    """nltk's name of the synset, such as `crane.n.04`."""
    name: str
    """Its first lemma, blanks for underscores."""
    definition: str
    hypernym: str
    """The first lemma of the first hypernym in the database's order (`@`, else `@i`); empty for the root."""
    hypernym_wnid: str


class WordNet:
    """The nouns of a WordNet database."""

    def __init__(self, folder: Path | None = None):
        """Read the database in ``folder``; None: the first one installed, else nltk downloads it.

        Raises:
            InputError: when there is none.
        """
        self._files = _read_folder(folder) if folder is not None else _find()
        match = re.search(r"WordNet (\d\.\d)", self._files["data.noun"][:4000])
        self.version = f"WordNet {match[1]}" if match else "WordNet, version unknown"

    @cached_property
    def _reader(self) -> Any:
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
        from nltk.data import PathPointer

        files = self._files

        class Nowhere(PathPointer):
            """In place of a folder: nltk 3.10 refuses those outside its own, and nothing is read from one here."""

            def open(self, *_: Any) -> Any: ...
            def join(self, *_: Any) -> Any: ...
            def file_size(self) -> int:
                return 0

        class NounReader(WordNetCorpusReader):
            def __init__(self) -> None:
                super().__init__(Nowhere(), object())

            def open(self, file: str) -> io.StringIO:
                # Latin-1: a character is a byte, so that the database's byte offsets are positions in the text.
                lexnames = "".join(f"{number:02d}\tunnamed\t1\n" for number in range(LEXNAMES))
                return io.StringIO(lexnames if file == "lexnames" else files.get(file, ""))

            def map_wn(self, version: str = "wordnet") -> None:
                """Do nothing: only translations to other versions need the map."""

        return NounReader()

    def by_wnid(self, wnid: str) -> Sense | None:
        """Return the sense of an ImageNet id such as `n02012849`; None when the database has no such noun."""
        offset = int(wnid[1:])
        begins = self._files["data.noun"][max(0, offset - 1) : offset + 9]
        if begins != f"\n{offset:08d} ":  # a noun's number is where its line begins
            return None
        return self._sense(self._reader.synset_from_pos_and_offset("n", offset))

    def senses(self, name: str) -> list[Sense]:
        """Return all noun senses of a name, the most frequent first; plurals and upper case are understood."""
        return [self._sense(synset) for synset in self._reader.synsets(name.replace(" ", "_"), "n")]

    def nouns(self) -> Iterator[Sense]:
        """Yield every noun sense in the order of the database's file."""
        for match in re.finditer(r"^\d{8} ", self._files["data.noun"], re.MULTILINE):
            yield self._sense(self._reader.synset_from_pos_and_offset("n", int(match[0])))
            self._reader._synset_offset_cache["n"].clear()  # all nouns at once take half a gigabyte

    def _sense(self, synset: Any) -> Sense:
        above = self._first_hypernym(synset.offset())
        return Sense(
            wnid=f"n{synset.offset():08d}",
            key=synset.name(),
            name=_words(synset),
            definition=synset.definition(),
            hypernym=_words(above) if above is not None else "",
            hypernym_wnid=f"n{above.offset():08d}" if above is not None else "",
        )

    def _first_hypernym(self, offset: int) -> Any:
        # Not `synset.hypernyms()`: nltk keeps pointers in a set, whose order changes from process to process.
        data = self._files["data.noun"]
        line = data[offset : data.index("\n", offset)].partition("|")[0]
        for symbol in ("@", "@i"):
            if match := re.search(rf" {symbol} (\d{{8}}) n ", line):
                return self._reader.synset_from_pos_and_offset("n", int(match[1]))
        return None


@lru_cache(maxsize=2)
def open_wordnet(folder: Path | None) -> WordNet:
    """Open one database per process: parsing its index takes about a second."""
    return WordNet(folder)


def _words(synset: Any) -> str:
    return str(synset.lemma_names()[0]).replace("_", " ")


def _read_folder(folder: Path) -> dict[str, str]:
    missing = [name for name in FILES[:2] if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"--wordnet-dir: {folder} has no {' and no '.join(missing)}; give the folder of a WordNet 3.0 database "
            "(often named dict)"
        )
    return {name: (folder / name).read_text("latin-1") for name in FILES if (folder / name).is_file()}


def _find() -> dict[str, str]:
    files = _find_in_nltk()
    for folder in PLACES:
        if files is None and all((folder / name).is_file() for name in FILES[:2]):
            files = _read_folder(folder)
    if files is None and _download():
        files = _find_in_nltk()
    if files is None:
        raise InputError(
            "WordNet: not installed, and the download failed; give its folder as --wordnet-dir, "
            "install the package wordnet-base, or run `python -m nltk.downloader wordnet` where there is a network"
        )
    return files


def _find_in_nltk() -> dict[str, str] | None:
    import nltk.data

    for folder in map(Path, nltk.data.path):
        unpacked, packed = folder / "corpora" / "wordnet", folder / "corpora" / "wordnet.zip"
        if (unpacked / "data.noun").is_file():
            return _read_folder(unpacked)
        if packed.is_file():
            with zipfile.ZipFile(packed) as archive:
                return {name: archive.read(f"wordnet/{name}").decode("latin-1") for name in FILES}
    return None


def _download() -> bool:
    import nltk

    print("downloading WordNet through nltk (11 MB, once)", file=sys.stderr, flush=True)
    return bool(nltk.download("wordnet", quiet=True, print_error_to=io.StringIO()))  # our message says what to do
