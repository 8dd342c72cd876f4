"""Contrastive losses: equal to formulas written out in float64 and to open_clip's, with known values and floors."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from synclones.train.contrast import logits
from synclones.train.contrast.contrastive import one_way_losses, paired_losses, self_losses, sigmoid_losses


@pytest.fixture(autouse=True, params=["one block", "blocks kept", "blocks computed again"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run every test with logits in one block, in blocks of five rows, and in blocks that are not kept; one thread."""
    if request.param != "one block":
        monkeypatch.setattr(logits, "ROWS_AT_ONCE", 5)
    if request.param == "blocks computed again":
        monkeypatch.setattr(logits, "KEPT_LOGITS", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def unit(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return n random directions."""
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows, dim=1).to(dtype)


def softmax_formula(
    rows: Tensor, columns: Tensor, same: Tensor, row_used: Tensor, allowed: Tensor, scale: Tensor
) -> Tensor:
    """Write the loss out: the cross-entropy of a softmax over allowed pairs and a uniform target over positives."""
    values = (scale * rows @ columns.T).masked_fill(~allowed, -1e300)
    positive = (same & allowed).double()
    target = positive / positive.sum(1, keepdim=True).clamp(min=1)
    return -(target * F.log_softmax(values, 1)).sum(1) * row_used


def paired_formula(x: Tensor, y: Tensor, group: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    used, same = weight != 0, group[:, None] == group
    allowed = used.expand(len(x), -1)
    return softmax_formula(x, y, same, used, allowed, scale), softmax_formula(y, x, same, used, allowed, scale)


def self_formula(x: Tensor, group: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    used = weight != 0
    allowed = used & ~torch.eye(len(x), dtype=torch.bool)
    return softmax_formula(x, x, group[:, None] == group, used, allowed, scale)


def sigmoid_formula(
    x: Tensor, y: Tensor, groups: tuple[Tensor, Tensor], weights: tuple[Tensor, Tensor], scale: Tensor, bias: Tensor
) -> Tensor:
    sign = 2 * (groups[0][:, None] == groups[1]).double() - 1
    terms = -F.logsigmoid(sign * (scale * x @ y.T + bias)) * (weights[1] != 0)
    return terms.sum(1) * (weights[0] != 0)


def derivatives(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return losses and the gradients of a sum of them with unequal weights, one of them negative."""
    leaves = [one.clone().requires_grad_() for one in inputs]
    losses = function(*leaves)
    grades = torch.randn(len(losses), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return losses.detach(), list(torch.autograd.grad((losses * grades.to(losses.dtype)).sum(), leaves))


def compare(
    ours: Callable[..., Tensor], formula: Callable[..., Tensor], *inputs: Tensor, tolerance: float, least: float = 1.0
) -> None:
    """Assert equal losses and gradients, relative to their largest, or ``least``; the formula computes in float64."""
    losses, gradients = derivatives(ours, *inputs)
    expected, right = derivatives(formula, *[one.double() for one in inputs])
    assert losses.dtype == inputs[0].dtype and losses.isfinite().all()
    for value, correct in zip([losses, *gradients], [expected, *right], strict=True):
        atol = tolerance * max(float(correct.abs().max()), least)
        torch.testing.assert_close(value.double(), correct, rtol=tolerance, atol=atol)


sizes = st.integers(1, 23)
problems = given(
    n=sizes, m=sizes, groups=st.integers(1, 25), left_out=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 999)
)
few = settings(max_examples=8, deadline=None, derandomize=True)
exact = pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [(torch.float32, 14.29, 1e-5), (torch.float64, 100.0, 1e-11), (torch.float64, 0.0, 1e-11)],
)


def labels(n: int, groups: int, left_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return random groups, wide apart, and weights of which some are 0."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, groups, (n,), generator=generator) * 2**55 - 2**58
    return group, torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) >= left_out)


@exact
@few
@problems
def test_paired_losses_and_gradients_equal_the_formula(dtype, scale, tolerance, n, m, groups, left_out, seed):
    group, weight = labels(n, groups, left_out, seed)
    x, y, t = unit(n, 8, seed, dtype), unit(n, 8, seed + 1, dtype), torch.tensor(scale, dtype=dtype)
    compare(
        lambda x, y, t: torch.cat(paired_losses(x, y, group, weight, t)),
        lambda x, y, t: torch.cat(paired_formula(x, y, group, weight, t)),
        *(x, y, t),
        tolerance=tolerance,
    )


