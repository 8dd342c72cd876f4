"""A prediction that is killed goes on where it was, and ends with the bytes of one that was not."""

import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load
from test_evaluate import DIGITS, ONE_THREAD, _files, _model
from test_evaluate_ranks import free_port, start

from synclones.evaluate import predict
from synclones.evaluate.answers.predictions import CLEAN, EvaluatedModel, Predictions
from synclones.evaluate.run import main
from synclones.evaluate.stored import pieces
from synclones.evaluate.stored.logits_file import read_kept, write_logits
from synclones.evaluate.stored.pieces import Pieces
from synclones.evaluate.stored.tensors import tensor_bytes
from synclones.evaluate.test_set import TestSet
from synclones.lab.real_digits import write_real_digits
from synclones.models.open_model import open_models


def test_values_that_lie_in_fortran_order_are_kept_where_they_belong(tmp_path):
    """As a model's logits do that transposes its last product; safetensors itself writes them in another order."""
    logits = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    stored = load(tensor_bytes({"logits": logits, "one": np.float32(3)}, {"key": "value"}))
    assert np.array_equal(stored["logits"], logits) and stored["one"] == 3
    given = Predictions(logits, np.arange(4), np.arange(4))
    write_logits(tmp_path, "key", given, {})
    assert np.array_equal(read_kept(tmp_path, "key").logits, logits)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model, 537 images, and the results of an uninterrupted evaluation in batches of 40."""
    folder = tmp_path_factory.mktemp("inputs")
    _model(folder / "model", DIGITS)
    write_real_digits(folder / "data", "test")
    flags = ["--model", str(folder / "model"), "--data", str(folder / "data"), "--batch-size", "40", *ONE_THREAD]
    main([*flags, "--out", str(folder / "whole")])
    return flags, folder / "whole"


def _batch(number):
    rng = np.random.default_rng(number)
    return rng.random((3, 4), dtype=np.float32), np.arange(3), np.arange(3) + 3 * number


def test_what_was_kept_is_read_back_and_what_is_damaged_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "SECONDS", 0.0)
    kept = Pieces(tmp_path, "key", 3)
    for number in (4, 0, 7):
        kept.add(number, _batch(number))
    read = Pieces(tmp_path, "key", 3).read(10**6)
    assert sorted(read) == [0, 4, 7]
    assert all(np.array_equal(a, b) for n in read for a, b in zip(read[n], _batch(n), strict=True))
    # Another prediction's files, a flipped bit, a cut file.
    assert Pieces(tmp_path, "other", 3).read(10**6) == {} == Pieces(tmp_path, "key", 4).read(10**6)
    first, second, third = sorted(kept.folder.iterdir())
    data = bytearray(first.read_bytes())
    data[-20] ^= 1
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-5])
    third.rename(third.with_name("00000001.safetensors"))
    assert sorted(Pieces(tmp_path, "key", 3).read(10**6)) == [7]
    kept.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [1, 9, 30])
def test_no_batch_is_predicted_twice_after_a_stop(inputs, tmp_path, monkeypatch, after):
    flags, whole = inputs
    monkeypatch.setattr(pieces, "SECONDS", 0.0)
    done, real = [], predict._predict_batch

    def counted(model, test_set, positions, condition):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append((str(condition), positions.start))
        return real(model, test_set, positions, condition)

    monkeypatch.setattr(predict, "_predict_batch", counted)
    with pytest.raises(BaseException):  # noqa: B017  # whatever the end of a process is made of
        main([*flags, "--out", str(tmp_path / "r")])
    monkeypatch.setattr(predict, "_predict_batch", lambda *a: (done.append((str(a[3]), a[2].start)), real(*a))[1])
    main([*flags, "--out", str(tmp_path / "r")])
    assert len(done) == len(set(done)) == 3 * 14
    assert _files(tmp_path / "r") == _files(whole)


def test_pieces_of_a_prediction_whose_file_is_whole_are_removed_and_no_others(tmp_path):
    for name in ("a-3.parts", "a-40.parts", "b-3.parts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000000.safetensors").touch()
    (tmp_path / "a.safetensors").touch()
    pieces.remove_finished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b-3.parts"]


@pytest.mark.parametrize("kept", [14, 5, 0])
def test_every_process_has_what_the_first_one_kept(inputs, tmp_path, monkeypatch, kept):
    """Also when nothing is left to predict: a start was killed between the last batch and the file of all."""
    flags, _ = inputs
    (opened,) = open_models(flags[1])
    model = EvaluatedModel("model", opened.classifier.requires_grad_(False), opened.sha256)
    asked = (model, TestSet(flags[3]), CLEAN, 40)
    whole = predict.predict(*asked, tmp_path / "whole", 0, 1)
    parts = [tuple(x[i * 40 : (i + 1) * 40] for x in (whole.logits, whole.labels, whole.index)) for i in range(14)]
    # The second of two processes: the first one says what is kept, and has computed the other half of the rest.
    key = predict.logits_key(model, asked[1], CLEAN)
    others = [(n, *parts[n], key) for n in list(range(kept, 14))[::2]]
    monkeypatch.setattr(predict, "broadcast_object_list", lambda _: [dict(list(enumerate(parts))[:kept])])
    monkeypatch.setattr(predict, "gather_object", lambda mine: [*others, *mine])
    second = predict.predict(*asked, tmp_path / "second", 1, 2)
    for name in ("logits", "labels", "index"):
        assert np.array_equal(getattr(second, name), getattr(whole, name))


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("world", [1, 2])
def test_after_kills_at_random_points_the_files_are_those_of_an_uninterrupted_evaluation(inputs, tmp_path, world):
    flags, whole = inputs
    rng, code = random.Random(world), "import synclones.evaluate.stored.pieces as p; p.SECONDS = 0.05\n"
    code += "import sys; from synclones.evaluate.run import main; main(sys.argv[1:])"
    kills, alone = 0, time.monotonic()
    command = ["-c", code, *flags, "--out", str(tmp_path / "alone")]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    alone = time.monotonic() - alone  # what an uninterrupted one takes on this machine
    while True:
        port = free_port()
        command = ["-c", code, *flags, "--out", str(tmp_path / "r"), "--timeout-s", "20"]
        if world == 1:
            processes = [subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)]
        else:
            processes = [start(rank, port, *command) for rank in range(world)]
        deadline = time.monotonic() + (alone * rng.uniform(0.4, 1) if kills < 10 else 300)
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.05)
        ended = [process.poll() for process in processes]
        for process in processes:
            process.kill()
            process.communicate()
        if ended == [0] * world and kills >= 3:
            break
        if ended == [0] * world:
            # Too soon: the machine is faster than when the first one was timed. Again, from the beginning.
            shutil.rmtree(tmp_path / "r")
            kills, alone = 0, 0.7 * alone
            continue
        kills += 1
        assert kills < 12, ended
    assert _files(tmp_path / "r") == _files(whole)
