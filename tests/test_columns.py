"""Side columns: values beside a set's images by shard and row, whole or absent, drawn by nothing but their names."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import identity
from shard_helpers import write_folder
from tiny_judges import write_clip

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import write_atomic
from synclones.shards import column_files
from synclones.shards.columns import SideColumns
from synclones.shards.read import ShardFolder
from synclones.shards.run import main
from synclones.shards.similarity import embedding
from synclones.shards.similarity.embed import Embedder, find_clip
from synclones.shards.sources.decode import decode_image
from synclones.shards.sources.images import find_images


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "x")


def stored(folder: Path) -> list[list[int]]:
    """The indices of each shard's stored samples."""
    shards = ShardFolder(folder)
    return [shards.open(name).index.tolist() for name in shards.shards]


def flat(folder: Path) -> list[int]:
    return [index for shard in stored(folder) for index in shard]


def table(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=5)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------ what goes in comes out


def test_a_column_is_read_by_shard_and_row_and_leaves_the_set_as_it_was(folder, tmp_path, capsys):
    before = identity(folder)
    index = flat(folder)[::-1]  # in any order
    source = table(tmp_path / "c.parquet", index=index, caption=[f"text {i}" for i in index], number=index)
    main(["annotate", str(folder), "--from", str(source), "--columns", "caption", "number"])
    main(["verify", str(folder)])
    assert identity(folder) == before and not list((folder / "columns").rglob(".*"))
    columns = SideColumns(folder)
    assert columns.names == ("caption", "number")
    for number, shard in enumerate(stored(folder)):
        captions = columns.column("caption")
        assert captions.index(number).tolist() == shard
        assert captions.read(number, range(len(shard))).to_pylist() == [f"text {i}" for i in shard]
        assert captions.read(number, [3, 0]).to_pylist() == [f"text {shard[3]}", f"text {shard[0]}"]
        assert columns.column("number").read(number, 1).to_pylist() == [shard[1]]
        assert columns.drawn("caption", number, 2, showing=9, seed=0) == f"text {shard[2]}"
        assert captions.caption(number, 2, 0, 0) == f"text {shard[2]}"
    capsys.readouterr()
    main(["show", str(folder)])
    assert "column  caption: text\ncolumn  number: number int64" in capsys.readouterr().out


def test_csv_and_jsonl_say_the_same_as_parquet(folder, tmp_path):
    index = flat(folder)
    rows = [{"key": f"{i:010d}", "caption": f'a "quoted", {i}', "score": i / 8} for i in index]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quoted = [f'{row["key"]},"{row["caption"].replace(chr(34), chr(34) * 2)}",{row["score"]}\n' for row in rows]
    (tmp_path / "a.csv").write_text("key,caption,score\n" + "".join(quoted))
    for kind in ("csv", "jsonl"):
        names = ["--name", f"caption-{kind}", f"score-{kind}"]
        main(["annotate", str(folder), "--from", str(tmp_path / f"a.{kind}"), "--columns", "caption", "score", *names])
    columns = SideColumns(folder)
    for column in ("caption", "score"):
        one, other = (columns.column(f"{column}-{kind}") for kind in ("csv", "jsonl"))
        values = [value for shard in range(3) for value in one.read(shard, range(7)).to_pylist()]
        assert values == [row[column] for row in rows]
        assert all(one.read(shard, range(7)).equals(other.read(shard, range(7))) for shard in range(3))


def test_numbers_with_gaps_in_a_csv_are_numbers(folder, tmp_path):
    index = flat(folder)
    (tmp_path / "a.csv").write_text("index,score\n" + "".join(f"{i},{'' if i == 3 else i}\n" for i in index))
    with pytest.raises(InputError, match=r"no 'score' for 1 of 21 images, the first is image 3; .*--allow-missing"):
        main(["annotate", str(folder), "--from", str(tmp_path / "a.csv")])
    assert not (folder / "columns").exists()
    main(["annotate", str(folder), "--from", str(tmp_path / "a.csv"), "--allow-missing"])
    values = SideColumns(folder).column("score").read(0, range(7)).to_pylist()
    assert values == [None if i == 3 else i for i in stored(folder)[0]]


