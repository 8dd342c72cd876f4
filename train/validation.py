"""What a training knows at a step about images that it is not trained on: accuracy, zero-shot, k-NN and probe accuracy.

In: a `Job` with sets to measure on, the weights that would be exported. Out: numbers by name, ``accuracy/NAME`` and
``loss/NAME`` of what classifies, ``knn/NAME`` and ``probe/NAME`` of what has features alone. Weights, modes of modules
and random states are after it what they were before.
"""

from accelerate import Accelerator
from torch import Tensor, nn

from synclones.models.network import Classifier
from synclones.train.job import Job
from synclones.train.knn import knn_classes
from synclones.train.measuring import Measurer, evaluating
from synclones.train.named_sets import ImageSet


class Validation:
    """Measures one training."""

    def __init__(self, job: Job, accelerator: Accelerator):
        """Prepare to measure; no image is read yet."""
        self.job, self._device = job, accelerator.device
        skips = job.config.on_bad_sample == "skip"
        self._measurer = Measurer(accelerator, job.preprocessing, job.config.decode_threads, skips)
        self._every = job.config.measured_every(job.num_steps)

    def is_due(self, step: int) -> bool:
        """Return whether there are sets to measure on after ``step`` steps."""
        return bool(self.job.measured.images) and step > 0 and (step == self.job.num_steps or step % self._every == 0)

    def names(self) -> tuple[str, ...]:
        """Return the names of all numbers."""
        kinds = ("accuracy", "loss") if self.job.measured.bank is None else ("knn",)
        return tuple(f"{kind}/{images.name}" for images in self.job.measured.images for kind in kinds)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Return all numbers under the weights of ``network``; every process takes part, and gets the same.

        Raises:
            VerificationError: a damaged image, where those are not skipped.
        """
        with evaluating(network):
            bank = self.job.measured.bank
            return self._by_logits(network) if bank is None else self._by_features(network, bank)

    def _by_logits(self, network: nn.Module) -> dict[str, float]:
        classifier = self.job.objective.classifier(self.job.task, network).to(self._device)
        values: dict[str, float] = {}
        for images in self.job.measured.images:
            accuracy, loss = self._measurer.accuracies(lambda pixels: classifier(pixels)[None], 1, images)
            values |= {f"accuracy/{images.name}": float(accuracy), f"loss/{images.name}": float(loss)}
        return values

    def _by_features(self, network: nn.Module, bank_images: ImageSet) -> dict[str, float]:
        config, task = self.job.config, self.job.task
        backbone = Classifier(network["backbone"], task.preprocessing, ()).to(self._device)
        bank, bank_labels = self._measurer.features(backbone, bank_images)
        values: dict[str, float] = {}
        classes = len(self.job.measured.class_ids)
        for images in self.job.measured.images:
            rows, labels = self._measurer.features(backbone, images)
            own = self._measurer.part(len(rows))
            voted = knn_classes(rows[own], bank, bank_labels, classes, config.knn_neighbours, config.knn_temperature)
            values[f"knn/{images.name}"] = self._share(voted == labels[own], len(rows))
        return values

    def _share(self, right: Tensor, count: int) -> float:
        return float(self._measurer.together(right.sum())) / max(count, 1)
