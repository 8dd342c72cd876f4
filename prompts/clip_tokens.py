"""Count the tokens of CLIP's text encoder, which reads 77 and drops the rest, and say which texts are one to it.

In: texts. Out: counts with start and end marks; what is left of a text when it is read. The vocabulary is the one that
open_clip ships; torch is not loaded.
"""

import gzip
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.errors import InputError

MAX_TOKENS = 77
# RE2 knows blanks and letters of ASCII by \s alone.
_BLANK, _ALONE = r"[\s\p{Z}\x{85}]", r"[^\s\p{L}\p{N}]+|\p{N}"
_NO_WIDTH = r"[\p{Cf}\x{034f}\x{fe00}-\x{fe0f}]"
MERGES = 49152 - 256 - 2  # of CLIP's vocabulary, beside 2 x 256 bytes and two marks


def count_tokens(texts: list[str]) -> list[int]:
    """Return the number of tokens of each text, start and end marks included."""
    return [len(encoding.ids) + 2 for encoding in _tokenizer().encode_batch_fast(texts)]


def as_read(texts: pa.Array) -> pa.Array:
    """Return string[n]: what is left of each of string[n] when CLIP's tokenizer has read it.

    Texts become equal that differ only in case, in composed accents, in kinds and numbers of blanks, in blanks around
    punctuation and digits, or in characters of no width.
    """
    lower = pc.utf8_lower(pc.utf8_normalize(texts, "NFC"))
    read = _without_blanks(lower, r"\s", r"[^\sa-z0-9]+|[0-9]")
    wide = pc.invert(pc.string_is_ascii(read))
    if pc.any(wide).as_py():  # the classes of all scripts cost five times as much
        visible = pc.replace_substring_regex(lower.filter(wide), _NO_WIDTH, "")
        read = pc.replace_with_mask(read, wide, _without_blanks(visible, _BLANK, _ALONE))
    return read


def _without_blanks(texts: pa.Array, blank: str, alone: str) -> pa.Array:
    """Return the texts with one blank between words and none around what is a token of its own."""
    single = pc.replace_substring_regex(texts, f"{blank}+", " ")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(single, f" ?({alone}) ?", r"\1"))


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    # The order of the vocabulary is that of CLIP: bytes, bytes that end a word, then the merges.
    merges = _merges()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    # Cleaning and splitting as in CLIP's own tokenizer, so that counts are those of the text encoder.
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), blanks, normalizers.Lowercase()])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _merges() -> list[tuple[str, str]]:
    package = find_spec("open_clip")
    path = Path((package and package.origin) or "").with_name("bpe_simple_vocab_16e6.txt.gz")
    if not path.is_file():
        raise InputError("open_clip: its vocabulary file is missing; install open_clip_torch again")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()[1 : MERGES + 1]
    return [(first, second) for first, second in (line.split() for line in lines)]
