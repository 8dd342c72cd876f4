"""Quality gates: each finds what it is there for, its policy decides what becomes of the picture, and counts add up."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import simplejpeg
import torch
from conftest import GENERATOR, QUICK, identity, run_command, synclones
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_judges import write_checker, write_clip
from tiny_pipelines import write_pipeline

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.generate.gates.check import gate_names
from synclones.generate.gates.clip_score import ClipScore
from synclones.generate.gates.policy import OK, Finding, Gates, Policy
from synclones.generate.plan import read_plan
from synclones.generate.preview.rate import rate_over_time, rate_svg
from synclones.generate.run import main
from synclones.generate.sampling.seeds import sample_seed
from synclones.shards.read import ShardFolder
from synclones.shards.run import main as shards_main
from synclones.shards.similarity.embed import Embedder, find_clip
from synclones.shards.similarity.phash import distances, image_hash
from synclones.shards.sources.decode import decode_image

POLICIES = get_args(Policy)


def _draw(prompts, out, *more, n=20):
    main(["--prompts", str(prompts), "--out", str(out), *QUICK, "--num-images", str(n), *more])


def _rows(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("train-*.parquet")) for row in pq.read_table(path).to_pylist()]


def _counts(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())["counts"]


def _found(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())["gates"]


# ------------------------------------------------------------------ policies


class Finds:
    """A gate that finds what it is told to."""

    def __init__(self, reason, found):
        self.reason, self._found = reason, found

    def inspect(self, images, prompts):
        return [Finding(found, {self.reason: found}) for found in self._found]


@given(st.lists(st.tuples(st.sampled_from(POLICIES), st.booleans()), min_size=1, max_size=4))
def test_of_several_findings_one_that_fails_decides_then_one_that_drops_and_marks_add_up(given):
    gates = Gates([(Finds(f"gate {i}", [found]), policy) for i, (policy, found) in enumerate(given)])
    (verdict,) = gates.judge(np.zeros((1, 8, 8, 3), np.uint8), [""], ["a prompt"])
    found = {policy: [f"gate {i}" for i, (p, f) in enumerate(given) if f and p == policy] for policy in POLICIES}
    if found["fail"]:
        assert (verdict.status, verdict.reason) == ("failed", found["fail"][0])
    elif found["drop"]:
        assert (verdict.status, verdict.reason) == ("dropped", found["drop"][0])
    else:
        assert (verdict.status, verdict.reason) == ("ok", "; ".join(found["mark"]))
    assert json.loads(verdict.scores) == {f"gate {i}": f for i, (_, f) in enumerate(given)}


def _broken_vae(monkeypatch, wrong):
    """``wrong``: position in the batch -> what its pixels are filled with; the VAE is otherwise the real one."""
    from diffusers import AutoencoderKL

    real = AutoencoderKL.decode

    def decode(self, latents, *args, **kwargs):
        pixels = real(self, latents, *args, **kwargs)[0].clone()
        for position, value in wrong.items():
            pixels[position] = value
        return (pixels,)

    monkeypatch.setattr(AutoencoderKL, "decode", decode)


NAN, INF, BLACK, GREY = 0, 1, 2, 3  # positions in each batch of five


def _break(monkeypatch):
    _broken_vae(monkeypatch, {NAN: float("nan"), INF: float("inf"), BLACK: -1.0, GREY: 0.1})


@pytest.mark.parametrize("policy", POLICIES)
def test_broken_pictures_are_counted_and_none_is_stored_unmarked(prompts, tmp_path, monkeypatch, capsys, policy):
    _break(monkeypatch)
    _draw(prompts, tmp_path / "x", "--on-blank", policy, "--max-attempts", "2")
    counts = _counts(tmp_path / "x")
    blank = {"fail": "failed", "mark": "marked", "drop": "dropped"}[policy]
    assert _found(tmp_path / "x") == {"not finite": {"failed": 8}, "blank picture": {blank: 8}}
    assert counts["planned"] == 20 == counts["ok"] + counts["failed"] + counts["dropped"]
    for row in _rows(tmp_path / "x"):
        place = row["index"] % 5
        expected = "not finite" if place in (NAN, INF) else "blank picture" if place in (BLACK, GREY) else ""
        assert row["reason"] == expected
        assert row["attempt"] == (1 if row["status"] == "failed" else 0), "only what failed is drawn again"
    for sample in ShardFolder(tmp_path / "x").sequential():
        pixels = decode_image(sample.jpg)
        assert int(pixels.max()) - int(pixels.min()) >= 4 or sample.reason == "blank picture"
    shards_main(["verify", str(tmp_path / "x")])
    printed = capsys.readouterr().out
    assert {"fail": "16 failed", "mark": "8 failed", "drop": "8 failed, 8 dropped"}[policy] in printed


@pytest.mark.parametrize("family", ["sdxl", "sd3", "pixart"])
def test_pipelines_that_decode_themselves_are_looked_at_as_well(prompts, tmp_path, monkeypatch, family):
    model = write_pipeline(tmp_path / "model", family)
    _break(monkeypatch)
    flags = ("--prompts", str(prompts), "--num-images", "5", "--batch-size", "5", "--images-per-shard", "5")
    more = ("--num-inference-steps", "1", "--max-attempts", "1", "--on-blank", "drop")
    main(["--model", str(model), "--out", str(tmp_path / "x"), *flags, *more])
    found = [(row["status"], row["reason"]) for row in _rows(tmp_path / "x")]
    assert found[NAN] == ("failed", "not finite") and found[INF][0] != "ok"
    assert found[BLACK] == found[GREY] == ("dropped", "blank picture") and found[4] == ("ok", "")


def test_a_pipeline_without_gates_would_store_black_pictures(prompts, tmp_path, monkeypatch):
    """The must-fail twin: whoever trusts what the decoder gives stores them as if they were data."""
    _break(monkeypatch)
    monkeypatch.setattr(
        "synclones.generate.sampling.sampler.Gates.judge", lambda self, images, broken, texts: [OK] * len(images)
    )
    _draw(prompts, tmp_path / "x")
    pictures = [decode_image(sample.jpg) for sample in ShardFolder(tmp_path / "x").sequential()]
    assert len(pictures) == 20 and sum(int(p.max()) - int(p.min()) < 4 for p in pictures) == 16


def test_gates_that_are_off_leave_plan_and_bytes_as_they_were(dataset, prompts, tmp_path):
    assert not {"gates", "retries"} & set(json.loads((dataset / "plan.json").read_text()))
    _draw(prompts, tmp_path / "x", "--on-blank", "fail", "--near-duplicate-bits", "9", n=60)
    assert identity(tmp_path / "x") == identity(dataset)


def test_gates_belong_to_the_plan(prompts, tmp_path):
    _draw(prompts, tmp_path / "x", "--on-blank", "mark")
    assert read_plan(tmp_path / "x").gates == {"blank": "mark"}
    with pytest.raises(InputError, match="gates.blank 'mark' there, 'drop' asked"):
        _draw(prompts, tmp_path / "x", "--on-blank", "drop")
    with pytest.raises(InputError, match="gates.blank 'mark' there, None asked"):
        _draw(prompts, tmp_path / "x")
    main(["redraw", str(tmp_path / "x"), "--random", "20"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--min-clip-score", "0.2"], "--min-clip-score: has no effect"),
        (["--on-low-clip-score", "drop"], "--on-low-clip-score: has no effect"),
        (["--on-near-duplicate", "drop"], "--on-near-duplicate: has no effect"),
        (["--on-unsafe", "mark"], "has no safety_checker/"),
        (["--clip-score", "local-dir:nowhere"], "--clip-score: no folder 'nowhere'"),
        (["--clip-score", "nowhere"], "--clip-score: no folder 'nowhere'"),
        (["--near-duplicates-of", "nowhere"], "--near-duplicates-of: no folder 'nowhere'"),
        (["--min-clip-score", "2", "--clip-score", "x"], "expected -1 to 1"),
        (["--on-blank", "keep"], "--on-blank"),
    ],
)
def test_gates_that_cannot_work_are_refused_before_anything_is_written(prompts, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        _draw(prompts, tmp_path / "x", *flags)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ machine errors


def test_a_machine_error_ends_with_4_and_the_rerun_draws_the_same_attempt(dataset, prompts, tmp_path):
    """Out of memory in the second batch; the naive way counts it as a failed attempt and goes on with other seeds."""
    program = (
        "import sys\nimport synclones.generate.sampling.sampler as s\nfrom synclones.base.process import run_main\n"
        "from synclones.generate.run import main\nreal, calls = s.Sampler._draw_once, []\n"
        "def draw(self, prompts, seeds, *more):\n    calls.append(1)\n    if len(calls) == 2: {what}\n"
        "    return real(self, prompts, seeds, *more)\n"
        "s.Sampler._draw_once = draw\nrun_main(lambda: main(sys.argv[1:]))\n"
    )
    flags = ("--prompts", str(prompts), *QUICK, "--workers", "1")

    def run(out, what):
        return run_command(sys.executable, "-c", program.format(what=what), *flags, "--out", out, cwd=tmp_path)

    done = run("x", "raise MemoryError('4 GB asked')")
    assert done.returncode == 4 and done.stderr.count("synclones: error: out of memory") == 1
    assert not (tmp_path / "x" / "manifest.json").exists()
    assert synclones("generate", *flags, "--out", "x", cwd=tmp_path).returncode == 0
    assert identity(tmp_path / "x") == identity(dataset)
    naive = "images, _ = real(self, prompts, seeds, *more); return images, ['out of memory'] * len(prompts)"
    assert run("y", naive.replace("'out of memory'", "'not finite'")).returncode == 0
    assert identity(tmp_path / "y") != identity(dataset)


def test_an_encoder_that_fails_loses_no_sample(dataset, prompts, tmp_path, monkeypatch):
    real, calls = simplejpeg.encode_jpeg, []

    def encode(*args, **kwargs):
        calls.append(1)
        if len(calls) == 13:
            raise MemoryError("no memory for a JPEG")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(MachineError, match="no memory for a JPEG"):
        patch.setattr("synclones.generate.batch.simplejpeg.encode_jpeg", encode)
        _draw(prompts, tmp_path / "x", "--workers", "1", n=60)
    _draw(prompts, tmp_path / "x", n=60)
    assert identity(tmp_path / "x") == identity(dataset)


# ------------------------------------------------------------------ CLIP score


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


def test_the_score_is_the_cosine_that_open_clip_gives(clip, prompts, dataset, tmp_path):
    _draw(prompts, tmp_path / "x", "--clip-score", str(clip))
    samples = list(ShardFolder(tmp_path / "x").sequential())
    assert [sample.jpg for sample in samples[:20]] == [ShardFolder(dataset).get(i).jpg for i in range(20)]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{clip}")([sample.txt for sample in samples])
    pixels = torch.stack([preprocess(Image.fromarray(decode_image(sample.jpg))) for sample in samples])
    with torch.no_grad():
        cosines = torch.nn.functional.cosine_similarity(model.encode_image(pixels), model.encode_text(tokens))
    scores = [json.loads(sample.scores) for sample in samples]
    assert {tuple(score) for score in scores} == {("clip:tiny-clip",)}
    values = [score["clip:tiny-clip"] for score in scores]
    assert np.abs(np.array(values) - cosines.numpy()).max() < 0.02, "JPEG changes a little"
    assert len(set(values)) > 10 and all(value == round(value, 4) for value in values)
    assert all(sample.reason == "" for sample in samples), "without a minimum a score is only recorded"


def test_scores_do_not_depend_on_processes_or_workers(clip, prompts, tmp_path):
    flags = ("--clip-score", str(clip), "--near-duplicates-of", str(tmp_path / "few"))
    (tmp_path / "few").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "few" / "a.png")
    _draw(prompts, tmp_path / "x", *flags, "--workers", "1", n=60)
    for rank in ("0", "1"):
        command = ("generate", "--prompts", str(prompts), "--out", "y", *QUICK, *flags, "--workers", "2")
        world = {"RANK": rank, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "2"}
        assert synclones(*command, "--part", f"{2 - int(rank)}/2", cwd=tmp_path, **world).returncode == 0
    assert identity(tmp_path / "x") == identity(tmp_path / "y")


def test_a_score_does_not_depend_on_how_many_pictures_broke(clip, prompts, tmp_path, monkeypatch):
    _draw(prompts, tmp_path / "x", "--clip-score", str(clip))
    _broken_vae(monkeypatch, {NAN: float("nan"), BLACK: -1.0})
    real, seen = ClipScore.inspect, set()
    monkeypatch.setattr(ClipScore, "inspect", lambda self, *batch: (seen.add(len(batch[0])), real(self, *batch))[1])
    _draw(prompts, tmp_path / "y", "--clip-score", str(clip))
    assert seen == {5}, "every batch is scored as it was planned; fewer pictures would have other last bits"
    whole, some = _rows(tmp_path / "x"), _rows(tmp_path / "y")
    kept = [i for i in range(20) if i % 5 not in (NAN, BLACK)]
    assert [some[i]["scores"] for i in kept] == [whole[i]["scores"] for i in kept]
    assert all(some[i]["scores"] == "" for i in range(20) if i % 5 == NAN), "what is no picture has no score"
    assert all(some[i]["scores"] for i in range(20) if i % 5 == BLACK)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_low_clip_score_follows_its_policy(clip, prompts, tmp_path, policy):
    _draw(prompts, tmp_path / "all", "--clip-score", str(clip))
    scores = [json.loads(row["scores"])["clip:tiny-clip"] for row in _rows(tmp_path / "all")]
    middle = sorted(scores)[10]
    flags = ("--clip-score", str(clip), "--min-clip-score", str(middle), "--on-low-clip-score", policy)
    _draw(prompts, tmp_path / "x", *flags, "--max-attempts", "2")
    low = [i for i, score in enumerate(scores) if score < middle]
    rows = _rows(tmp_path / "x")
    assert all(row["status"] == "ok" and row["attempt"] == 0 for i, row in enumerate(rows) if i not in low)
    for row in (rows[i] for i in low):
        score = json.loads(row["scores"])["clip:tiny-clip"]
        if policy == "fail":
            assert row["attempt"] == 1 and row["seed"] == sample_seed(0, 1, row["index"])
            assert (row["status"], row["reason"]) == (("ok", "") if score >= middle else ("failed", "low clip score"))
        else:
            assert row["attempt"] == 0 and score == scores[row["index"]]
            assert (row["status"], row["reason"]) == ({"mark": "ok", "drop": "dropped"}[policy], "low clip score")
    counts = _counts(tmp_path / "x")
    assert counts["planned"] == 20 == counts["ok"] + counts["failed"] + counts["dropped"]
    main(["redraw", str(tmp_path / "x"), "--random", "20"])


def test_a_batch_drawn_again_has_its_prompts_embedded_once(clip):
    embedder, texts = Embedder(find_clip(str(clip), "--clip-score")), []
    real = embedder.texts
    embedder.texts = lambda prompts: (texts.append(prompts), real(prompts))[1]
    gate, images = ClipScore(embedder, "tiny", None), np.zeros((2, 32, 32, 3), np.uint8)
    first, again, other = (gate.inspect(images, prompts) for prompts in (["a", "b"], ["a", "b"], ["b", "a"]))
    assert texts == [("a", "b"), ("b", "a")]
    assert first == again and [look.scores for look in other] == [look.scores for look in first[::-1]]


def test_a_score_that_cannot_be_reproduced_is_noticed(clip, prompts, tmp_path, monkeypatch):
    _draw(prompts, tmp_path / "x", "--clip-score", str(clip))
    main(["redraw", str(tmp_path / "x"), "--index", "7"])
    real = ClipScore.inspect
    other = lambda self, *batch: [Finding(False, {"clip:tiny-clip": 0.5}) for _ in real(self, *batch)]  # noqa: E731
    monkeypatch.setattr(ClipScore, "inspect", other)
    with pytest.raises(VerificationError, match="image 7 .* differs from the stored one in its scores"):
        main(["redraw", str(tmp_path / "x"), "--index", "7"])
    with pytest.raises(VerificationError, match="20 of 20 images drawn again differ"):
        main(["redraw", str(tmp_path / "x"), "--random", "20"])


def test_the_weights_of_the_clip_belong_to_the_plan(clip, prompts, tmp_path):
    _draw(prompts, tmp_path / "x", "--clip-score", f"local-dir:{clip}")
    other = write_clip(tmp_path / "other" / "tiny-clip", seed=1)
    with pytest.raises(InputError, match="gates.clip_sha256 "):
        _draw(prompts, tmp_path / "x", "--clip-score", str(other))
    assert {"open_clip_torch", "torchvision", "pillow"} <= set(read_plan(tmp_path / "x").versions)


def test_a_clip_that_is_missing_pickled_or_cut_is_refused(clip, tmp_path):
    copy = Path(shutil.copytree(clip, tmp_path / "copy"))
    weights = copy / "open_clip_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-10])
    with pytest.raises(InputError, match="cut short"):
        find_clip(str(copy), "--clip-score")
    weights.unlink()
    (copy / "open_clip_pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="is a pickle"):
        find_clip(str(copy), "--clip-score")
    weights.write_bytes(data)
    (copy / "open_clip_config.json").write_text("{}")
    with pytest.raises(InputError, match="names no model_cfg"):
        find_clip(str(copy), "--clip-score")
    (copy / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 3}}))
    with pytest.raises(InputError, match="open_clip cannot load this model"):
        Embedder(find_clip(str(copy), "--clip-score"))


def test_a_name_and_tag_of_open_clip_is_its_hub_id(monkeypatch):
    asked = []
    monkeypatch.setattr("synclones.shards.similarity.embed.find_folder", lambda *args: asked.append(args) or 1 / 0)
    for name in ("ViT-B-32/laion2b_s34b_b79k", "owner/name@0123abc"):
        with pytest.raises(ZeroDivisionError):
            find_clip(name, "--clip-score")
    assert [args[:2] for args in asked] == [("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", ""), ("owner/name", "0123abc")]


# ------------------------------------------------------------------ near-duplicates of a test set


def test_the_perceptual_hash_survives_jpeg_and_size_and_tells_pictures_apart(dataset):
    rng = np.random.default_rng(0)
    hashes = []
    for _ in range(40):
        small = rng.integers(0, 255, (8, 8, 3), np.uint8)
        big = Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)
        hashes.append(image_hash(np.asarray(big)))
        brighter = np.asarray(big).astype(float) * 0.9 + 12
        for changed in (np.asarray(big.resize((160, 160))), brighter.astype(np.uint8)):
            assert distances(np.array([hashes[-1]], np.uint64), image_hash(changed))[0] <= 4
    between = [distances(np.array(hashes, np.uint64), one) for one in hashes]
    assert min(d for i, row in enumerate(between) for j, d in enumerate(row) if i != j) > 10
    assert image_hash(np.full((50, 40, 3), 77, np.uint8)) == 0


def test_the_perceptual_hash_is_the_dct_of_the_source(dataset):
    from scipy.fft import dctn

    agree = []
    for sample in ShardFolder(dataset).sequential():
        pixels = decode_image(sample.jpg)
        grey = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
        lowest = dctn(grey)[1:9, 1:9].ravel()
        bits = np.unpackbits(np.array([image_hash(pixels)], ">u8").view(np.uint8)).astype(bool)
        agree.append((bits == (lowest > np.median(lowest))).mean())
    assert min(agree) > 0.96, "rounded cosines move no more than what lies at the median"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["shards", "images"])
def test_near_duplicates_of_a_test_set_follow_their_policy(dataset, prompts, tmp_path, policy, kind):
    test_set = dataset
    if kind == "images":
        test_set = tmp_path / "test"
        for index in range(60):
            path = test_set / f"class {index % 3}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(ShardFolder(dataset).get(index).jpg)
    flags = ("--near-duplicates-of", str(test_set), "--on-near-duplicate", policy, "--near-duplicate-bits", "5")
    _draw(prompts, tmp_path / "x", *flags, "--max-attempts", "1", "--seed", "0")
    for row in _rows(tmp_path / "x"):  # every picture is in the test set, but for JPEG
        scores = json.loads(row["scores"])
        key = f"{row['index']:010d}" if kind == "shards" else f"class {row['index'] % 3}/{row['index']}.jpg"
        assert scores["test_set_distance"] <= 5 and (scores["test_set_nearest"] == key or scores["test_set_distance"])
        status = {"fail": "failed", "mark": "ok", "drop": "dropped"}[policy]
        assert (row["status"], row["reason"]) == (status, "near duplicate")
    done = {"fail": "failed", "mark": "marked", "drop": "dropped"}[policy]
    assert _found(tmp_path / "x") == {"near duplicate": {done: 20}}


def test_another_test_set_is_another_plan(dataset, prompts, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        (tmp_path / "test").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "test" / name)
    flags = ("--near-duplicates-of", str(tmp_path / "test"), "--near-duplicate-bits", "0")
    _draw(prompts, tmp_path / "x", *flags)
    assert _found(tmp_path / "x") == {}
    assert Counter(json.loads(row["scores"])["test_set_nearest"] for row in _rows(tmp_path / "x")).keys() <= {
        *("a.png", "b.png")
    }
    (tmp_path / "test" / "b.png").unlink()
    with pytest.raises(InputError, match="gates.test_set_sha256"):
        _draw(prompts, tmp_path / "x", *flags)
    (tmp_path / "test" / "a.png").unlink()
    with pytest.raises(InputError, match="holds no .jpg"):
        _draw(prompts, tmp_path / "x", *flags)


def test_a_restart_takes_the_hashes_that_are_kept_unless_the_test_set_changed(prompts, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "test").mkdir()
    for name in "ab":
        pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "test" / f"{name}.png", compress_level=0)
    flags = ("--near-duplicates-of", str(tmp_path / "test"))
    _draw(prompts, tmp_path / "x", *flags)
    before = identity(tmp_path / "x")
    (tmp_path / "x" / "train-00000.tar").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("synclones.shards.similarity.phash.hash_folder", lambda *_: 1 / 0)
        _draw(prompts, tmp_path / "x", *flags)
        assert identity(tmp_path / "x") == before
        main(["redraw", str(tmp_path / "x"), "--random", "20"])
        (tmp_path / "x" / "test_set.parquet").write_bytes(b"cut")
        with pytest.raises(ZeroDivisionError):
            _draw(prompts, tmp_path / "x", *flags)
    _draw(prompts, tmp_path / "x", *flags)
    shards_main(["verify", str(tmp_path / "x")])
    Image.fromarray(np.zeros((41, 40, 3), np.uint8)).save(tmp_path / "test" / "a.png", compress_level=0)
    with pytest.raises(InputError, match="gates.test_set_sha256"):
        _draw(prompts, tmp_path / "x", *flags)


# ------------------------------------------------------------------ safety checker


@pytest.fixture(scope="module")
def with_checker(tmp_path_factory) -> Path:
    folder = shutil.copytree(GENERATOR, tmp_path_factory.mktemp("models") / "generator")
    return write_checker(Path(folder), 0.0)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_safety_flag_follows_its_policy_and_blackens_nothing(with_checker, prompts, dataset, tmp_path, policy):
    def draw(out, *flags):
        quick = [*QUICK[2:], "--num-images", "20", "--max-attempts", "1"]
        main(["--model", str(with_checker), "--prompts", str(prompts), "--out", str(out), *quick, *flags])

    from synclones.generate.gates.unsafe import Unsafe

    plain = ShardFolder(dataset)
    pictures = np.stack([decode_image(plain.get(i).jpg) for i in range(20)])
    before = pictures.copy()
    looks = Unsafe(with_checker, "cpu").inspect(pictures, [""] * 20)
    assert (pictures == before).all() and {look.is_hit for look in looks} <= {True, False}
    draw(tmp_path / "x", "--on-unsafe", policy)
    rows = _rows(tmp_path / "x")
    flagged = [json.loads(row["scores"])["unsafe"] for row in rows]
    status = {"fail": "failed", "mark": "ok", "drop": "dropped"}[policy]
    for row, flag in zip(rows, flagged, strict=True):
        assert (row["status"], row["reason"]) == ((status, "unsafe") if flag else ("ok", ""))
    assert any(flagged)
    for sample in ShardFolder(tmp_path / "x").sequential():
        assert sample.jpg == plain.get(sample.index).jpg, "the checker changes no picture"
    done = {"fail": "failed", "mark": "marked", "drop": "dropped"}[policy]
    assert _found(tmp_path / "x") == {"unsafe": {done: sum(flagged)}}


def test_the_checker_is_loaded_only_when_asked_for_and_only_from_safetensors(
    with_checker, prompts, tmp_path, monkeypatch
):
    flags = ["--model", str(with_checker), "--prompts", str(prompts), *QUICK[2:], "--num-images", "5"]
    with monkeypatch.context() as patch:
        patch.setattr("synclones.generate.gates.unsafe.Unsafe.__init__", lambda *_: 1 / 0)
        main([*flags, "--out", str(tmp_path / "x")])
        with pytest.raises(ZeroDivisionError):
            main([*flags, "--out", str(tmp_path / "y"), "--on-unsafe", "mark"])
    copy = Path(shutil.copytree(with_checker, tmp_path / "copy"))
    weights = copy / "safety_checker" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(InputError, match="is a pickle"):
        main(["--model", str(copy), *flags[2:], "--out", str(tmp_path / "z"), "--on-unsafe", "mark"])
    assert not (tmp_path / "z").exists()


# ------------------------------------------------------------------ the contact sheet


def test_the_contact_sheet_shows_scores_marks_and_what_has_no_image(clip, prompts, tmp_path, monkeypatch):
    _broken_vae(monkeypatch, {NAN: float("nan"), GREY: 0.1})
    flags = ("--clip-score", str(clip), "--on-blank", "mark", "--max-attempts", "1")
    _draw(prompts, tmp_path / "x", *flags, n=60)
    page = (tmp_path / "x" / "preview.html").read_text()
    scores = {row["index"]: json.loads(row["scores"] or "{}").get("clip:tiny-clip") for row in _rows(tmp_path / "x")}
    ones = sorted((scores[i], i) for i in range(60) if i % 10 == 1 and scores[i] is not None)
    section = page[page.index("<h2>1 one") : page.index("<h2>2 two")]
    best, worst = section[section.index("Best CLIP scores") :].split("Worst CLIP scores")
    assert f"CLIP {ones[-1][0]:.4f}" in best and f"#{ones[-1][1]}<" in best
    assert f"CLIP {ones[0][0]:.4f}" in worst and f"#{ones[0][1]}<" in worst
    assert "Marked by the quality gates" in page and page.count("blank picture</i>") >= 12
    assert "Without an image</h3>" in page and page.count("<td>failed</td><td>not finite</td><td>1</td>") == 12
    assert 'svg class="rate"' in page and "http://" not in page


def test_the_rate_counts_every_image_once_whatever_starts_and_stops():
    runs = [np.array([[0.0, 0], [10, 100], [20, 200]]), np.array([[5.0, 0], [15, 50]]), np.array([[60.0, 0], [80, 90]])]
    rates, seconds = rate_over_time(runs)
    assert seconds == 80 and rates.sum() * seconds / len(rates) == pytest.approx(340)
    assert rates[0] == pytest.approx((200 + 50) / 20) and rates[1] == 0


def test_the_rate_is_read_from_logs_that_a_kill_cut(tmp_path):
    (tmp_path / "log").mkdir()
    events = [{"event": "start", "time": 100.0}, {"event": "shard", "time": 110.0, "drawn": 50}]
    events += [{"event": "start", "time": 150.0}, {"event": "end", "time": 160.0, "drawn": 20}]
    text = "\n".join(json.dumps(event) for event in events)
    (tmp_path / "log" / "host-1.jsonl").write_text(text + '\n{"event": "sha')
    (tmp_path / "log" / "host-2.jsonl").write_text('{"event": "start", "time": 100.0}\n')
    assert "60 s" in rate_svg(tmp_path)
    assert rate_svg(tmp_path / "nothing") == ""


def test_gates_decide_and_are_named_in_the_order_that_rows_of_every_set_have():
    assert gate_names() == ["unsafe", "clip_score", "near_duplicates"]
