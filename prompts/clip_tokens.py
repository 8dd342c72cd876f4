"""Count the tokens of CLIP's text encoder, which reads 77 and drops the rest.

In: texts. Out: counts with start and end marks. The vocabulary is the one that open_clip ships; torch is not loaded.
"""

import gzip
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError

MAX_TOKENS = 77
MERGES = 49152 - 256 - 2  # of CLIP's vocabulary, beside 2 x 256 bytes and two marks


def count_tokens(texts: list[str]) -> list[int]:
    """Return the number of tokens of each text, start and end marks included."""
    return [len(encoding.ids) + 2 for encoding in _tokenizer().encode_batch_fast(texts)]


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
