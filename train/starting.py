"""Begins a training from stored weights: which tensors go where, compared name by name before one is copied.

In: `StoredWeights`, a learner with fresh weights, settings. Out: the learner with the weights in it, and a sentence of
what was taken and what began fresh. Names that are missing or too many, and other shapes, are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.clip_as_timm import as_timm
from synclones.models.stored import FILE, FLAG, OPEN_CLIP, TIMM, StoredWeights, read_stored
from synclones.train.network.freezing import freeze
from synclones.train.network.parts import INNER, inner, tensors_of
from synclones.train.network.zero_shot_start import TowerLearner, fill_head
from synclones.train.objective import Objective, Task
from synclones.train.options.starting import KEPT, OF_WEIGHTS, ZERO_SHOT_HEAD
from synclones.train.settings import VIT_SHAPE, TrainConfig

TRUNK = "visual.trunk."
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Fitted:
    """What of stored weights goes into a network."""

    tensors: dict[str, Tensor]
    """By the names of the whole network."""
    sentence: str


def open_weights(config: TrainConfig) -> tuple[TrainConfig, StoredWeights | None]:
    """Read the weights that are named; return settings in which the architecture is a name, and the weights.

    Raises:
        InputError: no such weights, or none that say an architecture where theirs is asked for.
        VerificationError: they are damaged.
    """
    if not config.weights:
        return config, None
    stored = read_stored(config.weights)
    if config.head == ZERO_SHOT_HEAD:
        _check_tower(config, stored)
    elif config.architecture == OF_WEIGHTS:
        if config.model_args():
            given = next(iter(config.model_args()))
            raise InputError(f"--{given.replace('_', '-')}: the shape is that of --architecture weights; leave it out")
        stored = as_timm(stored)
        config = replace(config, **_architecture(stored))
    return config, stored


def _check_tower(config: TrainConfig, stored: StoredWeights) -> None:
    if stored.layout != OPEN_CLIP:
        raise InputError(f"--head zero-shot: {stored.name} is no image-text model of open_clip; give the folder of one")
    sides = stored.clip.model_cfg.vision_cfg.sides
    if sides != (config.image_size_px,) * 2:
        raise InputError(f"--image-size-px: {config.image_size_px}, {stored.name} reads {sides[0]}; give that")
    if config.model_args() or config.reinitialise:
        raise InputError(
            "--head zero-shot: the whole image tower is that of the weights; leave out its shape and parts"
        )


def _architecture(stored: StoredWeights) -> dict[str, Any]:
    """Return the settings that describe the network of the weights."""
    if stored.layout == TIMM:
        args = stored.model_args or {}
        return {"architecture": stored.architecture} | {name: args[name] for name in VIT_SHAPE if name in args}
    if stored.layout == OPEN_CLIP:
        return {"architecture": stored.clip.model_cfg.vision_cfg.timm_model_name}
    raise InputError(
        f"--architecture weights: {stored.name} names no architecture of timm; give the settings of its training, as "
        "in the config.yaml of its run"
    )


# ------------------------------------------------------------------ which tensor goes where


def fit(network: nn.Module, task: Task, stored: StoredWeights) -> Fitted:
    """Return what of ``stored`` goes into the network of a learner, which may be without numbers.

    Raises:
        InputError: it is another network: names, shapes, types, or what shapes do not show; or other classes.
    """
    config = task.config
    prefix, module = inner(network)
    given, left = _given(stored, module)
    if stored.layout == TIMM and hasattr(module, "visual"):
        prefix, module = prefix + TRUNK, _trunk(module, stored)
    _check_configuration(config, stored, module)
    # What begins fresh: the classifier, unless it is kept, and what was asked for.
    expected = dict(module.state_dict())
    head = _classifier(module, [*expected, *given])
    if config.head == KEPT:
        _check_classes(task, stored, [name for name in head if name in expected])
        # A bias that the learner itself holds at 0 stays there.
        head = {name for name, p in module.named_parameters() if name in head and not p.requires_grad}
    parts = tensors_of(network, config.reinitialise, "--reinitialise")
    fresh = head | {name.removeprefix(prefix) for name in parts if name.startswith(prefix)}
    # What is left must be the same tensors, but for the grid of position embeddings.
    given, resampled = _resampled(module, given, expected)
    wanted = {name: tensor for name, tensor in expected.items() if name not in fresh}
    offered = {name: tensor for name, tensor in given.items() if name not in fresh}
    _compare(stored, offered, wanted)
    tensors = {prefix + name: tensor for name, tensor in offered.items()}
    began_fresh = sorted(name for name in network.state_dict() if name not in tensors)
    return Fitted(tensors, _sentence(task, stored, len(tensors), began_fresh, resampled, left))


def _given(stored: StoredWeights, module: nn.Module) -> tuple[dict[str, Tensor], int]:
    """Return the tensors of the network itself, and how many of others are left."""
    prefixes = [f"{name}." for name in INNER] if stored.layout == FILE else []
    if stored.layout == OPEN_CLIP and not hasattr(module, "visual"):
        if stored.clip.model_cfg.vision_cfg.timm_model_name is None:
            raise InputError(
                f"{FLAG}: {stored.name}: its image tower is open_clip's own; give --architecture weights, by which "
                "timm's of the same shape is taken"
            )
        prefixes = [TRUNK]
    for prefix in prefixes:
        within = {name.removeprefix(prefix): t for name, t in stored.tensors.items() if name.startswith(prefix)}
        if within:
            return within, len(stored.tensors) - len(within)
    return stored.tensors, 0


def _trunk(module: nn.Module, stored: StoredWeights) -> nn.Module:
    trunk = getattr(module.visual, "trunk", None)
    if trunk is None:
        raise InputError(
            f"{FLAG}: {stored.name} is a network of timm, the image tower here is open_clip's own; name the weights' "
            "architecture with --architecture"
        )
    return trunk


def _check_configuration(config: TrainConfig, stored: StoredWeights, module: nn.Module) -> None:
    """Refuse what names and shapes of tensors do not show: another architecture, other heads, another activation."""
    wrong: list[str] = []
    if stored.layout == TIMM:
        heads = (stored.model_args or {}).get("num_heads", 0), config.num_heads
        if stored.architecture != config.architecture:
            wrong.append(f"architecture {stored.architecture}, here {config.architecture}")
        elif heads[0] != heads[1]:
            wrong.append(f"num_heads {heads[0] or 'its own'}, here {heads[1] or 'its own'}")
    elif stored.layout == OPEN_CLIP and hasattr(module, "visual") and config.head != ZERO_SHOT_HEAD:
        wrong = _clip_differences(config, stored)
    elif stored.layout == OPEN_CLIP and config.head != ZERO_SHOT_HEAD:
        name = stored.clip.model_cfg.vision_cfg.timm_model_name
        wrong = [] if name == config.architecture else [f"architecture {name}, here {config.architecture}"]
    if wrong:
        raise InputError(
            f"{FLAG}: {stored.name} is another network: {'; '.join(wrong[:SHOWN])}; give the settings of its training"
        )


def _clip_differences(config: TrainConfig, stored: StoredWeights) -> list[str]:
    from synclones.models.clip import model_config  # loads open_clip
    from synclones.train.contrast.image_text import spec_of

    # How much is left out in training, how the scale begins and the size of images are this training's own.
    own = {"patch_dropout", "timm_drop", "timm_drop_path", "image_size", "init_logit_scale", "init_logit_bias"}
    theirs, ours = (_flat(c.model_dump()) for c in (stored.clip.model_cfg, model_config(spec_of(config))))
    differing = [name for name in ours if name.rpartition(".")[2] not in own and ours[name] != theirs[name]]
    if ours["vision_cfg.timm_model_name"] is not None:  # then what is said of open_clip's own tower says nothing
        unread = ("layers", "width", "head_width", "mlp_ratio", "patch_size", "ls_init_value")
        differing = [name for name in differing if name not in {f"vision_cfg.{n}" for n in unread}]
    return [f"{name} {theirs[name]}, here {ours[name]}" for name in differing]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        flat |= _flat(entry, f"{prefix}{name}.") if isinstance(entry, dict) else {prefix + name: entry}
    return flat


def _classifier(module: nn.Module, names: Sequence[str]) -> set[str]:
    """Return those of ``names`` that are of timm's classifier."""
    stated = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    heads = (stated,) if isinstance(stated, str) else tuple(stated)
    return {name for name in names if name.startswith(tuple(f"{head}." for head in heads))}