@exact
@few
@problems
def test_one_way_losses_and_gradients_equal_the_formula(dtype, scale, tolerance, n, m, groups, left_out, seed):
    (row_group, row_weight), (group, weight) = labels(n, groups, left_out, seed), labels(m, groups, left_out, seed + 7)
    x, y, t = unit(n, 8, seed, dtype), unit(m, 8, seed + 1, dtype), torch.tensor(scale, dtype=dtype)
    same, used = row_group[:, None] == group, weight != 0
    counts = (same & used).any(1) & (row_weight != 0)
    assert torch.equal(one_way_losses(x, y, row_group, group, row_weight, weight, t)[1], counts)
    compare(
        lambda x, y, t: one_way_losses(x, y, row_group, group, row_weight, weight, t)[0],
        lambda x, y, t: softmax_formula(x, y, same, counts, used.expand(n, -1), t),
        *(x, y, t),
        tolerance=tolerance,
    )


@exact
@few
@problems
def test_losses_against_the_others_and_their_gradients_equal_the_formula(
    dtype, scale, tolerance, n, m, groups, left_out, seed
):
    group, weight = labels(n, groups, left_out, seed)
    x, t = unit(n, 8, seed, dtype), torch.tensor(scale, dtype=dtype)
    formula = lambda x, t: self_formula(x, group, weight, t)  # noqa: E731
    compare(lambda x, t: self_losses(x, group, weight, t)[0], formula, x, t, tolerance=tolerance)
    one_way = lambda x, t: one_way_losses(x, x, group, group, weight, weight, t, 0)[0]  # noqa: E731
    compare(one_way, formula, x, t, tolerance=tolerance)


@exact
@few
@problems
def test_sigmoid_losses_and_gradients_equal_the_formula(dtype, scale, tolerance, n, m, groups, left_out, seed):
    (row_group, row_weight), (group, weight) = labels(n, groups, left_out, seed), labels(m, groups, left_out, seed + 7)
    x, y, t, b = unit(n, 8, seed, dtype), unit(m, 8, seed + 1, dtype), *torch.tensor([scale, -3.0], dtype=dtype)
    compare(
        lambda x, y, t, b: sigmoid_losses(x, y, row_group, group, row_weight, weight, t, b),
        lambda x, y, t, b: sigmoid_formula(x, y, (row_group, group), (row_weight, weight), t, b),
        *(x, y, t, b),
        tolerance=max(tolerance, 1e-9),  # PyTorch's softplus is linear above 20
    )


# ------------------------------------------------------------------ several processes


