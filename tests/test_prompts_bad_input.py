"""Prompt tables and class lists from elsewhere: what is damaged, ambiguous or unprintable is named before use."""

import hashlib
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synclones.base.errors import InputError
from synclones.prompts import table as table_module
from synclones.prompts.build import MAX_SEED, build, make_table
from synclones.prompts.characters import has_unprintable, printable
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.recipe import Inputs
from synclones.prompts.run import DEFAULT_OUT, main
from synclones.prompts.table import SCHEMA, PromptTable, class_names

DIGITS = load_classes("lab-digits")
ROWS = 20


@pytest.fixture
def columns(tmp_path):
    """The columns of a good table, without its metadata."""
    path = tmp_path / "good.parquet"
    build("clip-templates", DIGITS, ROWS, 0, path)
    return {name: pq.read_table(path).column(name) for name in SCHEMA.names}


def _write(path, columns):
    pq.write_table(pa.table(columns), path)
    return PromptTable(path)


def _with(columns, name, value, kind=None):
    values = columns[name].to_pylist()
    values[5] = value
    return {**columns, name: pa.array(values, kind or SCHEMA.field(name).type)}


# ------------------------------------------------------------------ the identity, by the page


def test_the_content_hash_follows_its_definition_without_arrow(tmp_path):
    digest = build("clip-templates", DIGITS, ROWS, 7, tmp_path / "p.parquet")
    table = make_table("clip-templates", Inputs(classes=DIGITS, seed=7), ROWS)
    block = next(table.blocks()).to_pydict()
    total = hashlib.sha256()
    for name in ("index", "prompt", "label", "class_id", "recipe", "caption_id", "source_key", "detail"):
        values = list(block[name])
        if isinstance(values[0], str):
            texts = [value.encode() for value in values]
            lengths = b"".join(struct.pack("<q", len(text)) for text in texts)
            inner = hashlib.sha256(hashlib.sha256(lengths).digest() + hashlib.sha256(b"".join(texts)).digest()).digest()
        else:
            inner = hashlib.sha256(b"".join(struct.pack("<q", value) for value in values)).digest()
        total.update(name.encode() + b"\0" + inner)
    assert digest == total.hexdigest() == table.content_hash()


def test_the_first_prompts_are_fixed():
    texts = next(make_table("clip-templates", Inputs(classes=DIGITS), 4).blocks())["prompt"].to_pylist()
    assert texts == ["a photo of a small zero.", "a plastic one.", "itap of a two.", "a bright photo of a three."]


# ------------------------------------------------------------------ rows


@pytest.mark.parametrize("text", ["a\tb", "a\x1bb", "a\x85b", "a\u2028b", "a\u202eb", "a\u2066b", "a\0b"])
@pytest.mark.parametrize("name", ["prompt", "class_id", "recipe", "source_key", "detail"])
def test_unprintable_characters_are_refused_in_every_text(tmp_path, columns, name, text):
    with pytest.raises(InputError, match=f"row 5: {name} .*control character"):
        _write(tmp_path / "x.parquet", _with(columns, name, text)).check()


@pytest.mark.parametrize("text", ["日本の猫", "naïve café", "שלום\u200f", "{} %s $(x) ../ <b>", "😀"])
def test_other_writing_is_accepted_and_read_back(tmp_path, columns, text):
    table = _write(tmp_path / "x.parquet", _with(columns, "prompt", text))
    table.check()
    assert table.rows(5, 6)[0].prompt == text and printable(text) == text


@pytest.mark.parametrize(("name", "limit"), [("class_id", 64), ("recipe", 64), ("source_key", 500), ("detail", 4000)])
def test_texts_have_a_largest_length(tmp_path, columns, name, limit):
    _write(tmp_path / "x.parquet", _with(columns, name, "x" * limit)).check()
    with pytest.raises(InputError, match=f"row 5: {name} .* longer than {limit}"):
        _write(tmp_path / "x.parquet", _with(columns, name, "x" * (limit + 1))).check()


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("label", 2**31, pa.int64()), ("caption_id", 2**63, pa.uint64()), ("index", 2**63, pa.uint64())],
)
def test_a_number_too_large_for_its_column_is_named(tmp_path, columns, name, value, kind):
    with pytest.raises(InputError, match=f"row 5: {name} {value} is above"):
        _write(tmp_path / "x.parquet", _with(columns, name, value, kind)).check()


def test_a_lone_surrogate_is_named_when_checked_and_when_read(tmp_path, columns):
    raw = pa.array([b"\xed\xa0\x80" if k == 5 else b"fine" for k in range(ROWS)], pa.binary())
    broken = pa.StringArray.from_buffers(ROWS, raw.buffers()[1], raw.buffers()[2])
    table = _write(tmp_path / "x.parquet", {**columns, "prompt": broken})
    for use in (table.check, lambda: table.rows(0, 1), lambda: main(["show", str(tmp_path / "x.parquet")])):
        with pytest.raises(InputError, match="row 5: prompt is not UTF-8"):
            use()


# ------------------------------------------------------------------ files


def test_every_flipped_byte_is_refused_or_harmless(tmp_path):
    path = tmp_path / "p.parquet"
    digest = build("clip-templates", load_classes("imagenet1k"), 3000, 0, path)
    good, refused = path.read_bytes(), 0
    for at in range(4, len(good), len(good) // 150):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            assert PromptTable(path).check() == digest
        except InputError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 50


def test_a_damaged_page_names_its_rows(tmp_path, columns):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False)
    first = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(path.read_bytes())
    middle = first.data_page_offset + first.total_compressed_size // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged in rows 0 to 19 .*build it again"):
        PromptTable(path).check()


