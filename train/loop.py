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
from synclones.models.network import Classifier, create_network
from synclones.shards.loading.batches import Batch
from synclones.train.augment import Augmentation
from synclones.train.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint, save_checkpoint
from synclones.train.job import Job
from synclones.train.objectives.supervised import losses
from synclones.train.progress import Metrics, cut_back
from synclones.train.settings import learning_rate

CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"
BETAS = (0.9, 0.999)
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def start_accelerator(job: Job) -> Accelerator:
    """Join the other processes. InputError when the launcher and Accelerate count them differently."""
    accelerator = Accelerator(
        mixed_precision="bf16" if job.precision == "bf16" else "no",
        cpu=job.device == "cpu",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=job.config.timeout_s))],
    )
    if accelerator.num_processes != job.world_size:
        raise InputError(
            f"WORLD_SIZE is {job.world_size}, Accelerate sees {accelerator.num_processes}; on a CPU launch with "
            "`ACCELERATE_USE_CPU=true torchrun --nproc-per-node N`"
        )
    return accelerator


class Trainer:
    """One process' share of a training."""

    def __init__(self, job: Job, accelerator: Accelerator):
        """Fresh weights, the same on every rank. InputError for an architecture that timm cannot build."""
        self.job, self.accelerator, config = job, accelerator, job.config
        torch.manual_seed(config.seed)
        network = create_network(config.architecture, len(job.class_ids), config.image_size_px, config.model_args())
        self.classifier = Classifier(network, job.preprocessing, job.class_ids).to(accelerator.device)
        self.parameters = dict(network.named_parameters())
        self.optimizer = self._new_optimizer()
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
        self._totals = torch.zeros(3, device=accelerator.device)  # loss, correct, images since the last log
        self._norm = torch.zeros((), device=accelerator.device)
        self._suspects = ""

    def _new_optimizer(self) -> torch.optim.AdamW:
        decayed = [p for p in self.parameters.values() if p.ndim >= 2]
        others = [p for p in self.parameters.values() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": self.job.config.weight_decay}, {"params": others}]
        on_gpu = self.accelerator.device.type == "cuda"
        return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, weight_decay=0.0, fused=on_gpu or None)

    # -------------------------------------------------------------- checkpoints

    def resume(self) -> None:
        """Go on from the newest checkpoint that every byte of is right; the first process chooses it for all."""
        folder = self.job.config.out / CHECKPOINTS
        chosen: list[Any] = [None]
        found = None
        if self.accelerator.is_main_process:
            found = newest_checkpoint(folder)
            chosen = [found.step if found else None]
        broadcast_object_list(chosen)
        if chosen[0] is not None:
            self.restore(found or read_checkpoint(folder / f"step-{chosen[0]:08d}"))
        if self.accelerator.is_main_process:
            cut_back(self.job.config.out / METRICS, self.step)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over weights, moments and counters. InputError for a checkpoint of another training."""
        where = self.job.config.out / CHECKPOINTS / f"step-{checkpoint.step:08d}"
        if checkpoint.plan_id != self.job.plan_id:
            raise InputError(f"{where}: a checkpoint of another training; remove it, or give another --out")
        try:
            self.classifier.network.load_state_dict(checkpoint.model)
            for name, parameter in self.parameters.items():
                moments = {moment: checkpoint.optimizer[f"{moment}/{name}"].clone() for moment in MOMENTS}
                device = parameter.device
                self.optimizer.state[parameter] = {
                    k: v.to(device) if k != "step" or device.type == "cuda" else v for k, v in moments.items()
                }
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{where}: a checkpoint of another model ({reason}); give another --out") from None
        self.step, self.skipped_before = checkpoint.step, int(checkpoint.state["skipped"])

    def checkpoint(self) -> Checkpoint:
        """The training as it is now."""
        state = self.optimizer.state
        moments = {f"{m}/{name}": state[p][m] for name, p in self.parameters.items() for m in MOMENTS}
        model = self.classifier.network.state_dict()
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
        speaks = self.accelerator.is_main_process
        metrics = Metrics(config.out / METRICS, self.step, job.num_steps, config.batch_size, speaks)
        loader = job.loader(pin_memory=self.accelerator.device.type == "cuda")
        for batch in loader.batches(self.step, job.num_steps):
            self.train_step(batch)
            last = self.step == job.num_steps
            due = self.step % config.checkpoint_every == 0 or last
            if self.step % config.log_every == 0 or due:
                self.log(metrics, len(loader.skipped))
                loader.skipped.clear()
            if due and speaks:
                save_checkpoint(config.out / CHECKPOINTS, self.checkpoint(), config.keep_checkpoints)
        metrics.close()
        return metrics

    def train_step(self, batch: Batch) -> None:
        """One optimizer step on the global batch of which ``batch`` is this process' part."""
        config, device = self.job.config, self.accelerator.device
        # Whatever a network draws by itself (dropout) follows from the step, so that it is the same after a kill.
        torch.manual_seed(int(hash64(config.seed, self.step, self.job.rank) >> 1))
        size = config.micro_batch_size or len(batch.labels)
        for start in range(0, len(batch.labels), size):
            part = slice(start, start + size)
            more = start + size < len(batch.labels)
            with self.accelerator.no_sync(self.model) if more else contextlib.nullcontext():
                self._backward(batch, part, device)
        self._norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.job.num_steps, config)
        if device.type == "cpu":  # elsewhere it would make every step wait; there the log looks
            self._refuse_bad_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def _backward(self, batch: Batch, part: slice, device: torch.device) -> None:
        pixels = batch.pixels[part].to(device, non_blocking=True)
        labels, weights = (x[part].to(device, non_blocking=True) for x in (batch.labels, batch.weights))
        images = self.augment(pixels, batch.source[part], batch.index[part], batch.times_seen[part])
        logits = self.model(images).float()
        each = losses(logits, labels, self.job.config.label_smoothing) * weights
        # Processes average their gradients: scaled like this the average is that of the global batch.
        self.accelerator.backward(each.sum() * (self.job.world_size / self.job.config.batch_size))
        with torch.no_grad():
            correct = (logits.argmax(1) == labels) * weights
            self._totals += torch.stack([each.sum(), correct.sum(), weights.sum()])
        if device.type == "cpu" and not torch.isfinite(each).all():
            at = int((~torch.isfinite(each)).nonzero()[0])
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
        counts = torch.cat([self._totals, self._totals.new_tensor([newly_skipped])])
        loss, correct, images, skipped = self.accelerator.reduce(counts, "sum").tolist()
        self.skipped_before += int(skipped)
        values = {
            "loss": loss / max(images, 1),
            "accuracy": correct / max(images, 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": float(self._norm),
        }
        metrics.log(self.step, values | ({"skipped": self.skipped_before} if self.skipped_before else {}))
        if newly_skipped:
            print(f"{newly_skipped} damaged images were left out", file=sys.stderr, flush=True)
        self._totals.zero_()
