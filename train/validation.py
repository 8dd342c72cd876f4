"""What a training knows at a step about images that it is not trained on: accuracy, zero-shot, k-NN and probe accuracy.

In: a `Job` with sets to measure on, the weights that would be exported. Out: numbers by name, ``accuracy/NAME`` and
``loss/NAME`` of what classifies, ``knn/NAME`` and ``probe/NAME`` of what has features alone. Weights, modes of modules
and random states are after it what they were before.
"""

from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from synclones.models.network import Classifier
from synclones.train.job import Job
from synclones.train.measures.knn import knn_classes
from synclones.train.measures.measuring import Measurer, evaluating
from synclones.train.measures.named_sets import ImageSet
from synclones.train.measures.probe import Heads, accuracies, apart, best_head, train_heads
from synclones.train.options.validation import HELD_OUT

CHOOSING_SHARE = 0.1  # of a bank


class Validation:
    """Measures one training."""

    def __init__(self, job: Job, accelerator: Accelerator):
        """Prepare to measure; no image is read yet."""
        self.job, self._device = job, accelerator.device
        skips = job.config.on_bad_sample == "skip"
        self._measurer = Measurer(accelerator, job.preprocessing, job.decode_threads, skips)
        self._every = job.config.measured_every(job.num_steps)

    def is_due(self, step: int) -> bool:
        """Return whether there are sets to measure on after ``step`` steps."""
        return bool(self.job.measured.images) and step > 0 and (step == self.job.num_steps or step % self._every == 0)

    def names(self) -> tuple[str, ...]:
        """Return the names of all numbers."""
        kinds: tuple[str, ...] = ("accuracy", "loss") if self.job.measured.bank is None else ("knn",)
        kinds += ("probe",) if self.job.config.validate_probe else ()
        return tuple(f"{kind}/{images.name}" for images in self.job.measured.images for kind in kinds)

    def selecting(self, values: dict[str, float]) -> float | None:
        """Return the accuracy by which the exported step is chosen; None where it is the last one."""
        kind = "accuracy" if self.job.measured.bank is None else "knn"
        return values[f"{kind}/{HELD_OUT}"] if self.job.config.select == "best" else None

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Return all numbers under the weights of ``network``; every process takes part, and gets the same.

        Raises:
            VerificationError: a damaged image, where those are not skipped.
        """
        with evaluating(network):
            bank = self.job.measured.bank
            return self._by_logits(network) if bank is None else self._by_features(network, bank)

    def _by_logits(self, network: nn.Module) -> dict[str, float]:
        measured = {images.name: self._accuracies(network, images) for images in self.job.measured.images}
        head = self._best_head(measured)
        values: dict[str, float] = {}
        for name, (accuracy, loss) in measured.items():
            values |= {f"accuracy/{name}": float(accuracy[head]), f"loss/{name}": float(loss[head])}
        return values

    def _accuracies(self, network: nn.Module, images: ImageSet) -> tuple[Tensor, Tensor]:
        objective, heads = self.job.objective, self.job.objective.num_heads(self.job.config)
        classifier = objective.classifier(self.job.task, network).to(self._device).eval()
        is_kept = objective.has_features and self.job.config.probe_cache == "auto"
        return self._measurer.accuracies(
            lambda given: classifier(given).view(heads, len(given), -1),
            heads,
            images,
            partial(objective.features, classifier) if is_kept else None,
        )

    def _best_head(self, measured: dict[str, tuple[Tensor, Tensor]]) -> int:
        """Return the classifier of the best accuracy on the set that decides, of equals that of the lowest loss."""
        objective, config = self.job.objective, self.job.config
        if objective.num_heads(config) == 1:
            return 0
        return best_head(*measured[objective.chosen_on(config)])

    def choose(self, network: nn.Module) -> tuple[int, str]:
        """Return the number of the best of several classifiers under these weights, and a sentence about it."""
        config, name = self.job.config, self.job.objective.chosen_on(self.job.config)
        deciding = next(images for images in self.job.measured.images if images.name == name)
        with evaluating(network):
            shares, losses = self._accuracies(network, deciding)
        head = best_head(shares, losses)
        rate, share = config.probe_rates[head], float(shares[head])
        return (
            head,
            f"rate {rate:g} of {len(shares)} rates, accuracy {share:.4f} on {len(deciding)} images ({name})",
        )

    def _by_features(self, network: nn.Module, bank_images: ImageSet) -> dict[str, float]:
        config, task = self.job.config, self.job.task
        backbone = Classifier(network["backbone"], task.preprocessing, ()).to(self._device)
        bank, bank_labels = self._measurer.features(backbone, bank_images)
        values: dict[str, float] = {}
        classes = len(self.job.measured.class_ids)
        heads = self._probe(bank, bank_labels, classes) if config.validate_probe else None
        for images in self.job.measured.images:
            rows, labels = self._measurer.features(backbone, images)
            own = self._measurer.part(len(rows))
            voted = knn_classes(rows[own], bank, bank_labels, classes, config.knn_neighbours, config.knn_temperature)
            values[f"knn/{images.name}"] = self._share(voted == labels[own], len(rows))
            if heads is not None:
                values[f"probe/{images.name}"] = self._share((heads(rows[own])[0].argmax(-1) == labels[own]), len(rows))
        return values

    def _probe(self, bank: Tensor, labels: Tensor, classes: int) -> Heads:
        """Return the best of several linear classifiers, trained on most of the bank and chosen on the rest of it."""
        # Every process trains the same on the same features; that of the first counts, should they differ by a bit.
        choosing = torch.from_numpy(apart(len(bank), CHOOSING_SHARE, self.job.config.seed)).to(bank.device)
        training = bank[~choosing], labels[~choosing]
        heads = train_heads(*training, classes, epochs=self.job.config.validate_probe, seed=self.job.config.seed)
        best = best_head(*accuracies(heads, bank[choosing], labels[choosing]))
        weight, bias = heads.weight[best : best + 1], heads.bias[best : best + 1]
        is_first = float(self._measurer.accelerator.is_main_process)
        parts = [self._measurer.together(tensor * is_first) for tensor in (weight, bias)]
        heads.weight, heads.bias = (nn.Parameter(part, requires_grad=False) for part in parts)
        return heads

    def _share(self, right: Tensor, count: int) -> float:
        return float(self._measurer.together(right.sum())) / max(count, 1)