def prompt_table(path: Path, folder: Path, source: str) -> Path:
    """As the prompts room writes one for captions of the set's images: up to three for an image, in any order."""
    rows = [(i, n) for i in flat(folder) for n in range(1 + i % 3)]
    rows = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]
    return table(
        path,
        index=range(len(rows)),
        prompt=[f"caption {n} of {i}" for i, n in rows],
        source_key=[f"{source}/train-{i // 8:05d}/{i:010d}" for i, _ in rows],
    )


def test_a_prompt_table_of_the_sets_images_gives_several_captions_each(folder, tmp_path):
    source = prompt_table(tmp_path / "p.parquet", folder, find_images(folder)[0])
    main(["annotate", str(folder), "--from", str(source), "--columns", "prompt"])
    column = SideColumns(folder).column("prompt")
    assert column.type.kind == "texts"
    for number, shard in enumerate(stored(folder)):
        for index, texts in zip(shard, column.read(number, range(len(shard))).to_pylist(), strict=True):
            assert sorted(texts) == [f"caption {n} of {index}" for n in range(1 + index % 3)]


def test_a_prompt_table_of_other_images_is_matched_by_its_index_and_never_by_their_keys(folder, tmp_path):
    index = range(24)  # the table that the set was drawn from: failed images have rows too
    source = table(
        tmp_path / "p.parquet",
        index=index,
        prompt=[f"prompt {i}" for i in index],
        source_key=[f"123456789abc/train-00000/{23 - i:010d}" for i in index],
    )
    with pytest.raises(InputError, match="none of its 24 rows is of an image of the set by 'source_key'"):
        main(["annotate", str(folder), "--from", str(source), "--columns", "prompt", "--by", "source_key"])
    main(["annotate", str(folder), "--from", str(source), "--columns", "prompt"])
    read = SideColumns(folder).column("prompt").read(1, range(7)).to_pylist()
    assert read == [f"prompt {i}" for i in stored(folder)[1]]


# ------------------------------------------------------------------ arrays


@pytest.mark.parametrize("stored_as, dtype", [(pa.float16(), "float16"), (pa.float32(), "float32")])
def test_arrays_keep_their_shape_and_type(folder, tmp_path, stored_as, dtype):
    index = flat(folder)
    vectors = np.random.default_rng(0).normal(size=(len(index), 4)).astype(dtype)
    arrays = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), stored_as), 4)
    main(["annotate", str(folder), "--from", str(table(tmp_path / "v.parquet", index=index, v=arrays))])
    read = SideColumns(folder).column("v").read(1, [6, 2])
    assert read.dtype == dtype and (read == vectors[[13, 9]]).all()


def test_vectors_of_several_showings_take_turns(folder, tmp_path):
    index = flat(folder)
    rows = [{"index": i, "v": [[i, 0.5], [i, 1.5], [i, 2.5]]} for i in index]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["annotate", str(folder), "--from", str(tmp_path / "v.jsonl")])
    # The same as three rows of one vector for each image.
    index3, vectors = [i for i in index for _ in range(3)], [[i, n + 0.5] for i in index for n in range(3)]
    source = table(tmp_path / "w.parquet", index=index3, w=pa.array(vectors, pa.list_(pa.float32())))
    main(["annotate", str(folder), "--from", str(source)])
    columns = SideColumns(folder)
    for name in ("v", "w"):
        assert columns.column(name).read(2, range(7)).shape == (7, 3, 2)
        for showing in range(7):
            drawn = columns.drawn(name, 2, 4, showing, seed=1)
            assert drawn.tolist() == [stored(folder)[2][4], showing % 3 + 0.5]


def test_an_image_without_a_vector_has_nan(folder, tmp_path):
    index = flat(folder)[1:]
    source = table(tmp_path / "v.parquet", index=index, v=pa.array([[float(i), 1.0] for i in index]))
    main(["annotate", str(folder), "--from", str(source), "--allow-missing", "--dtype", "float16"])
    read = SideColumns(folder).column("v").read(0, range(7))
    assert read.dtype == np.float16 and np.isnan(read[0]).all() and read[1:, 0].tolist() == stored(folder)[0][1:]


