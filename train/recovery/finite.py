"""Watches that the gradient of every step is a number, and stops a training that has lost it.

In: losses and the gradient's norm of each step. Out: a refusal that names the step, and a capsule that repeats it.
"""

from typing import Any

import torch
from torch import Tensor

from synclones.base.errors import VerificationError
from synclones.base.resume import typed
from synclones.shards.loading.batch import Batch
from synclones.train.job import Job
from synclones.train.recovery.capsule import write_capsule
from synclones.train.recovery.folder_names import CHECKPOINTS, list_checkpoints

_NEVER = 2**62  # a step that no training has


class FiniteSteps:
    """The steps of one process.

    Attributes:
        losses: float32[n], of this process' images in the last step.
        keeps_capsules: whether a step that went wrong is written down.
    """

    def __init__(self, job: Job, device: torch.device):
        """Begin before the first step."""
        self._job, self.keeps_capsules = job, True
        self.losses = torch.zeros(0)
        self._first = torch.full((), _NEVER, device=device)
        self._suspects: list[dict[str, Any]] = []

    def see(self, batch: Batch, losses: Tensor) -> None:
        """Remember the losses of a step, and on a CPU which images have one that is no number.

        A GPU is not made to wait for an answer at every step.
        """
        self.losses = losses.detach()
        bad = (~torch.isfinite(self.losses)).nonzero()[:, 0].tolist() if losses.device.type == "cpu" else []
        sets = [part.source.folder for part in self._job.mixed.parts]
        self._suspects = [
            {
                "set": str(sets[int(batch.source[at])]),
                "sample": int(batch.index[at]),
                "showing": int(batch.times_seen[at]),
            }
            for at in bad
        ]

    def note(self, step: int, norm: Tensor) -> None:
        """Remember on the device the first step 0..num_steps-1 whose gradient was not finite."""
        self._first = torch.minimum(self._first, torch.where(torch.isfinite(norm), _NEVER, step))

    def refuse(self) -> None:
        """Look whether the gradient of every step so far was finite: it is the same on all processes.

        Raises:
            VerificationError: one was not; names the step, a sample where one is known, and the capsule.
        """
        step, out = int(self._first), self._job.config.out
        if step == _NEVER:
            return
        first = (
            f" (first at sample {self._suspects[0]['sample']} of {self._suspects[0]['set']})" if self._suspects else ""
        )
        look = ""
        if self.keeps_capsules and self._job.rank == 0:
            capsule = write_capsule(self._job, step, self._suspects)
            look = f"look at it with `{typed(['train', 'replay', str(capsule)])}`, "
        before = "; the checkpoints are from before" if list_checkpoints(out / CHECKPOINTS) else ""
        raise VerificationError(
            f"{out}: step {step + 1}: the gradient is not finite{first}; {look}"
            f"lower --learning-rate and train into another --out{before}"
        )