def _check_classes(task: Task, stored: StoredWeights, head: Sequence[str]) -> None:
    if not head:
        raise InputError("--head kept: what is trained here has no classifier; leave it out")
    theirs, ours = stored.class_ids, task.class_ids
    if not theirs:
        raise InputError(f"--head kept: {stored.name} does not say its classes; leave it out, or give a run's export")
    if theirs != ours:
        pairs = enumerate(zip(theirs, ours, strict=False))
        at = next((n for n, (a, b) in pairs if a != b), min(len(theirs), len(ours)))
        a, b = (ids[at] if at < len(ids) else "no class" for ids in (theirs, ours))
        raise InputError(
            f"--head kept: {stored.name} has {len(theirs)} classes, the data {len(ours)}; number {at} is {a!r} and "
            f"{b!r}; leave it out, for a fresh head"
        )


def _resampled(
    module: nn.Module, given: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors with position embeddings of the network's grid, and a word about it where they were others."""
    name = "visual.positional_embedding" if hasattr(module, "visual") else "pos_embed"
    if name not in given or name not in expected or given[name].shape == expected[name].shape:
        return given, ""
    old, new = given[name], expected[name]
    changed = dict(given)
    if old.dim() != new.dim() or old.shape[-1] != new.shape[-1] or min(old.shape[-2], new.shape[-2]) < 2:
        return given, ""
    try:
        if name == "pos_embed":
            prefix = 0 if getattr(module, "no_embed_class", False) else int(getattr(module, "num_prefix_tokens", 1))
            grid = list(module.patch_embed.grid_size)
            changed[name] = resample_abs_pos_embed(old.float(), new_size=grid, num_prefix_tokens=prefix)
        else:
            from open_clip.model import resize_pos_embed

            resize_pos_embed(changed, module)
    except (RuntimeError, AttributeError, TypeError):
        return given, ""  # the comparison says what does not fit
    return changed, f"; {name} resampled from {old.shape[-2]} to {new.shape[-2]} positions"


def _compare(stored: StoredWeights, given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing = [f"{name} {list(expected[name].shape)}" for name in expected if name not in given]
    surplus = [f"{name} {list(given[name].shape)}" for name in sorted(given) if name not in expected]
    common = [name for name in expected if name in given]
    shapes = [
        f"{name} {list(given[name].shape)} for {list(expected[name].shape)}"
        for name in common
        if given[name].shape != expected[name].shape
    ]
    if missing or surplus or shapes:
        kinds = {"missing": missing, "too many": surplus, "of another shape": shapes}
        words = "; ".join(f"{len(names)} {kind}: {_few(names)}" for kind, names in kinds.items() if names)
        raise InputError(f"{FLAG}: {stored.name} does not fit ({len(common)} names are common): {words}")
    for name in common:  # 16-bit floats become 32-bit ones exactly; all else would be rounded in silence
        kinds_of = given[name].dtype, expected[name].dtype
        if kinds_of[0] != kinds_of[1] and kinds_of not in (
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float32),
        ):
            raise InputError(f"{FLAG}: {stored.name}: {name} is {kinds_of[0]}, expected {kinds_of[1]}; convert it")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _sentence(task: Task, stored: StoredWeights, taken: int, fresh: Sequence[str], resampled: str, left: int) -> str:
    """Return one line: what was taken, what began fresh, and what is to be known besides."""
    config = task.config
    text = f"weights {stored.name} ({stored.sha256[:16]}): {taken} tensors taken"
    if config.head == ZERO_SHOT_HEAD:
        fresh = [name for name in fresh if name != "head.weight"]
        text += ", head of the classes' texts"
    text += f", fresh: {_few(fresh)} ({len(fresh)})" if fresh else ", nothing fresh"
    text += f", {left} of other parts left" if left else ""
    stated, own = (stored.mean, stored.std), (task.preprocessing.mean, task.preprocessing.std)
    if stored.mean and stated != own:
        text += f"; their pixels had mean {stated[0]} and std {stated[1]}, here they have {own[0]} and {own[1]}"
    return text + resampled


def start_identity(task: Task) -> dict[str, Any]:
    """Return what plans say of the beginning: by hash, and nothing of fresh weights."""
    if task.stored is None:
        return {}
    identity = {"weights": task.stored.sha256}
    if task.is_zero_shot:
        identity |= {"weights_config": task.stored.config_sha256, "head_texts": task.texts.sha256}
    return identity


def check_start(objective: Objective, task: Task) -> None:
    """Build what is trained without numbers, and compare it with what it begins from and with the parts that are named.

    Raises:
        InputError: weights that do not fit, parts that there are not, nothing left to train.
    """
    config = task.config
    if task.stored is None and not (config.freeze or config.train_only or config.batch_norm != "trained"):
        return
    with torch.device("meta"):
        learner = objective.build(task)
    if task.stored is not None:
        fit(learner.network, task, task.stored)
    freeze(learner.network, config)
    if task.is_zero_shot:
        from synclones.models.clip_folder import preprocess_config  # loads open_clip

        preprocess_config(task.preprocessing)  # what open_clip's folders cannot say is refused before the training


def begin(learner: nn.Module, task: Task) -> str:
    """Put the stored weights into a learner; return the sentence about it, nothing where there are none.

    Raises:
        InputError: they do not fit.
    """
    if task.stored is None:
        return ""
    fitted = fit(learner.network, task, task.stored)
    with torch.no_grad():
        learner.network.load_state_dict(fitted.tensors, strict=False)  # compared above
    if isinstance(learner, TowerLearner):
        fill_head(learner, task.texts)
    return fitted.sentence
