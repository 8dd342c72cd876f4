"""Contrastive losses per row, and their gradients: CLIP, several positives (StableRep, SupCon), SigLIP.

In: unit features, the caption group of every sample, which samples count, the scale (and SigLIP's bias). Out: a loss
per row, differentiable once. Arithmetic is float32 also under autocast (float64 for float64 features); nothing waits
for the device.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function

from synclones.train.contrast.logits import Blocks, ExponentialSums, Pairing, without_autocast


def paired_losses(image: Tensor, text: Tensor, group: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Compute CLIP's losses of images and texts from one matrix of logits, equal captions being positives.

    Args:
        image: float[n, d] with rows of length 1.
        text: float[n, d] with rows of length 1; text i belongs to image i.
        group: int64[n]; equal numbers are one caption: the target of a row is uniform over the rows of its group.
        weight: float[n]; a sample of weight 0 is no row, no column and no positive. Else its size does not matter.
        scale: float[], what cosines are multiplied by.

    Returns:
        float32[n] of images against texts and float32[n] of texts against images, 0 where the weight is 0. With all
        groups distinct, half the sum of both means is open_clip's ``ClipLoss``.
    """
    present = weight != 0
    pairing = Pairing.of(group, group, present, present)
    clean = _cleaned(image, present), _cleaned(text, present)
    of_images, of_texts = _Softmax.apply(*clean, _wide(scale, image), pairing, True)
    return of_images, of_texts


