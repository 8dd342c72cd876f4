"""Class lists and the classes of captions and images: what has two readings stops and asks, known forms are read."""

import io
import json
import tarfile
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from conftest import synclones
from PIL import Image

from synclones.base.errors import InputError
from synclones.base.json_file import parse_json
from synclones.prompts.build import make_table
from synclones.prompts.captions.describe import CaptionConfig, caption_images
from synclones.prompts.captions.pool import Labels
from synclones.prompts.classes.labels import ClassTexts
from synclones.prompts.classes.lists import PUBLISHED_DUPLICATES, SHIPPED, ClassInfo, ClassList, load_classes
from synclones.prompts.clip_tokens import _tokenizer, as_read
from synclones.prompts.overview import Overview
from synclones.prompts.recipe import Inputs

FLOWERS = ClassList("flowers", tuple(ClassInfo(str(n), name) for n, name in enumerate(("rose", "tulip", "daisy"), 1)))


def write(path, text):
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return str(path)


# ------------------------------------------------------------------ JSON lists


@pytest.mark.parametrize(
    "given, classes",
    [
        ({"n1": "crane", "n0": "tench"}, [("n1", "crane"), ("n0", "tench")]),
        ({"1": "b", "10": "k", **{str(n): f"x{n}" for n in (0, *range(2, 10))}}, None),
        (
            {"0": ["n01440764", "tench"], "1": ["n01443537", "gold_fish"]},
            [("n01440764", "tench"), ("n01443537", "gold fish")],
        ),
        ({"1": ["n2", "b"], "0": ["n1", "a"]}, [("n1", "a"), ("n2", "b")]),
        ({"1": "rose", "2": "tulip"}, [("1", "rose"), ("2", "tulip")]),
        ([{"id": 7, "name": "a"}], [("7", "a")]),
    ],
)
def test_forms_with_one_reading_are_read(tmp_path, given, classes):
    read = [(info.class_id, info.name) for info in load_classes(write(tmp_path / "c.json", given)).classes]
    if classes is None:  # the keys are the labels, in whatever order a JSON writer left them
        classes = [(str(n), given[str(n)]) for n in range(11)]
    assert read == classes


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"one": 0, "two": 1, "zero": 2}', "maps 'one' to 0: is that its name or its label.* class-to-idx:.*c.json"),
        ('{"one": "0", "two": "1"}', "maps 'one' to '0': is that its name or its label"),
        ('{"n1": "crane bird", "n2": "tench", "n1": "crane"}', "not JSON .the key 'n1' stands twice in an object"),
        ('[{"id": "a", "name": "b", "name": "c"}]', "the key 'name' stands twice"),
        ('{"21": "rose", "3": "tulip"}', "its ids are numbers in no order, and a class's label is its position"),
        ('{"1": ["n1", "a"], "2": ["n2", "b"]}', "the keys of .id, name. pairs are the labels, expected 0 to 1"),
        ('{"0": ["n1", "a", "b"]}', r"0 is \['n1', 'a', 'b'\], expected \[id, name\]"),
        ('{"0": "n01440764"}', "the name 'n01440764' is an id of WordNet, which draws nothing"),
        ('[{"id": "a", "name": 0}]', "entry 1: name is 0, expected a text"),
        ('[{"name": "a", "label": 1}, {"name": "b", "label": 2}]', "entry 1: label is 1, but a class's label is its"),
    ],
)
def test_forms_with_two_readings_stop_and_ask(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_classes(write(tmp_path / "c.json", text))


def test_class_to_idx_is_read_when_it_is_named(tmp_path):
    path = write(tmp_path / "i.json", {"two": 1, "red_panda": 0, "zero": 2})
    classes = load_classes(f"class-to-idx:{path}")
    assert [(info.class_id, info.name) for info in classes.classes] == [
        ("red_panda", "red panda"),
        ("two", "two"),
        ("zero", "zero"),
    ]
    assert classes.name == "i" and len(load_classes(f"class-to-idx:{path},cifar10").classes) == 13
    for wrong in ({"a": 1, "b": 2}, {"a": 0, "b": 0}, {"a": "0"}, {"a": True, "b": 0}, ["a"]):
        with pytest.raises(InputError, match="is no class_to_idx, which maps class names to 0, 1, 2"):
            load_classes(f"class-to-idx:{write(tmp_path / 'w.json', wrong)}")
    with pytest.raises(InputError, match="class-to-idx is a form of JSON; give a .json file"):
        load_classes(f"class-to-idx:{write(tmp_path / 'c.csv', 'name')}")
    with pytest.raises(InputError, match="no class list and no file 'class-to-idx:nowhere.json'"):
        load_classes("class-to-idx:nowhere.json")


def test_doubled_keys_are_refused_wherever_json_is_read_and_a_byte_order_mark_is_not():
    for text in ('{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]', b'{"a": 1, "a": 2}'):
        with pytest.raises(ValueError, match="the key 'a' stands twice in an object"):
            parse_json(text)
    assert parse_json(b'\xef\xbb\xbf{"a": {"a": 1}}') == parse_json('\ufeff{"a": {"a": 1}}') == {"a": {"a": 1}}


@pytest.mark.parametrize("column", ["label", "index", "target"])
def test_a_column_of_labels_that_are_not_positions_asks(tmp_path, column):
    path = write(tmp_path / "c.csv", f"name,{column}\na,0\nb,1\n")
    assert [info.name for info in load_classes(path).classes] == ["a", "b"]
    with pytest.raises(InputError, match=f"c.csv:2: {column} is 1, but a class's label is its position in the list, 0"):
        load_classes(write(tmp_path / "c.csv", f"name,{column}\na,1\nb,0\n"))


# ------------------------------------------------------------------ numbers as classes


def test_a_number_that_is_an_id_and_a_position_asks_which():
    for text in ("0", "1", "2", "3"):
        with pytest.raises(
            InputError, match=f"x: row 5 .from 0.: class '{text}' is the id of .* and the position from 0"
        ):
            Labels(FLOWERS).of("x", 5, pa.array([text]))
    assert Labels(FLOWERS).of("x", 0, pa.array(["rose", "daisy"])).tolist() == [0, 2]
    assert Labels(FLOWERS, "id").of("x", 0, pa.array(["1", "3", "rose"])).tolist() == [0, 2, 0]
    assert Labels(FLOWERS, "position").of("x", 0, pa.array(["0", "2", "rose"])).tolist() == [0, 2, 0]
    for numbers, text in (("id", "0"), ("position", "3")):
        with pytest.raises(InputError, match=f"class '{text}'"):
            Labels(FLOWERS, numbers).of("x", 0, pa.array([text]))


@pytest.mark.parametrize(
    "ids, names, read",
    [
        (["0", "1", "2"], "abc", {"0": 0, "2": 2, "c": 2}),  # as the lab's: both readings are one
        (["x", "y", "z"], "abc", {"0": 0, "2": 2, "z": 2}),
        (["001", "002", "003"], "abc", {"001": 0, "1": None, "0": None, "a": 0}),
        (["x", "y", "z"], "102", {"0": None, "1": None, "x": 0}),
        (["10", "20", "30"], "abc", {"10": None, "0": None, "a": 0}),
        (["a", "b", "c"], "bxy", {"b": None, "a": 0, "x": 1, "1": 1}),
    ],
)
def test_texts_with_one_meaning_are_read_and_others_are_not(ids, names, read):
    texts = ClassTexts(ClassList("l", tuple(ClassInfo(i, n) for i, n in zip(ids, names, strict=True))))
    for text, label in read.items():
        if label is None:
            with pytest.raises(InputError, match="say which is meant|rename one of them"):
                texts.label("x", text)
        else:
            assert texts.label("x", text) == label == texts.labels[text]


def test_cls_of_webdataset_and_ids_from_one_stop_a_build_until_the_flag_says_which(tmp_path):
    (tmp_path / "t").mkdir()
    with tarfile.open(tmp_path / "t" / "0.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for n in range(6):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(data := io.BytesIO(), "JPEG")
            for name, content in ((f"{n:04}.cls", b"%d" % (n % 3)), (f"{n:04}.jpg", data.getvalue())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    write(tmp_path / "f.csv", "id,name\n1,rose\n2,tulip\n3,daisy\n")
    build = ("prompts", "build", "--recipe", "real-images", "--classes", "f.csv", "--images", "t", "--out", "p.parquet")
    refused = synclones(*build, cwd=tmp_path)
    assert refused.returncode == 2 and "--class-numbers id or --class-numbers position" in refused.stderr
    assert not (tmp_path / "p.parquet").exists()
    done = synclones(*build, "--class-numbers", "position", cwd=tmp_path)
    assert done.returncode == 0 and "3 classes, 2 rows each" in done.stdout
    inputs = Inputs(classes=load_classes(str(tmp_path / "f.csv")), images=tmp_path / "t", class_numbers="position")
    for row in next(make_table("real-images", inputs, 6).blocks()).to_pylist():
        assert row["prompt"] == ("rose", "tulip", "daisy")[int(row["source_key"][-4:]) % 3]
    with pytest.raises(
        InputError, match="class '0' is the id of no class and the position from 0 of 'rose' in --classes"
    ):
        caption_images(
            CaptionConfig(images=tmp_path / "t", classes=str(tmp_path / "f.csv"), out=tmp_path / "c.parquet")
        )
    with pytest.raises(
        InputError, match="--class-numbers: the recipe class-name reads no classes of captions or images"
    ):
        make_table("class-name", Inputs(classes=FLOWERS, class_numbers="id"), 3)


# ------------------------------------------------------------------ names that are one to the text encoder

SAME = [
    ("Turkey", "turkey"),
    ("great white", "great\u00a0white"),
    ("great white", "great  white"),
    ("great white", "great\u3000white"),
    ("great white", "great \u200bwhite"),
    ("Café", unicodedata.normalize("NFD", "Café")),
    ("soft", "so\u00adft"),
    ("mark", "\ufeffmark"),
    ("T-shirt", "t - shirt"),
    ("Ångström", "ångström"),
    ("F 16", "f16"),
]


@pytest.mark.parametrize("names", SAME)
def test_names_that_the_encoder_cannot_tell_apart_are_refused_in_users_lists(tmp_path, names):
    path = write(tmp_path / "k.csv", "id,name\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names)))
    with pytest.raises(InputError, match="k.csv:3: name .* to CLIP's text encoder, which appears in line 2 already"):
        load_classes(path)


def test_what_is_read_equal_has_equal_tokens_and_what_is_not_has_not():
    shown = [names for names in SAME if not any(unicodedata.category(c) == "Cf" for name in names for c in name)]
    other = [("cafe", "café"), ("t-shirt", "tshirt"), ("crane", "cranes"), ("don't", "dont"), ("ice cream", "icecream")]
    for equal, pairs in ((True, shown), (False, other)):
        for pair in pairs:
            one, two = as_read(pa.array(pair)).to_pylist()
            tokens = [_tokenizer().encode(name).ids for name in pair]
            assert (one == two) is equal and (tokens[0] == tokens[1]) is equal, pair


def test_published_lists_keep_theirs_and_tables_tell():
    for name in set(SHIPPED) - {"wordnet-nouns"}:
        names = [info.name for info in load_classes(name).classes]
        read = as_read(pa.array(names)).to_pylist()
        twice = tuple(sorted({text for text in read if read.count(text) > 1}))
        assert twice == PUBLISHED_DUPLICATES.get(name, ()), name
    classes = load_classes("imagenet1k-wordnet")
    overview = Overview(1000, 1000)
    for block in make_table("class-name", Inputs(classes=classes), 1000).blocks():
        overview.update(block)
    told = overview.finish().facts["shared prompts"]
    assert told.startswith("3 stand for more than one class") and "ardigan" in told and "crane" in told


def test_prompts_that_are_one_to_the_encoder_are_one_in_the_overview_across_blocks():
    table = make_table(
        "class-name", Inputs(classes=ClassList("k", (ClassInfo("a", "Turkey"), ClassInfo("b", "turkey")))), 4
    )
    overview = Overview(4, 2)
    for start in (0, 2):
        overview.update(table.rows(np.arange(start, start + 1)))
        overview.update(table.rows(np.arange(start + 1, start + 2)))
    facts = overview.finish().facts
    assert facts["distinct prompts"].startswith("1,") and facts["shared prompts"].startswith("1 stand for more")
