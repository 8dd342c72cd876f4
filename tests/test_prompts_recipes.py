"""The recipes that say more than a name: hypernyms, definitions, places, and where WordNet stands behind them."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import WORDNET
from wordnet_fixture import SYNSETS, write_wordnet

from synclones.base.errors import InputError
from synclones.prompts.build import make_table
from synclones.prompts.classes.lists import SHIPPED, WORDNET_NOUNS, ClassList, load_classes
from synclones.prompts.classes.make import main as make_class_lists
from synclones.prompts.classes.wordnet import WordNet, open_wordnet
from synclones.prompts.places import PLACES365, places
from synclones.prompts.recipe import Inputs, load_recipe, recipe_names
from synclones.prompts.run import main

IMAGENET = load_classes("imagenet1k")
DIGITS = load_classes("lab-digits")
WITHOUT_CAPTIONS = [name for name in recipe_names() if not {"captions", "images"} & set(load_recipe(name).takes)]


@pytest.fixture
def wordnet(tmp_path):
    """(folder, lemma#sense -> wnid) of the small WordNet."""
    folder = tmp_path / "wordnet"
    return folder, write_wordnet(folder)


def _rows(recipe, n, classes=IMAGENET, **inputs):
    return next(make_table(recipe, Inputs(classes=classes, **inputs), n).blocks()).to_pylist()


def _csv(tmp_path, text):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    return load_classes(str(path))


# ------------------------------------------------------------------ what each recipe says


def test_every_recipe_of_the_field_is_there_with_its_paper_text_and_example():
    assert recipe_names() == sorted(
        ["class-name", "clip-templates", "captions", "class-definition", "class-hypernym", "hypernym-places"]
        + ["concept-places", "concept-llm", "text-file", "real-images"]
    )
    for name in recipe_names():
        recipe = load_recipe(name)
        assert all((recipe.phrase, recipe.text, recipe.example)) and "arXiv" in recipe.paper


@pytest.mark.parametrize("name", WITHOUT_CAPTIONS)
def test_a_thousand_rows_of_imagenet_and_the_example_of_the_docstring(name):
    rows = _rows(name, 1000)
    assert sorted(row["label"] for row in rows) == list(range(1000))
    blocks = make_table(name, Inputs(classes=IMAGENET), 365_000).blocks()
    assert any(load_recipe(name).example in block["prompt"].to_pylist() for block in blocks)


@pytest.mark.parametrize("name", WITHOUT_CAPTIONS)
def test_the_lab_s_digits_have_what_every_recipe_needs(name):
    assert len(_rows(name, 1000, DIGITS)) == 1000


def test_texts_and_details_have_the_stated_form():
    row = _rows("hypernym-places", 2000)[1500]
    info, facts = IMAGENET.classes[row["label"]], json.loads(row["detail"])
    assert row["prompt"] == f"{info.name}, {info.more['hypernym']} inside {facts['place']}"
    assert facts == {"hypernym": info.more["hypernym"], "synset": info.more["synset"], "place": facts["place"]}
    row = _rows("class-definition", 135)[134]
    assert row["prompt"] == "crane bird, large long-necked wading bird of marshes and plains in many parts of the world"
    assert json.loads(row["detail"])["synset"] == "crane.n.05"
    assert _rows("class-hypernym", 1)[0]["prompt"] == "tench, cyprinid"


def test_each_class_goes_evenly_through_the_places_and_concepts_draw_them():
    rows = _rows("hypernym-places", 10 * 365, DIGITS)
    assert len({row["prompt"] for row in rows}) == 3650
    drawn = _rows("concept-places", 10 * 365, DIGITS)
    counts = np.bincount([row["caption_id"] for row in drawn], minlength=3650)
    assert abs((counts == 0).mean() - np.exp(-1)) < 0.03, "each place by itself: a share of 1/e is never drawn"
    firsts = [row["label"] for row in drawn[:10]]
    assert sorted(firsts) == list(range(10)) and firsts != list(range(10)), "concepts are shuffled"


def test_places_are_the_365_with_their_subtypes_apart():
    there = places(None)
    assert len(set(there)) == 365 and "apartment building outdoor" in there and "airfield" in there
    assert not any("/" in place or "_" in place for place in there)


def test_own_places_and_templates_are_used_and_recorded(tmp_path):
    (tmp_path / "p.txt").write_text("# scenes\na kitchen\n\na lake\n")
    (tmp_path / "t.txt").write_text("{} in ink\n")
    inputs = Inputs(classes=DIGITS, places=tmp_path / "p.txt")
    table = make_table("hypernym-places", inputs, 20)
    assert {row["prompt"].partition(" inside ")[2] for row in next(table.blocks()).to_pylist()} == {
        "a kitchen",
        "a lake",
    }
    assert str(tmp_path / "p.txt") in table.metadata()["sources"]["places"]
    assert _rows("clip-templates", 1, DIGITS, templates=tmp_path / "t.txt")[0]["prompt"] == "zero in ink"


def test_images_per_caption_stand_side_by_side_and_a_cut_group_is_told(tmp_path, capsys):
    table = make_table("clip-templates", Inputs(classes=DIGITS), 42, 4)
    rows = next(table.blocks()).to_pylist()
    assert [row["prompt"] for row in rows[:5]] == [rows[0]["prompt"]] * 4 + [rows[4]["prompt"]]
    assert [row["label"] for row in rows[::4]] == [*range(10), 0]
    assert table.notes == ("the last caption has 2 of 4 images; groups are whole at multiples of it",)
    assert make_table("clip-templates", Inputs(classes=DIGITS), 40, 4).notes == ()
    out = str(tmp_path / "p.parquet")
    main(["--images-per-caption", "4", "--num-images", "42", "--out", out])
    assert "note: the last caption has 2 of 4" in capsys.readouterr().err
    main(["show", out, "--index", "5"])
    assert "image 2 of 4 of it" in capsys.readouterr().out


def test_show_tells_the_story_of_a_row(tmp_path, capsys):
    out = str(tmp_path / "p.parquet")
    main(["--recipe", "hypernym-places", "--classes", "imagenet1k", "--num-images", "2k", "--out", out])
    main(["show", out, "--index", "1134"])
    printed = capsys.readouterr().out
    assert "crane bird, n02012849, label 134" in printed and "hypernym-places: c, h_c inside b" in printed
    assert "wading bird (of crane.n.05 in WordNet)" in printed and "place " in printed


# ------------------------------------------------------------------ WordNet


def test_the_small_wordnet_reads_as_the_real_one_does(wordnet):
    folder, wnids = wordnet
    database = WordNet(folder)
    dog = database.by_wnid(wnids["dog#1"])
    assert (dog.name, dog.hypernym, dog.key) == ("dog", "canine", "dog.n.01")
    assert database.by_wnid(wnids["bird#1"]).definition == "warm-blooded egg-laying vertebrates", "no example in it"
    assert [sense.key for sense in database.senses("cranes")] == ["crane.n.01", "crane.n.02", "crane.n.03"]
    assert database.senses("gray whale")[0].name == "gray whale" and database.senses("unicorn") == []
    assert len(list(database.nouns())) == len(SYNSETS) and database.by_wnid("n99999999") is None
    assert database.version == "WordNet 3.0"


def test_a_class_without_facts_gets_them_by_wnid_or_by_name_and_the_sense_is_told(wordnet, tmp_path):
    folder, wnids = wordnet
    classes = _csv(
        tmp_path, f"id,name,hypernym\n{wnids['crane#3']},crane\nx,tench,\ny,dog,pet\n".replace("crane\n", "crane,\n")
    )
    table = make_table("class-hypernym", Inputs(classes=classes, wordnet_dir=folder), 3)
    rows = next(table.blocks()).to_pylist()
    assert [row["prompt"] for row in rows] == ["crane, wading bird", "tench, cyprinid", "dog, pet"]
    assert [json.loads(row["detail"]).get("synset") for row in rows] == ["crane.n.03", "tench.n.01", None]
    assert "'tench' is tench.n.01" in table.notes[0] and "crane" not in table.notes[0]
    assert table.metadata()["sources"] == {"wordnet": "WordNet 3.0"}


def test_a_number_inside_a_line_is_no_noun(wordnet):
    folder, wnids = wordnet
    database = WordNet(folder)
    inside = int(wnids["dog#1"][1:]) + 3
    assert database.by_wnid(f"n{inside:08d}") is None and database.by_wnid("n00000000") is None


def test_the_order_of_hypernyms_is_that_of_the_file_in_every_process(wordnet):
    folder, wnids = wordnet
    code = (
        "import sys; from pathlib import Path; from synclones.prompts.classes.wordnet import WordNet; "
        f"print(WordNet(Path({str(folder)!r})).by_wnid({wnids['dog#1']!r}).hypernym)"
    )
    for seed in ("1", "2", "3", "4"):  # nltk alone answers by the hash seed
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True
        )
        assert done.stdout == b"canine\n", done.stderr