def one_way_losses(
    rows: Tensor,
    columns: Tensor,
    row_group: Tensor,
    column_group: Tensor,
    row_weight: Tensor,
    column_weight: Tensor,
    scale: Tensor,
    first_self: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the softmax losses of rows, such as this process' own, against columns, such as those of all processes.

    The loss of a row is the logarithm of the sum of its exponentials less the mean logit of its positives.

    Args:
        rows: float[n, d] with rows of length 1.
        columns: float[m, d] with rows of length 1; both get their gradient.
        row_group: int64[n]; the columns of the same number are a row's positives.
        column_group: int64[m].
        row_weight: float[n]; 0 for a row that does not count.
        column_weight: float[m]; 0 for a column that is left out, also as a positive.
        scale: float[], what cosines are multiplied by.
        first_self: row i is column ``first_self + i``, of the same group, which is left out of row i. None: rows are
            no columns.

    Returns:
        float32[n] of losses and bool[n] of rows that count: they have a weight and at least one positive. The loss of
        others is 0; a mean divides by the number of those that count.

    Raises:
        ValueError: when the rows would reach beyond the columns.
    """
    if first_self is not None and not 0 <= first_self <= len(columns) - len(rows):
        raise ValueError(f"first_self: {len(rows)} rows from {first_self} are not within {len(columns)} columns")
    row_present, column_present = row_weight != 0, column_weight != 0
    pairing = Pairing.of(row_group, column_group, row_present, column_present, first_self)
    clean = _cleaned(rows, row_present), _cleaned(columns, column_present)
    return _Softmax.apply(*clean, _wide(scale, rows), pairing, False)[0], pairing.counts


def self_losses(features: Tensor, group: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the losses of several positives (StableRep, SupCon) of one batch, half of whose logits are the others.

    Equals ``one_way_losses`` of the features against themselves with ``first_self=0``.

    Args:
        features: float[n, d] with rows of length 1.
        group: int64[n]; the other rows of the same number are a row's positives.
        weight: float[n]; a sample of weight 0 is no row, no column and no positive.
        scale: float[], what cosines are multiplied by.

    Returns:
        float32[n] of losses and bool[n] of rows that count, as ``one_way_losses`` does.
    """
    present = weight != 0
    pairing = Pairing.of(group, group, present, present, 0)
    return _SelfSoftmax.apply(_cleaned(features, present), _wide(scale, features), pairing), pairing.counts


def sigmoid_losses(
    image: Tensor,
    text: Tensor,
    image_group: Tensor,
    text_group: Tensor,
    image_weight: Tensor,
    text_weight: Tensor,
    scale: Tensor,
    bias: Tensor,
) -> Tensor:
    """Compute SigLIP's loss of each image: the sum over texts of -log sigmoid(z (scale cosine + bias)).

    Args:
        image: float[n, d] with rows of length 1, such as this process' own.
        text: float[m, d] with rows of length 1, such as those of all processes.
        image_group: int64[n]; z is 1 for a text of the same number, else -1.
        text_group: int64[m].
        image_weight: float[n]; 0 for an image that is left out, whose loss is 0.
        text_weight: float[m]; 0 for a text that is left out.
        scale: float[], what cosines are multiplied by.
        bias: float[], added to every logit.

    Returns:
        float32[n]; their mean over the images that count is open_clip's ``SigLipLoss``.
    """
    image_present, text_present = image_weight != 0, text_weight != 0
    pairing = Pairing.of(image_group, text_group, image_present, text_present)
    clean = _cleaned(image, image_present), _cleaned(text, text_present)
    return _Sigmoid.apply(*clean, _wide(scale, image), _wide(bias, image), pairing)


def _wide(values: Tensor, features: Tensor) -> Tensor:
    """Return the values in the number format of the arithmetic: float32, or float64 of float64 features."""
    return values.to(torch.promote_types(features.dtype, torch.float32))


def _cleaned(features: Tensor, present: Tensor) -> Tensor:
    """Return features with zeros, which also take no gradient, in place of what is left out, NaN included."""
    return torch.where(present[:, None], _wide(features, features), 0.0)


def _once() -> None:
    """Refuse a backward pass that is to be differentiated itself: it would be taken for constant."""
    if torch.is_grad_enabled():
        raise RuntimeError("contrastive losses have first derivatives only: create_graph=True is not supported")


def _weighed(
    block: Tensor,
    by_row: tuple[Tensor, Tensor],
    by_column: tuple[Tensor, Tensor] | None,
    out: Tensor,
    spare: Tensor | None,
) -> Tensor:
    """Write the gradient of a block of logits without its positives: softmax over rows, over columns, both weighed."""
    weighed = torch.sub(block, by_row[0][:, None], out=out).exp_().mul_(by_row[1][:, None])
    if by_column is not None:
        weighed.addcmul_(torch.sub(block, by_column[0], out=spare).exp_(), by_column[1])
    return weighed


class _Softmax(Function):  # type: ignore[misc]
    """Losses of rows against columns and, when ``both``, of columns against rows of the same groups."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, scale: Tensor, pairing: Pairing, both: bool
    ) -> tuple[Tensor, ...]:
        # Blocks first: running sums, and the logit of a sole positive, which cancels exactly where the loss goes to 0.
        with without_autocast(rows):
            blocks = Blocks(rows * scale, columns, pairing)
            scratch, sole = blocks.scratch(), rows.new_empty(len(rows))
            sums = [ExponentialSums(rows, len(rows)), *([ExponentialSums(rows, len(columns))] if both else [])]
            for begin, end, block in blocks.forward():
                part = blocks.part(scratch, begin, end)
                sums[0].add(slice(begin, end), block, 1, part)
                sole[begin:end] = block.gather(1, pairing.sole[begin:end, None])[:, 0]
                if both:
                    sums[1].add(slice(None), block, 0, part)
            # Then the mean logit of positives; a sole positive of a text is its own image, in the same place.
            mean = (blocks.rows * pairing.to_rows(columns)).sum(1)
            means = [mean, *([(columns * pairing.to_columns(blocks.rows)).sum(1)] if both else [])]
            losses = [s.losses(pairing.mean(m, sole), pairing.counts) for s, m in zip(sums, means, strict=True)]
        ctx.pairing = pairing
        ctx.save_for_backward(rows, columns, scale, *(t for s in sums for t in (s.peak, s.total)), *blocks.kept)
        ctx.tensors = 3 + 2 * len(sums)
        return tuple(losses)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _once()
        rows, columns, scale, *sums = ctx.saved_tensors[: ctx.tensors]
        with without_autocast(rows):
            shares, alone = zip(*(ctx.pairing.shares(gradient) for gradient in gradients), strict=True)
            weights = [
                (peak, torch.where(ctx.pairing.counts, gradient, 0.0) / total)
                for gradient, peak, total in zip(gradients, sums[::2], sums[1::2], strict=True)
            ]
            # All pairs, from blocks of softmax, in the order of rows.
            blocks = Blocks(rows * scale, columns, ctx.pairing)
            scratch, to_rows, to_columns = blocks.scratch(), torch.empty_like(rows), torch.zeros_like(columns)
            lines = torch.arange(len(rows), device=rows.device)
            (peak, weight), by_column = weights[0], weights[1] if len(weights) > 1 else None
            second = None if by_column is None else blocks.scratch()
            for begin, end, block in blocks.backward(ctx.saved_tensors[ctx.tensors :]):
                by_row = peak[begin:end], weight[begin:end]
                part, spare = (
                    blocks.part(scratch, begin, end),
                    None if second is None else blocks.part(second, begin, end),
                )
                weighed = _weighed(block, by_row, by_column, part, spare)
                # A text's sole positive is its own image, so that both directions take it off in the same place.
                weighed[lines[: end - begin], ctx.pairing.sole[begin:end]] -= sum(one[begin:end] for one in alone)
                torch.mm(weighed, columns, out=to_rows[begin:end])
                to_columns.addmm_(weighed.T, rows[begin:end])
            # Positives, through sums by group. The scale's gradient is the features', as logits are linear in both.
            to_rows -= shares[0][:, None] * ctx.pairing.to_rows(columns)
            to_columns -= ctx.pairing.to_columns(shares[0][:, None] * rows)
            if len(shares) > 1:
                to_rows -= ctx.pairing.to_rows(shares[1][:, None] * columns)
                to_columns -= shares[1][:, None] * ctx.pairing.to_columns(rows)
            to_scale = (rows * to_rows).sum()
            return to_rows.mul_(scale), to_columns.mul_(scale), to_scale, None, None


class _SelfSoftmax(Function):  # type: ignore[misc]
    """Losses of rows against the other rows, from the logits right of the diagonal."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, scale: Tensor, pairing: Pairing) -> Tensor:
        with without_autocast(rows):
            blocks, sums = Blocks(rows * scale, rows, pairing, upper=True), ExponentialSums(rows, len(rows))
            scratch, sole = blocks.scratch(), rows.new_empty(len(rows))
            for begin, end, block in blocks.forward():
                part, width = blocks.part(scratch, begin, end), end - begin
                sums.add(slice(begin, end), block, 1, part)
                if end < len(rows):  # what stands right of the block's own rows is below the diagonal for the others
                    sums.add(slice(end, None), block[:, width:], 0, part[:, width:])
                index = (pairing.sole[begin:end, None] - begin).clamp(min=0)
                sole[begin:end] = block.gather(1, index)[:, 0]
            # The logit of a sole positive that comes before its row is the other's with this row.
            before = pairing.sole < torch.arange(len(rows), device=rows.device)
            sole = torch.where(before, sole[pairing.sole], sole)
            mean = pairing.mean((blocks.rows * pairing.to_rows(rows)).sum(1), sole)
            losses = sums.losses(mean, pairing.counts)
        ctx.pairing = pairing
        ctx.save_for_backward(rows, scale, sums.peak, sums.total, *blocks.kept)
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _once()
        rows, scale, peak, total, *kept = ctx.saved_tensors
        with without_autocast(rows):
            share, alone = ctx.pairing.shares(gradient)
            # Two rows that are each other's sole positive have one logit, which takes both shares.
            lines, sole = torch.arange(len(rows), device=rows.device), ctx.pairing.sole
            alone = torch.where(ctx.pairing.count == 1, alone + alone[sole], 0.0)
            weight = torch.where(ctx.pairing.counts, gradient, 0.0) / total
            blocks = Blocks(rows * scale, rows, ctx.pairing, upper=True)
            scratch, second, to_rows = blocks.scratch(), blocks.scratch(), torch.zeros_like(rows)
            for begin, end, block in blocks.backward(tuple(kept)):
                by_row, by_column = (peak[begin:end], weight[begin:end]), (peak[begin:], weight[begin:])
                part, spare = blocks.part(scratch, begin, end), blocks.part(second, begin, end)
                weighed = _weighed(block, by_row, by_column, part, spare)
                index = sole[begin:end] - begin
                weighed[lines[: end - begin], index.clamp(min=0)] -= torch.where(index >= 0, alone[begin:end], 0.0)
                to_rows[begin:end].addmm_(weighed, rows[begin:])
                to_rows[end:].addmm_(weighed[:, end - begin :].T, rows[begin:end])
            to_rows -= share[:, None] * ctx.pairing.to_rows(rows) + ctx.pairing.to_columns(share[:, None] * rows)
            # Every logit stands in the features' gradient twice, as a row's and as a column's.
            to_scale = (rows * to_rows).sum() / 2
            return to_rows.mul_(scale), to_scale, None


class _Sigmoid(Function):  # type: ignore[misc]
    """Sums over columns of the negative log sigmoid."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor, pairing: Pairing) -> Tensor:
        with without_autocast(rows):
            blocks, losses = Blocks(rows * scale, columns, pairing, bias=bias), rows.new_empty(len(rows))
            scratch = blocks.scratch()
            number = torch.where(pairing.column_present, pairing.column_number, -1)
            for begin, end, block in blocks.forward():
                part = blocks.part(scratch, begin, end)
                positive = pairing.row_number[begin:end, None] == number
                losses[begin:end] = F.softplus(torch.where(positive, -block, block, out=part)).sum(1)
            losses = torch.where(pairing.row_present, losses, 0.0)
        ctx.pairing = pairing
        ctx.save_for_backward(rows, columns, scale, bias, *blocks.kept)
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _once()
        rows, columns, scale, bias, *kept = ctx.saved_tensors
        with without_autocast(rows):
            weight = torch.where(ctx.pairing.row_present, gradient, 0.0)
            blocks = Blocks(rows * scale, columns, ctx.pairing, bias=bias)
            scratch, to_rows, to_columns = blocks.scratch(), torch.empty_like(rows), torch.zeros_like(columns)
            to_bias = -(weight * ctx.pairing.count.to(weight.dtype)).sum()
            for begin, end, block in blocks.backward(tuple(kept)):
                part = blocks.part(scratch, begin, end)
                weighed = torch.sigmoid(block, out=part).mul_(weight[begin:end, None])
                to_bias += weighed.sum()
                torch.mm(weighed, columns, out=to_rows[begin:end])
                to_columns.addmm_(weighed.T, rows[begin:end])
            to_rows -= weight[:, None] * ctx.pairing.to_rows(columns)
            to_columns -= ctx.pairing.to_columns(weight[:, None] * rows)
            to_scale = (rows * to_rows).sum()
            return to_rows.mul_(scale), to_columns.mul_(scale), to_scale, to_bias, None
