"""What a set holds is counted rightly, shown on one self-contained page, and damage is never counted over."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from shard_helpers import PLAN, picture, write_finished

from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import canonical_json
from synclones.base.manifest import write_manifest
from synclones.shards.index import finish_folder
from synclones.shards.read import ShardFolder
from synclones.shards.run import main
from synclones.shards.schema import FailedSample, Sample
from synclones.shards.tools.counting import count, histogram
from synclones.shards.write import ShardWriter


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten planned samples: two captions repeat, scores on most, one marked, one failed, two dropped, two sizes."""
    out = tmp_path / "set"
    out.mkdir()
    (out / "plan.json").write_bytes(canonical_json({"plan_id": PLAN, "num_shards": 1}))
    large = simplejpeg.encode_jpeg(simplejpeg.decode_jpeg(picture(0)).repeat(2, axis=1), quality=90)
    rows: list[Sample | FailedSample] = [
        Sample(
            index=n,
            jpg=large if n == 6 else picture(n),
            json=b"{}",
            txt="<b>twice</b>" if n in (1, 4) else "thrice" if n in (0, 2, 3) else f"a photo of {n}",
            label=n % 2,
            scores=json.dumps({"clip": n / 10, "nearest": "x"}) if n else "",
            reason="near duplicate" if n == 5 else "",
        )
        for n in range(7)
    ]
    rows.append(FailedSample(index=7, status="failed", reason="not finite", label=0))
    rows += [
        FailedSample(index=n, status="dropped", reason="low CLIP score", label=1, scores='{"clip": 0.01}')
        for n in (8, 9)
    ]
    with ShardWriter(out, "train-00000", PLAN) as writer:
        writer.add_batch(0, rows)
        writer.finish()
    finish_folder(out)
    write_manifest(out, "test", {}, [], {}, {}, {"classes": ["<i>zero</i>", "one", "none of it"]})
    return out


def test_everything_is_counted(folder):
    made = count(ShardFolder(folder))
    assert dict(made.statuses) == {"ok": 7, "failed": 1, "dropped": 2} and made.num_planned == 10
    assert dict(made.reasons) == {
        ("ok", "near duplicate"): 1,
        ("failed", "not finite"): 1,
        ("dropped", "low CLIP score"): 2,
    }
    assert made.classes == {0: "<i>zero</i>", 1: "one", 2: "none of it"}
    assert {label: dict(counts) for label, counts in made.per_class.items()} == {
        0: {"ok": 4, "failed": 1},
        1: {"ok": 3, "dropped": 2},
    }
    assert dict(made.sides) == {(16, 16): 6, (32, 16): 1}
    assert sorted(made.image_bytes.tolist()) == sorted(len(s.jpg) for s in ShardFolder(folder).sequential())
    assert sorted(made.scores["clip"].tolist()) == [0.01, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6] and len(made.scores) == 1
    assert list(made.repeated.items()) == [("thrice", 3), ("<b>twice</b>", 2)]
    assert made.num_captions == 4 and made.images_repeating == 5


def test_the_terminal_shows_it(folder, capsys):
    main(["stats", str(folder)])
    shown = capsys.readouterr().out
    for line in (
        "status   dropped 2, failed 1, ok 7",
        "reason   dropped: low CLIP score: 2",
        "classes  3, 0 to 4 images each, median 3",
        "fewest   2 none of it: 0, 1 one: 3",
        "pixels   16x16: 6, 32x16: 1",
        "score    clip: 8 rows, median 0.25",
        "captions 4 different; 5 images share theirs with another image",
        "         3 times: thrice",
    ):
        assert line in shown


def test_the_page_is_self_contained_and_escapes_what_others_chose(folder, tmp_path, capsys):
    out = tmp_path / "stats.html"
    main(["stats", str(folder), "--out", str(out)])
    text = out.read_text()
    assert f"wrote    {out}" in capsys.readouterr().out
    assert "&lt;b&gt;twice&lt;/b&gt;" in text and "<b>twice" not in text and "<i>zero" not in text
    assert not re.search(r"(?:src|href)=|https?://|<script", text), "one file is the whole page"
    assert text.count("<svg viewBox") == 2, "sizes and one score"
    assert "near duplicate" in text and "none of it" in text and "2 dropped" in text


@pytest.mark.parametrize(
    "values", [np.random.default_rng(0).normal(size=500), np.arange(24.0).repeat(3), np.ones(5), np.array([0.5])]
)
def test_a_histogram_holds_every_value(values):
    counts, edges = histogram(values)
    assert counts.sum() == len(values) and 1 <= len(counts) == len(edges) - 1 <= 20


def test_whole_numbers_that_are_equally_frequent_make_bars_of_one_height():
    assert set(histogram(np.arange(24.0).repeat(3))[0].tolist()) == {6}
    assert len(set(np.histogram(np.arange(24.0).repeat(3), bins=20)[0].tolist())) > 1, "the twin: equal widths do not"


def test_damage_is_said_and_not_counted_over(tmp_path):
    folder = write_finished(tmp_path / "set")
    tar = folder / "train-00001.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(VerificationError, match="train-00001.tar: sample 0000000008 is damaged"):
        main(["stats", str(folder), "--out", str(tmp_path / "stats.html")])
    assert not (tmp_path / "stats.html").exists()


def test_an_unfinished_set_is_counted_so_far_and_said_to_be_unfinished(tmp_path, capsys):
    folder = write_finished(tmp_path / "set")
    for name in ("SHA256SUMS", "info.json", "manifest.json", "train-00002.json"):
        (folder / name).unlink()
    main(["stats", str(folder)])
    shown = capsys.readouterr().out
    assert "14 images in 2 shards" in shown and "unfinished: 2 of 3 shards are complete" in shown


def test_bad_places_are_refused(tmp_path, folder):
    with pytest.raises(InputError, match="no such folder"):
        main(["stats", str(tmp_path / "none")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no finished shards"):
        main(["stats", str(tmp_path / "empty")])