def test_every_noun_of_wordnet_is_a_concept_bank(wordnet, tmp_path):
    folder, wnids = wordnet
    bank = load_classes(WORDNET_NOUNS, folder)
    assert len(bank.classes) == len(SYNSETS) - 1, "all but the root, which has no hypernym"
    (tmp_path / "more.csv").write_text(f"id,name,hypernym\n{wnids['dog#1']},doggy,pet\nz,zebra,horse\n")
    joined = load_classes(f"{tmp_path / 'more.csv'},{WORDNET_NOUNS}", folder)
    assert len(joined.classes) == len(bank.classes) + 1 and joined.classes[0].name == "doggy"
    assert len(_rows("concept-places", 300, joined)) == 300


@pytest.mark.wordnet
def test_the_shipped_lists_are_what_the_real_wordnet_says(tmp_path):
    make_class_lists(["--wordnet-dir", str(WORDNET), "--out", str(tmp_path)])
    assert len(list(tmp_path.iterdir())) == 4
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (PLACES365.parent / "classes" / path.name).read_bytes(), path.name


@pytest.mark.wordnet
def test_the_real_wordnet_is_found_and_has_its_nouns(monkeypatch):
    bank = load_classes(WORDNET_NOUNS)
    assert len(bank.classes) == 82_114
    assert len(_rows("concept-places", 1000, bank)) == 1000
    assert open_wordnet(None).by_wnid("n02012849").hypernym == "wading bird"


