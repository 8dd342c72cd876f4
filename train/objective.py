"""Finds the training objectives: every file of ``train/objectives/`` is one, so adding an objective is adding a file.

An objective file has a docstring, the ``COLUMNS`` of a data set that it needs and the ``SETTINGS`` of its own that it
reads (fields of `ObjectiveSettings`). What it minimises it says in one of two ways:

- ``losses(batch, learner, config)`` for a loss of each image by itself: float32[n] by name;
- ``embed(batch, learner, config)`` and ``contrast(own, everyone, config)`` for a loss between images: the first returns
  what is compared, tensors with a row per image (and numbers of all, such as a scale), the second float32[n] by name,
  of this process' rows against those of all processes, and bool[n]: which of them count. ``embed`` calls the learner
  once, so that processes exchange its gradients once.

An objective of the first way whose images go through a network that no step changes says so by ``features(learner,
images)``, float32[n, d] of them: its ``losses`` and its ``classifier`` take these in the place of images, too.

An objective of the first way may have a teacher, which is the moving average of the weights: ``teach(parts, teacher,
config, step, own)`` is called once in a step, without gradients, and returns for each part of this process' images what
its batch has as ``lesson`` when ``losses`` sees it; ``own`` (`Shares`) gathers rows and sums over all processes.

``loss`` is what is minimised, and the mean of each name is logged. What is trained is a classifier with
``num_outputs(num_classes)`` outputs (``begin(network, config)`` may change its first weights), or what ``build(task)``
returns: a module with a ``network``, whose state checkpoints keep. ``check_settings(config)`` refuses settings that do
not go together, ``after_step(learner)`` bounds what needs it, ``export(task, learner, folder, card)`` writes what
others load, a timm folder by default, and ``after_end(task, folder)`` may change what that answers, not what was
trained. While it is trained ``classes(task)`` and ``classifier(task, network)`` say what it classifies by where that is
no classifier of the labels; what has no classes has ``network["backbone"]``, whose features are measured.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.base.units import format_count
from synclones.models.folder import export_classifier
from synclones.models.network import (
    BLOCKS_LOOKED_AT,
    Classifier,
    Preprocessing,
    check_network,
    refusal,
    refuse_shared,
)
from synclones.models.stored import StoredWeights
from synclones.train.label_captions import label_captions
from synclones.train.network import zero_shot_start
from synclones.train.network.networks import network_args, new_network
from synclones.train.options.objective import ObjectiveSettings
from synclones.train.options.starting import ZERO_SHOT_HEAD
from synclones.train.settings import TrainConfig
from synclones.train.shares import Shares
from synclones.train.training_batch import Embedded, TrainingBatch

OBJECTIVES = Path(__file__).resolve().parent / "objectives"
LOSS = "loss"
LABEL, CAPTION, CAPTION_ID, VECTOR = "label", "caption", "caption_id", "vector"
AVAILABLE_COLUMNS = (LABEL, CAPTION, CAPTION_ID, VECTOR)
ANY_CLASSES = 10  # of a network that is only looked at


@dataclass(frozen=True)
class Task:
    """What a learner is built for."""

    config: TrainConfig
    class_ids: tuple[str, ...]
    preprocessing: Preprocessing
    vector_width: int = 0
    """Numbers of each image's vector, where the objective reads one."""
    stored: StoredWeights | None = None
    """What the training begins from; None for fresh weights."""
    texts: Any = None
    """The `ZeroShotTexts` that a zero-shot head begins as."""

    @property
    def is_zero_shot(self) -> bool:
        """Whether a CLIP's image tower is trained under a head of texts."""
        return self.config.head == ZERO_SHOT_HEAD


Losses = Callable[[TrainingBatch, nn.Module, TrainConfig], dict[str, Tensor]]
Embed = Losses
Teach = Callable[[Iterable[TrainingBatch], nn.Module, TrainConfig, int, Shares], list[Any]]
Contrast = Callable[[Embedded, Embedded, TrainConfig], tuple[dict[str, Tensor], Tensor]]


