"""What ``--data`` says: exact counts, shares and repeats, classes matched by id, and one line for every mistake."""

from fractions import Fraction

import numpy as np
import pytest
from shard_helpers import PLAN, sample, write_shard

from synclones.base.errors import InputError
from synclones.base.manifest import write_manifest
from synclones.shards.index import finish_folder
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.mixture import Pair, parse_mixture
from synclones.shards.loading.parts import open_mixture
from synclones.shards.run import main
from synclones.shards.schema import Sample, shard_name
from synclones.shards.write import ShardWriter


def write(folder, count, classes=("a", "b", "c"), first=0):
    """A set of ``count`` images in shards of 8, image i of class i mod 3."""
    folder.mkdir(parents=True)
    shards = -(-count // 8)
    for shard in range(shards):
        samples = [sample(i) for i in range(shard * 8, min(count, shard * 8 + 8))]
        with ShardWriter(folder, shard_name("train", shard, shards), PLAN) as writer:
            writer.add_batch(0, samples)
            writer.finish()
    finish_folder(folder)
    write_manifest(folder, "test", {}, [], {}, {}, {"classes": list(classes), "content_hash": "0"})
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    base = tmp_path_factory.mktemp("sets")
    write(base / "syn", 60)
    write(base / "real", 20)
    write(base / "turned", 12, ("c", "a", "b"))
    write(base / "others", 12, ("a", "b", "x"))
    return base


def table(sets, *texts):
    """Name -> (used, shown per epoch)."""
    named = [text if "=" in text.partition(",")[0] else f"{sets}/{text}" for text in texts]
    mixed = open_mixture(parse_mixture(named))
    return {row["source"]: (row["unique"], row["per_epoch"]) for row in mixed.rows()}


def test_amounts_are_exact(sets):
    assert table(sets, "syn", "real") == {"syn": (60, 60), "real": (20, 20)}
    assert table(sets, "syn", "real:3") == {"syn": (60, 60), "real": (20, 60)}
    assert table(sets, "syn", "real,repeat=1/2") == {"syn": (60, 60), "real": (20, 10)}
    assert table(sets, "syn,count=7", "real,fraction=1/8,repeat=8") == {"syn": (7, 7), "real": (2, 16)}
    assert table(sets, "syn,fraction=12.5%", "real,images=33") == {"syn": (7, 7), "real": (20, 33)}
    assert table(sets, "syn,count=all", "real,name=photos") == {"syn": (60, 60), "photos": (20, 20)}
    # a total is divided by shares, else by sizes; the remainders go to the largest
    assert table(sets, "syn", "real", "total=40") == {"syn": (60, 30), "real": (20, 10)}
    assert table(sets, "syn,share=1/3", "real", "total=100") == {"syn": (60, 33), "real": (20, 67)}
    assert table(sets, "syn,share=0.5", "real,share=50%", "total=101") == {"syn": (60, 51), "real": (20, 50)}


def test_a_file_says_the_same_as_the_command_line(sets, tmp_path):
    path = tmp_path / "mixture.yaml"
    path.write_text(
        f"total: 100\nsources:\n  syn: {{path: {sets}/syn, share: 1/3}}\n  photos:\n    path: {sets}/real\n"
        "    subset-seed: 7\n    count: 10\npair: pick-one:photos+syn\n"
    )
    mixture = parse_mixture([str(path)])
    flags = [f"{sets}/syn,share=1/3", f"{sets}/real,name=photos,subset_seed=7,count=10", "total=100"]
    assert mixture == parse_mixture([*flags, "pair=pick-one:photos+syn"])
    assert mixture.pair == Pair(mode="pick-one", real="photos", synthetic="syn") and mixture.total == 100
    assert mixture.items[0].share == Fraction(1, 3) and mixture.items[1].subset_seed == 7


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["a:0"], "'a:0': repeat: '0' was given, expected how often"),
        (["a,cuont=3"], "'cuont' is no setting of a set; did you mean 'count'?"),
        (["a,count=0"], "count: '0' was given, expected a number of images of at least 1"),
        (["a,count=2x"], "count: '2x' is not a count"),
        (["a,fraction=9/8"], "fraction: '9/8' was given, expected a share"),
        (["a,fraction=1/0"], "fraction: '1/0' was given, expected a share"),
        (["a,count=3,count=4"], "count is given twice; keep one"),
        (["a:2,repeat=3"], "repeat is given twice; keep one"),
        (["a,count=3,fraction=1/2"], "count and fraction say the same thing twice"),
        (["a,images=3,share=1/2"], "images and share say the same thing twice"),
        (["a,share=1/2", "b"], "a: a share is one of a total; add total=N"),
        (["a,share=2/3", "b,share=2/3", "total=9"], "the shares sum to 1.33333 and 0 sets have none"),
        (["a,share=1/3", "b", "c", "total=9"], "the shares sum to 0.333333 and 2 sets have none"),
        (["a", "total=none"], "total: 'none' is not a count"),
        (["a", "total=3", "total=4"], "total is given twice"),
        (["a,name=x", "b,name=x"], "two sets are called 'x'"),
        (["a", "b", "pair=half:a+b"], "pair: 'half:a+b' was given, expected pick-one or both"),
        (["a", "b", "pair=both:a+c"], "pair: 'c' is none of the sets"),
        (["a,count=3,x"], "'x' is no KEY=VALUE"),
        (["a,balance=maybe"], "balance: 'maybe' was given, expected true or false"),
        (["a,subset-seed=99999999999999999999"], "expected a seed below 2^63"),
    ],
)
def test_every_mistake_is_one_line_that_says_what_is_expected(texts, expected):
    with pytest.raises(InputError) as error:
        parse_mixture(texts)
    assert expected in str(error.value) and "\n" not in str(error.value)


