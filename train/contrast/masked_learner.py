"""A vision transformer some of whose patches are hidden, with the heads by which crops and hidden patches are compared.

In: crops in 0..1, and which of their patches are hidden. Out: rows of length 1 of crops and of hidden patches. The same
class is student and teacher: the teacher sees everything and has no predictor.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.network import Preprocessing
from synclones.train.contrast.prototypes import PatchHead
from synclones.train.network.learners import Normalising, normalised_layers
from synclones.train.settings import TrainConfig


class MaskedLearner(Normalising):
    """A timm vision transformer, MoCo v3's projection and predictor (Chen et al. 2021), and DINO's head of patches."""

    def __init__(self, backbone: nn.Module, preprocessing: Preprocessing, config: TrainConfig):
        """``backbone``: without a classifier. Without masks there is no head of patches.

        Raises:
            InputError: not timm's vision transformer.
        """
        if not isinstance(backbone, VisionTransformer):
            raise InputError(
                f"--architecture {config.architecture}: {config.objective} hides patches of timm's VisionTransformer, "
                f"this is a {type(backbone).__name__}; choose one such as vit_base_patch16_224"
            )
        width, hidden, outputs = int(backbone.num_features), config.projection_hidden, config.projection_dim
        parts: dict[str, nn.Module] = {"backbone": backbone}
        parts["projection"] = normalised_layers((width, hidden, hidden, outputs), config.projection_norm)
        parts["predictor"] = normalised_layers((outputs, hidden, outputs), config.projection_norm)
        if config.mask_probability:
            width = int(backbone.embed_dim)
            parts["patches"] = PatchHead(width, config.prototype_hidden, config.prototype_dim, config.prototypes)
        super().__init__(nn.ModuleDict(parts), preprocessing)

    @property
    def backbone(self) -> VisionTransformer:
        """What remains when training is over."""
        return self.network["backbone"]

    @property
    def num_patches(self) -> int:
        """Patches of a crop of the full size."""
        return int(self.backbone.patch_embed.num_patches)

    def forward(self, views: Sequence[Tensor], local: Sequence[Tensor], hidden: Tensor) -> dict[str, Tensor]:
        """Return the rows of the student.

        Args:
            views: float[n, 3, s, s] in 0..1 each, the crops of full size.
            local: smaller ones, none or some.
            hidden: int64[k], the hidden patches, numbered view by view, image by image.

        Returns:
            ``global`` float[n, views, d] and, where there are local crops, ``local`` float[n, local, d]; with masks
            ``patches`` float[k, e] and ``prototypes`` float[m, e]. Rows have length 1, prototypes their own.
        """
        tokens = self._tokens(torch.cat(tuple(views)), hidden)
        crops = [tokens] + ([self._tokens(torch.cat(tuple(local)))] if local else [])
        # All crops go through the heads together: they may normalise by the batch.
        rows = self.network["predictor"](self._projected(crops))
        of_each = F.normalize(rows.float(), dim=-1).view(len(views) + len(local), -1, rows.shape[-1]).transpose(0, 1)
        outputs = {"global": of_each[:, : len(views)]} | ({"local": of_each[:, len(views) :]} if local else {})
        return outputs | self._of_patches(tokens, hidden)

    def targets(self, views: Sequence[Tensor], hidden: Tensor) -> dict[str, Tensor]:
        """Return the rows of a teacher, which sees the hidden patches: the same names, without predictor."""
        tokens = self._tokens(torch.cat(tuple(views)))
        rows = F.normalize(self._projected([tokens]).float(), dim=-1)
        return {"global": rows.view(len(views), -1, rows.shape[-1]).transpose(0, 1)} | self._of_patches(tokens, hidden)

    def _tokens(self, pixels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return float[n, tokens, w], prefix tokens first: timm's ``forward_features`` but for the masks."""
        network = self.backbone
        embedded = network.patch_embed(self.normalised(pixels))
        if hidden is not None and "patches" in self.network:
            # In the order of patches, whether or not they lie in a grid: a copy whose hidden rows are the token.
            flat = embedded.reshape(-1, embedded.shape[-1])
            token = self.network["patches"].token.to(flat.dtype)
            embedded = flat.index_copy(0, hidden, token.expand(len(hidden), -1)).view(embedded.shape)
        embedded = network.norm_pre(network.patch_drop(network._pos_embed(embedded)))
        tokens: Tensor = network.norm(network.blocks(embedded))
        return tokens

    def _projected(self, crops: Sequence[Tensor]) -> Tensor:
        features = [self.backbone.forward_head(tokens, pre_logits=True) for tokens in crops]
        projected: Tensor = self.network["projection"](torch.cat(features))
        return projected

    def _of_patches(self, tokens: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        if "patches" not in self.network:
            return {}
        patches = tokens[:, self.backbone.num_prefix_tokens :].reshape(-1, tokens.shape[-1])
        rows, prototypes = self.network["patches"](patches.index_select(0, hidden))
        return {"patches": rows, "prototypes": prototypes}
