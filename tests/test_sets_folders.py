"""Image sets in folders of classes, and of outliers: which class an image gets, what is left out, what is refused."""

import json

import numpy as np
import pytest
from image_trees import IDS, write_image, write_images

from synclones.base.errors import InputError
from synclones.evaluate.layout import check_options, layouts
from synclones.evaluate.sets import folders, outliers
from synclones.evaluate.test_set import TestSet


def opened(module, path, options=None, class_ids=IDS) -> TestSet:
    (part,) = module.open_parts(path, options or {}, class_ids)
    assert part.name == ""
    return part.test_set


def shown(test_set: TestSet) -> dict[str, str]:
    """Image -> its class."""
    return {test_set.file_name(at): test_set.class_ids[test_set.labels[at]] for at in range(len(test_set))}


def texts(module, path, options=None, class_ids=IDS, kinds=("fault", "warning", "note")) -> str:
    return "\n".join(f.text for f in module.inspect(path, options or {}, class_ids) if f.kind in kinds)


def test_a_set_of_all_classes_is_known_by_its_own_hash(tmp_path):
    write_images(tmp_path, [f"{name}/{n}.jpg" for name in IDS for n in range(2)])
    test_set = opened(folders, tmp_path)
    assert test_set.class_ids == IDS
    assert test_set.content_hash == TestSet(tmp_path).content_hash


def test_a_set_of_some_classes_numbers_its_own_in_the_order_of_the_suite(tmp_path):
    write_images(tmp_path, ["dog/0.jpg", "bee/0.jpg", "bee/1.jpg"])
    test_set = opened(folders, tmp_path, class_ids=("dog", "cat", "bee", "ant"))
    assert test_set.class_ids == ("dog", "bee")
    assert shown(test_set) == {"bee/0.jpg": "bee", "bee/1.jpg": "bee", "dog/0.jpg": "dog"}
    assert [test_set[at].label for at in range(3)] == test_set.labels.tolist() == [1, 1, 0]


def test_all_classes_of_the_suite_may_be_answered_on_request(tmp_path):
    write_images(tmp_path, ["dog/0.jpg", "bee/0.jpg"])
    test_set = opened(folders, tmp_path, {"all_classes": True})
    assert test_set.class_ids == IDS
    assert test_set.labels.tolist() == [1, 3]


def test_a_folder_that_is_no_class_is_refused_with_the_nearest(tmp_path):
    write_images(tmp_path, ["ant/0.jpg", "beee/0.jpg"])
    with pytest.raises(InputError, match=r"'beee'.*did you mean 'bee'"):
        opened(folders, tmp_path)
    with pytest.raises(InputError, match="numbered: true"):
        write_images(tmp_path / "v2", ["0/0.jpg", "1/0.jpg"])
        opened(folders, tmp_path / "v2")


def test_numbered_folders_are_positions_in_the_list_of_classes_not_in_the_order_of_their_names(tmp_path, capsys):
    ids = tuple(f"class{n:02d}" for n in range(12))
    write_images(tmp_path, [f"{n}/a.jpg" for n in range(12)])
    test_set = opened(folders, tmp_path, {"numbered": True}, ids)
    assert test_set.class_ids == ids
    # Folders sort as 0 1 10 11 2 3: by that order, 10 would be class 2.
    assert shown(test_set) == {f"{n}/a.jpg": f"class{n:02d}" for n in range(12)}
    assert "classes are its" not in capsys.readouterr().err  # which would say what their order stands for
    with pytest.raises(InputError, match="'11'.*0 to 10"):
        opened(folders, tmp_path, {"numbered": True}, ids[:11])


def test_folders_of_other_names_get_their_classes_by_a_mapping_and_others_are_left_out_and_told(tmp_path, capsys):
    write_images(tmp_path / "images", ["hound/0.jpg", "wasp/0.jpg", "chair/0.jpg", "chair/1.jpg"])
    (tmp_path / "map.json").write_text(json.dumps({"hound": "dog", "wasp": ["bee"]}))
    (tmp_path / "map.csv").write_text("hound,dog\nwasp,bee\n")
    for name in ("map.json", "map.csv"):
        test_set = opened(folders, tmp_path / "images", {"mapping_file": f"../{name}"})
        assert shown(test_set) == {"hound/0.jpg": "dog", "wasp/0.jpg": "bee"}
    assert "left out 2 of 4 images" in capsys.readouterr().err
    assert "3 images of chair, wasp are left" in texts(folders, tmp_path / "images", {"mapping": {"hound": "dog"}})
    with pytest.raises(InputError, match="'wolf'"):
        opened(folders, tmp_path / "images", {"mapping": {"hound": "wolf"}})


def test_a_folder_of_several_classes_is_answered_by_any_of_them(tmp_path):
    write_images(tmp_path, ["insect/0.jpg", "pet/0.jpg"])
    test_set = opened(folders, tmp_path, {"mapping": {"insect": ["ant", "bee"], "pet": "dog"}})
    assert test_set.decision == "top1"
    assert test_set.members == {"insect": ("ant", "bee"), "pet": ("dog",)}


def test_some_classes_are_chosen(tmp_path):
    write_images(tmp_path, [f"{name}/0.jpg" for name in IDS])
    assert shown(opened(folders, tmp_path, {"classes": ["cat", "ant"]})) == {"ant/0.jpg": "ant", "cat/0.jpg": "cat"}
    with pytest.raises(InputError, match="'cow'"):
        opened(folders, tmp_path, {"classes": ["cow"]})


