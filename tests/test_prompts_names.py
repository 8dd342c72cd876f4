"""Classes by their names alone, as people type them: on the command line, in a txt, with empty lines after them."""

import pytest

from synclones.base.class_texts import class_names
from synclones.base.errors import InputError
from synclones.prompts.captions.files import CaptionFile
from synclones.prompts.captions.formats import CHUNK_BYTES
from synclones.prompts.classes.lists import load_classes
from synclones.shards.sources.class_lists import read_class_list


def ids_and_names(given: object) -> list[tuple[str, str]]:
    return [(info.class_id, info.name) for info in load_classes(str(given)).classes]


@pytest.mark.parametrize(
    "given, expected",
    [
        ("red panda, sea otter", [("red-panda", "red panda"), ("sea-otter", "sea otter")]),
        ("cat,dog", [("cat", "cat"), ("dog", "dog")]),
        ("red panda,", [("red-panda", "red panda")]),
        ("St. Bernard, U.S. dollar", [("st-bernard", "St. Bernard"), ("u-s-dollar", "U.S. dollar")]),
        ("car, truck, flower", [("car", "car"), ("truck", "truck"), ("flower", "flower")]),
    ],
)
def test_names_with_commas_are_classes(given, expected):
    assert ids_and_names(given) == expected


def test_names_are_the_same_classes_as_those_of_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("# mine\nred panda\nsea otter\n\n\n")
    (tmp_path / "names.csv").write_text("name\nred panda\nsea otter\n")
    lists = [
        load_classes(str(given)) for given in ("red panda, sea otter", tmp_path / "names.txt", tmp_path / "names.csv")
    ]
    assert len({classes.content_sha256 for classes in lists}) == 1
    assert [classes.name for classes in lists] == ["red-panda+sea-otter", "names", "names"]


@pytest.mark.parametrize(
    "given, message",
    [
        ("imagnet1k, cifra10", "no class list and no file 'imagnet1k'; did you mean 'imagenet1k'"),
        ("cifar10, red panda", "no class list and no file 'red panda'"),
        ("nowhere.csv, red panda", "no class list and no file 'nowhere.csv'"),
        ("lists/mine, red panda", "no class list and no file 'lists/mine'"),
        ("redpanda", "no class list and no file 'redpanda'; give one of .* or names with commas"),
        ("cat, dog, Cat", "--classes: name 3: class_id 'cat' appears in name 1 already|is 'cat' to CLIP"),
        ("cat,, dog", "--classes: name 2: the class_id is empty|the name is empty"),
        ("n01440764, n01443537", "the name 'n01440764' is an id of WordNet"),
        (",", "the name is empty"),
    ],
)
def test_what_is_meant_as_a_list_and_is_none_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        load_classes(given)


def test_a_txt_with_ids_before_the_names_is_refused(tmp_path):
    (tmp_path / "synsets.txt").write_text("n01440764 tench\n")
    with pytest.raises(InputError, match=r"synsets.txt:1: the name 'n01440764 tench' begins with an id of WordNet"):
        load_classes(str(tmp_path / "synsets.txt"))
    (tmp_path / "synsets.txt").write_text("cat\ncat\n")
    with pytest.raises(InputError, match=r"synsets.txt:2: 'cat' appears in line 1 already"):
        load_classes(str(tmp_path / "synsets.txt"))


ENDS = ["", "\n", "\n\n", "\n \n\t\n", "\n,\n,\n", "\r\n,\r\n\r\n"]


@pytest.mark.parametrize("end", ENDS)
def test_empty_lines_at_the_end_of_a_csv_are_no_classes(tmp_path, end):
    path = tmp_path / "c.csv"
    path.write_bytes(f"class_id,name\na,cat\nb,dog{end}".encode())
    assert ids_and_names(path) == [("a", "cat"), ("b", "dog")]
    assert class_names(path) == (("a", "b"), ("cat", "dog")) and read_class_list(path) == ("a", "b")


def test_a_last_line_that_says_something_is_read_and_an_empty_one_between_is_refused(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("name,hypernym\ncat,animal\ndog,\n")
    assert [(info.name, info.more) for info in load_classes(str(path)).classes][1] == ("dog", {})
    path.write_text("class_id,name\na,cat\n,\nb,dog\n")
    with pytest.raises(InputError, match="c.csv:3: the class_id is empty|c.csv:3: the name is empty"):
        load_classes(str(path))


@pytest.mark.parametrize("suffix, head", [(".txt", ""), (".csv", "caption\n"), (".jsonl", "")])
@pytest.mark.parametrize(
    "end", ["", "\n", "\n\n", "\n \n\n", "\n" * (CHUNK_BYTES + 7)], ids=["none", "one", "two", "blank", "many"]
)
def test_empty_lines_at_the_end_of_a_file_are_no_captions(tmp_path, suffix, head, end):
    path = tmp_path / f"c{suffix}"
    lines = ['{"caption": "a cat"}', '{"caption": "a dog "}'] if suffix == ".jsonl" else ["a cat", "a dog "]
    path.write_text(head + "\n".join(lines) + end)
    assert CaptionFile(path).num_rows == 2


def test_an_empty_line_between_captions_is_refused(tmp_path):
    (tmp_path / "c.txt").write_text("a cat\n\na dog\n\n")
    with pytest.raises(InputError, match="c.txt:2: the caption is empty"):
        CaptionFile(tmp_path / "c.txt")
    assert CaptionFile(tmp_path / "c.txt", bad="skip").skipped == 1
