"""A training on foreign tars beside a synthetic set, in place and by exact counts, as one mixture."""

import json

import numpy as np
import pytest
import simplejpeg
import webdataset
from test_train import TINY

from synclones.base.errors import InputError
from synclones.shards.loading.mixture import parse_mixture
from synclones.shards.loading.parts import open_mixture
from synclones.train.run import main


@pytest.fixture
def foreign(tmp_path):
    """40 photographs of another program in two tars, jpg and cls, with the class list in another order beside them."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for shard in range(2):
        with webdataset.TarWriter(str(folder / f"real-train-{shard:05d}.tar")) as writer:
            for number in range(20):
                pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
                jpg = simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="420")
                writer.write({"__key__": f"n{shard}_{number}", "jpg": jpg, "cls": str(number % 10)})
    (folder / "classes.txt").write_text("\n".join(reversed("0123456789")) + "\n")
    return folder


def test_foreign_tars_train_beside_a_synthetic_set_with_exact_counts(dataset, foreign, tmp_path, capsys):
    data = (str(dataset), f"{foreign}/real-train-*.tar,fraction=1/2,repeat=3")
    out = tmp_path / "run"
    main(["--data", *data, "--out", str(out), *TINY])
    rows = json.loads((out / "manifest.json").read_text())["mixture"]
    assert [(row["unique"], row["per_epoch"], row["classes"]) for row in rows] == [(60, 60, 10), (20, 60, 10)]
    assert "real-train-*.tar" in capsys.readouterr().err
    parents = json.loads((out / "manifest.json").read_text())["parents"]
    assert len(parents) == 2 and all(parent["content_hash"] for parent in parents)
    # labels of the tars are matched by class id: their cls 0 is the class "9"
    mixed = open_mixture(parse_mixture(data))
    assert mixed.class_ids == tuple("0123456789") and mixed.parts[1].label_of.tolist() == list(range(9, -1, -1))
    plan = json.loads((out / "plan.json").read_text())["data"]
    assert plan[0].keys() == {"content_hash", "repeat"} and (plan[1]["groups"], plan[1]["shown"]) == (20, 60)


def test_a_set_that_changed_since_the_training_began_is_another_training(dataset, foreign, tmp_path):
    out = tmp_path / "run"
    main(["--data", str(dataset), str(foreign), "--out", str(out), *TINY])
    (foreign / "real-train-00001.tar").unlink()
    with pytest.raises(InputError, match="synclones shards index"):
        main(["--data", str(dataset), str(foreign), "--out", str(out), *TINY])
