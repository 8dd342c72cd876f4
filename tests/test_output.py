"""What a command prints where: JSON alone on standard output, quiet and verbose ones, and the command that goes on."""

import json
import sys

import pytest

from synclones.base.errors import HOW_TO_RESUME, InputError, MachineError, VerificationError
from synclones.base.manifest import Parent, write_manifest
from synclones.base.output import print_json, say, shaped
from synclones.base.resume import by_settings, resumed_by
from synclones.base.units import format_bytes, format_count, format_dollars, format_duration, format_rate, format_set
from synclones.cli import dispatch
from synclones.prompts.run import main as prompts
from synclones.shards.run import main as shards
from synclones.shards.schema import Sample
from synclones.shards.write import ShardWriter


def test_with_json_whatever_else_is_printed_goes_to_standard_error(capsys):
    with shaped(json=True):
        print("a library says hello")
        print_json({"b": 1, "a": [1.5, None]})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [1.5, None], "b": 1} and captured.err == "a library says hello\n"
    print("as before")
    assert capsys.readouterr().out == "as before\n"


def test_a_quiet_command_passes_warnings_and_nothing_else(capsys):
    with shaped(quiet=True):
        say("on the way")
        print("noise", file=sys.stderr)
        print("synclones: warning: look here", file=sys.stderr)
        print("the result")
    captured = capsys.readouterr()
    assert captured.err == "synclones: warning: look here\n" and captured.out == "the result\n"


def test_a_verbose_command_shows_the_traceback_of_an_error(capsys):
    for verbose in (False, True):
        with pytest.raises(InputError), shaped(verbose=verbose):
            raise InputError("wrong")
        assert ("Traceback" in capsys.readouterr().err) == verbose


# ------------------------------------------------------------------ the command that goes on


def test_a_failing_machine_names_the_command_once_the_innermost_one(tmp_path):
    with pytest.raises(MachineError) as caught:
        with resumed_by("synclones train --data x", as_typed=True), resumed_by("synclones train --config y"):
            assert HOW_TO_RESUME[-1].endswith("to resume, or `synclones train --config y`")
            raise OSError(28, "No space left on device", "x/file")
    assert str(caught.value) == (
        "x/file: No space left on device; free the resource and run the same command again to resume, or "
        "`synclones train --config y`"
    )
    assert HOW_TO_RESUME == ["run the same command again to resume"]


def test_out_of_memory_names_the_command_too():
    with pytest.raises(MachineError, match="out of memory .*; go on with `synclones generate --prompts p`$"):
        with resumed_by("synclones generate --prompts p", as_typed=True):
            raise MemoryError


@pytest.mark.parametrize("advice", ["run the same command again", "repeat the same command to resume"])
def test_a_line_that_advises_to_run_it_again_is_completed(advice):
    with pytest.raises(MachineError, match=f"^no answer; {advice}: `synclones x`$"):
        with resumed_by("synclones x", as_typed=True):
            raise MachineError(f"no answer; {advice}")


@pytest.mark.parametrize("error", [InputError("x"), VerificationError("x"), ZeroDivisionError("x")])
def test_what_a_rerun_does_not_mend_names_no_command(error):
    with pytest.raises(type(error), match="^x$"), resumed_by("synclones x"):
        raise error


def test_every_verb_names_itself_when_the_machine_fails(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "p.parquet")

    monkeypatch.setattr("synclones.prompts.build.PlannedTable.write", full)
    flags = ["--recipe", "class-name", "--classes", "lab-digits", "--out", str(tmp_path / "p q.parquet")]
    with pytest.raises(MachineError) as caught:
        prompts(["build", *flags])
    typed = f"synclones prompts build --recipe class-name --classes lab-digits --out '{tmp_path}/p q.parquet'"
    assert str(caught.value).endswith(f"run the same command again to resume: `{typed}`")


def test_settings_of_a_folder_give_its_command_and_a_moved_one_is_named(tmp_path):
    assert by_settings(["train"], tmp_path) == []
    (tmp_path / "config.yaml").write_text(f"out: {tmp_path}\n")
    config = str(tmp_path / "config.yaml")
    assert by_settings(["train"], tmp_path) == ["train", "--config", config]
    for text in ("out: elsewhere\n", "{", ""):
        (tmp_path / "config.yaml").write_text(text)
        assert by_settings(["train"], tmp_path) == ["train", "--config", config, "--out", str(tmp_path)]
    (tmp_path / "config.yaml").write_text("out: s3:/bucket/x\n")
    assert by_settings(["train"], tmp_path) == ["train", "--config", config]


# ------------------------------------------------------------------ JSON of verbs