def test_class_lists_have_as_many_classes_as_their_benchmarks():
    counts = {"fgvc-aircraft": 100, "stanford-cars": 196, "dtd": 47, "flowers102": 102, "imagenet100": 100}
    counts |= {"imagenet1k": 1000, "imagenet1k-wordnet": 1000, "cifar10": 10, "lab-digits": 10}
    assert set(counts) == set(SHIPPED) - {WORDNET_NOUNS}
    for name, count in counts.items():
        classes = load_classes(name)
        assert len({info.class_id for info in classes.classes}) == len(classes.classes) == count
        assert all(info.more["hypernym"] for info in classes.classes)
    own, theirs = load_classes("imagenet1k").classes, load_classes("imagenet1k-wordnet").classes
    assert (own[134].name, theirs[134].name, own[134].class_id) == ("crane bird", "crane", theirs[134].class_id)
    assert {info.class_id for info in load_classes("imagenet100").classes} < {info.class_id for info in own}


def test_flowers_are_those_of_torchvision_in_its_order():
    from torchvision.datasets import Flowers102

    def plain(name):  # the two write some names a little differently: globe-flower, pink-yellow dahlia?
        return re.sub("[^a-z]", "", name.lower().replace(" and ", " ").replace("colts foot", "coltsfoot"))

    ours = [plain(info.name) for info in load_classes("flowers102").classes]
    theirs = [plain(name) for name in Flowers102.classes]
    assert {(a, b) for a, b in zip(ours, theirs, strict=True) if a != b} == {("airplant", "ballmoss")}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "id,name,hypernym\na,cat,feline\nb,dog,\n"),
        ("m.tsv", "id\tname\thypernym\na\tcat\tfeline\nb\tdog\t\n"),
        ("m.json", '[{"id": "a", "name": "cat", "hypernym": "feline"}, {"class_id": "b", "name": "dog"}]'),
        ("m.json", '{"a": {"name": "cat", "hypernym": "feline"}, "b": "dog"}'),
    ],
)
def test_class_files_of_every_form_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = load_classes(str(tmp_path / name)).classes
    assert [(info.class_id, info.name, info.more) for info in found] == [
        ("a", "cat", {"hypernym": "feline"}),
        ("b", "dog", {}),
    ]


