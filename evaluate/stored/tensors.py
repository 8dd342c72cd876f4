"""Turns arrays into the bytes of a safetensors file, whatever order their values have in memory."""

from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save


def tensor_bytes(tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Return a safetensors file of these arrays.

    safetensors 0.8.0 writes an array in Fortran order, such as the logits of a model that transposes its last product,
    as if it were in C order, without a word: every value of it would belong to another image.
    """
    return save({name: np.asarray(array, order="C") for name, array in tensors.items()}, metadata=metadata)
