"""Damaged shards are drawn again with the same bytes, or set aside; what cannot be drawn is touched only on request."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import QUICK, identity
from shard_helpers import write_finished, write_folder

import synclones.shards.tools.repair as repair_tool
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_file
from synclones.generate.run import main as generate
from synclones.shards.run import main
from synclones.shards.verify import inspect, verify


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def plain(tmp_path) -> Path:
    """A finished set without settings: nobody can draw it again."""
    return write_finished(tmp_path / "set")


@pytest.fixture
def no_drawing(monkeypatch):
    """No other command may be run."""
    monkeypatch.setattr(repair_tool, "_called", lambda *args, **more: pytest.fail("a command was run"))


def test_only_the_damaged_shards_are_drawn_again_and_the_set_is_what_it_was(dataset, copy_of_dataset, capsys):
    folder = copy_of_dataset
    flip(folder / "train-00001.tar", 5000)
    (folder / "train-00002.parquet").unlink()
    shutil.copy(folder / "train-00000.tar", folder / "train-00003.tar")
    damaged, kept = sha256_file(folder / "train-00001.tar"), (folder / "train-00000.tar").stat().st_mtime_ns
    main(["repair", str(folder)])
    assert "2 of 3 shards and 1 file foreign to the set made again; all 3 shards verify, content as before" in (
        capsys.readouterr().out
    )
    assert identity(folder) == identity(dataset) and (folder / "train-00000.tar").stat().st_mtime_ns == kept
    assert sha256_file(folder / "quarantine" / "train-00001.tar") == damaged
    assert (folder / "quarantine" / "train-00003.tar").exists() and not (folder / "train-00003.tar").exists()
    main(["repair", str(folder)])
    assert "nothing is damaged" in capsys.readouterr().out


def test_a_generator_that_is_gone_is_found_before_a_file_is_moved(copy_of_dataset, capfd):
    folder = copy_of_dataset
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("model: lab", "model: no-such-folder/at-all"))
    flip(folder / "train-00001.tar", 5000)
    before = hashes(folder)
    with pytest.raises(InputError, match="cannot be made again here, .*--quarantine` only moves the damaged files"):
        main(["repair", str(folder)])
    assert "synclones: error: " in capfd.readouterr().err and hashes(folder) == before


def test_a_set_without_settings_is_only_set_aside_on_request(plain, capsys, no_drawing):
    flip(plain / "train-00001.tar", 700)
    before = hashes(plain)
    with pytest.raises(VerificationError, match="first in sample"):
        main(["verify", str(plain)])
    assert f"draw what is damaged again: synclones shards repair {plain}" in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be made again, plan.json or config.yaml is missing"):
        main(["repair", str(plain)])
    assert hashes(plain) == before
    main(["repair", str(plain), "--quarantine"])
    assert "1 of 3 shards set aside; draw them again with: the generate command that began" in capsys.readouterr().out
    assert sha256_file(plain / "quarantine" / "train-00001.tar") == before["train-00001.tar"]
    assert inspect(plain).unfinished == "2 of 3 shards are complete" and not inspect(plain).problems
    main(["missing", str(plain)])
    assert capsys.readouterr().out == "1\n"


def test_indexes_alone_are_written_again_without_drawing(plain, no_drawing):
    whole = identity(plain)
    for harm in (
        lambda: flip(plain / "SHA256SUMS", 3),
        lambda: (plain / "sizes.json").unlink(),
        lambda: (plain / "info.json").write_text("{}"),
    ):
        harm()
        main(["repair", str(plain)])
        assert identity(plain) == whole and verify(plain)


def test_what_was_damaged_before_is_not_overwritten_in_the_quarantine(plain, no_drawing):
    for number in range(2):
        (plain / "train-00009.tar").write_bytes(b"stranger %d" % number)
        main(["repair", str(plain)])
    aside = sorted(path.read_bytes() for path in (plain / "quarantine").glob("train-00009.tar*"))
    assert aside == [b"stranger 0", b"stranger 1"]
    (plain / "train-00009.tar").write_bytes(b"stranger 2")
    main(["repair", str(plain), "--delete"])
    assert len(list((plain / "quarantine").iterdir())) == 2 and verify(plain)


def test_a_damaged_plan_or_an_exchanged_manifest_is_for_people_to_mend(plain, no_drawing):
    plan, manifest = plain / "plan.json", plain / "manifest.json"
    sound = plan.read_bytes(), manifest.read_bytes()
    plan.write_bytes(sound[0].replace(b"0123456789abcdef", b"0123456789abcdee"))
    before = hashes(plain)
    with pytest.raises(VerificationError, match="plan.json: damaged, and it says what is drawn; restore this file"):
        main(["repair", str(plain)])
    assert hashes(plain) == before
    plan.write_bytes(sound[0])
    manifest.write_text(json.dumps(json.loads(sound[1]) | {"content_hash": "1" * 64}))
    with pytest.raises(VerificationError, match="manifest.json: states content 1111111111111111"):
        main(["repair", str(plain)])


def test_settings_that_upload_are_not_run(copy_of_dataset, no_drawing):
    config = copy_of_dataset / "config.yaml"
    config.write_text(config.read_text().replace("push_to_hub: ''", "push_to_hub: somebody/else"))
    flip(copy_of_dataset / "train-00001.tar", 5000)
    with pytest.raises(InputError, match="push_to_hub is set, and a repair uploads nothing"):
        main(["repair", str(copy_of_dataset)])


def test_a_dry_run_says_what_would_be_done(plain, capsys, no_drawing):
    flip(plain / "train-00001.tar", 700)
    before = hashes(plain)
    main(["repair", str(plain), "--dry-run", "--quarantine"])
    assert f"would move to {plain / 'quarantine'}: train-00001" in capsys.readouterr().out and hashes(plain) == before


def test_a_subset_is_repaired_out_of_its_parent_or_refused_without_it(tmp_path, capfd):
    parent, small = write_finished(tmp_path / "parent"), tmp_path / "small"
    main(["subset", str(parent), "--out", str(small), "--count", "9", "--images-per-shard", "3"])
    whole = identity(small)
    flip(small / "train-00002.tar", 700)
    main(["repair", str(small)])
    assert identity(small) == whole
    flip(small / "train-00000.tar", 700)
    main(["repair", str(small), "--quarantine"])
    main(["repair", str(small)])  # goes on, as after a kill between the two
    assert "what was set aside made again; all 3 shards verify, content as before" in capfd.readouterr().out
    assert identity(small) == whole
    flip(small / "train-00001.tar", 700)
    parent.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot be made again here"):
        main(["repair", str(small)])
    assert "no such folder" in capfd.readouterr().err and not (small / "quarantine" / "train-00001.tar").exists()


@pytest.mark.parametrize("verb", ["repair", "missing"])
def test_no_folder_and_no_plan_are_refused(tmp_path, verb):
    with pytest.raises(InputError, match="no such folder"):
        main([verb, str(tmp_path / "none")])
    (tmp_path / "empty").mkdir()
    with pytest.raises((InputError, VerificationError), match="no plan.json|no shard"):
        main([verb, str(tmp_path / "empty")])


def test_a_store_is_not_repaired(tmp_path):
    with pytest.raises(InputError, match="s3://bucket/x: is read from a disk only"):
        main(["repair", "s3://bucket/x"])


# ------------------------------------------------------------------ what is missing


def test_missing_shards_are_listed_by_number_and_drawn_by_it(prompts, dataset, tmp_path, capsys):
    out = tmp_path / "set"
    generate(["--prompts", str(prompts), "--out", str(out), *QUICK, "--shards", "1"])
    main(["missing", str(out)])
    told = capsys.readouterr()
    assert (
        told.out.endswith("\n0\n2\n")
        and "2 of 3 shards are not complete; draw them (--shards NUMBER added) with: " in told.err
    )
    main(["verify", str(dataset)])
    generate(["--config", str(out / "config.yaml"), "--shards", "2", "0"])
    capsys.readouterr()
    main(["missing", str(out)])
    assert capsys.readouterr().out == "" and identity(out) == identity(dataset)


def test_a_shard_of_the_wrong_size_is_missing_and_one_of_wrong_bytes_is_not(plain, capsys):
    tar = plain / "train-00000.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    flip(plain / "train-00001.tar", 700)
    (plain / "train-00002.json").unlink()
    main(["missing", str(plain)])
    assert capsys.readouterr().out == "0\n2\n"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--shards", "3"), "--shards: 3 was given, expected numbers from 0 to 2"),
        (("--shards", "0", "-1"), "--shards"),
        (("--shards", "0", "--part", "1/3"), "--shards, --part: both say which shards to draw"),
    ],
)
def test_shards_that_the_plan_does_not_have_are_refused(prompts, tmp_path, flags, line):
    with pytest.raises(InputError, match=line):
        generate(["--prompts", str(prompts), "--out", str(tmp_path / "set"), *QUICK, *flags])
    assert not (tmp_path / "set").exists()


def test_a_set_that_holds_no_shard_yet_is_missing_all_of_them(tmp_path, capsys):
    folder = write_folder(tmp_path / "set")
    for path in [*folder.glob("train-*"), folder / "info.json", folder / "SHA256SUMS", folder / "sizes.json"]:
        path.unlink()
    main(["missing", str(folder)])
    assert capsys.readouterr().out == "0\n1\n2\n"
