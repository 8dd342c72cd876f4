"""Images of a class and without a caption are called by their class's name, where a training asks for that."""

import io
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_train_objectives import _flags, _settings

from synclones.base.errors import InputError
from synclones.models.tokenizer import token_ids
from synclones.shards.sources.label_captions import LabelCaptions
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import open_source
from synclones.train.job import prepare
from synclones.train.run import main
from synclones.train.settings import TrainConfig

NAMES = {"a": "red panda", "b": "sea otter"}
TEMPLATES = ("a photo of a {}.", "the {} {in} ink", "a {}")


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(NAMES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng([label, number]).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "names.csv").write_text("class_id,name\na,red panda\nb,sea otter\n")
    (tmp_path / "sentences.txt").write_text("\n".join(TEMPLATES))
    return tmp_path / "images"


def _config(folder, **more):
    files = {"zero_shot_classes": f"{folder.parent}/names.csv", "zero_shot_templates": f"{folder.parent}/sentences.txt"}
    settings = _settings("clip") | files | {"data": (str(folder),), "out": folder.parent / "run", "steps": 2}
    return TrainConfig(**settings | {"label_captions": True} | more)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_caption_is_the_name_of_the_class_in_a_sentence_of_the_showing(folder, labelled):
    given = LabelCaptions(NAMES, TEMPLATES, "names.csv")
    source = LabelledSource(open_source(folder), labelled=labelled, label_captions=given)
    drawn = [[source.caption(position, showing, seed=3) for showing in range(40)] for position in range(16)]
    for position, texts in enumerate(drawn):
        name = "red panda" if position < 8 else "sea otter"
        assert set(texts) == {sentence.replace("{}", name) for sentence in TEMPLATES}
    assert len({tuple(text.replace("sea otter", "red panda") for text in texts) for texts in drawn}) == 16
    assert drawn[0] != [source.caption(0, showing, seed=4) for showing in range(40)]
    # What is held out or left out changes nothing of what the others are called.
    for other in (source.leaving_out(np.array([0])), source.excluding(np.array([15]))):
        assert other.caption(3, 5, 3) == drawn[3][5]
    assert LabelledSource(open_source(folder)).caption(3, 5, 3) == ""


def test_a_text_that_an_image_has_is_its_caption(dataset):
    given = LabelCaptions({}, ("{}",), "names.csv")
    plain, with_names = LabelledSource(dataset), LabelledSource(dataset, label_captions=given)
    assert plain.caption(7) and with_names.caption(7) == plain.caption(7)


def test_clip_trains_on_labelled_images_and_its_plan_knows_by_which_names(folder):
    job = prepare(_config(folder), 0, 1)
    batch = next(iter(job.loader().batches(0, 1)))
    sentences = [sentence.replace("{}", name) for sentence in TEMPLATES for name in NAMES.values()]
    rows = {tuple(token_ids(sentence, job.config.text_length)[0]) for sentence in sentences}
    assert {tuple(row) for row in batch.extras.tokens.tolist()} <= rows
    (folder.parent / "names.csv").write_text("class_id,name\na,red panda\nb,otter\n")
    assert prepare(_config(folder), 0, 1).plan_id != job.plan_id
    plan = prepare(_config(folder), 0, 1).plan
    assert plan["label_captions"] is True and len(plan["captions_of_labels"]) == 64
    classes = ["--zero-shot-classes", f"{folder.parent}/names.csv", "--label-captions"]
    main([*_flags(folder, folder.parent / "run", _settings("clip")), *classes])
    assert (folder.parent / "run" / "export" / "zero_shot.json").exists()


def test_without_the_flag_a_plan_says_nothing_of_it(dataset, tmp_path):
    plan = prepare(TrainConfig(**_settings("clip") | {"data": (str(dataset),), "out": tmp_path / "run"}), 0, 1).plan
    assert not {"label_captions", "captions_of_labels"} & set(plan)


def test_a_label_that_is_no_class_names_no_image(folder, monkeypatch):
    source = LabelledSource(
        open_source(folder), labelled=False, label_captions=LabelCaptions(NAMES, TEMPLATES, "x.csv")
    )
    for label in (-1, 2):
        shard = SimpleNamespace(label=[label], index=[0], caption=lambda row: "")
        monkeypatch.setattr(source, "_locate", lambda position, shard=shard: (shard, 0))
        assert source.caption(0) == ""


def test_labels_without_a_meaning_are_asked_for_it(folder, tmp_path):
    with tarfile.open(tmp_path / "numbers.tar", "w") as tar:
        for number, path in enumerate(sorted(folder.rglob("*.png"))):
            for end, data in (("png", path.read_bytes()), ("cls", b"%d" % (number // 8 + 1))):  # from 1, as Flowers has
                member = tarfile.TarInfo(f"{number:04d}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    with pytest.raises(InputError, match="labels are numbers, 1 to 2, without a meaning"):
        prepare(_config(folder, data=(f"{tmp_path}/numbers.tar",)), 0, 1)
    assert not (folder.parent / "run").exists()


def test_names_that_are_missing_are_asked_for_before_anything_is_written(folder):
    with pytest.raises(InputError, match="--label-captions: needs the names of the classes; .* --zero-shot-classes"):
        prepare(_config(folder, zero_shot_classes=""), 0, 1)
    (folder.parent / "names.csv").write_text("class_id,name\na,red panda\n")
    with pytest.raises(InputError, match=r"names.csv has no class 'b', which images without"):
        prepare(_config(folder), 0, 1)
    with pytest.raises(InputError, match="its first image has no caption; .*, with --label-captions, the names"):
        prepare(_config(folder, label_captions=False), 0, 1)
    with pytest.raises(InputError, match="--label-captions: the objective supervised does not read it"):
        main([*_flags(folder, folder.parent / "run", {"steps": 1}), "--label-captions"])
    assert not (folder.parent / "run").exists()
