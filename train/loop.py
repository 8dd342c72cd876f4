"""The training loop: batches whose order knows no ranks, gradients through Accelerate, checkpoints that resume exactly.

In: a `Job`. Out: trained weights in a `Classifier`, ``metrics.jsonl`` and checkpoints in the run folder.
"""

import contextlib
import sys
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from synclones.base.draws import hash64
from synclones.base.errors import InputError, VerificationError
from synclones.base.machine import check_world_size
from synclones.models.network import Classifier, create_network
from synclones.shards.loading.batches import Batch
from synclones.train.augment import Augmentation
from synclones.train.checkpoint import Checkpoint, check_tensors, newest_checkpoint, read_checkpoint, save_checkpoint
from synclones.train.job import Job
from synclones.train.objective import LOSS, TrainingBatch
from synclones.train.optimizer import (
    expected_state,
    learning_rate,
    new_optimizer,
    optimizer_state,
    restore_optimizer,
)
from synclones.train.progress import Metrics, cut_back
from synclones.train.run_folder import CHECKPOINTS, METRICS


def start_accelerator(job: Job) -> Accelerator:
    """Join the other processes.

    Raises:
        InputError: when the launcher and Accelerate count them differently.
    """
    tracker = job.config.track
    accelerator = Accelerator(
        mixed_precision="bf16" if job.precision == "bf16" else "no",
        cpu=job.device == "cpu",
        log_with=None if tracker == "none" else tracker,
        project_dir=job.config.out,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=job.config.timeout_s))],
    )
    check_world_size(job.world_size, accelerator.num_processes)
    return accelerator


