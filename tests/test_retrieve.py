"""Retrieval: a class gets the images that comparing all gives, as an index that opens like any set, and no copy."""

import csv
import hashlib
import json
import os
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import identity
from shard_helpers import picture, write_finished
from tiny_judges import write_clip

from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import lineage
from synclones.shards import column_makers
from synclones.shards.loading.mixture import parse_mixture
from synclones.shards.loading.parts import open_mixture
from synclones.shards.read import ShardFolder
from synclones.shards.run import main
from synclones.shards.similarity.embed import Embedder, find_clip
from synclones.shards.similarity.vectors import UNIT, units
from synclones.shards.sources.decode import decode_image
from synclones.shards.sources.open import open_source

NAMES = {"c0": "robin", "c1": "tabby cat", "c2": "photo of 1"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, clip) -> Path:
    """A finished set of 21 images, embedded."""
    folder = write_finished(tmp_path_factory.mktemp("sets") / "x")
    main(["retrieve", str(folder), "--model", str(clip)])
    return folder


@pytest.fixture
def folder(embedded, tmp_path) -> Path:
    shutil.copytree(embedded, tmp_path / "x")
    return tmp_path / "x"


@pytest.fixture
def classes(tmp_path) -> Path:
    path = tmp_path / "classes.csv"
    path.write_text("class_id,name\n" + "".join(f"{one},{name}\n" for one, name in NAMES.items()))
    return path


@pytest.fixture(scope="module")
def vectors(embedded, clip) -> np.ndarray:
    """What the set's images are, as the model sees them: float64[21, 16]."""
    shards = ShardFolder(embedded)
    images = [decode_image(sample.jpg) for sample in shards.sequential()]
    return Embedder(find_clip(str(clip), "--model")).images(images).astype(np.float64)


def query_vectors(clip: Path, templates=("a photo of a {}.",)) -> np.ndarray:
    embedder = Embedder(find_clip(str(clip), "--model"))
    return np.stack([embedder.texts([t.replace("{}", n) for t in templates]).mean(0) for n in NAMES.values()])


def rows_of(out: Path) -> list[dict]:
    return pq.read_table(out / "index.parquet").to_pylist()


def retrieve(folder, clip, *flags) -> None:
    main(["retrieve", str(folder), "--model", str(clip), *map(str, flags)])


# ------------------------------------------------------------------ what comes out


def test_each_class_gets_its_nearest_images_as_a_set_that_opens_in_a_mixture(folder, clip, classes, vectors, tmp_path):
    before = identity(folder)
    retrieve(folder, clip, "--classes", classes, "--neighbours", 5, "--out", tmp_path / "near")
    rows = rows_of(tmp_path / "near")
    cosines = units(vectors.astype(np.float16)).astype(float) @ units(query_vectors(clip)).astype(float).T / UNIT**2
    stored = [sample.index for sample in ShardFolder(folder).sequential()]
    wanted: dict[int, tuple[float, int]] = {}
    for label in range(3):
        for at in np.argsort(-cosines[:, label], kind="stable")[:5]:
            wanted[int(at)] = max(wanted.get(int(at), (-2, 0)), (cosines[at, label], -label))
    assert [(row["index"], row["label"]) for row in rows] == [(stored[at], -wanted[at][1]) for at in sorted(wanted)]
    # The column is float16 of the same vectors, up to batches.
    assert np.abs([row["score"] - wanted[at][0] for row, at in zip(rows, sorted(wanted), strict=True)]).max() < 3e-3

    mixed = open_mixture(parse_mixture([str(tmp_path / "near"), "total=30"]))
    (part,) = mixed.parts
    assert mixed.class_ids == tuple(NAMES) and len(part.source) == len(rows)
    for at, row in enumerate(rows):
        assert part.source.encoded(at) == picture(row["index"])
        assert (part.source.label(at), part.source.index(at)) == (row["label"], row["index"])
        assert part.source.caption(at) == f"a photo of {row['index']}" and part.source.name(at) == row["key"]
    assert identity(folder) == before
    assert sum(path.stat().st_size for path in (tmp_path / "near").iterdir()) < 30_000


