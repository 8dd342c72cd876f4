"""Kills a retry at its operations, one after the other, and reruns it.

    python tests/retry_harness.py WORK_FOLDER PROMPTS KILLS

Children are forked after the generator is loaded. For each kind of operation (link, rename, append, draw) one child
dies by SIGKILL at its first one, another, in a fresh folder, at its last, others evenly between: KILLS in all; with 1
in the middle, with 0 one at each. Prints JSON: operations and kills by kind, whether every rerun ended with the bytes
of an uninterrupted retry, and whether the parent was whole after every kill; then the same for shards that are written
again in place, until the parent was lost.
"""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from multiprocessing import Value
from pathlib import Path

from kill_harness import hashes, load_once

import synclones.generate.run as run
import synclones.generate.workers as draw
import synclones.shards.write as write
from synclones.base.errors import VerificationError
from synclones.generate.batch import draw_batch
from synclones.generate.generators.generator import make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.sampling.sampler import Sampler
from synclones.prompts.table import PromptTable
from synclones.shards.read import ShardFolder
from synclones.shards.schema import Sample
from synclones.shards.tar import encode_sample
from synclones.shards.verify import verify

KINDS = ("link", "rename", "append", "draw")
SETTINGS = ["--model", "lab", "--batch-size", "5", "--images-per-shard", "10", "--num-inference-steps", "1"]
SETTINGS += ["--num-images", "40"]
BROKEN_OF_8 = 1  # of eight pictures one is broken, whichever process draws it


def break_some() -> None:
    """Pictures of some seeds are blank: a function of the seed alone."""
    real = Sampler._draw_once

    def draw(self, prompts, seeds, *more):
        images, reasons = real(self, prompts, seeds, *more)
        blank = [seed * 2654435761 % 2**32 >> 29 < BROKEN_OF_8 for seed in seeds]
        return images, ["blank picture" if is_blank else "" for is_blank in blank]

    Sampler._draw_once = draw


def arm(kind: str, countdown: int, met: dict) -> None:
    """Make this process die in the middle of the ``countdown``-th operation of a kind; count those of all kinds."""
    left = [countdown]

    def due(name: str) -> None:
        met[name].value += 1
        left[0] -= name == kind
        if name == kind and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    link, replace, append, draw = os.link, os.replace, write.append_durably, Sampler._draw_once

    def appending(file, end, data):
        if data and kind == "append" and left[0] == 1:  # half of the bytes reach the file
            append(file, end, data[: len(data) // 2])
        if data:
            due("append")
        return append(file, end, data)

    os.link = lambda *names: (link(*names), due("link"))[0]
    os.replace = lambda *names: (due("rename"), replace(*names))[1]
    write.append_durably = appending
    Sampler._draw_once = lambda *args: (due("draw"), draw(*args))[1]


def naive_retry(parent: Path) -> None:
    """What a script would do: write the broken shards again in place, at their final names."""
    plan, table = run.read_plan(parent), PromptTable(Path(sys.argv[2]))
    sampler = Sampler(
        draw.load_pipeline(make_generator(find_model(str(run.GENERATOR))), plan.scheduler, plan.dtype, "cpu"), plan
    )
    stored = ShardFolder(parent)
    for shard in range(plan.num_shards):
        if all(row.status == "ok" for row in stored.rows(plan.shard_name(shard))):
            continue
        with (parent / f"{plan.shard_name(shard)}.tar").open("wb", buffering=0) as tar:
            for batch in plan.batches(shard):
                drawn = draw_batch(plan, sampler, table.rows(batch.start, batch.stop))
                data = b"".join(encode_sample(sample)[0] for sample in drawn if isinstance(sample, Sample))
                write.append_durably(tar, tar.tell(), data)


def child(action, fate: tuple[str, int]) -> tuple[int, dict[str, int]]:
    """Run ``action`` in a fork; return its wait status and the operations that it came to, by kind."""
    met = {kind: Value("i", 0) for kind in KINDS}
    pid = os.fork()
    if pid == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        try:
            arm(*fate, met)
            action()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.__stderr__)
            os._exit(1)
    return os.waitpid(pid, 0)[1], {kind: count.value for kind, count in met.items()}


def whole(action) -> dict[str, int]:
    """Run ``action`` in a fork to its end; return its operations by kind."""
    status, operations = child(action, ("", 0))
    assert status == 0, status
    return operations


def is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except VerificationError:
        return False
    return True


def numbers(operations: int, kills: int) -> list[int]:
    """Return which operations of a kind are killed: the first, the last and others evenly between; with 0 all."""
    if not kills:
        return list(range(1, operations + 1))
    if kills == 1:
        return [1 + operations // 2 if operations > 1 else 1]
    return sorted({1 + round(at * (operations - 1) / (kills - 1)) for at in range(kills)})


def ours(folder: Path, parent: Path, again: list[str], kills: int) -> dict:
    operations = whole(lambda: run.main([*again, str(folder / "reference")]))
    reference = hashes(folder / "reference")
    counts, equal, parents, leftovers = Counter(), [], [], set()
    for kind in KINDS:
        for number in numbers(operations[kind], kills):
            out = folder / f"{kind}{number}"
            status, _ = child(lambda at=out: run.main([*again, str(at)]), (kind, number))
            assert status and os.WTERMSIG(status) == signal.SIGKILL, status
            counts[kind] += 1
            parents.append(is_whole(parent))
            whole(lambda at=out: run.main([*again, str(at)]))
            equal.append(hashes(out) == reference and is_whole(out))
            leftovers |= {path.name for path in out.glob(".train*")}
    facts = {"operations": operations, "kills": counts, "equal": equal, "whole": parents}
    return facts | {"leftovers": sorted(leftovers)}


def naive(folder: Path, parent: Path) -> dict:
    counts, parents, victim = Counter(), [], folder / "victim"
    for kind in ("append", "draw"):
        for number in range(1, 100):
            if sum(counts.values()) >= 3 and not all(parents):
                break  # that is all that it had to show
            shutil.rmtree(victim, ignore_errors=True)
            shutil.copytree(parent, victim)
            status, _ = child(lambda: naive_retry(victim), (kind, number))
            if status == 0:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            counts[kind] += 1
            parents.append(is_whole(victim))
    return {"kills": counts, "whole": parents}


def main() -> None:
    folder, prompts, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    break_some()
    load_once()
    parent = folder / "parent"
    start = ["--prompts", prompts, *SETTINGS, "--max-attempts", "1", "--workers", "1", "--out"]
    whole(lambda: run.main([*start, str(parent)]))
    again = ["--retry", "failed", "--parent", str(parent), "--max-attempts", "4", "--workers", "1", "--out"]
    print(json.dumps(ours(folder, parent, again, kills)))
    print(json.dumps(naive(folder, parent)))


if __name__ == "__main__":
    main()