def test_losses_of_two_processes_are_those_of_one():
    """Each has its own rows and everybody's columns; losses side by side and gradients summed are the whole."""
    group, weight = labels(22, 6, 0.2, 3)
    x, y, t = unit(22, 8, 0, torch.float64), unit(22, 8, 1, torch.float64), torch.tensor(9.0, dtype=torch.float64)

    def split(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        parts = [(slice(0, 9), 0), (slice(9, 22), 9)]
        own = [(group[s], group, weight[s], weight) for s, _ in parts]
        of_images = [one_way_losses(x[s], y, *facts, t)[0] for (s, _), facts in zip(parts, own, strict=True)]
        of_texts = [one_way_losses(y[s], x, *facts, t)[0] for (s, _), facts in zip(parts, own, strict=True)]
        several = [one_way_losses(x[s], x, *facts, t, at)[0] for (s, at), facts in zip(parts, own, strict=True)]
        sigmoid = [sigmoid_losses(x[s], y, *facts, t, -t) for (s, _), facts in zip(parts, own, strict=True)]
        return torch.cat(of_images + of_texts + several + sigmoid)

    def whole(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        paired, several = paired_losses(x, y, group, weight, t), self_losses(x, group, weight, t)[0]
        return torch.cat([*paired, several, sigmoid_losses(x, y, group, group, weight, weight, t, -t)])

    compare(split, whole, x, y, t, tolerance=1e-11)


def test_own_rows_beyond_the_columns_are_refused():
    x, ones, group = unit(4, 8, 0), torch.ones(4), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="4 rows from 1 are not within 4 columns"):
        one_way_losses(x, x, group, group, ones, ones, torch.tensor(1.0), first_self=1)


# ------------------------------------------------------------------ other code


@pytest.mark.parametrize("scale", [14.29, 100.0])
def test_distinct_captions_give_open_clips_losses_and_gradients(scale: float):
    n, group, ones = 37, torch.randperm(37), torch.ones(37)
    x, t, b = unit(n, 16, 0), torch.tensor(scale), torch.tensor(-10.0)
    y = F.normalize(x + 0.5 * unit(n, 16, 1), dim=1)  # near pairs: a loss near 0, where differences of logits count

    def mean(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        of_images, of_texts = paired_losses(x, y, group, ones, t)
        return ((of_images.mean() + of_texts.mean()) / 2)[None]

    compare(mean, lambda x, y, t: ClipLoss()(x, y, t)[None], x, y, t, tolerance=1e-5, least=0.1)
    sigmoid = lambda x, y, t, b: sigmoid_losses(x, y, group, group, ones, ones, t, b).mean()[None]  # noqa: E731
    compare(sigmoid, lambda x, y, t, b: SigLipLoss()(x, y, t, b)[None], x, y, t, b, tolerance=1e-5, least=0.1)


def test_losses_near_zero_keep_their_digits():
    """With one positive the loss goes to 0 at scale 100, where logits of 100 are rounded to 8e-6."""
    x, ones, t = torch.eye(8)[:6], torch.ones(6), torch.tensor(100.0)
    x = F.normalize(x + 0.15 * unit(6, 8, 2), dim=1)
    correct = torch.stack(paired_formula(x.double(), x.double(), torch.arange(6), ones, t.double()))
    losses = torch.stack(paired_losses(x, x, torch.arange(6), ones, t))
    assert float(correct.max()) < 1e-9 and float(losses.max()) < 1e-6
    pairs, group = x[[0, 1, 2, 0, 1, 2]], torch.tensor([4, 5, 6, 4, 5, 6])
    assert float(self_losses(pairs, group, ones, t)[0].abs().max()) < 1e-6


# ------------------------------------------------------------------ known values


@pytest.mark.parametrize("n", [256, 4096])
def test_first_losses_are_the_known_ones(n: int):
    """Unrelated directions: ln B + s^2/(2 D) for CLIP; SigLIP's first loss per image; ln B where all coincide."""
    if n > 256 and logits.ROWS_AT_ONCE == 5:
        pytest.skip("blocks of five rows take seconds, and are compared at 256")
    x, y, group, ones = unit(n, 512, 0), unit(n, 512, 1), torch.arange(n), torch.ones(n)
    of_images, of_texts = paired_losses(x, y, group, ones, torch.tensor(14.29))
    for loss in (of_images.mean(), of_texts.mean()):
        assert float(loss) == pytest.approx(math.log(n) + 14.29**2 / 1024, abs=0.06)
    same = unit(1, 4, 0).expand(n, -1)
    coinciding, _ = paired_losses(same, same, group, ones, torch.tensor(14.29))
    assert float(coinciding.mean()) == pytest.approx(math.log(n), abs=1e-5)
    # Cosines of exactly 0: one positive at -10 and n - 1 negatives at -10.
    zeros = torch.zeros(n, 4)
    first = sigmoid_losses(zeros, zeros, group, group, ones, ones, torch.tensor(10.0), torch.tensor(-10.0)).mean()
    assert float(first) == pytest.approx({256: 10.012, 4096: 10.186}[n], abs=6e-4)


@pytest.mark.parametrize(("images", "crops", "floor"), [(4, 1, 1.0986), (6, 1, 1.6094), (4, 2, 1.9459), (6, 2, 2.3979)])
def test_several_positives_have_a_floor_of_the_logarithm_of_their_number(images: int, crops: int, floor: float):
    """All images of a caption in one point and captions far apart: ln(m c - 1)."""
    group = torch.arange(5).repeat(images * crops)
    losses, counts = self_losses(torch.eye(5)[group], group, torch.ones(len(group)), torch.tensor(100.0))
    assert counts.all() and torch.allclose(losses, torch.tensor(floor), atol=6e-5)


def test_one_column_per_caption_removes_the_floor_of_clip_on_few_captions():
    """B images of K captions whose texts coincide: at best ln(B/K), from plain CLIP.

    Duplicates as positives do not lower that number, which is then the entropy of the target; means and gradients are
    even the same, as plain targets average out over equal texts. What is left above the entropy is 0. With one column
    per caption, the others left out, the loss itself goes to 0.
    """
    n, captions = 250, 10
    group, ones, t = torch.arange(n) % captions, torch.ones(n), torch.tensor(100.0)
    text = torch.eye(16)[group]
    mean = lambda x, group: torch.stack(paired_losses(x, text, group, ones, t)).mean()[None]  # noqa: E731
    for groups in (torch.arange(n), group):
        assert float(mean(text, groups)) == pytest.approx(math.log(n / captions), abs=2e-5)
    first = (torch.arange(n) < captions).float()
    losses, counts = one_way_losses(text, text, group, group, ones, first, t)
    assert counts.all() and float(losses.max()) < 1e-6
    x = F.normalize(text + 0.2 * unit(n, 16, 5), dim=1)
    compare(lambda x: mean(x, group), lambda x: mean(x.float(), torch.arange(n)).double(), x, tolerance=1e-5)


# ------------------------------------------------------------------ hard cases

SIX = torch.tensor([0, 1, 0, 2, 1, 2])


def all_losses(x: Tensor, y: Tensor, group: Tensor, weight: Tensor, t: Tensor) -> Tensor:
    """Return every kind of loss in one row."""
    one_way = one_way_losses(x, y, group, group, weight, weight, t)[0]
    sigmoid = sigmoid_losses(x, y, group, group, weight, weight, t, -t)
    paired = paired_losses(x, y, group, weight, t)
    return torch.cat([*paired, one_way, self_losses(x, group, weight, t)[0], sigmoid])


@pytest.mark.parametrize("weight", [[1.0] * 6, [0.0] * 6, [1, 0, 0, 1, 1, 0]])
@pytest.mark.parametrize("sign", [1, -1])
def test_identical_and_opposite_rows_at_scale_100_stay_finite(weight: list[float], sign: int):
    x, t = unit(1, 8, 0).expand(6, -1), torch.tensor(100.0)
    losses, gradients = derivatives(lambda x, y, t: all_losses(x, y, SIX, torch.tensor(weight), t), x, sign * x, t)
    assert all(value.isfinite().all() for value in [losses, *gradients])
    left_out = torch.tensor(weight) == 0
    assert not losses.view(5, 6)[:, left_out].any() and not any(g[left_out].any() for g in gradients[:2])


def test_what_is_left_out_may_be_no_number_and_changes_nothing():
    weight, keep, t = torch.tensor([1.0, 0, 1, 1, 1, 1]), torch.tensor([0, 2, 3, 4, 5]), torch.tensor(20.0)
    x, y = unit(6, 8, 0), unit(6, 8, 1)
    bad = x.clone()
    bad[1] = torch.nan
    losses, gradients = derivatives(lambda x: all_losses(x, y, SIX, weight, t), bad)
    assert gradients[0].isfinite().all() and not gradients[0][1].any()
    alone = all_losses(x[keep], y[keep], SIX[keep], weight[keep], t)
    torch.testing.assert_close(losses.view(5, 6)[:, keep].flatten(), alone, rtol=1e-5, atol=1e-5)


def test_a_row_without_positives_does_not_count_and_takes_no_gradient_as_a_row():
    group, ones, t = torch.tensor([0, 0, 1]), torch.ones(3), torch.tensor(5.0)
    losses, counts = self_losses(unit(3, 8, 0), group, ones, t)
    assert counts.tolist() == [True, True, False] and losses[2] == 0 and (losses[:2] > 0).all()


def test_bfloat16_features_are_computed_in_float32_also_under_autocast():
    x, y, ones, t = unit(6, 8, 0).bfloat16(), unit(6, 8, 1).bfloat16(), torch.ones(6), torch.tensor(100.0)
    correct, _ = derivatives(lambda x, y, t: all_losses(x, y, SIX, ones, t), x.float(), y.float(), t)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(all_losses(x, y, SIX, ones, t), correct)
    # Gradients are rounded once, at the end.
    narrow, wide = ([one.clone().requires_grad_() for one in pair] for pair in ((x, y), (x.float(), y.float())))
    with torch.autocast("cpu", torch.bfloat16):
        paired_losses(*narrow, SIX, ones, t)[0].sum().backward()
    paired_losses(*wide, SIX, ones, t)[0].sum().backward()
    for short, long in zip(narrow, wide, strict=True):
        assert short.grad is not None and torch.equal(short.grad, long.grad.bfloat16())


def test_second_derivatives_are_refused_and_first_ones_can_be_taken_twice():
    x, ones = unit(6, 8, 0).requires_grad_(), torch.ones(6)
    loss = all_losses(x, x, SIX, ones, torch.tensor(5.0)).sum()
    once, twice = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, twice)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(loss, x, create_graph=True)


class Sizes(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, Tensor):
                self.largest = max(self.largest, one.numel())
        return result


@pytest.mark.parametrize("groups", [1, 60])
def test_no_tensor_is_larger_than_a_block_of_logits_or_the_features(groups: int):
    """Neither logits nor a mask of positives is ever n x n, whatever the groups."""
    n, d = 120, 8
    group, ones = torch.arange(n) % groups, torch.ones(n)
    x, y, t = unit(n, d, 0).requires_grad_(), unit(n, d, 1).requires_grad_(), torch.tensor(9.0, requires_grad=True)
    with Sizes() as sizes:
        all_losses(x, y, group, ones, t).sum().backward()
    assert x.grad is not None
    assert n * d <= sizes.largest <= n * max(d + 1, logits.ROWS_AT_ONCE)