def contents(folder):
    """What a training sees of a set: identity and images of two epochs."""
    mixed = open_mixture(parse_mixture([str(folder)]))
    loader = BatchLoader(mixed, batch_size=5, seed=3, crops=Crops(size_px=16))
    batches = list(loader.batches(0, 2 * mixed.images_per_epoch // 5))
    shown = [(batch.index.tolist(), batch.labels.tolist(), batch.pixels.numpy().tobytes()) for batch in batches]
    return mixed.parts[0].identity(), shown


@pytest.mark.parametrize("more", ["", ",count=9", ",fraction=1/2,repeat=2", ",balance=true"])
def test_the_first_images_of_a_set_train_as_the_set_that_was_drawn_with_so_many(tmp_path, more):
    large, small = write(tmp_path / "large" / "x", 60), write(tmp_path / "small" / "x", 21)
    (of_large, seen), (of_small, expected) = contents(f"{large},first=21{more}"), contents(f"{small},first=21{more}")
    assert seen == expected == contents(f"{small}{more}")[1] and max(max(index) for index, *_ in seen) <= 20
    assert of_large == of_small  # the second batch of whose third shard is only in the larger set
    assert contents(f"{large},first=21{more}") != contents(f"{large},first=18{more}")


def test_the_first_images_are_counted_by_number_so_that_one_that_was_not_stored_is_missing(tmp_path):
    for shard in range(3):  # of 8, whose image 5 has failed
        write_shard(tmp_path, shard)
    finish_folder(tmp_path)
    write_manifest(tmp_path, "test", {}, [], {}, {}, {"classes": ["a", "b", "c"], "content_hash": "0"})
    for first, stored in ((5, 5), (6, 5), (8, 7), (15, 13), (24, 21)):
        (part,) = open_mixture(parse_mixture([f"{tmp_path},first={first}"])).parts
        assert (part.unique, len(part.source)) == (stored, stored)
        assert part.source.index(stored - 1) == max(i for i in range(first) if i % 8 != 5)


@pytest.mark.parametrize(
    "what, expected",
    [
        ("large,first=61", "first=61, it has 60 images; let it grow with --extend"),
        ("gaps,first=4", "gaps: first=4: its images are not numbered from 0 without gaps; write count=4"),
        ("folders,first=4", "folders: first=4 is said of folders that `synclones generate` made, on this disk"),
    ],
)
def test_first_images_are_refused_where_there_are_none(tmp_path, what, expected):
    write(tmp_path / "large", 60)
    (tmp_path / "gaps").mkdir()
    with ShardWriter(tmp_path / "gaps", "train-00000", PLAN) as writer:
        writer.add_batch(0, [sample(i) for i in range(4, 12)])
        writer.finish()
    finish_folder(tmp_path / "gaps")
    (tmp_path / "folders" / "a").mkdir(parents=True)
    (tmp_path / "folders" / "a" / "0.jpg").write_bytes(sample(0).jpg)
    with pytest.raises(InputError) as error:
        open_mixture(parse_mixture([f"{tmp_path}/{what}"]))
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("sources:\n  a: {path: x, cuont: 3}", "m.yaml:2: 'cuont' is no setting of a set; did you mean 'count'?"),
        ("sources:\n  a: {count: 3}", "m.yaml:2: a: got a mapping, expected a folder, or a mapping with `path:`"),
        ("sources:\n  a: {path: x, count: [3]}", "m.yaml:2: count: [3] is not a count"),
        ("total: 3", "m.yaml: expected `sources:`"),
        ("source:\n  a: x", "m.yaml:1: 'source' is unknown; did you mean 'sources'?"),
    ],
)
def test_a_mistake_in_a_file_names_its_line(tmp_path, text, expected):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        parse_mixture([str(tmp_path / "m.yaml")])
    assert expected in str(error.value).replace(str(tmp_path) + "/", "").replace("mis not", "m is not")


