"""Real images and the synthetic ones made from them: joined by source_key, one of the two or both at every showing."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_mixture import write

from synclones.base.errors import InputError
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.mixture import parse_mixture
from synclones.shards.loading.parts import open_mixture
from synclones.shards.run import main
from synclones.shards.sources.decode import decode_image
from synclones.shards.sources.images import list_images
from synclones.shards.sources.labelled import LabelledSource


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """20 real images; 30 synthetic ones, of which 26 come from the real images 0 to 12, two from each."""
    base = tmp_path_factory.mktemp("pairs")
    real, synthetic = write(base / "real", 20), write(base / "syn", 30, ("c", "a", "b"))
    keys = [key for key, _ in list_images(real)]
    made_from = [keys[i // 2] if i < 26 else f"other/{i}" for i in range(30)]
    table = pa.table({"index": pa.array(range(30), pa.int64()), "source_key": made_from})
    pq.write_table(table, base / "prompts.parquet")
    flags = ["--from", str(base / "prompts.parquet"), "--by", "index", "--columns", "source_key"]
    main(["annotate", str(synthetic), *flags])
    return real, synthetic


def test_each_showing_picks_one_of_the_two_and_which_is_a_function_of_the_showing(sets):
    real, synthetic = sets
    mixed = open_mixture(parse_mixture([str(real), str(synthetic), "pair=pick-one:real+syn"]))
    (row,) = mixed.rows()
    assert row["source"] == "real+syn" and row["per_epoch"] == 13 and row["ungrouped"] == 50 - 13 - 26
    loader = BatchLoader(mixed, batch_size=13, seed=3, crops=Crops(size_px=16))
    epochs = list(loader.batches(0, 40))
    picked = [int(position) for batch in epochs for position in batch.index]
    synthetic_share = sum(position >= 20 for position in picked) / len(picked)
    assert 0.42 < synthetic_share < 0.58  # of 520 showings, a fair coin is outside 3 times in 10,000
    for batch in epochs:
        owners = sorted(p if p < 20 else (p - 20) // 2 for p in batch.index.tolist())
        assert owners == list(range(13))
    # both partners are drawn, and any step is what it is in the whole stream
    assert {p for p in picked if p >= 20} == set(range(20, 46))
    (again,) = BatchLoader(mixed, batch_size=13, seed=3, crops=Crops(size_px=16)).batches(17, 18)
    assert (again.index == epochs[17].index).all() and (again.pixels == epochs[17].pixels).all()


def test_pixels_and_labels_are_those_of_the_image_by_the_real_set_s_classes(sets):
    real, synthetic = map(LabelledSource, sets)
    mixed = open_mixture(parse_mixture([*map(str, sets), "pair=pick-one:real+syn"]))
    for batch in BatchLoader(mixed, batch_size=13, seed=0, crops=Crops(size_px=16)).batches(0, 2):
        for position, label, pixels in zip(batch.index.tolist(), batch.labels.tolist(), batch.pixels, strict=True):
            own, within = (real, position) if position < 20 else (synthetic, position - 20)
            assert (pixels[0].numpy() == decode_image(own.encoded(within))).all()
            assert mixed.class_ids[label] == own.class_ids[own.label(within)]


def test_both_stay_together_in_one_group(sets):
    mixed = open_mixture(parse_mixture([*map(str, sets), "pair=both:real+syn"]))
    assert mixed.images_per_group == 2 and mixed.images_per_epoch == 26
    for world in (1, 2):
        for rank in range(world):
            crops = Crops(size_px=16)
            loader = BatchLoader(mixed, batch_size=8, seed=0, crops=crops, rank=rank, world_size=world)
            for batch in loader.batches(0, 4):
                pairs = batch.index.reshape(-1, 2).tolist()
                assert all(a < 20 <= b and (b - 20) // 2 == a for a, b in pairs)
    (batch,) = BatchLoader(mixed, batch_size=26, seed=0, crops=crops).batches(0, 1)
    assert len(set(batch.index.tolist())) == 26


def test_other_partners_are_another_training(sets, tmp_path):
    real, synthetic = sets
    other = shutil.copytree(synthetic, tmp_path / "syn")
    shutil.rmtree(other / "columns")
    keys = [key for key, _ in list_images(real)]
    table = pa.table({"index": pa.array(range(30), pa.int64()), "source_key": [keys[i % 13] for i in range(30)]})
    pq.write_table(table, tmp_path / "prompts.parquet")
    flags = ["--from", str(tmp_path / "prompts.parquet"), "--by", "index", "--columns", "source_key"]
    main(["annotate", str(other), *flags])
    pair = "pair=pick-one:real+syn"
    mixed = [open_mixture(parse_mixture([str(real), str(each), pair])) for each in (synthetic, other)]
    one, two = (each.parts[0].identity() for each in mixed)
    assert one != two and one | {"content_hash": ""} == two | {"content_hash": ""}
    again = open_mixture(parse_mixture([str(real), str(synthetic), pair])).parts[0].identity()
    assert again == one


def test_what_cannot_be_joined_is_refused_by_name(sets, tmp_path):
    real, synthetic = sets
    plain = shutil.copytree(synthetic, tmp_path / "plain")
    shutil.rmtree(plain / "columns")

    def refused(*texts, match):
        with pytest.raises(InputError, match=match):
            open_mixture(parse_mixture([*texts]))

    pair = "pair=pick-one:real+syn"
    refused(
        str(real), f"{plain},name=syn", pair, match="has no source_key; run: synclones shards annotate .*plain --from"
    )
    other = write(tmp_path / "other", 12)
    refused(f"{other},name=real", str(synthetic), pair, match="no source_key of .*syn is of an image in .*other")
    refused(str(real), f"{synthetic},count=5", pair, match="how much of a pair is shown is said of real")
    both = "pair=both:real+syn"
    refused(str(real), str(synthetic), str(other), both, match="pair=both shows two images together, other sets one")
