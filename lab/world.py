"""The lab's defaults for commands that were given no input: which file or folder, and how it is made when missing.

In: nothing. Out: paths, and the preset for given classes. Only ``run.py`` files import this; nothing else knows that
the lab exists.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import synclones
from synclones.base.files import write_atomic
from synclones.base.output import is_quiet, wants_json
from synclones.base.process import childs_environment, shell_code
from synclones.generate.generators.classes import own_classes, unknown_classes
from synclones.prompts.build import build
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.table import PromptTable
from synclones.shards.lock import Claim, claim

GENERATOR = Path(list(synclones.__path__)[0]) / "lab" / "generator"
SYNTHETIC, REAL_TRAIN, REAL_TEST = Path("data/lab"), Path("data/lab-real-train"), Path("data/lab-real-test")
CLONE = Path("runs/lab")
ROBUST = Path("data/lab-robust")
PROMPTS = Path("data/prompts/lab-clip-templates.parquet")
NUM_PROMPTS = 1000
CAPTIONS_PER_CLASS = 54  # as many as there are real digits to train on


def default_prompts() -> PromptTable:
    """Return the prompt table of the lab, 1,000 rows of CLIP templates over ten digits; writes nothing.

    One that is missing is built in a temporary file, whose open table outlives it; `ensure_prompts` writes it for good.
    """
    if PROMPTS.exists():
        return PromptTable(PROMPTS)
    with TemporaryDirectory(prefix="synclones-") as temporary:
        table = PromptTable(_build_prompts(Path(temporary) / PROMPTS.name))
    table.path = PROMPTS
    return table


def ensure_prompts() -> Path:
    """Return the file of `default_prompts`; build it when missing."""
    if not PROMPTS.exists():
        print(
            f"no --prompts given: building {PROMPTS} ({NUM_PROMPTS} prompts of the lab, about a second)",
            file=sys.stderr,
        )
        PROMPTS.parent.mkdir(parents=True, exist_ok=True)
        _build_prompts(PROMPTS)
    return PROMPTS


def _build_prompts(path: Path) -> Path:
    build("clip-templates", load_classes("lab-digits"), NUM_PROMPTS, 0, path)
    return path


def preset_for(class_names: Iterable[str]) -> str:
    """Return the preset for a table of these classes: the lab's for its own, else one that draws anything."""
    names = list(class_names)
    return "lab" if names and not unknown_classes(own_classes(GENERATOR), names) else "fast"


def ensure_real(split: Literal["train", "test"]) -> Path:
    """Return the lab's real digits, 540 to train on or 537 to test on; written in a second when missing."""
    from synclones.lab.real_digits import write_real_digits  # loads torch, which --help should not wait for

    folder = REAL_TEST if split == "test" else REAL_TRAIN
    with _one_at_a_time(folder):
        if (folder / "manifest.json").exists():
            return folder
        print(f"no --data given: writing {folder} (real digits of the lab, about two seconds)", file=sys.stderr)
        write_real_digits(folder, "test" if split == "test" else "classifier-train")
    return folder


def ensure_robust() -> Path:
    """Return the folder of the lab's robustness sets, the data root of the suite ``lab``; written when missing.

    Raises:
        InputError: the folder holds something else.
    """
    from synclones.lab.robust_sets import write_robust_sets  # loads torch, as above

    with _one_at_a_time(ROBUST):
        if not ROBUST.exists():
            print(f"no --data-root given: writing {ROBUST} (the lab's robustness sets, about 20 s)", file=sys.stderr)
        return write_robust_sets(ROBUST)


def write_lab_set(name: Literal["real", "test", "robust", "captions"], folder: Path) -> Path:
    """Write one of the lab's sets into a folder: real digits of either split, robustness sets, or ``captions.csv``.

    Raises:
        InputError: the folder holds something else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if name == "captions":
        return _write_captions(folder)
    if name == "robust":
        from synclones.lab.robust_sets import write_robust_sets

        return write_robust_sets(folder)
    from synclones.lab.real_digits import write_real_digits

    return write_real_digits(folder, "test" if name == "test" else "classifier-train")


def _write_captions(folder: Path) -> Path:
    """Write captions of the kind that the generator reads, 54 of each class, as a model might describe photographs."""
    import numpy as np

    from synclones.lab.captions import draw_caption

    rows = ["class,caption\n"]
    for label, class_id in enumerate(lab_classes()):
        rng = np.random.default_rng([label, CAPTIONS_PER_CLASS])
        rows += [f'{class_id},"{draw_caption(label, rng)[0]}"\n' for _ in range(CAPTIONS_PER_CLASS)]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "captions.csv", "".join(rows).encode())
    return folder


def lab_classes() -> tuple[str, ...]:
    """Return the classes of the lab's sets, in order."""
    return tuple(info.class_id for info in load_classes("lab-digits").classes)


def ensure_synthetic() -> Path:
    """Return the folder `synclones generate` draws when it is given nothing; drawn by that command when missing."""
    with _one_at_a_time(SYNTHETIC):
        if (SYNTHETIC / "manifest.json").exists():
            return SYNTHETIC
        print(f"no --data given: drawing {SYNTHETIC} ({NUM_PROMPTS} digits, about half a minute)", file=sys.stderr)
        _run("synclones.generate.run")
    return SYNTHETIC


def ensure_clone() -> Path:
    """Return the run `synclones train` makes when it is given nothing; trained by that command when missing."""
    with _one_at_a_time(CLONE):
        if (CLONE / "export" / "config.json").exists():
            return CLONE
        print(f"no --model given: training {CLONE} (about a minute)", file=sys.stderr)
        _run("synclones.train.run")
    return CLONE


def _one_at_a_time(folder: Path) -> Claim:
    """Only one of several ranks makes the folder; the others wait, and find it there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = claim(folder.parent, f"{folder.name}.lab", wait=True)
    assert held is not None, "a claim that waits is always granted"
    return held


def _run(module: str) -> None:
    """Run another stage as its own process, alone: it must not believe to be one of this stage's ranks."""
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {
        k: v for k, v in childs_environment().items() if k not in launcher and not k.startswith("TORCHELASTIC")
    }
    command = [sys.executable, "-m", module, *(["--quiet"] if is_quiet() else [])]
    done = subprocess.run(command, env=environment, stdout=2 if wants_json() else None)
    if done.returncode:
        raise SystemExit(shell_code(done.returncode))  # its own line says why