def test_more_images_than_there_are_is_refused_with_the_repeats_that_would_show_as_many(sets):
    with pytest.raises(InputError, match=r"real: 50 images are asked for, it has 20; .*write repeat=5/2 to show"):
        table(sets, "real,count=50")
    with pytest.raises(InputError, match=r"real: total=2 leaves no image of it"):
        table(sets, "syn,share=0.9", "real", "total=2")


def test_a_path_with_commas_and_colons_is_itself_when_it_exists(sets, tmp_path):
    odd = write(tmp_path / "a,count=3:2", 4)
    assert [item.path for item in parse_mixture([str(odd)]).items] == [str(odd)]
    assert parse_mixture([f"{tmp_path}/b,c,count=3"]).items[0].path == f"{tmp_path}/b,c"


def test_labels_are_matched_by_class_id(sets):
    mixed = open_mixture(parse_mixture([f"{sets}/real", f"{sets}/turned"]))
    assert mixed.class_ids == ("a", "b", "c")
    seen = set()
    for batch in BatchLoader(mixed, batch_size=8, seed=0, crops=Crops(size_px=16)).batches(0, 4):
        for part, index, label in zip(batch.source, batch.index, batch.labels.tolist(), strict=True):
            class_id = mixed.parts[part].source.class_ids[index % 3]
            assert mixed.class_ids[label] == class_id
            seen.add((int(part), int(index)))
    assert len(seen) == 32
    with pytest.raises(
        InputError, match=r"real has the class 'c', .*others has not; train on sets of the same classes"
    ):
        open_mixture(parse_mixture([f"{sets}/real", f"{sets}/others"]))