def test_the_same_command_finds_its_result_and_another_one_is_refused(folder, clip, classes, tmp_path, capsys):
    given = ["--classes", classes, "--neighbours", 4, "--out", tmp_path / "near"]
    retrieve(folder, clip, *given)
    before = {path.name: path.read_bytes() for path in (tmp_path / "near").iterdir()}
    capsys.readouterr()
    retrieve(folder, clip, *given)
    assert "complete; nothing to do" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"retrieved otherwise \(neighbours 4 there, 6 asked\); choose a new folder"):
        retrieve(folder, clip, *given[:3], 6, *given[4:])
    assert {path.name: path.read_bytes() for path in (tmp_path / "near").iterdir()} == before
    # Made anew, the bytes are the same; times stand in the manifest alone.
    shutil.rmtree(tmp_path / "near")
    retrieve(folder, clip, *given)
    for name in ("index.parquet", "retrieved.json"):
        assert (tmp_path / "near" / name).read_bytes() == before[name]


def test_a_result_names_set_and_model_and_leads_back_to_them(folder, clip, classes, tmp_path, capsys):
    retrieve(folder, clip, "--classes", classes, "--out", tmp_path / "near")
    manifest = json.loads((tmp_path / "near" / "manifest.json").read_text())
    assert [parent["name"] for parent in manifest["parents"]] == ["retrieve", "model"]
    assert manifest["parents"][0]["content_hash"] == ShardFolder(folder).content_hash()
    assert manifest["content_hash"] == open_source(tmp_path / "near").content_hash()
    assert ShardFolder(folder).content_hash() in lineage(tmp_path / "near")
    assert manifest["counts"]["chosen"] == manifest["counts"]["ok"] == len(rows_of(tmp_path / "near"))


def test_a_set_that_changed_is_refused(folder, clip, classes, tmp_path):
    retrieve(folder, clip, "--classes", classes, "--out", tmp_path / "near")
    shutil.move(folder, tmp_path / "moved")
    with pytest.raises(InputError, match="is gone; put it back"):
        open_source(tmp_path / "near")
    write_finished(folder, num_shards=2)
    with pytest.raises(
        VerificationError, match=r"changed since images were retrieved .* restore it, or retrieve again"
    ):
        open_source(tmp_path / "near")


def test_a_damaged_index_is_refused(folder, clip, classes, tmp_path):
    retrieve(folder, clip, "--classes", classes, "--out", tmp_path / "near")
    data = bytearray((tmp_path / "near" / "index.parquet").read_bytes())
    data[40] ^= 1
    (tmp_path / "near" / "index.parquet").write_bytes(data)
    with pytest.raises(VerificationError, match="index.parquet: damaged"):
        open_source(tmp_path / "near")
    (tmp_path / "near" / "retrieved.json").write_text('{"format": 1}')
    with pytest.raises(VerificationError, match="not the json of retrieved images"):
        open_source(tmp_path / "near")


