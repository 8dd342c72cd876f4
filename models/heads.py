"""Linear heads on frozen backbones, as probes leave them: in a file of their own, or beside the backbone.

In: a `Checkpoint` of a head, a backbone of timm. Out: a network that gives logits. A head reads as many vectors of the
backbone's width as its own says: one is the class token, two add the mean of the patches, five are the class tokens of
the last four blocks with that mean, as DINOv2's heads of one and four layers.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.checkpoint import Checkpoint, refuse_hollow

NORM_EPS = 1e-6
"""Of the normalisation before a head, in MAE's and StableRep's probes alike."""
_PREFIXES = ("linear_head.", "linear.", "head.", "fc.")
# Of a linear layer alone, and of a normalisation and a linear layer in sequence.
_PLAIN = re.compile(r"(?:1\.)?(weight|bias)")
_NORM = re.compile(r"0\.(running_mean|running_var|num_batches_tracked)")


@dataclass(frozen=True)
class Head:
    """A linear layer, with the normalisation of its inputs where there is one."""

    weight: Tensor
    """float[classes, d]."""
    bias: Tensor | None = None
    mean: Tensor | None = None
    """float[d], with ``variance`` what inputs are normalised by."""
    variance: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""
        return len(self.weight)


def is_head(checkpoint: Checkpoint) -> bool:
    """Return whether a file holds a head and nothing else."""
    return _rows(checkpoint.tensors) is not None


def read_head(checkpoint: Checkpoint) -> Head:
    """Return the head of a file.

    Raises:
        InputError: it is none.
    """
    rows = _rows(checkpoint.tensors)
    if rows is None:
        names = ", ".join(name[:80] for name in list(checkpoint.tensors)[:4])
        raise InputError(f"{checkpoint.path}: no linear head (weight, bias), but {names}; give a head after the +")
    refuse_hollow(checkpoint.path, rows)
    return head_of(rows, str(checkpoint.path))


def _rows(tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the tensors of a head by its layers' names, None where they are none."""
    prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), "")
    rows = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    known = all(_PLAIN.fullmatch(name) or _NORM.fullmatch(name) for name in rows)
    return rows if known and rows.keys() & {"weight", "1.weight"} else None


def head_of(rows: dict[str, Tensor], where: str) -> Head:
    """Return the head of a linear layer, or of a normalisation and a linear layer (``0.``, ``1.``).

    Raises:
        InputError: parts are missing or do not fit each other.
    """
    layer = "1." if "1.weight" in rows else ""
    weight, bias = rows[f"{layer}weight"], rows.get(f"{layer}bias")
    mean, variance = rows.get("0.running_mean"), rows.get("0.running_var")
    classes, width = tuple(weight.shape) if weight.dim() == 2 else (0, 0)
    stated = [(bias, classes, "bias"), (mean, width, "0.running_mean"), (variance, width, "0.running_var")]
    wrong = [name for tensor, size, name in stated if tensor is not None and tuple(tensor.shape) != (size,)]
    if not classes or wrong or (mean is None) != (variance is None):
        fault = wrong[0] if wrong else "its normalisation" if classes else "weight"
        raise InputError(f"{where}: no linear head, {fault} does not fit: weight is {tuple(weight.shape)}")
    return Head(*(None if part is None else part.float() for part in (weight, bias, mean, variance)))


class Probed(nn.Module):  # type: ignore[misc]  # torch's own types are left out
    """A backbone of timm under a linear head: normalised images to logits."""

    def __init__(self, backbone: nn.Module, head: Head):
        """``backbone``: a vision transformer without a head, whose width divides that of the head."""
        super().__init__()
        self.backbone = backbone
        self.inputs = head.weight.shape[1] // backbone.embed_dim
        self.norm = _norm(head)
        self.head = nn.Linear(head.weight.shape[1], head.num_classes, bias=head.bias is not None)
        with torch.no_grad():
            self.head.weight.copy_(head.weight)
            if head.bias is not None:
                self.head.bias.copy_(head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float[n, classes] of normalised images float[n, 3, h, w]."""
        logits: Tensor = self.head(self.norm(features(self.backbone, images, self.inputs)))
        return logits


def _norm(head: Head) -> nn.Module:
    if head.mean is None or head.variance is None:
        return nn.Identity()
    norm = nn.BatchNorm1d(len(head.mean), affine=False, eps=NORM_EPS)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(head.mean)
    norm.running_var.copy_(head.variance)
    return norm


def features(backbone: nn.Module, images: Tensor, inputs: int) -> Tensor:
    """Return what a head reads, float[n, inputs * width]: see the top of the file."""
    if inputs == 1:
        token: Tensor = backbone(images)
        return token
    blocks = 4 if inputs == 5 else 1
    layers = backbone.forward_intermediates(
        images, indices=blocks, norm=True, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    patches = layers[-1][0]
    return torch.cat([*(prefix[:, 0] for _, prefix in layers), patches.mean(1)], 1)