@pytest.fixture
def folder(tmp_path):
    with ShardWriter(tmp_path, "train-00000", "0" * 16) as writer:
        writer.add_batch(0, [Sample(index=n, jpg=b"x", json=b"{}", txt="a {b}", label=n % 2) for n in range(4)])
        writer.finish()
    from synclones.shards.index import finish_folder

    finish_folder(tmp_path)
    return tmp_path


def test_verify_gives_json_of_sound_and_of_damaged_sets(folder, capsys):
    shards(["verify", str(folder), "--json"])
    value = json.loads(capsys.readouterr().out)
    assert value["ok"] and (value["shards"], value["samples"], value["problems"]) == (1, 4, [])
    (folder / "train-00000.tar").write_bytes(b"")
    with pytest.raises(VerificationError):
        shards(["verify", str(folder), "--json"])
    value = json.loads(capsys.readouterr().out)
    assert not value["ok"] and value["damaged"] == ["train-00000"] and "train-00000.tar" in value["problems"][0]
    assert value["next"] == f"synclones shards repair {folder}"


def test_show_gives_json_of_a_set_and_of_a_sample(folder, capsys):
    shards(["show", str(folder), "--json"])
    value = json.loads(capsys.readouterr().out)
    assert value["status"] == {"ok": 4} and value["labels"] == {"0": 2, "1": 2} and not value["unfinished"]
    shards(["show", str(folder), "--index", "3", "--json"])
    value = json.loads(capsys.readouterr().out)
    assert (value["index"], value["label"], value["prompt"]) == (3, 1, "a {b}")


def test_prompts_show_gives_json_of_a_table_and_of_a_row(tmp_path, capsys):
    path = tmp_path / "p.parquet"
    prompts(
        ["build", "--recipe", "clip-templates", "--classes", "lab-digits", "--num-images", "20", "--out", str(path)]
    )
    capsys.readouterr()
    prompts(["show", str(path), "--json"])
    value = json.loads(capsys.readouterr().out)
    assert value["rows"] == 20 and value["facts"]["recipe"] == "clip-templates" and len(value["examples"]) == 10
    prompts(["show", str(path), "--index", "3", "--json"])
    value = json.loads(capsys.readouterr().out)
    assert value["index"] == 3 and "template" in value["detail"]


def test_trace_gives_the_chain_as_json_with_what_is_missing_and_what_has_changed(tmp_path, capsys):
    for name, stage, parents in (
        ("data", "generate", [Parent("prompts", "gone.parquet", "1")]),
        ("run", "train", [Parent("data", str(tmp_path / "data"), "was another")]),
    ):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, stage, {}, parents, {"n": 1}, {}, {"content_hash": f"hash of {name}"})
    dispatch(["trace", str(tmp_path / "run"), "--json"])
    value = json.loads(capsys.readouterr().out)
    assert (value["stage"], value["content_hash"], value["counts"]) == ("train", "hash of run", {"n": 1})
    (data,) = value["parents"]
    assert data["found"] and data["changed"] and (data["stage"], data["content_hash"]) == ("generate", "was another")
    assert data["parents"] == [
        {"name": "prompts", "path": "gone.parquet", "content_hash": "1", "found": False, "parents": []}
    ]


def test_trace_as_json_ends_where_manifests_name_each_other(tmp_path, capsys):
    write_manifest(
        tmp_path, "train", {}, [Parent("data", str(tmp_path), "x"), Parent("data", str(tmp_path), "y")], {}, {}
    )
    dispatch(["trace", str(tmp_path), "--json"])
    assert len(capsys.readouterr().out) < 10_000


def test_json_is_a_flag_of_the_verbs_that_have_some_and_of_no_other(tmp_path):
    with pytest.raises(InputError, match="--json: unknown flag"):
        prompts(["list", "--json"])


# ------------------------------------------------------------------ units


@pytest.mark.parametrize(
    "text, wanted",
    [
        (format_count(1, "shard"), "1 shard"),
        (format_count(0, "image"), "0 images"),
        (format_count(2, "process"), "2 processes"),
        (format_set(16_000_000, 1), "16,000,000 images in 1 shard"),
        (format_bytes(0), "0 bytes"),
        (format_bytes(1_234), "1.2 KB"),
        (format_bytes(6.7e9), "6.7 GB"),
        (format_dollars(0.0034), "0.34 cents"),
        (format_dollars(0.12), "12 cents"),
        (format_dollars(0.999), "1.00 dollars"),
        (format_dollars(3.4), "3.40 dollars"),
        (format_dollars(12_345), "12,345 dollars"),
        (format_duration(0.2), "0.2 s"),
        (format_duration(75), "75 s"),
        (format_duration(600), "10 min"),
        (format_rate(0.0123), "0.012"),
        (format_rate(4.24), "4.2"),
        (format_rate(1300.4), "1,300"),
    ],
)
def test_units_are_those_of_people(text, wanted):
    assert text == wanted
