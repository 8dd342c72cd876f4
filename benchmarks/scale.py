"""Plans at full size with an image that costs nothing: seconds to start and to resume, memory, rate of verifying.

A sampler that returns the same 8x8 px image replaces the model, so that only the plan, the journal, the shards and
the indexes are measured. Starting is measured at 16 M samples, drawing, resuming and verifying at ``--images``.

python benchmarks/scale.py                  # 1 M images, 4.4 GB under --folder, about four minutes
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synclones.base.config import Count, load
from synclones.prompts.build import build
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.schema import PromptRow

PLANNED = 16_000_000


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Measure plans at full size."""

    images: Count = 1_000_000
    """Images that are stored and verified."""
    folder: Path = Path(tempfile.gettempdir())
    """Folder for them, on a disk with 4.4 KB for each; removed at the end."""
    step: str = ""
    """One step, in this process; used by the command itself."""


def main(argv: list[str]) -> None:
    """Measure each step in its own process."""
    config = load(ScaleConfig, argv, "python benchmarks/scale.py")
    if config.step:
        print(json.dumps(run(config.step, config.folder, config.images)))
        return
    with tempfile.TemporaryDirectory(dir=config.folder) as name:
        folder = Path(name)
        build("clip-templates", load_classes("imagenet1k"), PLANNED, 0, folder / "p.parquet")
        for step in ("plan", "draw", "resume", "again"):
            m = _step(step, folder, config.images)
            print(
                f"{step:<7} {m['samples']:>12,} samples {m['seconds']:>7.1f} s, peak {m['peak_mb']:.0f} MB", flush=True
            )
        size = sum(path.stat().st_size for path in (folder / "out").iterdir() if path.is_file())
        m = _step("verify", folder, config.images)
        print(f"verify  {size / 1e9:.2f} GB in {m['cpu_s']:.1f} CPU s: {size / 1e9 / m['cpu_s']:.2f} GB/s per core")


def _step(step: str, folder: Path, images: int) -> dict[str, float]:
    started = time.perf_counter()
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--images", str(images)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - started}


class FreeSampler:
    """A sampler that costs nothing, in place of a model."""

    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)

    def __init__(self, *_: object):
        """Load nothing."""

    def draw(self, rows: Sequence[PromptRow], *_: object) -> list:
        """Return the same image for each row."""
        from synclones.generate.gates.policy import OK
        from synclones.generate.sampling.sampler import DrawnImage

        return [DrawnImage(image=self.image, seed=row.index, attempt=0, verdict=OK) for row in rows]


def run(step: str, folder: Path, images: int) -> dict[str, float]:
    """Generate with the free sampler, through the entry point; or verify."""
    import synclones.generate.run as generate
    import synclones.generate.sampling.sampler as sample
    import synclones.generate.workers as draw
    from synclones.shards.run import main as shards

    # Peak memory and CPU time are those of the process, so that every step needs its own.
    out = folder / ("plan" if step == "plan" else "out")
    samples = PLANNED if step == "plan" else images
    if step == "verify":
        shards(["verify", str(out)])
    else:
        if step == "resume":  # the last tenth of the shards is missing, as after a kill
            done = sorted(out.glob("train-*.json"))
            for path in done[-max(1, len(done) // 10) :]:
                for suffix in (".json", ".tar", ".parquet"):
                    path.with_suffix(suffix).unlink()
            (out / "manifest.json").unlink()
        sample.Sampler = FreeSampler  # type: ignore[assignment,misc]
        draw.load_pipeline = lambda *_: None  # type: ignore[assignment,return-value]
        flags = [
            "--preset",
            "lab",
            "--prompts",
            str(folder / "p.parquet"),
            "--out",
            str(out),
            "--images-per-shard",
            "10k",
        ]
        generate.main([*flags, "--num-images", str(samples), *(["--plan-only"] if step == "plan" else [])])
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"samples": samples, "peak_mb": used.ru_maxrss / 1e3, "cpu_s": used.ru_utime + used.ru_stime}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
