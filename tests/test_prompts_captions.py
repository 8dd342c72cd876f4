"""Captions from files: every format reads alike, any row by itself, and a bad row is named by its number."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclones.base.errors import InputError
from synclones.prompts.build import make_table
from synclones.prompts.captions import formats as caption_formats
from synclones.prompts.captions.files import CaptionFile
from synclones.prompts.classes.lists import ClassList, load_classes
from synclones.prompts.recipe import Inputs
from synclones.prompts.run import main
from synclones.prompts.table import PromptTable
from synclones.shards.sources.images import read_images

DIGITS = load_classes("lab-digits")
NONE = ClassList("none", ())
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(lambda t: t.strip())


def _write(path, rows):
    """The rows (caption, class, source_key) in the format of the suffix."""
    if path.suffix == ".parquet":
        names = ("caption", "class", "source_key")
        pq.write_table(pa.table({n: [row[k] for row in rows] for k, n in enumerate(names)}), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"other": [1], "text": c, "label": int(k), "key": s}) for c, k, s in rows]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        quoted = [[f'"{value}"'.replace('"', '""')[1:-1] for value in (c, k, s)] for c, k, s in rows]
        path.write_text("\n".join(mark.join(row) for row in [["caption", "class", "key"], *quoted]))
    return path


def _tar(path, samples, pictures=True):
    with tarfile.open(path, "w") as tar:
        for key, members in samples:
            for name, data in {**({"jpg": b"not looked at"} if pictures else {}), **members}.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _rows(captions, n=None, classes=NONE, recipe="text-file", **inputs):
    table = make_table(recipe, Inputs(classes=classes, captions=captions, **inputs), n)
    return [row for block in table.blocks() for row in block.to_pylist()]


# ------------------------------------------------------------------ formats


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(caption_formats, "CHUNK_BYTES", 64)  # so that records meet every chunk border
    rows = [(f"caption {n}, café 猫", str(n % 10), f"s/{n}") for n in range(100)]
    if suffix == ".csv":
        rows = [(c.replace(",", ""), k, s) for c, k, s in rows]
    found = _rows(_write(tmp_path / f"c{suffix}", rows), classes=DIGITS)
    assert [(r["prompt"], r["class_id"], r["source_key"]) for r in found] == rows
    assert [r["label"] for r in found] == [n % 10 for n in range(100)]
    assert [r["caption_id"] for r in found] == [r["index"] for r in found] == list(range(100))


def test_a_plain_text_file_has_a_caption_a_line(tmp_path):
    (tmp_path / "c.txt").write_bytes("one\r\n  zwei café \n3".encode())
    assert [row["prompt"] for row in _rows(tmp_path / "c.txt")] == ["one", "zwei café", "3"]
    assert {(row["label"], row["class_id"], row["source_key"]) for row in _rows(tmp_path / "c.txt")} == {(-1, "", "")}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=40), st.integers(16, 300), st.data())
def test_quoted_values_with_line_breaks_are_cut_where_records_end(tmp_path_factory, values, chunk, data):
    path = tmp_path_factory.mktemp("csv") / "c.csv"
    texts = [f"{text}\n{text}" if broken else text for text, broken in values]
    body = "".join('{},"{}"\n'.format(n, text.replace('"', '""')) for n, text in enumerate(texts))
    path.write_text("key,caption\n" + body, newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caption_formats, "CHUNK_BYTES", chunk)
        file = CaptionFile(path)
        found = [row for first, table in file.blocks() for row in table.to_pylist()]
        assert [row["source_key"] for row in found] == [str(n) for n in range(len(texts))]
        start = data.draw(st.integers(0, len(texts) - 1))
        stop = data.draw(st.integers(start + 1, len(texts)))
        assert file.rows(start, stop).to_pylist() == found[start:stop]
    whole = [row["caption"] for row in CaptionFile(path).rows(0, len(texts)).to_pylist()]
    assert whole == [row["caption"] for row in found]
    assert all("\n" not in caption for caption in whole)


def test_foreign_shards_give_captions_with_the_keys_of_their_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_formats, "SAMPLES_PER_CHUNK", 3)
    folder = tmp_path / "laion"
    folder.mkdir()
    for tar in range(2):
        samples = [(f"{tar}{n:08d}", {"txt": f"picture {tar} {n}".encode(), "json": b"{}"}) for n in range(8)]
        _tar(folder / f"0000{tar}.tar", samples)
    rows = _rows(folder)
    assert [row["prompt"] for row in rows] == [f"picture {tar} {n}" for tar in range(2) for n in range(8)]
    source, shard, key = rows[11]["source_key"].split("/")
    assert (len(source), shard, key) == (12, "00001", "100000003")
    table = make_table("text-file", Inputs(classes=NONE, captions=folder), None)
    assert table.rows(np.array([11])).to_pylist() == [rows[11]]
    real = [image.source_key for image in read_images(folder)]
    assert [row["source_key"] for row in rows] == real, "captioning and reading name a picture alike"
    _tar(tmp_path / "one.tar", [("1", {"json": b'{"caption": "from json"}', "cls": b"3"})])
    assert [(r["prompt"], r["label"]) for r in _rows(tmp_path / "one.tar", classes=DIGITS)] == [("from json", 3)]


def test_our_own_shards_are_captions_too(dataset):
    rows = _rows(dataset, classes=DIGITS)
    assert len(rows) == 60 and rows[0]["prompt"] == "a photo of a small zero." and rows[13]["label"] == 3


def test_captions_of_any_form_are_cleaned_and_never_formatted(tmp_path, capsys):
    hostile = ["{0.__class__} %s $(rm -rf) `x` ../../etc", "a\\u202eb\\u0007c", "two\\nlines\\tand tab"]
    lines = "".join(f'{{"caption": "{text}"}}\n' for text in hostile)
    (tmp_path / "c.jsonl").write_text(lines)
    assert [r["prompt"] for r in _rows(tmp_path / "c.jsonl")] == [hostile[0], "abc", "two lines and tab"]
    out = tmp_path / "p.parquet"
    main(["--recipe", "text-file", "--captions", str(tmp_path / "c.jsonl"), "--out", str(out)])
    assert "note: 2 captions held line breaks or control characters" in capsys.readouterr().err
    PromptTable(out).check()
    for recipe in ("captions", "concept-llm"):
        (tmp_path / "d.jsonl").write_text(
            "".join(f'{{"caption": "{hostile[0]}", "class": "{n}"}}\n' for n in range(10))
        )
        assert all(hostile[0] in row["prompt"] for row in _rows(tmp_path / "d.jsonl", 20, DIGITS, recipe))


def test_one_row_of_a_long_file_costs_one_chunk(tmp_path, monkeypatch):
    path = tmp_path / "c.csv"
    path.write_text("caption,class\n" + "".join(f'"caption, {n}",{n % 10}\n' for n in range(300_000)))
    table = make_table("text-file", Inputs(classes=NONE, captions=path), None)
    read = []
    real = caption_formats.Lines.bytes_at
    monkeypatch.setattr(caption_formats.Lines, "bytes_at", lambda self, at: (read.append(at), real(self, at))[1])
    for row in (299_999, 7, 150_000, 40_000, 250_000):
        read.clear()
        assert table.rows(np.array([row]))["prompt"].to_pylist() == [f"caption, {row}"]
        assert len(read) <= 1 and all(size <= 2 * caption_formats.CHUNK_BYTES for _, size in read)


# ------------------------------------------------------------------ captions of classes


def _of_classes(tmp_path, counts):
    rows = [f"caption {k} of {label},{label},s{label}-{k}" for label, count in enumerate(counts) for k in range(count)]
    (tmp_path / "c.csv").write_text("caption,class,source_key\n" + "\n".join(rows) + "\n")
    return tmp_path / "c.csv"


def test_every_class_goes_through_its_captions_and_keeps_their_source(tmp_path):
    path = _of_classes(tmp_path, [3, 5, 1, 4, 4, 4, 4, 4, 4, 4])
    rows = _rows(path, 60, DIGITS, "captions")
    for label, count in enumerate([3, 5, 1, 4, 4, 4, 4, 4, 4, 4]):
        own = [row for row in rows if row["label"] == label]
        assert all(row["prompt"].startswith(f"{DIGITS.classes[label].name}, caption ") for row in own)
        assert len({row["prompt"] for row in own[:count]}) == min(count, 6), "each once before any again"
        assert [row["prompt"] for row in own[count:]] == [row["prompt"] for row in own[: 6 - count]]
    assert all(row["prompt"].split()[2] == row["source_key"].split("-")[1] for row in rows)
    assert {row["prompt"]: row["caption_id"] for row in rows} == {r["prompt"]: r["caption_id"] for r in reversed(rows)}
    assert _rows(path, 60, DIGITS, "captions", seed=1) != rows
    assert _rows(path, 60, DIGITS, "concept-llm")[0]["prompt"] == rows[0]["prompt"].partition(", ")[2]


@pytest.mark.parametrize("recipe", ["captions", "concept-llm", "text-file"])
def test_every_recipe_of_captions_makes_a_thousand_rows(tmp_path, recipe):
    rows = _rows(_of_classes(tmp_path, [100] * 10), 1000, DIGITS, recipe)
    assert len({row["prompt"] for row in rows}) == 1000 and {row["label"] for row in rows} == set(range(10))
    assert all(row["source_key"].startswith(f"s{row['label']}-") for row in rows)


def test_classes_are_understood_by_id_number_or_name(tmp_path):
    classes = load_classes("imagenet100")
    path = tmp_path / "c.csv"
    info = classes.classes[7]
    path.write_text(f"caption,class\na,{info.class_id}\nb,7\nc,{info.name}\n")
    assert [row["label"] for row in _rows(path, classes=classes)] == [7, 7, 7]


# ------------------------------------------------------------------ mistakes


BAD = [
    ("c.csv", "caption,class\na,0\n,1\n", "row 1 (from 0, below the header): the caption is empty"),
    ("c.csv", f"caption,class\na,0\n{'x' * 2001},1\n", "row 1 (from 0, below the header): the caption has 2001 chara"),
    ("c.csv", "caption,class\na,0\nb,c,1\n", "row 1 (from 0, below the header): has 3 columns, expected 2"),
    ("c.csv", "caption,class\na,0\nb,zwölf\n", "row 1 (from 0): class 'zwölf' is none of lab-digits"),
    ("c.csv", "caption,class\na,0\nb,\n", "row 1 (from 0): no class is given"),
    ("c.csv", "words,class\na,0\n", "the columns are ['words', 'class'], none is caption or text"),
    ("c.csv", "caption,class\n", "no captions"),
    ("c.txt", "a\n\nb\n", "c.txt:2: the caption is empty"),
    ("c.jsonl", '{"caption": "a"}\n{"caption": 3}\n', "c.jsonl:2: is no object like the first"),
    ("c.jsonl", '{"caption": "a"}\n[]\n', "c.jsonl:2: is no object like the first"),
    ("c.jsonl", '{"caption": "a"}\n\n{"caption": "b"}\n', "c.jsonl:2: is no object like the first"),
    ("c.jsonl", '{"caption": "a"}\n{"other": "b"}\n', "c.jsonl:2: the caption is empty"),
    ("c.jsonl", "hello\n", "c.jsonl:1: not JSON"),
    ("c.parquet", "hello", "not a Parquet file"),
    ("c.doc", "hello", "ends in '.doc', expected .txt, .csv"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    out = tmp_path / "out" / "p.parquet"
    with pytest.raises(InputError) as caught:
        main(
            ["--recipe", "text-file", "--classes", "lab-digits", "--captions", str(tmp_path / name), "--out", str(out)]
        )
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not out.parent.exists()


def test_bytes_that_are_no_text_are_named(tmp_path):
    for name, data in (("c.txt", b"fine\ncaf\xe9\n"), ("c.csv", b"caption\nfine\ncaf\xe9\n")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="(:2|row 1 .*): is not UTF-8"):
            CaptionFile(tmp_path / name)


def test_parquet_texts_that_are_no_utf8_are_named(tmp_path):
    raw = pa.array([b"fine", None, b"caf\xe9"], pa.binary())
    broken = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    pq.write_table(pa.table({"caption": broken}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match="row 2 .*is not UTF-8"):
        CaptionFile(tmp_path / "c.parquet")
    pq.write_table(pa.table({"caption": [["a", "b"]]}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match="row 0 .*cannot be read as text"):
        CaptionFile(tmp_path / "d.parquet")


def test_bad_captions_are_skipped_and_counted_when_asked(tmp_path):
    (tmp_path / "c.txt").write_text("a\n\nb\n" + "x" * 2001 + "\nc\n")
    table = make_table("text-file", Inputs(classes=NONE, captions=tmp_path / "c.txt", bad_captions="skip"), None)
    assert next(table.blocks())["prompt"].to_pylist() == ["a", "b", "c"]
    assert table.notes == ("2 bad rows were skipped",)


def test_classes_without_captions_are_listed(tmp_path):
    path = _of_classes(tmp_path, [3, 0, 1, 0])
    with pytest.raises(
        InputError, match="no captions for 8 of 10 classes: 'one' \\(1\\), 'three' \\(3\\), .* and 3 more"
    ):
        _rows(path, 10, DIGITS, "captions")


@pytest.mark.parametrize("recipe", ["captions", "concept-llm", "text-file"])
def test_recipes_that_need_captions_say_so(recipe, tmp_path):
    for captions, message in ((None, "needs a file or folder of captions"), (tmp_path / "no.csv", "no file or folder")):
        with pytest.raises(InputError, match=message):
            make_table(recipe, Inputs(classes=DIGITS, captions=captions), 10)


def test_more_images_than_captions_are_refused_with_the_number_there_is(tmp_path):
    (tmp_path / "c.txt").write_text("a\nb\nc\n")
    inputs = Inputs(classes=NONE, captions=tmp_path / "c.txt")
    with pytest.raises(InputError, match="13 was given, 3 captions with 4 images each make 12"):
        make_table("text-file", inputs, 13, 4)
    assert make_table("text-file", inputs, None, 4).num_images == 12


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("a\nb\nc\n")
    file = CaptionFile(path)
    path.write_text("a\nbb\n")
    with pytest.raises(InputError, match="was changed while it was read"):
        file.rows(0, 3)
