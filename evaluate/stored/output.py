"""The folder of results: refused when it cannot be one, and one evaluation's while that writes into it.

In: `EvaluateConfig`. Out: nothing, or an error; `owned` is a block in which no other evaluation writes there.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from synclones.base.errors import InputError, MachineError, one_line
from synclones.base.files import refuse_other_kinds
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.stored.results import read_cells, refuse_mixture, refuse_other_deviations, refuse_other_outliers
from synclones.shards.lock import claim

LOGITS, REPORT = "logits", "report.html"
FILES = ("table.md", "table.csv", "table.tex", "figures.csv", "results.jsonl", REPORT, MANIFEST_FILE)
# What other stages and other programs keep in their folders, and no evaluation in its own.
FOREIGN = ("plan.json", "config.json", "checkpoints", "export", "*.tar", "*.safetensors", "*.parquet", "*.part")


def refuse_output(config: EvaluateConfig) -> None:
    """Refuse what is no folder of results, or one of other settings; nothing is written.

    Raises:
        InputError: a file or a device is in the way, a link leads nowhere, the folder is another stage's or a model's,
            its results are of another seed, of other bins or resamples.
        VerificationError: a result in it is damaged.
    """
    for path in (config.out, *config.out.parents, config.out / LOGITS):
        if os.path.lexists(path) and not path.is_dir():
            kind = "a link that leads to no folder" if path.is_symlink() else "a file"
            raise InputError(f"--out {config.out}: {path} is {kind}; give a folder, new or of an earlier evaluation")
    if (config.out / MANIFEST_FILE).exists() and (stage := read_manifest(config.out)["stage"]) != "evaluate":
        raise InputError(f"--out {config.out}: belongs to `synclones {stage}`; give a new folder")
    foreign = next((path for pattern in FOREIGN for path in config.out.glob(pattern)), None)
    if foreign is not None:
        raise InputError(f"--out {config.out}: holds {foreign.name}, which no evaluation writes; give a new folder")
    refuse_other_kinds(config.out, FILES)
    refuse_other_settings(config)


def refuse_other_settings(config: EvaluateConfig) -> None:
    """Refuse a folder whose results are of another seed, of other bins or resamples, or follow other deviations.

    Checksums are left to whoever reads the numbers: one that differs is told of where it is compared.

    Raises:
        InputError: when they are.
        VerificationError: a result is damaged.
    """
    wanted = {"seed": config.seed, "bins": config.ece_bins, "resamples": config.resamples}
    cells = read_cells(config.out, checked=False)
    refuse_mixture(cells, config.out, wanted)
    if "paper" in config.protocol:
        refuse_other_deviations(cells, config.out, config.deviations)


def refuse_outliers(config: EvaluateConfig, content_hashes: dict[str, str]) -> None:
    """Refuse a folder that holds results of other outliers under one of these names (name -> content hash).

    Raises:
        InputError: when it does.
        VerificationError: a result is damaged.
    """
    refuse_other_outliers(read_cells(config.out, checked=False), config.out, content_hashes)


@contextlib.contextmanager
def owned(out: Path, timeout_s: float) -> Iterator[None]:
    """Hold the folder, waiting while another evaluation writes into it.

    Raises:
        MachineError: when that takes longer than ``timeout_s``.
    """
    started, announced = time.monotonic(), False
    while (held := claim(out, "results")) is None:
        waited = time.monotonic() - started
        if waited > 1 and not announced:
            print(one_line(f"{out}: another evaluation writes here; waiting"), file=sys.stderr, flush=True)
            announced = True
        if waited > timeout_s:
            raise MachineError(
                f"{out}: another evaluation has been writing here for {timeout_s:.0f} s; wait for it, then run the "
                "same command again"
            )
        time.sleep(0.1)
    with held:
        try:
            yield
        finally:
            held.path.unlink(missing_ok=True)