def test_tars_of_others_and_images_in_folders_are_embedded_where_they_lie(
    embedded, clip, classes, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    samples = list(ShardFolder(embedded).sequential())
    (tmp_path / "tars").mkdir()
    for number in range(2):
        with tarfile.open(tmp_path / "tars" / f"{number:05d}.tar", "w") as tar:
            for sample in samples[number::2]:
                path = tmp_path / f"{sample.index:09d}.jpg"
                path.write_bytes(sample.jpg)
                tar.add(path, path.name)
    (tmp_path / "images").mkdir()
    for sample in samples:
        shutil.move(tmp_path / f"{sample.index:09d}.jpg", tmp_path / "images")
    scores = {}
    for name in ("tars", "images"):
        retrieve(tmp_path / name, clip, "--classes", classes, "--neighbours", 5, "--out", tmp_path / f"of-{name}")
        source = open_source(tmp_path / f"of-{name}")
        shards = [source.open(number) for number in range(len(source.images_per_shard))]
        kept = {(Path(shard.name(row)).stem, int(shard.label[row])) for shard in shards for row in range(len(shard))}
        assert all(
            shard.image(row) == picture(int(Path(shard.name(row)).stem))
            for shard in shards
            for row in range(len(shard))
        )
        scores[name] = kept
        assert sorted(kept) == sorted((Path(row["key"]).stem, row["label"]) for row in rows_of(tmp_path / f"of-{name}"))
    assert scores["tars"] == scores["images"]
    # Another image in the folder: other contents, embedded anew, and the earlier result is refused.
    (tmp_path / "images" / "new.jpg").write_bytes(picture(99))
    with pytest.raises(InputError, match="added or removed"):
        open_source(tmp_path / "of-images")


def test_texts_templates_and_example_images_are_queries_as_well(folder, clip, classes, tmp_path, vectors):
    (tmp_path / "t.txt").write_text("a photo of a {}.\na drawing of {}\n")
    retrieve(folder, clip, "--classes", classes, "--templates", tmp_path / "t.txt", "--out", tmp_path / "a")
    prompts = [
        (one, t.replace("{}", name)) for one, name in NAMES.items() for t in ("a photo of a {}.", "a drawing of {}")
    ]
    with (tmp_path / "q.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("class_id", "prompt"), *prompts])
    retrieve(folder, clip, "--queries", tmp_path / "q.csv", "--out", tmp_path / "b")
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
    (tmp_path / "free.txt").write_text("a robin on a branch\nblue\n")
    retrieve(folder, clip, "--queries", tmp_path / "free.txt", "--out", tmp_path / "c")
    assert open_source(tmp_path / "c").class_ids == ("a robin on a branch", "blue")
    # Every image of the set against the means of its own classes.
    retrieve(folder, clip, "--examples", folder, "--neighbours", 21, "--out", tmp_path / "d")
    labels = np.array([sample.label for sample in ShardFolder(folder).sequential()])
    means = np.stack([units(vectors[labels == label]).sum(0) for label in range(3)])
    expected = (units(vectors) @ units(means).T).argmax(1)
    assert np.mean([row["label"] for row in rows_of(tmp_path / "d")] == expected) > 0.8  # near ties may turn


def test_names_in_captions_are_candidates_with_the_model_s_scores(folder, clip, classes, tmp_path):
    flags = ["--classes", classes, "--match", "substring", "--export", tmp_path / "list.csv"]
    retrieve(folder, clip, *flags, "--out", tmp_path / "near")
    rows = rows_of(tmp_path / "near")
    assert [row["index"] for row in rows] == [1, 10, 11, 12, 14, 15, 16, 17, 18, 19]  # "a photo of 1..."; 13 failed
    assert {row["label"] for row in rows} == {2}
    listed = list(csv.DictReader((tmp_path / "list.csv").open()))
    assert [float(row["score"]) for row in listed] == sorted((row["score"] for row in rows), reverse=True)
    assert {row["md5"] for row in listed} == {hashlib.md5(picture(row["index"])).hexdigest() for row in rows}
    retrieve(folder, clip, *flags[:2], "--match", "words", "--out", tmp_path / "words")
    assert [row["index"] for row in rows_of(tmp_path / "words")] == [1]


def test_images_near_a_test_image_are_left_out(folder, clip, classes, tmp_path):
    tests = tmp_path / "tests"
    tests.mkdir()
    for index in (0, 9):
        (tests / f"{index}.jpg").write_bytes(picture(index))
    flags = ["--classes", classes, "--neighbours", 21, "--out", tmp_path / "near", "--max-distance", 0]
    retrieve(folder, clip, *flags, "--against", tests)
    indices = [row["index"] for row in rows_of(tmp_path / "near")]
    assert len(indices) == 19 and not {0, 9} & set(indices)
    assert (
        json.loads((tmp_path / "near" / "manifest.json").read_text())["counts"]["near_test"] == 6
    )  # of 3 classes each


# ------------------------------------------------------------------ kills


def test_a_killed_embedding_goes_on_and_ends_with_the_same_bytes(embedded, clip, tmp_path, monkeypatch):
    folder = write_finished(tmp_path / "x")
    write, written = column_makers.write_values, []

    def dying(*args):
        written.append(1)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*args)

    pid = os.fork()
    if not pid:
        monkeypatch.setattr(column_makers, "write_values", dying)
        try:
            main(["retrieve", str(folder), "--model", str(clip)])
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    (column,) = (folder / "columns").iterdir()
    assert len(list(column.glob("*.parquet"))) == 1
    main(["retrieve", str(folder), "--model", str(clip)])
    files = {path.name: path.read_bytes() for path in column.iterdir()}
    (other,) = (embedded / "columns").iterdir()
    assert files == {path.name: path.read_bytes() for path in other.iterdir()} and len(files) == 7
    main(["verify", str(folder)])


# ------------------------------------------------------------------ embeddings made elsewhere


def write_embeddings(folder: Path, vectors: np.ndarray, keys: list[str], width: int = 16, parts: int = 2) -> Path:
    """A folder as clip-retrieval writes it: two files of embeddings in float16, and metadata of the same rows."""
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    for number, rows in enumerate(np.array_split(np.arange(len(vectors)), parts)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors[rows, :width].astype(np.float16))
        columns = {
            "image_path": [keys[row] for row in rows],
            "caption": [f"a photo of {keys[row]}" for row in rows],
            "url": [f"http://example.org/{keys[row]}" for row in rows],
            "md5": [f"{row:032x}" for row in rows],
        }
        pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


@pytest.fixture
def elsewhere(tmp_path, vectors, embedded) -> Path:
    """The embeddings of the set's images in another order, with their keys."""
    order = np.random.default_rng(0).permutation(len(vectors))
    keys = [f"{sample.index:010d}" for sample in ShardFolder(embedded).sequential()]
    return write_embeddings(tmp_path / "emb", vectors[order], [keys[at] for at in order])


def test_embeddings_made_elsewhere_give_the_same_images_and_the_list_of_their_urls(
    folder, clip, classes, tmp_path, elsewhere
):
    flags = ["--classes", classes, "--neighbours", 5]
    retrieve(folder, clip, *flags, "--out", tmp_path / "own")
    retrieve(folder, clip, *flags, "--out", tmp_path / "other", "--embeddings", elsewhere)
    own, other = rows_of(tmp_path / "own"), rows_of(tmp_path / "other")
    assert [row["index"] for row in own] == [row["index"] for row in other]
    main(
        [
            "retrieve",
            "--model",
            str(clip),
            "--embeddings",
            str(elsewhere),
            *map(str, flags),
            "--export",
            str(tmp_path / "l.parquet"),
        ]
    )
    rows = pq.read_table(tmp_path / "l.parquet").to_pylist()
    assert {(row["key"], row["class_id"], row["score"]) for row in rows} == {
        (row["key"], f"c{row['label']}", row["score"]) for row in other
    }
    assert all(row["url"] == f"http://example.org/{row['key']}" and len(row["md5"]) == 32 for row in rows)
    assert [row["class_id"] for row in rows] == sorted(row["class_id"] for row in rows)


def test_embeddings_of_another_length_width_or_set_are_refused(folder, clip, classes, tmp_path, vectors, elsewhere):
    flags = ["--classes", classes, "--out", tmp_path / "near", "--embeddings"]
    narrow = write_embeddings(tmp_path / "narrow", vectors, ["k"] * 21, width=12)
    with pytest.raises(InputError, match="vectors of 12 numbers, clip gives 16; name the model that made them"):
        retrieve(folder, clip, *flags, narrow)
    np.save(elsewhere / "img_emb" / "img_emb_1.npy", vectors[:9].astype(np.float16))
    with pytest.raises(InputError, match="img_emb_1.npy: 9 embeddings, metadata_1.parquet has 10 rows"):
        retrieve(folder, clip, *flags, elsewhere)
    shutil.rmtree(elsewhere / "metadata")
    with pytest.raises(InputError, match="20 embeddings without keys, .* has 21 images"):
        retrieve(folder, clip, *flags, elsewhere)
    strange = write_embeddings(tmp_path / "strange", vectors, [f"k{n}" for n in range(21)])
    with pytest.raises(InputError, match="none of its 21 rows is of an image"):
        retrieve(folder, clip, *flags, strange)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="neither img_emb"):
        retrieve(folder, clip, *flags, tmp_path / "none")
    assert not (tmp_path / "near").exists()


