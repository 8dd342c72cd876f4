"""Token ids kept beside a set are those that a training makes, and what is not of its captions is refused."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from shard_helpers import write_finished
from test_train_objectives import COMMON, TEXT, _flags

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_file, write_atomic
from synclones.models.tokenizer import token_ids, tokenize
from synclones.shards.columns import SideColumns
from synclones.shards.run import main as shards_main
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.token_files import TokenColumn, TokenShard, packed
from synclones.shards.verify import verify
from synclones.train import token_column
from synclones.train.job import prepare
from synclones.train.run import main
from synclones.train.settings import TrainConfig

LONG = "a photo of " + ", ".join(f"thing number {n} of many" for n in range(40))
CLIP = COMMON | TEXT | {"objective": "clip"}


def _settings(data, out, **more) -> TrainConfig:
    return TrainConfig(data=(str(data),), out=out, **CLIP | more)


@pytest.fixture
def folder(tmp_path):
    """21 images in three shards, each with one to three captions in a side column; some are long, one is empty."""
    folder = write_finished(tmp_path / "set")
    index = [i for shard in range(3) for i in LabelledSource(folder).source.open(shard).index.tolist()]
    rows = [(i, f"caption {n} of {i}" if i % 4 else f"{LONG} {i} {n}") for i in index for n in range(1 + i % 3)]
    rows = [(i, "" if i == 14 else text) for i, text in rows]
    table = pa.table({"index": [i for i, _ in rows], "caption": [text for _, text in rows]})
    pq.write_table(table, tmp_path / "captions.parquet")
    shards_main(["annotate", str(folder), "--from", str(tmp_path / "captions.parquet"), "--columns", "caption"])
    return folder


@pytest.mark.parametrize("length", [3, 12, 77])
def test_ids_of_one_text_are_open_clip_s_and_say_what_was_cut(length):
    for text in ("", "a", "a photo of a cat", LONG, "ÄÖ ß 漢字 🙂", "\ud800 half", "x" * 500):
        ids, cut = token_ids(text, length)
        assert torch.equal(torch.from_numpy(ids), tokenize([text], length)[0])
        assert cut == (len(np.flatnonzero(token_ids(text, 2000)[0])) > length)


@pytest.mark.parametrize("column", ["", "caption"])
@pytest.mark.parametrize("length", [9, 77])
def test_kept_ids_are_those_made_on_the_fly_at_every_showing(folder, capsys, column, length):
    flags = ["--caption-column", column] if column else []
    main(["tokenize", str(folder), "--text-length", str(length), *flags])
    said = capsys.readouterr().out
    source, name = LabelledSource(folder), token_column.token_column_name(length, column)
    long = [len(np.flatnonzero(token_ids(text, 2000)[0])) > length for text in _texts(folder, column)]
    assert f"{sum(long)} of {len(long)} captions have more than {length} token ids" in said
    for position in range(len(source)):
        for showing in range(5):
            text = source.caption(position, showing, 3, column)
            ids = source.tokens(position, showing, 3, name)
            assert ids.dtype == np.uint16
            assert (ids == (token_ids(text, length)[0] if text else 0)).all(), (position, showing)
    verify(folder, quick=False)
    assert LabelledSource(folder).tokens(0, 0, 0, "tokens-1023") is None


def _texts(folder, column) -> list[str]:
    source = LabelledSource(folder)
    if not column:
        return [source.caption(position) for position in range(len(source))]
    values = SideColumns(folder).column(column)
    lists = [each for shard in range(3) for each in values.read(shard, range(7)).to_pylist()]
    return [text for each in lists for text in each if text]


def test_a_training_ends_with_the_same_weights_and_reads_no_caption(dataset, tmp_path, monkeypatch, capsys):
    copy, short = shutil.copytree(dataset, tmp_path / "set"), CLIP | {"text_length": 6}
    main(_flags(copy, tmp_path / "a", short))
    assert "captions lost their end behind 6 token ids" in capsys.readouterr().err
    main(["tokenize", str(copy), "--text-length", "6"])
    monkeypatch.setattr("synclones.models.tokenizer.token_ids", lambda *_: pytest.fail("tokenized again"))
    capsys.readouterr()
    main(_flags(copy, tmp_path / "b", short))
    said = capsys.readouterr().err
    assert "token ids are those of its column tokens-6; " in said and "of 60 captions have more than 6" in said
    weights = [sha256_file(tmp_path / run / "export/open_clip_model.safetensors") for run in "ab"]
    assert weights[0] == weights[1]
    plans = [json.loads((tmp_path / run / "manifest.json").read_text())["plan_id"] for run in "ab"]
    assert plans[0] == plans[1], "a training goes on with and without them"


def test_other_captions_lengths_and_vocabularies_are_refused_by_what_differs(folder, tmp_path, monkeypatch):
    main(["tokenize", str(folder), "--text-length", "12", "--caption-column", "caption"])
    name = "caption-tokens-12"
    prepare(
        _settings(folder, tmp_path / "run", text_length=13, caption_column="caption"), 0, 1
    )  # has no column of its own
    config = _settings(folder, tmp_path / "run", caption_column="caption")
    with monkeypatch.context() as patched:
        patched.setattr("synclones.models.tokenizer.vocabulary_sha256", lambda: "0" * 64)
        with pytest.raises(InputError, match=rf"{name}: token ids that .*\(vocabulary_sha256 .* there, 0000"):
            prepare(config, 0, 1)
        with pytest.raises(InputError, match="was made from something else"):
            main(["tokenize", str(folder), "--text-length", "12", "--caption-column", "caption"])
    (folder / "columns" / "tokens-12").mkdir()
    for file in (folder / "columns" / name).iterdir():
        shutil.copy(file, folder / "columns" / "tokens-12" / file.name)
    with pytest.raises(InputError, match=r"tokens-12: .*\(caption_column 'caption' there,"):
        prepare(_settings(folder, tmp_path / "run"), 0, 1)
    # Captions that were made anew under the same name.
    table = pq.read_table(tmp_path / "captions.parquet")
    changed = table.set_column(1, "caption", pa.array(["other"] * len(table)))
    pq.write_table(changed, tmp_path / "captions.parquet")
    shutil.rmtree(folder / "columns" / "caption")
    shards_main(["annotate", str(folder), "--from", str(tmp_path / "captions.parquet"), "--columns", "caption"])
    with pytest.raises(InputError, match=r"\(captions_sha256 .* there, .* asked\); remove the folder"):
        prepare(config, 0, 1)


def test_unfinished_ids_are_refused_and_the_same_command_goes_on(folder, tmp_path, capsys):
    main(["tokenize", str(folder)])
    capsys.readouterr()
    whole = {path.name: path.read_bytes() for path in (folder / "columns" / "tokens-77").iterdir()}
    (folder / "columns/tokens-77/train-00001.json").unlink()
    with pytest.raises(
        VerificationError, match=r"train-00001\.ids: missing or cut; run the same tokenize command again"
    ):
        prepare(_settings(folder, tmp_path / "run", text_length=77), 0, 1)
    main(["tokenize", str(folder)])
    assert "1 of 3 shards written by this process" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (folder / "columns" / "tokens-77").iterdir()} == whole


def test_damage_is_found_before_an_id_is_used(folder):
    main(["tokenize", str(folder), "--text-length", "5"])
    path = folder / "columns/tokens-5/train-00002.ids"
    whole = path.read_bytes()
    for data in (b"", whole[:-1], whole + b"\0", *(_flipped(whole, at) for at in range(0, len(whole), 3))):
        write_atomic(path, data)
        with pytest.raises(VerificationError, match=r"train-00002\.ids: damaged"):
            TokenColumn(folder, "tokens-5").drawn(2, 0, 0, 0)
    with pytest.raises(VerificationError, match=r"train-00002\.ids: "):
        verify(folder, quick=False)
    path.unlink()
    with pytest.raises(VerificationError, match=r"train-00002\.ids: missing"):
        TokenColumn(folder, "tokens-5").drawn(2, 0, 0, 0)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_bytes_that_do_not_make_up_a_shard_are_none():
    sound = packed(np.arange(2), np.array([1, 2]), np.arange(9).reshape(3, 3))
    assert TokenShard(sound, 2, 3).ids.tolist() == np.arange(9).reshape(3, 3).tolist()
    for data in (sound[:-2], sound[:8], b"", packed(np.arange(2), np.array([3, 1]), np.zeros((3, 3), int))):
        with pytest.raises(ValueError):
            TokenShard(data, 2, 3)
    backwards = bytearray(sound)
    backwards[12] = 9
    with pytest.raises(ValueError, match="do not follow"):
        TokenShard(bytes(backwards), 2, 3)


def test_columns_of_other_kinds_are_not_taken_for_ids(folder):
    with pytest.raises(InputError, match="holds texts, expected token ids"):
        TokenColumn(folder, "caption")
    main(["tokenize", str(folder)])
    with pytest.raises(InputError, match="which a training alone reads"):
        SideColumns(folder).column("tokens-77").read(0, 0)


@pytest.mark.parametrize("flags", [["--text-length", "2"], ["--caption-column", "none"], ["--text-length", "1025"]])
def test_bad_settings_are_refused_and_nothing_is_written(folder, flags):
    with pytest.raises(InputError):
        main(["tokenize", str(folder), *flags])
    assert [path.name for path in (folder / "columns").iterdir()] == ["caption"]