def test_a_balanced_set_shows_its_classes_alike_and_names_the_class_that_has_too_few(tmp_path):
    folder = tmp_path / "lopsided"
    folder.mkdir()
    labels = [0] * 12 + [1] * 6 + [2] * 2
    with ShardWriter(folder, "train-00000", PLAN) as writer:
        made = [sample(i) for i in range(20)]
        writer.add_batch(0, [Sample(**{**vars(one), "label": label}) for one, label in zip(made, labels, strict=True)])
        writer.finish()
    finish_folder(folder)
    write_manifest(folder, "test", {}, [], {}, {}, {"classes": ["a", "b", "c"], "content_hash": "0"})
    mixed = open_mixture(parse_mixture([f"{folder},balance=true,images=24"]))
    loader = BatchLoader(mixed, batch_size=6, seed=0, crops=Crops(size_px=16))
    shown = np.concatenate([batch.labels for batch in loader.batches(0, 4)])
    assert np.bincount(shown).tolist() == [8, 8, 8]
    with pytest.raises(InputError, match="balance: class 2 has 2, 3 are asked for; lower count or fraction"):
        open_mixture(parse_mixture([f"{folder},balance=true,count=9"]))


def test_the_plan_of_whole_sets_is_that_of_earlier_versions_and_others_say_more(sets):
    plain, subset = open_mixture(parse_mixture([f"{sets}/real:3", f"{sets}/syn,count=6"])).parts
    assert plain.identity().keys() == {"content_hash", "repeat"} and plain.identity()["repeat"] == 3
    assert subset.identity() | {"content_hash": ""} == {"content_hash": "", "groups": 6, "shown": 6, "subset_seed": 0}


def shown(sets, text):
    """Numbers of the images that an epoch of one set shows, ascending."""
    (part,) = open_mixture(parse_mixture([f"{sets}/{text}"])).parts
    groups, _ = part.order(0, 0).at(np.arange(part.shown))
    return sorted(part.source.index(position) for group in groups for position in part.source.group(int(group)))


def test_images_are_left_out_or_chosen_by_their_numbers(sets, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("7\n0000000003  # as keys are written\n\n59\n")
    assert shown(sets, f"syn,only={few}") == [3, 7, 59]
    assert shown(sets, f"syn,without={few}") == [i for i in range(60) if i not in (3, 7, 59)]
    assert table(sets, f"syn,without={few},fraction=1/3,repeat=2") == {"syn": (19, 38)}
    assert len(set(shown(sets, f"syn,without={few},count=20")) - {3, 7, 59}) == 20
    # Images decide the plan, not the file that says them; the whole set's plan says nothing of this.
    same = tmp_path / "same.txt"
    same.write_text("\n".join(str(i) for i in range(60) if i not in (3, 7, 59)))
    first, second, others = (
        open_mixture(parse_mixture([f"{sets}/syn,{text}"])).parts[0].identity()
        for text in (f"only={few}", f"without={same}", f"without={few}")
    )
    assert first == second != others and "excluded" in first


@pytest.mark.parametrize(
    "text, expected",
    [
        ("60", "names image 60, which"),
        ("1\n2\n1", "names image 1 twice"),
        ("# nothing", "names no image"),
        ("1\n-2", "few.txt:2: '-2' is no number of an image"),
    ],
)
def test_a_number_of_no_image_is_refused(sets, tmp_path, text, expected):
    (tmp_path / "few.txt").write_text(text)
    for key in ("only", "without"):
        with pytest.raises(InputError, match=expected):
            table(sets, f"syn,{key}={tmp_path}/few.txt")
    (tmp_path / "all.txt").write_text("\n".join(map(str, range(60))))
    with pytest.raises(InputError, match="holds no image"):
        table(sets, f"syn,without={tmp_path}/all.txt")
    with pytest.raises(InputError, match="cannot read"):
        table(sets, f"syn,only={tmp_path}/absent.txt")
    with pytest.raises(InputError, match="only and without say the same thing twice"):
        table(sets, f"syn,only={tmp_path}/all.txt,without={tmp_path}/all.txt")


def test_mix_shows_the_table(sets, capsys):
    main(["mix", "--data", f"{sets}/syn,fraction=1/2", f"{sets}/real:3"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["syn", "60", "30", "30", "1", "33.3%", "3"]
    assert lines[2] == ["real", "20", "20", "60", "3", "66.7%", "3"]
    assert lines[3] == ["all", "80", "50", "90", "100.0%", "3"]
    with pytest.raises(InputError, match="--data: nothing was given"):
        main(["mix"])
