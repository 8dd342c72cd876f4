"""Freezes parts of a network: their parameters have no gradient, and their modules are in evaluation mode throughout.

In: what a learner trains, settings. Out: parameters without gradients, and `Frozen`, which the loop asks before every
step to keep modules as they are: no dropout in them, and no statistics that move.
"""

from dataclasses import dataclass

from torch import nn

from synclones.base.errors import InputError
from synclones.train.network.parts import inner, tensors_of
from synclones.train.options.starting import FROZEN, RECOMPUTED, StartingSettings

BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Frozen:
    """The modules that are not trained."""

    modules: tuple[nn.Module, ...]

    def keep(self) -> None:
        """Put them into evaluation mode where something put them out of it."""
        for module in self.modules:
            if module.training:
                module.eval()


def freeze(network: nn.Module, config: StartingSettings) -> Frozen:
    """Take gradients from what is not trained; what a learner itself has frozen stays so.

    Raises:
        InputError: a part that the network has not, nothing left to train, or no batch normalisation to freeze.
    """
    names = {name for name, _ in network.named_parameters()}
    trained = tensors_of(network, config.train_only, "--train-only") if config.train_only else names
    trained = trained - tensors_of(network, config.freeze, "--freeze")
    for name, parameter in network.named_parameters():
        if name not in trained:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError("--train-only, --freeze: nothing is left to train; name fewer parts to freeze")
    return Frozen((*_whole(network), *_norms_to_freeze(network, config)))


def _whole(module: nn.Module) -> list[nn.Module]:
    """Return the outermost modules all of whose parameters are frozen."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return [module]
    return [frozen for child in module.children() for frozen in _whole(child)]


def _norms_to_freeze(network: nn.Module, config: StartingSettings) -> list[nn.Module]:
    if config.batch_norm not in (FROZEN, RECOMPUTED):
        return []
    norms = batch_norms(network)
    if not norms:
        raise InputError(f"--batch-norm {config.batch_norm}: the network has no batch normalisation; leave it out")
    if config.batch_norm == RECOMPUTED:
        return []
    # What begins fresh has no statistics to keep.
    prefix, _ = inner(network)
    fresh = tensors_of(network, config.reinitialise, "--reinitialise")
    return [norm for name, norm in norms.items() if f"{prefix}{name}.running_mean" not in fresh]


def batch_norms(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of the exported network that keep statistics of batches, by name."""
    _, module = inner(network)
    return {name: m for name, m in module.named_modules() if isinstance(m, BatchNorm) and m.track_running_stats}