def test_an_index_made_elsewhere_is_searched_with_or_without_vectors(
    folder, clip, classes, tmp_path, vectors, elsewhere
):
    faiss = pytest.importorskip("faiss")
    arrays = [np.load(path) for path in sorted((elsewhere / "img_emb").iterdir())]
    index = faiss.IndexFlatIP(16)
    index.add(np.concatenate(arrays).astype(np.float32))
    faiss.write_index(index, str(elsewhere / "image.index"))
    flags = ["--classes", classes, "--neighbours", 5, "--embeddings", elsewhere]
    retrieve(folder, clip, *flags, "--out", tmp_path / "flat")
    retrieve(folder, clip, *flags, "--index", "given", "--out", tmp_path / "given")
    assert rows_of(tmp_path / "flat") == rows_of(tmp_path / "given")
    shutil.rmtree(elsewhere / "img_emb")
    retrieve(folder, clip, *flags, "--index", "given", "--out", tmp_path / "alone")
    rows = [(row["index"], row["label"]) for row in rows_of(tmp_path / "alone")]
    assert rows == [(row["index"], row["label"]) for row in rows_of(tmp_path / "flat")]
    with pytest.raises(InputError, match="holds an index and no vectors; use --index given"):
        retrieve(folder, clip, *flags, "--out", tmp_path / "none")
    short = faiss.IndexFlatIP(16)
    short.add(vectors[:20].astype(np.float32))
    faiss.write_index(short, str(elsewhere / "image.index"))
    with pytest.raises(InputError, match="image.index: 20 vectors, 21 rows beside it"):
        retrieve(folder, clip, *flags, "--index", "given", "--out", tmp_path / "none")


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--out", "OUT"], "--classes, --queries, --examples: give one of them"),
        (["--classes", "CLASSES"], "--classes: nothing is written; give --out, --export or both"),
        (["--classes", "CLASSES", "--examples", "SET", "--out", "OUT"], "give one of them"),
        (
            ["--queries", "Q.csv", "--templates", "imagenet", "--out", "OUT"],
            "--templates: has an effect with --classes",
        ),
        (["--queries", "Q.csv", "--match", "words", "--out", "OUT"], "--match: words needs names of classes"),
        (
            ["--queries", "Q.csv", "--classes", "CLASSES", "--out", "OUT"],
            "no prompt for 1 of 3 classes .* 'c2'; write one",
        ),
        (["--queries", "E.csv", "--out", "OUT"], "row 2 has no class_id or no prompt; complete it"),
        (["--classes", "N.csv", "--out", "OUT"], "has no class_id or no name; complete it"),
        (["--classes", "CLASSES", "--templates", "T.txt", "--out", "OUT"], "has 0 slots; write {} once"),
        (["--classes", "CLASSES", "--out", "SET"], "holds something else than retrieved images"),
        (["--classes", "CLASSES", "--index", "ivfpq", "--out", "OUT"], "ivfpq for 21 vectors, .* use --index flat"),
        (["--classes", "CLASSES", "--index", "given", "--out", "OUT"], "--index: given needs --embeddings"),
        (
            ["--classes", "CLASSES", "--min-score", "0.999", "--out", "OUT"],
            "nothing was retrieved .* lower --min-score",
        ),
        (["--classes", "CLASSES", "--top-share", "30", "--out", "OUT"], "--top-share: 30.0 was given, expected"),
        (["--classes", "CLASSES", "--export", "x.json"], "expected a name that ends in .parquet or .csv"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(folder, clip, classes, tmp_path, flags, message):
    (tmp_path / "Q.csv").write_text("class_id,prompt\nc0,a robin\nc1,a cat\n")
    (tmp_path / "E.csv").write_text("class_id,prompt\nc0,a robin\nc1,\n")
    (tmp_path / "N.csv").write_text("class_id,name\nc0,\n")
    (tmp_path / "T.txt").write_text("no slot\n")
    names = {"OUT": tmp_path / "near", "CLASSES": classes, "SET": folder}
    names |= {name: tmp_path / name for name in ("Q.csv", "E.csv", "N.csv", "T.txt")}
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        retrieve(folder, clip, *(names.get(flag, flag) for flag in flags))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "near").exists() and sorted(path.name for path in folder.rglob("*")) == before


def test_without_a_set_only_a_list_can_be_made(clip, classes, tmp_path, elsewhere):
    flags = ["--model", str(clip), "--classes", str(classes)]
    with pytest.raises(InputError, match="give the set to retrieve from"):
        main(["retrieve", *flags, "--out", str(tmp_path / "near")])
    with pytest.raises(InputError, match="--out: needs the images"):
        main(["retrieve", *flags, "--embeddings", str(elsewhere), "--out", str(tmp_path / "near")])
