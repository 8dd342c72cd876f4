"""Only what was asked for is written: what is refused leaves an empty folder as it was, and a rerun no file touched."""

import pytest
from conftest import synclones

REFUSED = [
    "prompts build --classes nope",
    "prompts build --recipe nope",
    "prompts caption --images nope",
    "prompts write --classes nope --server http://localhost:1",
    "prompts balance --captions nope.csv --concepts cifar10",
    "generate --prompts nope.parquet --preset lab",
    "generate --preset nope",
    "generate --model nope",
    "generate --preset lab --num-images 5000",
    "generate --preset lab --size-px 33",
    "generate --preset lab --part 3/2",
    "generate --preset lab --device cuda",
    "generate --preset lab --near-duplicates-of nope",
    "train --recipe nope",
    "train --recipe lab --data nope",
    "train --recipe lab --weights nope",
    "train --recipe lab --validate nope",
    "train --recipe lab --batch-norm recomputed --batch-norm-data nope",
    "train --recipe lab --device cuda",
    "train --recipe lab --objective nope",
    "train --recipe lab-clip --zero-shot-classes nope.csv",
    "evaluate --model nope",
    "evaluate --model nope --suite lab",
    "evaluate --data nope",
    "evaluate --outliers nope",
    "evaluate --device cuda",
    "evaluate --suite lab --device cuda",
    "evaluate --suite nope",
    "evaluate --suite synthetic-clones --data-root nope",
    "evaluate corrupt --data nope --out x",
    "evaluate audit nope --out y",
    "shards subset nope --per-class 3 --out y",
    "shards merge nope nope2 --out y",
    "shards export nope --to imagefolder --out y",
    "shards annotate nope --from z.csv --columns a",
    "shards dedup nope",
    "shards index nope",
    "shards retrieve nope --model x --classes cifar10 --out y",
    "ablate plan nope",
    "ablate run nope --world lab",
    "trace nope",
]


@pytest.mark.parametrize("command", REFUSED)
def test_what_is_refused_writes_nothing(tmp_path, command):
    done = synclones(*command.split(), cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and done.stderr.startswith("synclones: error: "), done.stderr
    assert list(tmp_path.iterdir()) == []