class Objective:
    """What a training minimises: one file of ``train/objectives/``, what it leaves out filled in."""

    def __init__(self, name: str, module: ModuleType):
        self.name, self._module = name, module
        self.columns: tuple[str, ...] = module.COLUMNS
        self.settings: tuple[str, ...] = getattr(module, "SETTINGS", ())
        self.is_contrastive = hasattr(module, "contrast")
        self.has_teacher = hasattr(module, "teach")
        self.has_features = hasattr(module, "features")

    @property
    def losses(self) -> Losses:
        """Loss of each image by itself."""
        losses: Losses = self._module.losses
        return losses

    @property
    def teach(self) -> Teach:
        """Outputs of the teacher for each part."""
        teach: Teach = self._module.teach
        return teach

    def features(self, learner: nn.Module, images: Tensor) -> Tensor:
        """Return what no step changes of images float[n, 3, s, s] in 0..1."""
        features: Tensor = self._module.features(learner, images)
        return features

    @property
    def embed(self) -> Embed:
        """What images are compared by."""
        embed: Embed = self._module.embed
        return embed

    @property
    def contrast(self) -> Contrast:
        """Losses between images."""
        contrast: Contrast = self._module.contrast
        return contrast

    def library(self, config: TrainConfig) -> tuple[str, str]:
        """Return the library that loads the export, and what the hub calls its task."""
        if CAPTION in self.columns or config.head == ZERO_SHOT_HEAD:
            return "open_clip", "zero-shot-image-classification"
        return "timm", "image-classification" if LABEL in self.columns else "image-feature-extraction"

    def loading(self, config: TrainConfig) -> str:
        """Return a line of Python that loads the export, {} in the place of its path."""
        if self.library(config)[0] == "open_clip":
            return "open_clip.create_model_from_pretrained('local-dir:{}')"
        return "timm.create_model('local-dir:{}', pretrained=True)"

    def tokenizer(self, config: TrainConfig) -> Any:
        """Return what turns a text into token ids int64[text_length], and whether it was cut."""
        return self._module.tokenizer(config)

    def reads(self, config: TrainConfig) -> dict[str, Any]:
        """Return what decides how data are read besides settings, for plans: captions, and how they become ids."""
        if CAPTION not in self.columns:
            return {}
        from synclones.models.tokenizer import tokenizer_identity  # loads open_clip

        captions = label_captions(config)
        of_labels = {"captions_of_labels": captions.sha256} if captions else {}
        return {"tokenizer": tokenizer_identity(), **of_labels}

    def build(self, task: Task) -> nn.Module:
        """Return fresh weights.

        Raises:
            InputError: a network that cannot be built.
        """
        if hasattr(self._module, "build"):
            learner: nn.Module = self._module.build(task)
            return learner
        if task.is_zero_shot and task.stored is not None:
            return zero_shot_start.build(task.stored.clip, task.preprocessing, task.class_ids)
        network = new_network(task.config, self._module.num_outputs(len(task.class_ids)))
        if hasattr(self._module, "begin"):
            self._module.begin(network, task.config)
        return Classifier(network, task.preprocessing, task.class_ids)

    def check_measurable(self, config: TrainConfig) -> None:
        """Refuse to measure a training that does not say by what.

        Raises:
            InputError: texts and no classes to choose among by them.
        """
        if CAPTION in self.columns and not config.zero_shot_classes:
            raise InputError(
                f"--validate, --hold-out: {self.name} classifies by the names of classes; give them with "
                "--zero-shot-classes"
            )

    def classes(self, task: Task) -> tuple[str, ...]:
        """Return the classes that what is trained chooses among; none where it has features alone."""
        if hasattr(self._module, "classes"):
            ids: tuple[str, ...] = self._module.classes(task)
            return ids
        return task.class_ids if LABEL in self.columns else ()

    def classifier(self, task: Task, network: nn.Module) -> nn.Module:
        """Return what classifies by weights ``network``: pixels float[n, 3, s, s] in 0..1 to logits."""
        if hasattr(self._module, "classifier"):
            classifier: nn.Module = self._module.classifier(task, network)
            return classifier
        return Classifier(network, task.preprocessing, task.class_ids)

    def num_heads(self, config: TrainConfig) -> int:
        """Return how many classifiers `classifier` stands for; of several, its logits are [heads, n, classes]."""
        return int(self._module.num_heads(config)) if hasattr(self._module, "num_heads") else 1

    def rate_factor(self, config: TrainConfig) -> float:
        """Return what the learning rate is multiplied by where that is not done to the loss."""
        return float(self._module.rate_factor(config)) if hasattr(self._module, "rate_factor") else 1.0

    def chosen_on(self, config: TrainConfig) -> str:
        """Return the name of the set on which one of several classifiers is chosen."""
        return str(self._module.chosen_on(config))

    def choose(self, network: nn.Module, head: int) -> None:
        """Let one of several classifiers be the one that is exported."""
        self._module.choose(network, head)

    def after_step(self, learner: nn.Module) -> None:
        """Keep within bounds what the objective bounds, such as the scale of the logits."""
        if hasattr(self._module, "after_step"):
            self._module.after_step(learner)

    def after_end(self, task: Task, folder: Path) -> str:
        """Do to the export of a finished training what its settings say now; return what was done, or nothing.

        Raises:
            InputError: settings that say nothing that can be done.
        """
        return str(self._module.after_end(task, folder)) if hasattr(self._module, "after_end") else ""

    def export(self, task: Task, learner: nn.Module, folder: Path, card: str) -> str:
        """Write what others load; return the sha256 of its weights."""
        if hasattr(self._module, "export"):
            digest: str = self._module.export(task, learner, folder, card)
            return digest
        if task.is_zero_shot and task.stored is not None:
            return zero_shot_start.export(task.stored.clip, task.texts, learner, folder, card)
        return export_classifier(folder, learner, task.config.model_args(), card)

    def check(self, task: Task, smallest_batch: int) -> None:
        """Build the network and run it on images without numbers (PyTorch's meta device), in no memory.

        Raises:
            InputError: it cannot be built, run, trained with ``smallest_batch`` images or stored.
        """
        config, size = task.config, task.config.image_size_px
        if task.is_zero_shot:
            return  # the network is that of the weights, and is looked at with them
        if not hasattr(self._module, "build"):
            outputs = self._module.num_outputs(ANY_CLASSES)
            check_network(config.architecture, outputs, size, network_args(config), smallest_batch)
            return
        # The blocks of a transformer are alike: a few of them show what a thousand would show in a minute.
        task = replace(task, config=replace(config, depth=min(config.depth, BLOCKS_LOOKED_AT)))
        with torch.device("meta"):
            learner = self.build(task).train()
            batch = self._without_numbers(task, smallest_batch)
        refuse_shared(config.architecture, learner.network)
        try:
            if self.has_teacher:
                alone = Shares((slice(0, smallest_batch),), (smallest_batch,), 0)
                batch = replace(batch, lesson=self.teach([batch], learner.eval(), config, 0, alone)[0])
                learner.train()
            (self.embed if self.is_contrastive else self.losses)(batch, learner, config)
        except NotImplementedError:
            return  # an operation that needs numbers: the first step will show
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            what = f"cannot be trained on {format_count(smallest_batch, 'image')} of {size} px by {self.name}"
            raise refusal(config.architecture, what, error) from None

    def check_task(self, task: Task) -> None:
        """Build what is trained without numbers, now that the data's classes and columns are known.

        Raises:
            InputError: it cannot be built for them.
        """
        if hasattr(self._module, "build"):
            with torch.device("meta"):
                self.build(task)

    def _without_numbers(self, task: Task, n: int) -> TrainingBatch:
        config = task.config
        sides = [config.image_size_px] * config.views + [config.local_size_px] * config.local_views
        numbers = torch.zeros(n, dtype=torch.int64)
        tokens = torch.zeros((n, config.text_length), dtype=torch.int64) if CAPTION in self.columns else None
        array = torch.zeros((n, task.vector_width)) if VECTOR in self.columns else None
        views = tuple(torch.zeros(n, 3, side, side) for side in sides)
        nobody = np.zeros(n, np.int64)
        names = nobody, nobody, nobody
        return TrainingBatch(views, numbers, torch.ones(n), tokens, numbers, numbers, array, names=names)

    def check_settings(self, config: TrainConfig) -> None:
        """Refuse a setting that this objective does not read.

        Raises:
            InputError: by its flag.
        """
        texts: tuple[str, ...] = ()
        if config.head == ZERO_SHOT_HEAD:
            texts = ("zero_shot_classes", "zero_shot_templates")
            if hasattr(self._module, "build") or LABEL not in self.columns:
                raise InputError(f"--head zero-shot: {self.name} trains no such classifier; take supervised")
        for field in fields(ObjectiveSettings):
            if field.name not in (*self.settings, *texts) and getattr(config, field.name) != field.default:
                flag = "--" + field.name.replace("_", "-")
                known = ", ".join("--" + name.replace("_", "-") for name in self.settings)
                raise InputError(
                    f"{flag}: the objective {self.name} does not read it; leave it out"
                    + (f" (it has {known})" if known else "")
                )
        if self.has_teacher and not config.ema_decay:
            raise InputError(
                f"--ema-decay: 0 was given, the teacher of {self.name} is the moving average of the weights; give one, "
                "such as 0.994 with --ema-schedule cosine"
            )
        if hasattr(self._module, "check_settings"):
            self._module.check_settings(config)


def objective_names() -> list[str]:
    """Return the objectives there are, as written on the command line."""
    return sorted(path.stem.replace("_", "-") for path in OBJECTIVES.glob("*.py"))


def load_objective(name: str) -> Objective:
    """Load an objective by name.

    Raises:
        InputError: when there is none of that name, or it needs columns that no data set has.
    """
    if name not in objective_names():
        near = get_close_matches(name, objective_names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(objective_names())}"
        raise InputError(f"--objective: {name!r} is unknown; {hint}")
    module = import_module(f"synclones.train.objectives.{name.replace('-', '_')}")
    missing = [column for column in module.COLUMNS if column not in AVAILABLE_COLUMNS]
    if missing:
        raise InputError(
            f"--objective {name}: needs the column {missing[0]!r}, batches have {', '.join(AVAILABLE_COLUMNS)}"
        )
    return Objective(name, module)
