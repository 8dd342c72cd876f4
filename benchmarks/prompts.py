"""Prompt tables at full size: seconds, memory and the cost of one row, and rows per second beside a plain Python loop.

Ours is measured one recipe per process, as a user runs it: choices, texts, hash, statistics, Parquet. The loop makes
the same table of CLIP templates row by row with f-strings and lets pyarrow write it, without hash or statistics.

python benchmarks/prompts.py                 # 16M rows of each recipe, about four minutes
python benchmarks/prompts.py --rows 1M
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synclones.base.config import Count, load
from synclones.prompts.build import PlannedTable, make_table
from synclones.prompts.classes.lists import ClassList, load_classes
from synclones.prompts.overview import Overview
from synclones.prompts.recipe import Inputs, keyed_hash
from synclones.prompts.recipes.clip_templates import templates
from synclones.prompts.table import SCHEMA

PEER_ROWS, ROUNDS, SINGLE_ROWS = 1_000_000, 3, 200
CASES = {
    "class-name": "imagenet1k",
    "clip-templates": "imagenet1k",
    "class-definition": "imagenet1k",
    "class-hypernym": "imagenet1k",
    "hypernym-places": "imagenet1k",
    "concept-places": "imagenet1k",
    "concept-places of wordnet-nouns": "wordnet-nouns",
    "text-file txt": "",
    "text-file csv": "",
    "text-file jsonl": "",
    "text-file parquet": "",
}


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measure prompt tables."""

    rows: Count = 16_000_000
    """Rows of each table."""
    case: str = ""
    """Measure this case in this process and print JSON; used by the command itself."""
    folder: Path = Path()
    """Folder of the captions and tables; used by the command itself."""


def main(argv: list[str]) -> None:
    """Measure all cases, each in its own process, then the loop."""
    config = load(BenchConfig, argv, "python benchmarks/prompts.py")
    if config.case:
        print(json.dumps(measure(config)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_captions(folder, config.rows)
        print(f"{'recipe':<34}{'rows':>12}{'index s':>9}{'build s':>9}{'peak MB':>9}{'one row ms':>12}")
        for case in CASES:
            command = [sys.executable, __file__, "--rows", str(config.rows), "--case", case, "--folder", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            m = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{case:<34}{config.rows:>12,}{m['index_s']:>9.1f}{m['build_s']:>9.1f}{m['peak_mb']:>9.0f}"
                f"{m['row_ms']:>12.3f}",
                flush=True,
            )
        beside_a_loop(folder)


def table_of(case: str, folder: Path, rows: int) -> PlannedTable:
    """Return the table of one case."""
    recipe, _, suffix = case.partition(" ")
    if recipe == "text-file":
        inputs = Inputs(classes=ClassList("none", ()), captions=folder / f"captions.{suffix}")
    else:
        inputs = Inputs(classes=load_classes(CASES[case]))
    return make_table(recipe, inputs, rows)


def measure(config: BenchConfig) -> dict[str, float]:
    """Return seconds for inputs (of files: a pass that checks and indexes) and building, peak memory, a row's cost."""
    started = time.perf_counter()
    table = table_of(config.case, config.folder, config.rows)
    index_s = time.perf_counter() - started
    overview = Overview(config.rows, len(table.inputs.classes.classes))
    started = time.perf_counter()
    table.write(config.folder / "out.parquet", overview.update)
    overview.finish()
    build_s = time.perf_counter() - started
    times = []
    for row in np.random.default_rng(0).integers(0, config.rows, SINGLE_ROWS):
        started = time.perf_counter()
        table.rows(np.array([row]))
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"index_s": index_s, "build_s": build_s, "peak_mb": peak, "row_ms": float(np.median(times)) * 1e3}


def write_captions(folder: Path, rows: int) -> None:
    """Write the same captions as txt, CSV (a seventh of them quoted), JSONL and Parquet, about 55 characters each."""
    # Written in blocks, so that 16 M captions need no memory.
    words = (
        "the of a dog cat house tree blue red small large over under water city street child table old field".split()
    )
    rng = np.random.default_rng(0)
    with (folder / "captions.txt").open("w") as txt, (folder / "captions.csv").open("w") as csv:
        csv.write("caption,url\n")
        with (folder / "captions.jsonl").open("w") as jsonl:
            for start in range(0, rows, 100_000):
                numbers = range(start, min(start + 100_000, rows))
                drawn = rng.integers(0, len(words), (len(numbers), 9))
                texts = [
                    " ".join(words[k] for k in row) + f" {n}" for n, row in zip(numbers, drawn.tolist(), strict=True)
                ]
                txt.write("".join(f"{text}\n" for text in texts))
                csv.write(
                    "".join(
                        f'"{t}, ""it""",http://x/{n}\n' if n % 7 == 0 else f"{t},http://x/{n}\n"
                        for n, t in zip(numbers, texts, strict=True)
                    )
                )
                jsonl.write("".join(f'{{"caption": "{text}"}}\n' for text in texts))
    with pq.ParquetWriter(folder / "captions.parquet", pa.schema([("caption", pa.string())])) as writer:
        with (folder / "captions.txt").open() as txt:
            while lines := txt.readlines(6_000_000):
                writer.write_table(pa.table({"caption": [line.rstrip("\n") for line in lines]}))


def beside_a_loop(folder: Path) -> None:
    """Compare a million CLIP templates of ImageNet, ours and the loop by turns; the tables are equal."""
    classes = load_classes("imagenet1k")
    ours, theirs = folder / "ours.parquet", folder / "loop.parquet"
    times: dict[str, list[float]] = {"ours": [], "loop": []}
    for _ in range(ROUNDS):
        for name, call in (
            ("ours", lambda: make_table("clip-templates", Inputs(classes=classes), PEER_ROWS).write(ours)),
            ("loop", lambda: loop(classes, theirs)),
        ):
            started = time.process_time()
            call()
            times[name].append(time.process_time() - started)
    assert pq.read_table(ours).replace_schema_metadata(None) == pq.read_table(theirs).replace_schema_metadata(None)
    rate = {name: PEER_ROWS / min(values) / 1e6 for name, values in times.items()}
    print(
        f"clip-templates per CPU second: ours {rate['ours']:.2f} M rows, hashed; loop {rate['loop']:.2f} M; "
        f"ratio {rate['ours'] / rate['loop']:.1f}"
    )


def loop(classes: ClassList, out: Path) -> None:
    """Write the same table by plain Python."""
    # The recipe's own order and offsets: only then can the two tables be compared for equality.
    order = np.argsort(keyed_hash(0, 0, np.arange(80)), kind="stable").tolist()
    offset = (keyed_hash(0, 1, np.arange(len(classes.classes))) % np.uint64(80)).tolist()
    parts = [tuple(text.split("{}")) for text in templates()]
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for i in range(PEER_ROWS):
        label = i % len(classes.classes)
        template = order[(i // len(classes.classes) + offset[label]) % 80]
        before, after = parts[template]
        info = classes.classes[label]
        columns["index"].append(i)
        columns["prompt"].append(f"{before}{info.name}{after}")
        columns["label"].append(label)
        columns["class_id"].append(info.class_id)
        columns["recipe"].append("clip-templates")
        columns["caption_id"].append(label * 80 + template)
        columns["source_key"].append("")
        columns["detail"].append(f'{{"template": "{templates()[template]}"}}')
    pq.write_table(pa.table(columns, schema=SCHEMA), out, compression="zstd", row_group_size=100_000)


if __name__ == "__main__":
    main(sys.argv[1:])