def test_embeddings_are_those_of_the_model_whatever_the_number_of_threads(folder, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip")
    made = []
    for threads in (1, 3):
        monkeypatch.setattr(embedding, "cores", lambda threads=threads: threads)
        main(["annotate", str(folder), "--embed", str(clip), "--name", f"clip{threads}"])
        made.append((folder / "columns" / f"clip{threads}" / "train-00001.parquet").read_bytes())
    assert made[0] == made[1]
    shard = ShardFolder(folder).open("train-00001")
    images = [decode_image(shard.image(row)) for row in range(7)]
    expected = Embedder(find_clip(str(clip), "--embed")).images(images).astype(np.float16)
    read = SideColumns(folder).column("clip1").read(1, range(7))
    assert read.dtype == np.float16 and read.shape == (7, 16) and np.abs(read - expected).max() < 2e-3
    facts = json.loads((folder / "columns" / "clip1" / "column.json").read_text())
    assert facts["made_by"]["model"] == "clip" and len(facts["made_by"]["sha256"]) == 64


# ------------------------------------------------------------------ drawing


def test_the_caption_of_a_showing_is_a_function_of_seed_image_and_showing_and_each_is_drawn_equally_often(
    folder, tmp_path
):
    source = prompt_table(tmp_path / "p.parquet", folder, find_images(folder)[0])
    main(["annotate", str(folder), "--from", str(source), "--columns", "prompt"])
    columns, again = SideColumns(folder), SideColumns(folder, cache_bytes=0)
    row = stored(folder)[0].index(2)  # three captions
    drawn = [columns.drawn("prompt", 0, row, showing, seed=3) for showing in range(3000)]
    backwards = [again.drawn("prompt", 0, row, showing, seed=3) for showing in reversed(range(0, 3000, 50))]
    assert backwards[::-1] == drawn[::50]
    assert drawn != [columns.drawn("prompt", 0, row, showing, seed=4) for showing in range(3000)]
    second = stored(folder)[1].index(11)
    other = [columns.drawn("prompt", 1, second, showing, seed=3) for showing in range(50)]
    assert [text[8] for text in other] != [text[8] for text in drawn[:50]], "images draw on their own"
    counts = [drawn.count(f"caption {n} of 2") for n in range(3)]
    assert sum(counts) == 3000 and all(abs(count - 1000) < 5 * np.sqrt(3000 * 2 / 9) for count in counts)


def test_what_is_kept_in_memory_is_bounded(folder, tmp_path):
    index = flat(folder)
    source = table(tmp_path / "v.parquet", index=index, v=pa.array(np.zeros((21, 256)).tolist()))
    main(["annotate", str(folder), "--from", str(source)])
    columns = SideColumns(folder, cache_bytes=2 * 7 * (256 * 4 + 8))
    for shard in (0, 1, 2, 0, 1):
        columns.column("v").read(shard, 0)
    assert list(columns._kept) == [("v", 0), ("v", 1)]


# ------------------------------------------------------------------ refused


BAD = {
    "no index": (dict(caption=["a"]), "none is 'source_key' or 'index' or 'key'; say which image a row is of"),
    "two columns": (dict(index=[0], a=["x"], b=["y"]), "--columns: .* has index, a, b; say which to take"),
    "null index": (dict(index=pa.array([0, None]), a=["x", "y"]), "a row has none .null.; give every row its image"),
    "texts as index": (dict(index=["x"], a=["x"]), "column 'index': holds string, expected whole numbers"),
    "negative": (dict(index=[-1], a=["x"]), "-1 to -1, expected 0 to 2"),
    "of none": (dict(index=[900], a=["x"]), "none of its 1 rows is of an image of the set by 'index'"),
    "ragged": (dict(index=range(24), a=[[1.0] * (1 + i % 2) for i in range(24)]), "its lists have 2 lengths"),
    "ragged blocks": (dict(index=range(24), a=[[1.0] * (1 + i // 20) for i in range(24)]), "holds .* and .*make them"),
    "not finite": (dict(index=range(24), a=[[float("nan")]] * 24), "a number is not finite"),
    "dates": (dict(index=range(24), a=pa.array([0] * 24, pa.date32())), "holds date32.* expected texts, numbers"),
    "two numbers": (dict(index=[*range(24), 3], a=range(25)), "up to 2 rows for an image; give one for each"),
    "uneven": (dict(index=[*range(24), 3], a=[[1.0]] * 25), "1 to 2 rows for an image; give equally many arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_written(folder, tmp_path, case):
    columns, words = BAD[case]
    before = files_of(folder)
    with pytest.raises(InputError, match=words):
        main(["annotate", str(folder), "--from", str(table(tmp_path / "t.parquet", **columns))])
    assert files_of(folder) == before


def test_flags_that_say_nothing_together_are_refused(folder, tmp_path):
    source = str(table(tmp_path / "t.parquet", index=range(24), a=range(24)))
    for flags, words in (
        ([], "--from or --embed: give one"),
        (["--from", source, "--embed", "m"], "--from or --embed: give one"),
        (["--from", source, "--name", "../x"], "--name: '../x' was given, expected letters"),
        (["--from", source, "--name", "a", "b"], "expected 1 different names"),
        (["--from", source, "--columns", "b"], "--columns: .* has no 'b', it has index, a"),
        (["--from", str(tmp_path / "none.csv")], "--from: no file"),
        (["--from", str(folder / "plan.json")], "a name that ends in"),
        (["--embed", "m"], "--name: name the column of embeddings"),
        (["--embed", "m", "--name", "x", "--allow-missing"], "--allow-missing: has no effect"),
    ):
        with pytest.raises(InputError, match=words):
            main(["annotate", str(folder), *flags])
    assert not (folder / "columns").exists()


def test_the_same_name_for_something_else_is_refused_and_the_same_again_is_nothing(folder, tmp_path, capsys):
    source = table(tmp_path / "t.parquet", index=range(24), a=range(24))
    main(["annotate", str(folder), "--from", str(source)])
    before = files_of(folder)
    main(["annotate", str(folder), "--from", str(source)])
    assert "0 of 3 shards written by this process" in capsys.readouterr().out and files_of(folder) == before
    table(source, index=range(24), a=range(1, 25))
    with pytest.raises(InputError, match=r"columns/a: was made from something else \(sha256 .*; choose another --name"):
        main(["annotate", str(folder), "--from", str(source)])
    assert files_of(folder) == before


def test_an_unfinished_set_is_refused(folder, tmp_path):
    (folder / "SHA256SUMS").unlink()
    source = table(tmp_path / "t.parquet", index=range(24), a=range(24))
    with pytest.raises(VerificationError, match="SHA256SUMS: missing; the folder is unfinished"):
        main(["annotate", str(folder), "--from", str(source)])


# ------------------------------------------------------------------ damage


def flip(path: Path, at: int = 60) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def swap(folder: Path) -> None:
    for suffix in ("parquet", "json"):
        one, other = (folder / f"train-0000{n}.{suffix}" for n in (0, 1))
        one_bytes = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(one_bytes)


DAMAGES = {
    "a byte": (lambda c: flip(c / "train-00001.parquet"), "train-00001.parquet: damaged .other bytes"),
    "cut": (lambda c: os.truncate(c / "train-00001.parquet", 50), "train-00001.parquet: "),
    "gone": (lambda c: (c / "train-00001.parquet").unlink(), "train-00001.parquet: missing"),
    "json gone": (lambda c: (c / "train-00001.json").unlink(), "train-00001.parquet: missing"),
    "json broken": (lambda c: (c / "train-00001.json").write_text("{}"), "train-00001.(parquet|json): "),
    "swapped": (swap, r"belongs to another train-0000[01].tar"),
    "column.json": (lambda c: (c / "column.json").write_text("{}"), "column.json: not the json of a column"),
    "another type": (
        lambda c: write_atomic(c / "column.json", (c / "column.json").read_bytes().replace(b'"text"', b'"texts"')),
        "damaged .other rows or columns",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_found_by_verify_and_by_reading(folder, tmp_path, case):
    source = table(tmp_path / "t.parquet", index=range(24), a=[f"text {i}" for i in range(24)])
    main(["annotate", str(folder), "--from", str(source)])
    damage, words = DAMAGES[case]
    damage(folder / "columns" / "a")
    with pytest.raises(VerificationError, match=words):
        main(["verify", str(folder)])
    with pytest.raises(VerificationError, match=words):
        SideColumns(folder).column("a").read(1, 0)


def test_a_column_of_other_indices_with_right_hashes_is_found_by_verify(folder, tmp_path):
    source = table(tmp_path / "t.parquet", index=range(24), a=range(24))
    main(["annotate", str(folder), "--from", str(source)])
    path = folder / "columns" / "a" / "train-00001"
    rows = pq.read_table(path.with_suffix(".parquet"))
    pq.write_table(rows.set_column(0, "index", pa.array(np.arange(7), pa.int64())), path.with_suffix(".parquet"))
    data = path.with_suffix(".parquet").read_bytes()
    record = json.loads(path.with_suffix(".json").read_text())
    record |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(VerificationError, match="its indices are not those of train-00001.tar"):
        main(["verify", str(folder)])


def test_a_few_bytes_that_stand_for_many_texts_are_refused(folder, tmp_path, monkeypatch):
    source = table(tmp_path / "t.parquet", index=range(24), a=["x" * 1000] * 24)
    main(["annotate", str(folder), "--from", str(source)])
    monkeypatch.setattr("synclones.shards.column_files.MAX_VALUES", 5000)
    with pytest.raises(VerificationError, match="over 5000 bytes of text"):
        SideColumns(folder).column("a").read(0, 0)


# ------------------------------------------------------------------ kills and several processes


class Killed(BaseException):
    """What nothing catches."""


def test_killed_at_every_write_and_run_again_gives_the_same_bytes(tmp_path, monkeypatch):
    source = table(tmp_path / "t.parquet", index=range(24), a=[f"text {i}" for i in range(24)])
    whole, killed = write_folder(tmp_path / "whole"), write_folder(tmp_path / "killed")
    main(["annotate", str(whole), "--from", str(source)])
    expected = {p.name: p.read_bytes() for p in whole.glob("columns/a/[!.]*")}
    write, left, kills = column_files.write_atomic, [0], []

    def dying(path, data):
        left[0] -= 1
        if left[0] == 0:
            path.with_name(f".{path.name}.tmp-1-00000000").write_bytes(data[:10])
            raise Killed
        write(path, data)

    monkeypatch.setattr(column_files, "write_atomic", dying)
    for left[0] in (1, 1, 2, 1, 2, 3, 99):  # column.json, the first shard's values, their json, ...
        try:
            main(["annotate", str(killed), "--from", str(source)])
        except Killed:
            kills.append(left[0])
        visible = {p.name: p.read_bytes() for p in killed.glob("columns/a/[!.]*")}
        assert all(expected[name] == data for name, data in visible.items())
    assert len(kills) == 6 and files_of(killed) == files_of(whole)


def test_two_processes_divide_the_shards(tmp_path):
    folder = write_folder(tmp_path / "x", num_shards=6)
    source = table(tmp_path / "t.parquet", index=range(48), a=[f"text {i}" for i in range(48)])
    slow = (
        "import sys, time\nfrom synclones.shards.run import main\nfrom synclones.shards import column_makers\n"
        "write = column_makers.write_values\n"
        "column_makers.write_values = lambda *rest: (time.sleep(0.3), write(*rest))\nmain(sys.argv[1:])"
    )
    command = [sys.executable, "-c", slow, "annotate", str(folder), "--from", str(source)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in running]
    written = [int(re.search(r"(\d+) of 6 shards written", output)[1]) for output in outputs]
    assert sum(written) == 6 and min(written) > 0
    main(["verify", str(folder)])
