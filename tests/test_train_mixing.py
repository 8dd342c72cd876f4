"""Mixup and CutMix: timm's images and targets for the same draws, and the same ones in any split of the batch."""

import numpy as np
import pytest
import torch
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target

from synclones.base.errors import InputError
from synclones.train.augmentation.mixing import (
    MixingSettings,
    check_mixing,
    mix_images,
    mix_targets,
    mixing_plan,
    partners,
)

N, SIDE = 64, 16
BOTH = MixingSettings(mixup_alpha=0.8, cutmix_alpha=1.0, mix_probability=0.8, mix_mode="elem")


def _batch():
    images = torch.rand((N, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    return images, torch.arange(N) % 10, torch.ones(N)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_images_and_targets_are_the_formulas_of_timm(mode):
    images, labels, _ = _batch()
    settings = MixingSettings(mixup_alpha=0.8, cutmix_alpha=1.0, mix_mode=mode)
    for step in range(6):
        plan = mixing_plan(1, step, N, SIDE, settings)
        mixed, targets = mix_images(images, plan), mix_targets(labels, plan, 10, 0.1)
        for i, lam in enumerate(plan.share.tolist()):
            j, (top, bottom, left, right) = i ^ 1, plan.box[i].tolist()
            expected = images[i].clone()
            if plan.blend[i] == 1:
                expected[:, top:bottom, left:right] = images[j][:, top:bottom, left:right]
                assert lam == pytest.approx(1 - (bottom - top) * (right - left) / SIDE**2)
            else:
                expected = lam * images[i] + (1 - lam) * images[j]
            assert torch.allclose(mixed[i], expected, atol=1e-6)
            both = mixup_target(labels[[i, j]], 10, lam, 0.1)  # timm's partner of the first of two is the second
            assert torch.allclose(targets[i], both[0], atol=1e-6)
        repeats = {"batch": N, "pair": 2, "elem": 1}[mode]
        assert torch.equal(plan.share, plan.share[::repeats].repeat_interleave(repeats))
        assert len(plan.share.unique()) > (N // repeats) // 2


def test_shares_and_boxes_have_timms_distribution():
    n = 40_000
    share = mixing_plan(3, 0, n, SIDE, MixingSettings(mixup_alpha=0.4, mix_mode="elem")).share.numpy()
    beta = np.random.default_rng(0).beta(0.4, 0.4, n)
    assert np.allclose(np.quantile(share, np.arange(1, 10) / 10), np.quantile(beta, np.arange(1, 10) / 10), atol=0.02)
    plan = mixing_plan(3, 0, n, SIDE, MixingSettings(cutmix_alpha=1.0, mix_mode="elem"))
    np.random.seed(0)
    timms = [cutmix_bbox_and_lam((3, SIDE, SIDE), lam) for lam in np.random.beta(1.0, 1.0, n // 4)]
    assert plan.share.mean() == pytest.approx(np.mean([lam for _, lam in timms]), abs=0.01)
    assert np.allclose(plan.box.float().mean(0), np.mean([box for box, _ in timms], 0), atol=0.2)
    both = mixing_plan(3, 0, n, SIDE, BOTH)
    mixup = ((both.blend < 1).float().mean(), (both.share == 1).float().mean())
    assert mixup[0] == pytest.approx(0.4, abs=0.01) and mixup[1] > 0.19


def test_any_split_of_the_batch_mixes_the_same_images():
    images, labels, weights = _batch()
    whole = mixing_plan(1, 7, N, SIDE, BOTH)
    mixed, targets = mix_images(images, whole), mix_targets(labels, whole, 10)
    assert not torch.equal(mixed, mix_images(images, mixing_plan(1, 8, N, SIDE, BOTH)))
    for cut in (2, 30, 62):
        for part in (slice(0, cut), slice(cut, N)):
            plan = mixing_plan(1, 7, N, SIDE, BOTH).part(part, weights[part])
            assert torch.equal(mix_images(images[part], plan), mixed[part])
            assert torch.equal(mix_targets(labels[part], plan, 10), targets[part])


@pytest.mark.parametrize("on", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}])
def test_a_damaged_sample_is_mixed_into_no_other(on):
    images, labels, weights = _batch()
    images[5], weights[5] = torch.nan, 0
    plan = mixing_plan(1, 7, N, SIDE, MixingSettings(**on, mix_mode="elem")).part(slice(0, N), weights)
    mixed, targets = mix_images(images, plan), mix_targets(labels, plan, 10)
    good = [i for i in range(N) if i != 5]
    assert torch.equal(targets[4], torch.nn.functional.one_hot(labels[4], 10).float())
    assert (targets.max(1).values < 1).sum() > N // 2
    assert torch.isfinite(mixed[[i for i in good if i != 4]]).all()
    images[5] = 0  # what the loader gives for a damaged sample
    assert torch.equal(mix_images(images, plan)[4], images[4])


def test_nothing_is_mixed_without_settings():
    images, labels, _ = _batch()
    plan = mixing_plan(0, 0, N, SIDE, MixingSettings())
    assert not MixingSettings().mixes and torch.equal(mix_images(images, plan), images)
    assert torch.equal(mix_targets(labels, plan, 10), torch.nn.functional.one_hot(labels, 10).float())
    assert torch.equal(partners(labels)[:4], torch.tensor([1, 0, 3, 2]))


def test_splits_of_a_pair_are_refused():
    check_mixing(12, 4, 3)
    for batch, micro, world in ((11, 0, 1), (12, 3, 1), (10, 0, 4)):
        with pytest.raises(InputError, match="mix pairs"):
            check_mixing(batch, micro, world)
