"""Names parts of a network: prefixes of its tensors' names, and its last K blocks, of any of timm's and open_clip's.

In: what a learner trains, and parts as settings say them. Out: names of tensors. A learner may hold the network that is
exported as ``backbone`` or ``clip`` beside heads of its own: names within it are then written without that.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from timm.models._manipulate import group_with_matcher
from torch import nn

from synclones.base.errors import InputError

INNER = ("backbone", "clip")
LAST = re.compile(r"last:(\d+)")
# Of open_clip's own towers: what is a block, and what comes after the blocks.
_CLIP_BLOCK = re.compile(r"(?:transformer\.resblocks\.(\d+)|layer(\d+)\.(\d+))\.")
_CLIP_AFTER = re.compile(r"ln_post|proj$|attn_?pool|head\.|ln_final|text_projection|logit_(scale|bias)$|cls_emb")
_SENTINEL = "\0after"


def inner(network: nn.Module) -> tuple[str, nn.Module]:
    """Return the network that is exported, and the prefix of its names in ``network``: empty, or with a dot."""
    if isinstance(network, nn.ModuleDict):
        for name in INNER:
            if name in network:
                return f"{name}.", network[name]
    return "", network


def tensors_of(network: nn.Module, parts: Sequence[str], flag: str) -> set[str]:
    """Return the names of the parameters and buffers that ``parts`` name.

    Raises:
        InputError: a part that the network has not, with near ones; ``flag`` is whose parts they are.
    """
    names, prefix = list(network.state_dict()), inner(network)[0]
    chosen: set[str] = set()
    for part in parts:
        match = LAST.fullmatch(part)
        if match:
            chosen |= _last(network, int(match[1]), flag)
            continue
        wanted = part.rstrip(".")
        matching = {name for name in names if _begins(name, wanted) or _begins(name.removeprefix(prefix), wanted)}
        if not matching or not wanted:
            raise InputError(f"{flag}: {part!r} begins no name of the network; {_near(names, prefix, wanted)}")
        chosen |= matching
    return chosen


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _near(names: Sequence[str], prefix: str, wanted: str) -> str:
    known: dict[str, None] = {}
    for name in (name.removeprefix(prefix) for name in names):
        words = name.split(".")
        known.update(dict.fromkeys(".".join(words[:end]) for end in range(1, len(words) + 1)))
    near = get_close_matches(wanted, known, n=3, cutoff=0.5)
    return (
        f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(sorted({n.split('.')[0] for n in known}))}"
    )


def _last(network: nn.Module, count: int, flag: str) -> set[str]:
    """Return the names of the last ``count`` blocks and of all that comes after the blocks."""
    prefix, module = inner(network)
    from_end = blocks_from_end(module)
    deepest = max(from_end.values())
    if not deepest:
        raise InputError(f"{flag} last:{count}: the blocks of {type(module).__name__} are not numbered; give prefixes")
    if count >= deepest:  # the number of the stem
        raise InputError(f"{flag} last:{count}: the network has {deepest - 1} blocks; give 0 to {deepest - 1}")
    within = {prefix + name for name, number in from_end.items() if number <= count}
    heads = {name for name in network.state_dict() if not name.startswith(prefix)}
    return within | heads


def blocks_from_end(module: nn.Module) -> dict[str, int]:
    """Return for each tensor of a network how far its block is from the end.

    0: after the blocks (the head); 1: of the last block; and so on; 1 more than there are blocks: before them. Where
    blocks are not numbered, all are 0. The towers of an image-text model end together.
    """
    names = list(module.state_dict())
    if hasattr(module, "group_matcher"):
        return _of_timm(module, names)
    numbers: dict[str, int] = {}
    for tower in ("visual.trunk.", "visual.", "text.", ""):
        own = [name.removeprefix(tower) for name in names if name.startswith(tower) and name not in numbers]
        if tower == "visual.trunk." and own:
            counted = _of_timm(module.get_submodule("visual.trunk"), own)
        else:
            counted = _of_clip(own)
        numbers |= {tower + name: number for name, number in counted.items()}
    return {name: numbers[name] for name in names}


def _of_timm(module: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """Number by timm's own grouping, the one of its layer decay."""
    matcher = module.group_matcher(coarse=False)
    try:
        layer = group_with_matcher(iter([*((n, n) for n in names), (_SENTINEL, _SENTINEL)]), matcher, reverse=True)
    except (TypeError, ValueError, AttributeError):
        return dict.fromkeys(names, 0)
    after = layer[_SENTINEL]
    # timm counts to the head whatever no pattern names: what stands before the first block belongs before it.
    blocks = [number for number, name in enumerate(names) if 0 < layer[name] < after]
    first = blocks[0] if blocks else len(names)
    return {
        name: after if layer[name] == after and number < first else after - layer[name]
        for number, name in enumerate(names)
    }


def _of_clip(names: Sequence[str]) -> dict[str, int]:
    """Number the blocks of a tower of open_clip."""
    matches = {name: _CLIP_BLOCK.match(name) for name in names}
    keys = {name: tuple(int(n) for n in match.groups() if n is not None) for name, match in matches.items() if match}
    order = {key: number for number, key in enumerate(sorted(set(keys.values())), start=1)}
    stem = len(order) + 1
    return {
        name: stem - order[keys[name]] if name in keys else 0 if _CLIP_AFTER.match(name) else stem for name in names
    }
