"""The tokenizer of CLIP models: OpenAI's byte-pair vocabulary, whose file open_clip ships; nothing is downloaded.

In: texts. Out: int64[n, context_length], and an identity for plans: token ids are part of what a model was trained on.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor

from synclones.base.errors import InputError
from synclones.base.files import sha256_file

TOKENIZER = "clip-bpe"
VOCABULARY_SIZE = 49_408
SHORTEST_CONTEXT = 3
"""Start, one token of the text, end."""
LIBRARIES = ("open_clip_torch", "ftfy", "regex")
"""Whose release can change a token: what merges, what cleans, and what splits."""

Tokenizer = Callable[[Sequence[str]], Tensor]
"""Texts to int64[n, context_length]."""


def tokenize(texts: Sequence[str], context_length: int) -> Tensor:
    """Return int64[n, context_length] of n texts as open_clip's tokenizer gives them; a longer text loses its end.

    Safe to call from several threads: what they share is a table of words already merged, which is the same whoever
    fills it. Half a character (a lone surrogate) is read as the replacement character.
    """
    tokens: Tensor = _tokenizer()(list(texts), context_length)
    return tokens.to(torch.int64)


def token_ids(text: str, context_length: int) -> tuple[np.ndarray, bool]:
    """Return int64[context_length] of one text as `tokenize` does, and whether its end was cut off.

    Safe to call from several threads.
    """
    tokenizer, ids = _tokenizer(), np.zeros(context_length, dtype=np.int64)
    tokens = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
    is_cut = len(tokens) > context_length
    if is_cut:
        tokens[context_length - 1 :] = [tokenizer.eot_token_id]
    ids[: len(tokens)] = tokens
    return ids, is_cut


def tokenizer_for(context_length: int) -> Tokenizer:
    """Return `tokenize` at one length."""
    return lambda texts: tokenize(texts, context_length)


@cache
def vocabulary_sha256() -> str:
    """Return the hash of the vocabulary's file in the installed open_clip.

    Raises:
        InputError: when the file is missing.
    """
    path = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    if not path.is_file():
        raise InputError("open_clip: its vocabulary file is missing; install open_clip_torch again")
    return sha256_file(path)


def tokenizer_identity() -> dict[str, str]:
    """Return what decides the tokens of a text, for plans: name, hash of the vocabulary, versions of the libraries."""
    versions = {library: metadata.version(library) for library in LIBRARIES}
    return {"name": TOKENIZER, "vocabulary_sha256": vocabulary_sha256()} | versions


def refuse_other_tokenizers(name: str, where: str) -> None:
    """Refuse a tokenizer other than `TOKENIZER`; ``where`` says who asks for it.

    Raises:
        InputError: saying why there is no other.
    """
    if name != TOKENIZER:
        raise InputError(
            f"{where}: needs the tokenizer {name!r}, whose files are on the Hugging Face Hub; only {TOKENIZER!r}, "
            "which open_clip ships, is taken: choose a model with CLIP's vocabulary"
        )


@cache
def _tokenizer() -> Any:
    return open_clip.SimpleTokenizer()