def test_a_class_file_may_have_a_comma_in_its_name(tmp_path):
    path = tmp_path / "cats, dogs.csv"
    path.write_text("name\ncat\ndog\n")
    assert [info.name for info in load_classes(str(path)).classes] == ["cat", "dog"]


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a {} and {}\n", "t.txt:1: the template 'a {} and {}' has 2 slots"),
        ("a {}\na photo\n", "t.txt:2: the template 'a photo' has 0 slots; write {} once"),
        ("a {}\na {}\n", "t.txt:2: 'a {}' appears in line 1 already"),
        ("# none\n", "t.txt: no entries"),
        ("a {}\tb\n", "t.txt:1: holds a control character"),
    ],
)
def test_a_template_file_that_makes_no_prompts_names_its_line(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        make_table("clip-templates", Inputs(classes=DIGITS, templates=tmp_path / "t.txt"), 10)
    assert message in str(caught.value)


def test_a_class_nobody_knows_is_named_and_the_column_offered(wordnet, tmp_path):
    folder, _ = wordnet
    classes = _csv(tmp_path, "name\ndog\nunicorn\nyeti\n")
    with pytest.raises(
        InputError, match="class 'unicorn' \\(unicorn\\) and 1 more has no hypernym; add a column `hyper"
    ):
        make_table("hypernym-places", Inputs(classes=classes, wordnet_dir=folder), 10)


def test_without_wordnet_the_message_offers_every_way_out(tmp_path, monkeypatch):
    open_wordnet.cache_clear()
    monkeypatch.setattr("synclones.prompts.classes.wordnet.PLACES", ())
    monkeypatch.setattr("synclones.prompts.classes.wordnet._download", lambda: False)
    classes = _csv(tmp_path, "name\ndog\n")
    with pytest.raises(InputError) as caught:
        make_table("class-hypernym", Inputs(classes=classes), 10)
    for way in ("add a column `hypernym`", "--wordnet-dir", "wordnet-base", "nltk.downloader"):
        assert way in str(caught.value)
    with pytest.raises(InputError, match="has no data.noun and no index.noun"):
        make_table("class-hypernym", Inputs(classes=classes, wordnet_dir=tmp_path), 10)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.json", "{", "not JSON"),
        ("m.json", "3", "expected a list of objects"),
        ("m.json", "[1]", "entry 1: '1' is no class"),
        ("m.json", '[{"name": "a"}, {"name": "b", "hypernym": []}]', "entry 2: hypernym is \\[\\], expected a text"),
        ("m.json", '[{"name": "a"}, {"name": "a"}]', "entry 2: .* appears in entry 1 already"),
        ("m.csv", "id,class_id,name\n", "the column 'class_id' appears twice"),
        ("m.csv", f"name,definition\na,{'x' * 1001}\n", ":2: definition holds a control character or over 1000"),
        ("m.xls", "", "a class list ends in .csv, .tsv, .json"),
    ],
)
def test_a_class_file_that_could_be_misread_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load_classes(str(tmp_path / name))


@pytest.mark.parametrize(
    ("recipe", "given"), [("class-name", "captions"), ("class-hypernym", "places"), ("hypernym-places", "templates")]
)
def test_an_input_that_the_recipe_ignores_is_refused(tmp_path, recipe, given):
    with pytest.raises(InputError, match=f"--{given}: was given, but the recipe {recipe} does not read it"):
        make_table(recipe, Inputs(classes=DIGITS, **{given: tmp_path / "x.csv"}), 10)


def test_an_empty_class_list_is_only_for_captions():
    with pytest.raises(InputError, match="--classes: the recipe class-name needs classes"):
        make_table("class-name", Inputs(classes=ClassList("none", ())), 10)
