"""The Python API: each function does what the command of its name does, by the same code, and gives back what it made.

In: paths and settings; every flag of a command is a keyword (``--num-images 100`` is ``num_images=100``). Out: paths
and dataclasses. What is wrong is raised as an error of `synclones.base.errors`, with the line that the command would
print.

    from synclones.api import build_prompts, generate, train, evaluate

    prompts = build_prompts(["red panda", "sea otter"], num_images=300)
    data = generate(prompts, model="stabilityai/sd-turbo", preset="turbo")
    run = train(data, recipe="cifar-vit", epochs=10)
    print(evaluate(run.export, "photos").to_pandas())

Importing it loads no library; torch and diffusers come with the first function that needs them. As the commands do,
`generate`, `train` and `evaluate` set torch's threads for the process. They resume what was begun.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from logging import WARNING, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from synclones.base.errors import InputError, MachineError, SynclonesError, VerificationError, as_synclones_error
from synclones.base.machine import world_size

if TYPE_CHECKING:
    from synclones.evaluate.foreign import Model
    from synclones.evaluate.stored.opened import Results
    from synclones.generate.open import OpenGenerator
    from synclones.models.network import Preprocessing
    from synclones.shards.dataset import Dataset
    from synclones.train.trained import TrainedRun

__all__ = [
    "InputError",
    "MachineError",
    "SynclonesError",
    "VerificationError",
    "build_prompts",
    "evaluate",
    "generate",
    "open_dataset",
    "open_generator",
    "results",
    "train",
]
_TOKENIZERS = "TOKENIZERS_PARALLELISM"
_LOUD = ("diffusers", "transformers")
_KERNELS = ("allow_tf32", "benchmark", "deterministic")
P = ParamSpec("P")
R = TypeVar("R")
AnyPath = str | Path


def _one_kind_of_error(function: Callable[P, R]) -> Callable[P, R]:
    """Raise what the command would print as one line, such as a full disk, as the error that it ends with."""

    @wraps(function)
    def translated(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except SynclonesError:
            raise
        except SystemExit as ended:  # a stage of the lab ran as a process of its own, and said why
            kinds = {kind.exit_code: kind for kind in (InputError, VerificationError, MachineError)}
            kind = kinds.get(ended.code if isinstance(ended.code, int) else 1, SynclonesError)
            raise kind(f"what the lab makes first ended with exit code {ended.code}; its own line says why") from None
        except Exception as error:
            known = as_synclones_error(error)
            if known is None:
                raise
            raise known from error

    return translated


def _as_it_was(function: Callable[P, R]) -> Callable[P, R]:
    """Give the process back what a stage sets for all of it: a notebook goes on with other work."""

    @wraps(function)
    def restoring(*args: P.args, **kwargs: P.kwargs) -> R:
        import torch
        from accelerate.state import AcceleratorState, GradientState, PartialState

        tokenizers, threads, draws = os.environ.get(_TOKENIZERS), torch.get_num_threads(), torch.get_rng_state()
        speaking = {name: getLogger(name).level if name in sys.modules else WARNING for name in _LOUD}
        kernels = {name: getattr(torch.backends.cudnn, name) for name in _KERNELS}
        # Accelerate knows one precision and one device per process: each call has its own. Launched ranks stay joined.
        alone = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)] * (world_size() == 1)
        before = [dict(state) for state in alone]
        for state in alone:
            state.clear()
        try:
            return function(*args, **kwargs)
        finally:
            os.environ.pop(_TOKENIZERS, None)
            os.environ.update({} if tokenizers is None else {_TOKENIZERS: tokenizers})
            torch.set_num_threads(threads)
            torch.set_rng_state(draws)
            for name, level in speaking.items():
                getLogger(name).setLevel(level)
            for name, value in kernels.items():
                setattr(torch.backends.cudnn, name, value)
            for state, earlier in zip(alone, before, strict=True):
                state.clear()
                state.update(earlier)

    return restoring


@_one_kind_of_error
def build_prompts(classes: str | Sequence[str] = "", *, out: AnyPath | None = None, **settings: Any) -> Path:
    """Build a prompt table and return its file; an equal one that is there stays as it is.

    Args:
        classes: a shipped list, a file (CSV, TSV, JSON, txt), names of classes, or what joins them by commas; the lab's
            digits by default.
        out: the file, ``*.parquet``; by default named by classes, recipe and number of images, in ``data/prompts``.
        settings: the flags of ``synclones prompts build``: ``recipe``, ``num_images``, ``seed``, ``captions``, ...

    Raises:
        InputError: what is wrong with them; nothing was written.
    """
    from synclones.prompts.run import STAGE, perform

    named = classes if isinstance(classes, str) else _joined(classes)
    config = STAGE.settings(classes=named or None, out=out, **settings)
    perform(config)
    return Path(config.out)


def _joined(names: Sequence[str]) -> str:
    """Return names as the command takes them; one name ends with a comma, else it would be the name of a list."""
    if bad := [name for name in names if "," in name]:
        raise InputError(
            f"build_prompts(): classes: {bad[0]!r} has a comma, which joins names; write a txt or CSV file"
        )
    return ", ".join(names) + ("," if len(names) == 1 else "")


@_one_kind_of_error
def open_generator(model: AnyPath = "", **settings: Any) -> "OpenGenerator":
    """Load a generator, to draw a few images by ``sample(prompts, seeds)``; nothing is written.

    Args:
        model: a diffusers folder, a hub id, or ``lab``; that of the preset, or the lab's, by default.
        settings: the flags of ``synclones generate`` about model, sampling and machine: ``preset``, ``lora``,
            ``num_inference_steps``, ``guidance_scale``, ``size_px``, ``device``, ...

    Raises:
        InputError: no such model, none that can be loaded, or settings that do not fit it.
    """
    from synclones.generate.run import STAGE
    from synclones.generate.run import open_generator as opened

    preset = settings.pop("preset", "lab" if str(model) == "lab" else None)
    return opened(STAGE.settings(model=str(model) or None, preset=preset, **settings))


@_one_kind_of_error
@_as_it_was
def generate(prompts: AnyPath | None = None, *, out: AnyPath | None = None, **settings: Any) -> Path:
    """Draw the images of a prompt table into a dataset folder, or what is missing of them, and return the folder.

    Args:
        prompts: the table, as `build_prompts` returns it; the lab's by default.
        out: the folder; by default named by the table, in ``data``. Of a store (``s3://...``) it is the URL.
        settings: the flags of ``synclones generate``: ``preset``, ``model``, ``num_images``, ``dry_run``, ...

    Raises:
        InputError: what is wrong with them, or the folder is of another plan; nothing was written.
        MachineError: the machine failed; the same call goes on.
    """
    from synclones.generate.run import STAGE, perform

    config = STAGE.settings(prompts=prompts, out=out, **settings)
    perform(config)
    return Path(config.out)


@_one_kind_of_error
def open_dataset(folder: AnyPath, split: str | None = None) -> "Dataset":
    """Open a finished set: ``len``, indexing, ``.classes``, ``.to_torch()``, ``.webdataset()``, ``.to_hf()``.

    Args:
        folder: that `generate` returned, or a command of ours wrote; `synclones shards index` is for others' sets.
        split: train, val or test; read from the folder by default.

    Raises:
        InputError: no such folder, or no finished shards in it.
        VerificationError: the json of a shard is broken; when a sample is read, that sample is.
    """
    from synclones.shards.dataset import open_dataset as opened

    return opened(folder, split)


@_one_kind_of_error
@_as_it_was
def train(data: AnyPath | Sequence[AnyPath] = (), *, out: AnyPath | None = None, **settings: Any) -> "TrainedRun":
    """Train a clone, or what is missing of its training, and return the run.

    Args:
        data: sets, and how much of each, as ``--data`` takes them; the lab's digits by default.
        out: the run folder; by default named by the sets, in ``runs``.
        settings: the flags of ``synclones train``: ``recipe``, ``epochs``, ``seed``, ``weights``, ...

    Raises:
        InputError: what is wrong with them, or the folder is of another training; nothing was written.
        VerificationError: a set is damaged.
        MachineError: the machine failed; the same call goes on.
    """
    from synclones.train.run import STAGE, perform
    from synclones.train.trained import TrainedRun

    config = STAGE.settings(data=_several(data), out=out, **settings)
    perform(config)
    return TrainedRun(Path(config.out))


@_one_kind_of_error
@_as_it_was
def evaluate(
    model: "AnyPath | Sequence[AnyPath] | Model" = (),
    data: AnyPath | None = None,
    *,
    preprocessing: "Preprocessing | None" = None,
    name: str = "",
    class_ids: Sequence[str] = (),
    identity: str | None = None,
    function_device: str = "cpu",
    out: AnyPath | None = None,
    **settings: Any,
) -> "Results":
    """Measure models on a labelled set or on a suite, write the folder of results, and return its numbers.

    Args:
        model: runs, exports, published checkpoints or names, as ``--model`` takes them; or a network of your own, any
            module or function of torch from pixels float32[n, 3, h, w] in 0..1 to logits float[n, classes].
        data: labelled set; the lab's real digits by default, ``suite`` and ``data_root`` in its place.
        preprocessing: of a network of your own: how images become its pixels, such as
            ``synclones.evaluate.foreign.pixels(224)``. Its normalisation is a part of it: `normalised` of that module.
        name: what tables call it.
        class_ids: class of each of its outputs, in order; those of the set by default.
        identity: of a function: a text that changes whenever its answers do.
        function_device: where a function wants its pixels.
        out: folder of results; by default named by data or suite, in ``results``. Models may be added to it later.
        settings: the flags of ``synclones evaluate``: ``suite``, ``data_root``, ``attacks``, ``subset``, ...

    Returns:
        All numbers of the folder; of a network of your own its numbers alone. On other ranks than 0, and of a dry run,
        none.

    Raises:
        InputError: what is wrong with models, sets or settings; nothing was written.
        VerificationError: a logit is not finite, naming the sample; what is kept is damaged.
    """
    from synclones.base.machine import rank
    from synclones.evaluate.run import STAGE, perform
    from synclones.evaluate.stored.opened import Results, results

    given = {n: _several(settings.pop(n)) for n in ("outliers", "sets") if settings.get(n) is not None}
    weights = ""
    if _is_named(model):
        of_own = {"preprocessing": preprocessing, "name": name, "class_ids": class_ids, "identity": identity}
        if wrong := [n for n, value in of_own.items() if value]:
            raise InputError(f"evaluate(): {wrong[0]}: is about a network of your own; leave it out of named models")
        config = STAGE.settings(model=_several(model), data=data, out=out, **given, **settings)
        perform(config)
    else:
        from synclones.evaluate.own_model import evaluate_own

        config = STAGE.settings(data=data, out=out, **given, **settings)
        about: dict[str, Any] = {"name": name, "class_ids": class_ids, "identity": identity}
        weights = evaluate_own(model, preprocessing, config, function_device=function_device, **about)
    if rank() or config.dry_run:
        return Results(Path(config.out), ())
    return results(config.out, weights)


def _is_named(model: Any) -> bool:
    """Whether a model is given by its path or name, or several are."""
    return isinstance(model, str | Path | list | tuple)


def _several(given: Any) -> list[str]:
    """Return one path or several as the texts that a command takes."""
    return [str(item) for item in ([given] if isinstance(given, str | Path) else given)]


@_one_kind_of_error
def results(folder: AnyPath) -> "Results":
    """Open a folder of results: ``.cells``, ``.report``, ``.to_pandas()``.

    Raises:
        InputError: no such folder, or no results in it.
        VerificationError: a result is damaged.
    """
    from synclones.evaluate.stored.opened import results as opened

    return opened(folder)