def test_a_column_that_stands_twice_is_refused(tmp_path, columns):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns).append_column("prompt", columns["prompt"]), path)
    with pytest.raises(InputError, match="column 'prompt' appears twice"):
        PromptTable(path)


def test_a_row_group_too_large_to_read_whole_is_refused(tmp_path, columns, monkeypatch):
    monkeypatch.setattr(table_module, "MAX_GROUP_ROWS", ROWS - 1)
    with pytest.raises(InputError, match="a row group has 20 rows.*row_group_size=100000"):
        _write(tmp_path / "x.parquet", columns)


@pytest.mark.parametrize("text", ['{"content_sha256": 5}', '{"content_sha256": null}'])
def test_a_stated_hash_of_another_type_is_a_changed_table(tmp_path, columns, text):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata({"synclones": text}), path)
    with pytest.raises(InputError, match="rows were changed"):
        PromptTable(path).check()


@pytest.mark.parametrize("names", [5, [1], None, "x"])
def test_class_names_of_another_shape_are_none(names):
    assert class_names({"class_names": names}) == {}


# ------------------------------------------------------------------ class lists


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('name\n"cat\ndog\n', ":3: not a CSV line .*quotes"),
        ('class_id,name\na,"ca\nt"\n', ":3: the name 'ca\\\\nt' holds a control character"),
        ("class_id,name\na,c\x0bt\nb,dog\n", ":2: the name 'c\\\\x0bt' holds a control character"),
        ("name\ncat\u2028x\n", ":2: .*control character"),
        ("name\ncat\u202e\n", ":2: .*control character"),
        (f"name\n{'x' * 200_000}\n", ":2: not a CSV line .*limit"),
        ("name\ncat\n猫\n", ":3: no class_id can be made of '猫'; add a column class_id"),
        ("name,name\na,b\n", ":1: the column 'name' appears twice"),
        (f"class_id,name\n{'x' * 65},cat\n", ":2: the class_id has 65 characters"),
        ("", ":1: the header is \\[\\]"),
    ],
)
def test_a_class_list_that_could_be_misread_is_refused(tmp_path, data, message):
    path = tmp_path / "mine.csv"
    path.write_text(data, encoding="utf-8", newline="")
    with pytest.raises(InputError, match=message):
        load_classes(str(path))


def test_a_wrong_encoding_names_its_line(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b"name\ncat\ncaf\xe9\n")
    with pytest.raises(InputError, match=":3: not UTF-8"):
        load_classes(str(path))


def test_line_ends_blank_lines_and_a_byte_order_mark_do_not_matter(tmp_path):
    path = tmp_path / "mine.csv"
    found = []
    for data in (b"name\ncat\ndog\n", b"\xef\xbb\xbfname\r\ncat\r\n\r\n dog \r\n", b"name\rcat\rdog"):
        path.write_bytes(data)
        found.append([info.name for info in load_classes(str(path)).classes])
    assert found == [["cat", "dog"]] * 3


# ------------------------------------------------------------------ command


def test_building_the_same_table_again_changes_nothing_and_another_is_refused(tmp_path, capsys):
    out = tmp_path / "p.parquet"
    flags = ["--num-images", "30", "--out", str(out)]
    main(flags)
    before = (out.stat().st_ino, out.stat().st_mtime_ns)
    main(flags)
    assert "exists already, unchanged" in capsys.readouterr().out
    for other, message in (
        (["--seed", "1"], "exists with other rows .*'seed': 0"),
        (["--num-images", "31"], "30 rows"),
    ):
        with pytest.raises(InputError, match=message):
            main([*flags, *other])
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == before


def test_the_default_file_is_kept_for_the_default_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="kept for the default table.*or no --out for data/prompts/cifar10-clip-templates.parquet"
    ):
        main(["--classes", "cifar10", "--out", str(DEFAULT_OUT)])
    assert list(tmp_path.iterdir()) == []
    main(["--classes", "cifar10", "--num-images", "20"])
    assert [path.name for path in DEFAULT_OUT.parent.iterdir()] == ["cifar10-clip-templates-20.parquet"]
    main([])
    assert PromptTable(DEFAULT_OUT).num_rows == 1000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dry-run", "--num-images", "0"], "expected 1 to 2\\^32"),
        (["--seed", "-1"], "--seed: -1 was given, expected 0 to 2\\^63-1"),
        (["--seed", str(MAX_SEED + 1)], "--seed: .*expected 0 to"),
        (["--out", "p.csv"], "ends in .parquet"),
        (["--out", "file/p.parquet"], "cannot be written .*choose another folder"),
        (["bulid"], "did you mean 'build'"),
        (["list", "--classes"], "unknown flag of `synclones prompts list`"),
    ],
)
def test_more_mistakes_on_the_command_line_write_nothing(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=message):
        main(flags)
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize("index", ["-1", "20"])
def test_a_row_that_is_not_there_is_refused(tmp_path, columns, index):
    _write(tmp_path / "x.parquet", columns)
    with pytest.raises(InputError, match="rows 0 to 19"):
        main(["show", str(tmp_path / "x.parquet"), "--index", index])


def test_an_unchecked_table_cannot_write_escapes_to_the_terminal(tmp_path, columns, capsys):
    _write(tmp_path / "x.parquet", _with(columns, "prompt", "a\x1b[2Jb\u202e"))
    for flags in ([], ["--index", "5"]):
        main(["show", str(tmp_path / "x.parquet"), *flags])
        printed = capsys.readouterr().out
        assert "a\\x1b[2Jb\\u202e" in printed and not has_unprintable(printed.replace("\n", ""))
