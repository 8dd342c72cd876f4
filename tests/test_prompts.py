"""Prompt tables: the rows are pure functions of their place, prefixes are smaller tables, mistakes are named."""

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data import ImageNetInfo

from synclones.base.errors import InputError
from synclones.prompts.build import build, make_table
from synclones.prompts.classes.lists import PUBLISHED_DUPLICATES, load_classes, slug
from synclones.prompts.recipe import Inputs, load_recipe, recipe_names
from synclones.prompts.recipes.clip_templates import templates
from synclones.prompts.run import main
from synclones.prompts.table import SCHEMA, PromptTable

DIGITS = load_classes("lab-digits")


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """Sixty captions of the ten digits."""
    path = tmp_path_factory.mktemp("captions") / "c.csv"
    path.write_text("caption,class\n" + "".join(f"caption {n},{n % 10}\n" for n in range(60)))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Sixty files with the names of pictures, six for each of the ten digits: a table is made of names alone."""
    folder = tmp_path_factory.mktemp("images")
    for n in range(60):
        (folder / str(n % 10)).mkdir(exist_ok=True)
        (folder / str(n % 10) / f"{n:02d}.jpg").touch()
    return folder


# The identity of two small tables; it must never change, whatever the versions of the libraries.
GOLDEN = {
    "class-name": "b2cd2885b4917f5ed2277c62951a2a5d5f97234de5e01051764c9af481cef9b2",
    "clip-templates": "c690c5148bcd640d5075c85a1ce16eb2ad7e3ff4e0f28128724188b0e3c1cbd8",
}


def _block(recipe, n, seed=0, classes=DIGITS, **inputs):
    """Columns of a small table as lists."""
    table = make_table(recipe, Inputs(classes=classes, seed=seed, **inputs), n)
    return next(table.blocks()).to_pydict()


def _table(tmp_path, recipe="clip-templates", n=100, seed=0, classes=DIGITS):
    path = tmp_path / f"{recipe}-{n}-{seed}.parquet"
    return path, build(recipe, classes, n, seed, path)


@pytest.mark.parametrize("recipe", sorted(GOLDEN))
def test_the_content_hash_of_a_small_table_is_fixed(tmp_path, recipe):
    path, digest = _table(tmp_path, recipe)
    assert digest == GOLDEN[recipe]
    assert PromptTable(path).check() == digest == PromptTable(path).metadata["content_sha256"]


def test_the_content_hash_does_not_depend_on_how_the_file_is_written(tmp_path):
    path, digest = _table(tmp_path)
    table = pq.read_table(path).replace_schema_metadata({})
    other = tmp_path / "other.parquet"
    pq.write_table(table, other, compression="none", row_group_size=7)
    assert PromptTable(other).check() == digest


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(recipe_names()), st.integers(1, 400), st.integers(1, 7), st.integers(0, 2**31), st.data())
def test_a_prefix_of_a_table_is_the_smaller_table_and_is_balanced(captions, images, recipe, n, m, seed, data):
    given = {"captions": captions, "images": images}
    taken = {name: given[name] for name in load_recipe(recipe).takes if name in given}
    inputs = Inputs(classes=DIGITS, seed=seed, **taken)
    n = min(n, 60 * m) if recipe in ("text-file", "real-images") else n
    whole = make_table(recipe, inputs, n, m)
    rows = next(whole.blocks()).to_pydict()
    short = data.draw(st.integers(1, n))
    part = next(make_table(recipe, inputs, short, m).blocks()).to_pydict()
    assert part == {name: values[:short] for name, values in rows.items()}
    row = data.draw(st.integers(0, n - 1))
    assert whole.rows(np.array([row])).to_pylist() == [{name: values[row] for name, values in rows.items()}]
    assert all(len(set(rows["caption_id"][at : at + m])) == 1 for at in range(0, n, m)), "copies stand side by side"
    if recipe != "text-file":
        counts = [part["label"].count(label) for label in range(10)]
        assert max(counts) - min(counts) <= m
        for at in range(0, n - n % (10 * m), 10 * m):
            assert sorted(rows["label"][at : at + 10 * m : m]) == list(range(10)), "a block holds each class once"


def test_every_class_goes_evenly_through_all_templates():
    block = _block("clip-templates", 10 * 80 * 2, seed=3)
    for label in range(10):
        captions = [p for p, k in zip(block["prompt"], block["label"], strict=True) if k == label]
        assert len(set(captions[:80])) == len(set(captions[80:])) == 80
    assert len(set(block["caption_id"])) == 800
    assert {c: p for c, p in zip(block["caption_id"], block["prompt"], strict=True)} == dict(
        zip(block["caption_id"][:800], block["prompt"][:800], strict=True)
    )


def test_seeds_shuffle_templates_and_class_names_stay():
    first, second = (_block("clip-templates", 50, seed)["prompt"] for seed in (0, 1))
    assert first != second
    assert _block("class-name", 12)["prompt"][:11] == [c.name for c in DIGITS.classes] + ["zero"]


def test_templates_and_class_names_are_those_of_clip():
    assert list(templates()) == [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    imagenet = load_classes("imagenet1k").classes
    assert [info.name for info in imagenet] == list(open_clip.IMAGENET_CLASSNAMES)
    assert [info.class_id for info in imagenet] == ImageNetInfo().label_names()
    names = [info.name for info in imagenet]
    assert tuple(sorted({name for name in names if names.count(name) > 1})) == PUBLISHED_DUPLICATES["imagenet1k"]
    assert [info.name for info in load_classes("cifar10").classes][-1] == "truck"


def test_rows_are_read_across_row_groups(tmp_path):
    path, _ = _table(tmp_path, n=100_050)
    table = PromptTable(path)
    assert [row.index for row in table.rows(99_998, 100_003)] == list(range(99_998, 100_003))
    assert table.rows(5, 5) == []
    assert table.has_labels(table.num_rows)


def test_a_users_own_table_of_other_types_is_accepted(tmp_path):
    n = 3
    columns = {
        "index": pa.array(range(n), pa.int32()),
        "prompt": pa.array(["a", "b", "c"], pa.large_string()),
        "label": pa.array([-1] * n, pa.int64()),
        **{name: pa.array([""] * n) for name in ("class_id", "recipe", "source_key", "detail")},
        "caption_id": pa.array(range(n), pa.int32()),
    }
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table(columns), path)
    table = PromptTable(path)
    assert len(table.check()) == 64 and not table.has_labels(n)
    assert table.rows(1, 2)[0].prompt == "b"


def _changed(path, tmp_path, column, row, value):
    table = pq.read_table(path)
    metadata = {b"synclones": pq.ParquetFile(path).metadata.metadata[b"synclones"]}
    values = table.column(column).to_pylist()
    values[row] = value
    kind = SCHEMA.field(column).type
    field = pa.field(column, kind)
    out = tmp_path / "changed.parquet"
    at = table.schema.get_field_index(column)
    changed = table.set_column(at, field, pa.array(values, kind)).replace_schema_metadata(metadata)
    pq.write_table(changed, out)
    return out


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("index", 9, "row 5: index 9 is not the row's number"),
        ("prompt", "", "row 5: prompt '' is empty"),
        ("prompt", "x" * 2001, "row 5: prompt .* longer than 2000"),
        ("prompt", "a\nb", "row 5: prompt .* line break"),
        ("prompt", None, "row 5: prompt None is empty \\(null\\)"),
        ("label", -2, "row 5: label -2 is below -1"),
        ("class_id", "", "row 5: class_id '' is empty although"),
        ("detail", "{}", "its rows were changed after it was built"),
    ],
)
def test_the_first_bad_row_is_named(tmp_path, column, value, message):
    path, _ = _table(tmp_path)
    changed = _changed(path, tmp_path, column, 5, value)
    with pytest.raises(InputError, match=message):
        PromptTable(changed).check()


def test_files_that_are_no_prompt_tables_are_refused(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(InputError, match="no file"):
        PromptTable(path)
    path.write_text("hello")
    with pytest.raises(InputError, match="not a Parquet file"):
        PromptTable(path)
    pq.write_table(pa.table({"prompt": ["a"], "class_id": ["b"]}), path)
    path.write_bytes(
        path.read_bytes().replace(b"class_id", b"cl\xdass_id")
    )  # pyarrow fails on names that are not UTF-8
    with pytest.raises(InputError, match="not a Parquet file"):
        PromptTable(path)
    pq.write_table(pa.table({"prompt": ["a"]}), path)
    with pytest.raises(InputError, match="column 'index' is missing"):
        PromptTable(path)
    good, _ = _table(tmp_path)
    table = pq.read_table(good)
    pq.write_table(table.set_column(2, "label", pa.array(["a"] * 100)), path)
    with pytest.raises(InputError, match="column 'label' has type string"):
        PromptTable(path)


# ------------------------------------------------------------------ class lists


def test_a_users_csv_becomes_classes(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("name,hypernym\nGreat white shark,fish\nTench,\n")
    classes = load_classes(str(path))
    assert [(c.class_id, c.name, c.more) for c in classes.classes] == [
        ("great-white-shark", "Great white shark", {"hypernym": "fish"}),
        ("tench", "Tench", {}),
    ]
    assert slug("Łódź Café!") == "odz-cafe"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class_id,name\na,cat\nb,cat\n", ":3: name 'cat' appears in line 2 already"),
        ("class_id,name\na,cat\na,dog\n", ":3: class_id 'a' appears in line 2 already"),
        ("class_id,name\n", "no classes"),
        ("id;name\n", ":1: the header is"),
        ("class_id,name\na\n", ":2: expected 2 columns"),
        ("class_id,name\na,\n", ":2: the name is empty"),
        (f"name\n{'x' * 201}\n", ":2: the name has 201 characters"),
        ("class_id,name\na,c\x07t\n", "holds a control character"),
    ],
)
def test_a_bad_class_list_names_its_line(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_classes(str(path))
    assert message in str(caught.value)


def test_a_class_list_in_another_encoding_or_place_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("name\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        load_classes(str(path))
    with pytest.raises(InputError, match="did you mean 'cifar10'"):
        load_classes("cifar-10")


# ------------------------------------------------------------------ command


def test_build_show_and_list(tmp_path, capsys):
    out = tmp_path / "p.parquet"
    main(["--recipe", "class-name", "--classes", "cifar10", "--num-images", "25", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "25 prompts" in printed and "10 classes, 2 to 3 rows each" in printed
    main(["show", str(out), "--index", "11"])
    assert "automobile" in capsys.readouterr().out
    main(["show", str(out)])
    assert "recipe           class-name" in capsys.readouterr().out
    main(["list"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*recipe_names(), "imagenet1k", "FILE "))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--recipe", "clip-template"], "did you mean 'clip-templates'"),
        (["--classes", "nothing"], "no class list and no file"),
        (["--num-images", "0"], "expected 1 to 2\\^32"),
        (["--num-images", "lots"], "count .*10k"),
        (["--out", "{out}"], "exists"),
        (["--sede", "1"], "did you mean '--seed'"),
        (["bild"], "no such verb"),
        (["show", "none.parquet"], "no file"),
    ],
)
def test_mistakes_on_the_command_line_write_nothing(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "there.parquet"
    there.write_text("x")
    with pytest.raises(InputError, match=message):
        main([flag.replace("{out}", str(there)) for flag in flags])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [there] and there.read_text() == "x"


def test_a_dry_run_prints_prompts_only(tmp_path, capsys):
    main(["--dry-run", "--out", str(tmp_path / "p.parquet")])
    assert len(capsys.readouterr().out.splitlines()) == 10 and not list(tmp_path.iterdir())
