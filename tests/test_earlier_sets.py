"""Sets of the code before this layout: they are read, verified, drawn again and resumed as they are."""

import shutil

import pytest
from conftest import GENERATOR, identity
from test_house import ROOT

from synclones.base.errors import InputError
from synclones.base.files import sha256_file
from synclones.generate.generators.model import find_model
from synclones.generate.plan import describe_device, plan_versions, read_plan
from synclones.generate.run import main
from synclones.shards.run import main as shards

EARLIER = ROOT / "tests" / "earlier"


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """The sets beside their prompt table, where a test may write; their settings name the table by this folder."""
    for name in ("set", "stopped-set"):
        shutil.copytree(EARLIER / name, tmp_path / name)
    shutil.copy(EARLIER / "prompts.parquet", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def differences_here(folder) -> list[str]:
    """Return what of a plan is not so on this machine; without any, the same bytes are promised."""
    plan = read_plan(folder)
    here = {"device": describe_device("cpu"), "versions": plan_versions()}
    return [name for name, value in here.items() if getattr(plan, name) != value]


def test_the_sets_have_the_plans_and_ids_they_had(earlier):
    for name, plan_id, num_samples in (("set", "5a014e1d182cf768", 20), ("stopped-set", "a6a4e69bd392c501", 20)):
        plan = read_plan(earlier / name)
        assert (plan.plan_id, plan.num_samples, plan.images_per_shard) == (plan_id, num_samples, 10)
        assert plan.to_json() == (earlier / name / "plan.json").read_bytes()


def test_the_finished_set_is_whole_and_its_samples_are_shown(earlier, capsys):
    shards(["verify", str(earlier / "set")])
    assert "ok: 2 shards, 20 samples" in capsys.readouterr().out
    shards(["show", str(earlier / "set"), "--index", "3"])
    assert "prompt  a bright photo of a three." in capsys.readouterr().out
    sums = dict(reversed(line.split("  ")) for line in (earlier / "set" / "SHA256SUMS").read_text().splitlines())
    assert sums and all(sha256_file(earlier / "set" / name) == digest for name, digest in sums.items())


def test_the_finished_set_is_drawn_again_byte_for_byte_or_refused_with_what_differs(earlier, capsys):
    command = ["redraw", str(earlier / "set"), "--random", "2"]
    different = differences_here(earlier / "set")
    if different:
        with pytest.raises(InputError, match=f"cannot be redrawn here: .*{different[0]}"):
            main(command)
    else:
        main(command)
        assert "drawn again, the same bytes" in capsys.readouterr().out


def test_the_stopped_set_is_resumed_to_the_bytes_of_a_fresh_one(earlier, capsys):
    stopped, fresh = earlier / "stopped-set", earlier / "fresh"
    kept = (stopped / "train-00000.json").stat().st_mtime_ns
    command = ["--config", str(EARLIER / "stopped-set" / "config.yaml"), "--out"]
    different = differences_here(stopped)
    if different:
        with pytest.raises(InputError, match=f"made by another plan: .*{different[0]}"):
            main([*command, str(stopped)])
        return
    main([*command, str(stopped)])
    assert "images are there, 1 of 2 shards are complete" in capsys.readouterr().err
    assert (stopped / "train-00000.json").stat().st_mtime_ns == kept, "the finished shard was kept"
    main([*command, str(fresh)])
    assert identity(stopped) == identity(fresh)


def test_the_lab_s_generator_is_still_the_one_they_were_drawn_with():
    assert find_model(str(GENERATOR)).sha256 == read_plan(EARLIER / "set").model_sha256