def agreed(value: Any) -> Any:
    """Return on every process what the first one gives."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def start_trackers(accelerator: Accelerator, job: Job, step: int) -> None:
    """Begin to log to what ``--track`` chose; TensorBoard forgets what an earlier start logged after ``step``."""
    if job.config.track == "tensorboard":
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": step + 1}})
    elif job.config.track == "trackio":
        accelerator.init_trackers(job.config.out.resolve().name)


class Trainer:
    """One process' share of a training."""

    def __init__(self, job: Job, accelerator: Accelerator):
        """Make fresh weights, the same on every rank.

        Raises:
            InputError: when timm cannot build the architecture.
        """
        self.job, self.accelerator, config = job, accelerator, job.config
        torch.manual_seed(config.seed)
        num_outputs = job.objective.num_outputs(len(job.class_ids))
        network = create_network(config.architecture, num_outputs, config.image_size_px, config.model_args())
        self.classifier = Classifier(network, job.preprocessing, job.class_ids).to(accelerator.device)
        self.parameters = dict(network.named_parameters())
        self.optimizer = new_optimizer(network, config, accelerator.device)
        self.model: torch.nn.Module = self.classifier
        self.augment = Augmentation(
            size_px=config.image_size_px,
            crop_scale_min=config.crop_scale_min,
            flip=config.flip,
            rotation_degrees=config.rotation_degrees,
            colour_jitter=config.colour_jitter,
            seed=config.seed,
        )
        self.step = 0
        self.skipped_before = 0
        self._images = torch.zeros((), device=accelerator.device)  # seen since the last log
        self._totals: dict[str, torch.Tensor] = {}  # per name of the objective's losses, over those images
        self._norm = torch.zeros((), device=accelerator.device)
        self._suspects = ""

    # -------------------------------------------------------------- checkpoints

    def resume(self) -> None:
        """Go on from the newest checkpoint of which every byte is right; the first process chooses it for all."""
        folder = self.job.config.out / CHECKPOINTS
        newest = newest_checkpoint(folder) if self.accelerator.is_main_process else None
        name = agreed(f"step-{newest.step:08d}" if newest else None)
        if name is not None:
            self.restore(newest or read_checkpoint(folder / name))
        if self.accelerator.is_main_process:
            cut_back(self.job.config.out / METRICS, self.step)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over weights, moments and counters.

        Raises:
            InputError: when the checkpoint is of another training or another network.
            VerificationError: when it is of a step that this training does not have.
        """
        where = self.job.config.out / CHECKPOINTS / f"step-{checkpoint.step:08d}"
        if checkpoint.plan_id != self.job.plan_id:
            raise InputError(f"{where}: a checkpoint of another training; remove it, or give another --out")
        if checkpoint.step > self.job.num_steps:
            raise VerificationError(
                f"{where}: damaged, this training has {self.job.num_steps} steps; remove it to go on from another"
            )
        try:
            check_tensors(checkpoint.model, self.classifier.network.state_dict())
            check_tensors(checkpoint.optimizer, expected_state(self.parameters))
        except ValueError as error:
            raise InputError(f"{where}: a checkpoint of another model ({error}); give another --out") from None
        self.classifier.network.load_state_dict(checkpoint.model)
        restore_optimizer(self.optimizer, self.parameters, checkpoint.optimizer)
        self.step, self.skipped_before = checkpoint.step, checkpoint.state["skipped"]

    def checkpoint(self) -> Checkpoint:
        """Return the training as it is now."""
        model, moments = self.classifier.network.state_dict(), optimizer_state(self.optimizer, self.parameters)
        return Checkpoint(
            step=self.step,
            plan_id=self.job.plan_id,
            model={name: tensor.detach().cpu().contiguous() for name, tensor in model.items()},
            optimizer={name: tensor.detach().cpu().contiguous() for name, tensor in moments.items()},
            state={"skipped": self.skipped_before},
        )

    # -------------------------------------------------------------- steps

    def train(self) -> Metrics:
        """Train to the end, from wherever `resume` left it."""
        job, config = self.job, self.job.config
        model = torch.compile(self.classifier) if config.compile else self.classifier
        self.model = self.accelerator.prepare_model(model).train()
        is_main_process = self.accelerator.is_main_process
        metrics = Metrics(config.out / METRICS, self.step, job.num_steps, config.batch_size, is_main_process)
        start_trackers(self.accelerator, job, self.step)
        # The loader counts steps from the start of the training: that is all a resumed one needs to know.
        loader = job.loader(pin_memory=self.accelerator.device.type == "cuda")
        for batch in loader.batches(self.step, job.num_steps):
            self.train_step(batch)
            last = self.step == job.num_steps
            due = self.step % config.checkpoint_every == 0 or last
            if self.step % config.log_every == 0 or due:
                self.log(metrics, len(loader.skipped))
                loader.skipped.clear()
            # After the log, so that metrics.jsonl never ends before the checkpoint that it is cut back to.
            if due and is_main_process:
                save_checkpoint(config.out / CHECKPOINTS, self.checkpoint(), config.keep_checkpoints)
        metrics.close()
        return metrics

    def train_step(self, batch: Batch) -> None:
        """Take one optimizer step on the global batch of which ``batch`` is this process' part."""
        config, device = self.job.config, self.accelerator.device
        # Whatever a network draws by itself (dropout) follows from the step, so that it is the same after a kill.
        torch.manual_seed(int(hash64(config.seed, self.step, self.job.rank) >> 1))
        # Gradients add up over micro-batches; processes exchange them once, with the last.
        size = config.micro_batch_size or len(batch.labels)
        for start in range(0, len(batch.labels), size):
            part = slice(start, start + size)
            more = start + size < len(batch.labels)
            with self.accelerator.no_sync(self.model) if more else contextlib.nullcontext():
                self._backward(batch, part, device)
        # All processes hold the same gradient now, and step alike.
        self._norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.job.num_steps, config)
        if device.type == "cpu":  # elsewhere it would make every step wait; there the log looks
            self._refuse_bad_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def _backward(self, batch: Batch, part: slice, device: torch.device) -> None:
        job = self.job
        pixels = batch.pixels[part].to(device, non_blocking=True)
        labels, weights = (x[part].to(device, non_blocking=True) for x in (batch.labels, batch.weights))
        images = self.augment(pixels, batch.source[part], batch.index[part], batch.times_seen[part])
        losses = job.objective.losses(TrainingBatch(images, labels), self.model, job.config)
        weighted = {name: each * weights for name, each in losses.items()}  # an image left out weighs nothing
        # Processes average their gradients: scaled like this the average is that of the global batch.
        self.accelerator.backward(weighted[LOSS].sum() * (job.world_size / job.config.batch_size))
        with torch.no_grad():
            self._images = self._images + weights.sum()
            for name, each in weighted.items():
                self._totals[name] = self._totals.get(name, torch.zeros_like(self._images)) + each.detach().sum()
        # A GPU is not made to wait for an answer at every step: there, the log names no sample.
        if device.type == "cpu" and not torch.isfinite(weighted[LOSS]).all():
            at = int((~torch.isfinite(weighted[LOSS])).nonzero()[0])
            folder = self.job.sources[int(batch.source[part][at])][0].folder
            self._suspects = f" (first at sample {int(batch.index[part][at])} of {folder})"

    def _refuse_bad_gradient(self) -> None:
        if not torch.isfinite(self._norm):  # the norm is the same on every rank, so all of them stop here
            raise VerificationError(
                f"{self.job.config.out}: step {self.step + 1}: the gradient is not finite{self._suspects}; "
                "lower --learning-rate and train into another --out; the checkpoints are from before"
            )

    def log(self, metrics: Metrics, newly_skipped: int) -> None:
        """Write one line about the steps since the last one."""
        self._refuse_bad_gradient()
        # One exchange for all sums, in an order that is the same on every process.
        names = list(self._totals)
        counts = torch.stack([*self._totals.values(), self._images, self._images.new_tensor(newly_skipped)])
        *totals, images, skipped = self.accelerator.reduce(counts, "sum").tolist()
        self.skipped_before += int(skipped)
        values = {name: total / max(images, 1) for name, total in zip(names, totals, strict=True)}
        values |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "gradient_norm": float(self._norm)}
        values |= {"skipped": self.skipped_before} if self.skipped_before else {}
        metrics.log(self.step, values)
        self.accelerator.log(values, step=self.step)
        if newly_skipped:
            print(f"{newly_skipped} damaged images were left out", file=sys.stderr, flush=True)
        self._images, self._totals = torch.zeros_like(self._images), {}