def test_loose_images_get_their_classes_from_a_list(tmp_path):
    write_images(tmp_path / "val", ["x_1.JPEG", "x_2.JPEG", "x_3.JPEG"])
    (tmp_path / "sol.csv").write_text("ImageId,PredictionString\nx_3,dog 1 2 3 4\nx_1,bee 1 2 3 4\nx_2,dog 1 1 1 1\n")
    assert shown(opened(folders, tmp_path / "val", {"labels": "../sol.csv"})) == {
        "x_1.JPEG": "bee",
        "x_2.JPEG": "dog",
        "x_3.JPEG": "dog",
    }
    (tmp_path / "numbers.txt").write_text("x_1.JPEG 0\nx_2.JPEG 3\n")
    with pytest.raises(InputError, match=r"nothing of 'x_3.JPEG'"):
        opened(folders, tmp_path / "val", {"labels": "../numbers.txt", "numbered": True})


def test_counts_short_classes_and_another_choice_of_classes_are_seen(tmp_path):
    write_images(tmp_path, [f"{name}/{n}.jpg" for name in IDS for n in range(3)])
    assert not texts(folders, tmp_path, {"images": 12, "num_classes": 4}, kinds=("fault", "warning"))
    (tmp_path / "cat/1.jpg").unlink()
    seen = texts(folders, tmp_path, {"images": 12, "num_classes": 4, "classes_sha256": "0" * 16})
    assert "11 images of 4 classes, expected 12" in seen
    assert "1 of 4 classes hold fewer than 3: cat (2)" in seen
    assert "not those of the published set" in seen
    faults = texts(folders, tmp_path, {"role": "reference"}, (*IDS, "eel"), kinds=("fault",))
    assert "1 of 5 classes (eel)" in faults


def test_loose_images_and_classes_in_another_order_are_told(tmp_path):
    write_images(tmp_path, [f"{name}/0.jpg" for name in IDS])
    assert "not in the order of their names" in texts(folders, tmp_path, class_ids=IDS[::-1], kinds=("note",))
    assert "not in the order of their names" not in texts(folders, tmp_path)
    write_image(tmp_path / "cover.jpg")
    assert "1 images lie loose (the first: cover.jpg)" in texts(folders, tmp_path, kinds=("fault",))


def test_a_truncated_image_and_other_files_are_seen(tmp_path):
    write_images(tmp_path, ["ant/0.jpg", "bee/0.jpg"])
    (tmp_path / "notes.txt").write_text("x")
    whole = (tmp_path / "bee/0.jpg").read_bytes()
    (tmp_path / "bee/0.jpg").write_bytes(whole[: len(whole) // 2])
    seen = texts(folders, tmp_path, {"size_px": 9})
    assert "1 of 2 images looked at cannot be read (bee/0.jpg" in seen
    assert "1 of 8x8 px, expected 9x9 px" in seen
    assert "notes.txt" in seen


def test_outliers_may_lie_anywhere_and_have_no_classes(tmp_path):
    write_images(tmp_path, ["a.jpg", "deep/er/b.png", "c/d.jpg"])
    test_set = opened(outliers, tmp_path)
    assert (len(test_set), test_set.class_ids) == (3, ())


def test_a_list_chooses_outliers_in_any_form_that_lists_have(tmp_path):
    root = tmp_path / "data/textures"
    write_images(root, ["images/dotted/a b.jpg", "images/dotted/c.jpg", "images/woven/d.jpg"])
    (tmp_path / "list.txt").write_text("textures/images/woven/d.jpg -1\ntextures/images/dotted/a b.jpg -1\n")
    test_set = opened(outliers, root, {"list": "../../list.txt"})
    names = [test_set.file_name(at) for at in range(len(test_set))]
    assert names == ["images/dotted/a b.jpg", "images/woven/d.jpg"]
    assert test_set.content_hash != opened(outliers, root).content_hash
    (tmp_path / "list.txt").write_text("textures/images/woven/d.jpg -1\ntextures/images/woven/e.jpg -1\n")
    with pytest.raises(InputError, match=r"1 of 2 images are missing.*woven/e.jpg"):
        opened(outliers, root, {"list": "../../list.txt"})


def test_an_empty_folder_of_outliers_and_one_of_the_classes_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no set of images"):
        opened(outliers, tmp_path / "empty")
    write_image(tmp_path / "inside/dog/0.jpg")
    assert "'dog' is one of the suite's classes" in texts(outliers, tmp_path / "inside", kinds=("fault",))


def test_options_are_of_the_kind_that_the_layout_states():
    layout = layouts()["folders"]
    check_options(layout, {"numbered": True, "classes": ["a"], "num_classes": 3})
    for wrong in ({"numberd": True}, {"numbered": 1}, {"num_classes": True}, {"classes": "a"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            check_options(layout, wrong)


def test_labels_agree_with_those_of_single_images_after_a_choice(tmp_path):
    write_images(tmp_path, [f"{name}/{n}.jpg" for name in ("bee", "dog") for n in range(3)])
    some = opened(folders, tmp_path).choose(np.array([1, 4]))
    assert shown(some) == {"bee/1.jpg": "bee", "dog/1.jpg": "dog"}
    assert [some[at].label for at in range(2)] == some.labels.tolist()
