"""The training loop: batches whose order knows no ranks, gradients through Accelerate, checkpoints that resume exactly.

In: a `Job`. Out: trained weights in a learner, ``metrics.jsonl`` and checkpoints in the run folder.
"""

import contextlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from synclones.base.draws import hash64
from synclones.base.errors import HOW_TO_RESUME, InputError, MachineError, Stopped, VerificationError
from synclones.base.output import say
from synclones.base.process import stop_asked, stopping_between_steps
from synclones.shards.loading.batch import Batch
from synclones.train.batches.feature_loader import Loader, training_loader
from synclones.train.batches.presenting import Presenter
from synclones.train.job import Job
from synclones.train.launch import start_trackers
from synclones.train.network.drop_path import seed_drop_path
from synclones.train.network.freezing import freeze
from synclones.train.objective import LOSS
from synclones.train.options.validation import HELD_OUT
from synclones.train.progress import Metrics, cut_back
from synclones.train.recovery.agreement import Agreement, Alarm, agreed
from synclones.train.recovery.best import Best, best_of, read_best, save_best
from synclones.train.recovery.checkpoint import (
    Checkpoint,
    check_tensors,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from synclones.train.recovery.finite import FiniteSteps
from synclones.train.recovery.folder_names import BEST, CHECKPOINTS, METRICS
from synclones.train.starting import begin
from synclones.train.step.ema import Ema, share_buffers, twin
from synclones.train.step.gradients import Present, between_images, of_single_images, shares, taught
from synclones.train.step.optimizer import expected_state, new_optimizer, optimizer_state, restore_optimizer, set_step
from synclones.train.validation import Validation


class Trainer:
    """One process' share of a training."""

    def __init__(self, job: Job, accelerator: Accelerator):
        """Make fresh weights, the same on every rank, and put in the place of some what the training begins from.

        Raises:
            InputError: when timm cannot build the architecture, or stored weights do not fit.
        """
        self.job, self.accelerator, config = job, accelerator, job.config
        torch.manual_seed(config.seed)
        self.learner = job.objective.build(job.task).to(accelerator.device)
        network = self.learner.network
        self.began = begin(self.learner, job.task)
        self.frozen = freeze(network, config)
        self.presenter = Presenter(job, accelerator.device, seed_drop_path(network, config.seed))
        self.parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        factor = job.objective.rate_factor(config)
        self.optimizer = new_optimizer(network, config, accelerator.device, config, factor)
        self.ema = Ema(network, config) if config.ema_decay else None
        self.teacher = twin(self.learner, self.ema.network) if self.ema and job.objective.has_teacher else None
        self.validation = Validation(job, accelerator)
        self.model: torch.nn.Module = self.learner
        self.best = Best()  # measurement
        self._compared = 0  # the step of the last one that was compared with it
        self.chosen = ""  # what was chosen for the export, for its card
        self.step = 0
        self.skipped_before = 0
        self._images = torch.zeros((), device=accelerator.device)  # seen since the last log
        self._totals: dict[str, torch.Tensor] = {}  # per name of the objective's losses, over those images
        self._norm = torch.zeros((), device=accelerator.device)
        self.watch = FiniteSteps(job, accelerator.device)
        self._logged = 0  # the step of the last line of metrics

    # -------------------------------------------------------------- checkpoints

    def resume(self, keep_metrics: bool = False) -> None:
        """Go on from the newest checkpoint of which every byte is right; the first process chooses it for all."""
        folder = self.job.config.out / CHECKPOINTS
        newest = newest_checkpoint(folder) if self.accelerator.is_main_process else None
        name = agreed(f"step-{newest.step:08d}" if newest else None)
        if name is not None:
            self.restore(newest or read_checkpoint(folder / name))
        if self.accelerator.is_main_process and not keep_metrics:
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
            check_tensors(checkpoint.model, self.learner.network.state_dict())
            check_tensors(checkpoint.optimizer, expected_state(self.parameters, self.optimizer))
            check_tensors(checkpoint.ema, {} if self.ema is None else self.ema.state_dict())
        except ValueError as error:
            raise InputError(f"{where}: a checkpoint of another model ({error}); give another --out") from None
        self.learner.network.load_state_dict(checkpoint.model)
        restore_optimizer(self.optimizer, self.parameters, checkpoint.optimizer)
        if self.ema is not None:
            self.ema.load_state_dict(checkpoint.ema)
        self.step, self._logged, self.skipped_before = checkpoint.step, checkpoint.step, checkpoint.state["skipped"]
        self.best, self._compared = best_of(checkpoint.state.get("best"), where), checkpoint.state.get("compared", 0)
        if "unlogged" in checkpoint.state and self.accelerator.is_main_process:
            self._restore_sums(checkpoint.state["unlogged"], where)

    def _restore_sums(self, unlogged: Any, where: Path) -> None:
        """Go on with the sums that all processes had since their last line; the first one carries them on."""
        device = self._images.device
        try:
            self._images = torch.tensor(float(unlogged["images"]), device=device)
            self._totals = {str(name): torch.tensor(float(total), device=device) for name, total in unlogged["totals"]}
        except (KeyError, TypeError, ValueError):
            raise VerificationError(f"{where}: damaged; remove it to go on from another") from None

    def checkpoint(self, newly_skipped: int) -> Checkpoint:
        """Return the training as it is now; every process takes part.

        Raises:
            VerificationError: the gradient of a step was not finite, so that nothing of it is worth keeping.
        """
        self.watch.refuse()
        state: dict[str, Any] = {"skipped": self.skipped_before}
        if self.step != self._logged:
            totals, images, skipped = self._sums(newly_skipped)
            state = {"skipped": self.skipped_before + skipped}
            state["unlogged"] = {"images": images, "totals": list(totals.items())}
        if self.job.config.select == "best":
            state |= {"best": self.best.state(), "compared": self._compared}
        model, moments = self.learner.network.state_dict(), optimizer_state(self.optimizer, self.parameters)
        return Checkpoint(
            step=self.step,
            plan_id=self.job.plan_id,
            model=_on_cpu(model),
            optimizer=_on_cpu(moments),
            state=state,
            ema={} if self.ema is None else _on_cpu(self.ema.state_dict()),
        )

    def save(self, newly_skipped: int) -> None:
        """Write a checkpoint of this step; every process takes part, the first one writes."""
        checkpoint = self.checkpoint(newly_skipped)
        if self.accelerator.is_main_process:
            save_checkpoint(self.job.config.out / CHECKPOINTS, checkpoint, self.job.config.keep_checkpoints)

    # -------------------------------------------------------------- steps

    def start(self) -> None:
        """Compile what shall be, and join the processes' gradients; from here on steps can be taken."""
        model = self.learner
        if self.job.config.compile:
            model, self.presenter.apply = torch.compile(model), torch.compile(self.presenter.apply)
        self.model = self.accelerator.prepare_model(model).train()

    def train(self) -> Metrics:
        """Train to the end, from wherever `resume` left it.

        Raises:
            Stopped: after a signal, with a checkpoint of the last step.
        """
        job, config = self.job, self.job.config
        self.start()
        is_main_process = self.accelerator.is_main_process
        metrics = Metrics(config.out / METRICS, self.step, job.num_steps, config.batch_size, is_main_process)
        start_trackers(self.accelerator, job, self.step)
        with stopping_between_steps(), contextlib.closing(metrics):
            try:
                # The loader counts steps from the start of the training: that is all a resumed one needs to know.
                loader = training_loader(job, self.accelerator, self.learner, self.presenter.images)
                self._measure_what_is_missing(metrics)
                self._steps(loader, metrics)
            except MachineError:
                # A signal to all processes may end one that decodes before that can pass it over.
                if not stop_asked():
                    raise
                raise Stopped(stop_asked(), HOW_TO_RESUME[-1]) from None
        if is_main_process and loader.cut:
            cut = f"{loader.cut:,} captions lost their end behind {config.text_length} token ids (of one process)"
            say(f"{cut}; raise --text-length, or shorten them")
        if is_main_process and loader.converted:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(loader.converted.items()))
            say(f"read as the RGB that a viewer shows: {kinds} (images of one process)")
        return metrics

    def _steps(self, loader: Loader, metrics: Metrics) -> None:
        config, num_steps = self.job.config, self.job.num_steps
        every_steps, every_seconds = config.checkpoint_interval()
        agreement, alarm = Agreement(self.job.world_size, self.accelerator.device), Alarm(every_seconds)
        for batch in loader.batches(self.step, num_steps):
            self.train_step(batch)
            metrics.stepped(self.step, self._losses_so_far)
            # A signal reaches one process, the clock is that of the first: what they ask for, all do at the same step.
            is_time = self.job.rank == 0 and alarm.rings()
            stop, wanted = agreement.exchange(stop_asked(), int(is_time))
            due = self.step == num_steps or (every_steps is not None and self.step % every_steps == 0)
            if self.step % config.log_every == 0 or due:
                self.log(metrics, len(loader.skipped))
                loader.skipped.clear()
            better = False
            if self.validation.is_due(self.step) and not stop:  # a stopped one measures when it goes on
                better = self.measure(metrics, len(loader.skipped))
            # After the log, so that metrics.jsonl never ends before the checkpoint that it is cut back to.
            if due or wanted or stop or better:
                self.save(len(loader.skipped))
            if stop:
                self.accelerator.wait_for_everyone()  # a launcher ends all when the first has ended
                raise Stopped(stop, HOW_TO_RESUME[-1], f" after step {self.step}")

    def _measure_what_is_missing(self, metrics: Metrics) -> None:
        """Measure the weights of the checkpoint that is gone on from, where a signal or other settings left it out."""
        if self.validation.is_due(self.step):
            known = agreed(self.job.rank == 0 and metrics.has(self.step, self.validation.names()))
            if not known or (self.job.config.select == "best" and self._compared != self.step):
                if self.measure(metrics, 0, is_logged=known):
                    self.save(0)

    def measure(self, metrics: Metrics, newly_skipped: int, is_logged: bool = False) -> bool:
        """Measure the weights that would be exported, and write a line of its own about them.

        Return whether they are the best so far, and kept as such, where that decides what is exported.
        """
        self.watch.refuse()
        metrics.measuring()
        values = self.validation.measure(self._measured_network)
        if not is_logged:
            metrics.measured(self.step, values)
            self.accelerator.log(values, step=self.step)
        accuracy, self._compared = self.validation.selecting(values), self.step
        if accuracy is None or not self.best.is_beaten_by(accuracy):
            return False
        self.best = Best(self.step, accuracy)
        checkpoint = self.checkpoint(newly_skipped)
        if self.accelerator.is_main_process:
            save_best(self.job.config.out / BEST, checkpoint)
        return True

    def take_best(self) -> None:
        """Take the weights of the best measurement where those are exported; every process takes part."""
        if self.job.config.select == "last":
            return
        checkpoint = read_best(self.job.config.out / BEST, self.best, self.job.plan_id)
        self.learner.network.load_state_dict(checkpoint.model)
        if self.ema is not None:
            self.ema.load_state_dict(checkpoint.ema)
        self.chosen = f"step {self.best.step} of {self.job.num_steps}, accuracy {self.best.accuracy:.4f} on {HELD_OUT}"

    def choose(self) -> None:
        """Choose which of several classifiers is exported, after the last step; every process takes part."""
        objective = self.job.objective
        if objective.num_heads(self.job.config) > 1:
            head, sentence = self.validation.choose(self._measured_network)
            self.chosen = "; ".join(text for text in (self.chosen, sentence) if text)
            objective.choose(self.learner.network, head)

    @property
    def _measured_network(self) -> torch.nn.Module:
        return self.learner.network if self.ema is None else self.ema.network

    def train_step(self, batch: Batch) -> None:
        """Take one optimizer step on the global batch of which ``batch`` is this process' part."""
        config, device = self.job.config, self.accelerator.device
        job, n = self.job, len(batch.labels)
        own = shares(job, n)
        self.frozen.keep()
        self._reseed(0)
        present: Present = partial(self.presenter.present, batch)
        if self.teacher is not None:
            present = taught(job, self.accelerator, self.teacher, present, own, self.step)
        if job.objective.is_contrastive:
            losses, counts = between_images(job, self.accelerator, self.model, present, own, self._reseed)
        else:
            losses = of_single_images(job, self.accelerator, self.model, present, own)
            counts = batch.weights.to(device)
        self._count(losses, counts)
        self.watch.see(batch, losses[LOSS])
        # All processes hold the same gradient now, and step alike.
        self._norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip_norm)
        set_step(self.optimizer, self.step, self.job.num_steps, config, config)
        self.watch.note(self.step, self._norm)
        if device.type == "cpu":  # elsewhere it would make every step wait; there the log looks
            self.watch.refuse()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        job.objective.after_step(self.learner)
        if self.teacher is not None:  # one teacher, whatever images each process saw
            share_buffers(self.learner.network, own)
        if self.ema is not None:
            self.ema.update(self.learner.network, self.step, self.job.num_steps)

    def _reseed(self, part: int) -> None:
        """Make whatever a network draws by itself (dropout) follow from the step, so that it is the same after a kill.

        A first part draws what steps of a single part drew before there were several.
        """
        words = (self.job.config.seed, self.step, self.job.rank, *([part] if part else []))
        torch.manual_seed(int(hash64(*words) >> 1))

    def _count(self, losses: dict[str, torch.Tensor], counts: torch.Tensor) -> None:
        """Add the losses of this process' images to those since the last line."""
        with torch.no_grad():
            self._images = self._images + counts.sum()
            for name, each in losses.items():
                self._totals[name] = self._totals.get(name, torch.zeros_like(self._images)) + each.sum()

    def _losses_so_far(self) -> dict[str, float]:
        """Return this process' losses since the last line; none right behind one."""
        return {n: float(total / self._images) for n, total in self._totals.items()} if self._images else {}

    def log(self, metrics: Metrics, newly_skipped: int) -> None:
        """Write one line about the steps since the last one."""
        self.watch.refuse()
        totals, images, skipped = self._sums(newly_skipped)
        self.skipped_before += skipped
        if not images and self.accelerator.is_main_process:
            say(f"step {self.step}: no image had another one to be compared with; raise --batch-size")
        values = {name: total / max(images, 1) for name, total in totals.items()}
        values |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "gradient_norm": float(self._norm)}
        values |= {"skipped": self.skipped_before} if self.skipped_before else {}
        metrics.log(self.step, values)
        self.accelerator.log(values, step=self.step)
        if newly_skipped:
            say(f"{newly_skipped} damaged images were left out")
        self._images, self._totals, self._logged = torch.zeros_like(self._images), {}, self.step

    def _sums(self, newly_skipped: int) -> tuple[dict[str, float], float, int]:
        """Return the objective's sums over all processes since the last line, the images in them, those left out."""
        # One exchange for all of them, in an order that is the same on every process.
        counts = torch.stack([*self._totals.values(), self._images, self._images.new_tensor(newly_skipped)])
        *totals, images, skipped = self.accelerator.reduce(counts, "sum").tolist()
        return dict(zip(self._totals, totals, strict=True)), images, int(skipped)


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
