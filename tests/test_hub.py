"""A finished set goes to the hub whole, private unless asked, and nothing else of the folder does."""

import os
import shutil

import huggingface_hub
import pytest
from conftest import QUICK, identity
from hub_server import TOKEN, Hub

from synclones.base.config import load
from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.generate.run import main as generate
from synclones.generate.settings import GenerateConfig
from synclones.shards.lock import claim
from synclones.shards.run import main as shards

NAME = "someone/digits"
BESIDE = {"README.md", "config.yaml", "croissant.json", "preview.html", "manifest.json"}


@pytest.fixture
def hub(monkeypatch):
    """A hub in this process, where the client finds it, with a token."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with Hub() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        yield running


def files(hub) -> dict[str, bytes]:
    return hub.repositories[NAME]["files"]


def local(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in {*identity(folder), *BESIDE}}


def commits(hub) -> int:
    return sum("/commit/" in path for _, path, _ in hub.requests)


@pytest.mark.parametrize("large", [False, True], ids=["streamed", "lfs"])
def test_the_set_arrives_whole_and_private_and_nothing_else_does(hub, copy_of_dataset, monkeypatch, capfd, large):
    if large:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        hub.large = (".tar", ".parquet")
    for name in (".train-00000.part", ".x.lock", ".train-00000.tar.tmp-1-ab", "notes.txt", "train-00000.tar.old"):
        (copy_of_dataset / name).write_bytes(b"stays here")
    before = sorted(copy_of_dataset.rglob("*"))
    shards(["push", str(copy_of_dataset), NAME])
    assert files(hub) == local(copy_of_dataset) and hub.repositories[NAME]["private"] is True
    assert capfd.readouterr().out == f"{copy_of_dataset}: is at {hub.url}/datasets/{NAME}\n"
    assert sorted(copy_of_dataset.rglob("*")) == before and len(hub.objects) == (6 if large else 0)
    sent = commits(hub)
    shards(["push", str(copy_of_dataset), NAME])
    assert large or commits(hub) == sent == 2, "what is there is not sent again"
    card = huggingface_hub.DatasetCard(files(hub)["README.md"].decode())
    assert card.data.task_categories == ["image-classification"] and card.data.size_categories == ["n<1K"]
    assert card.data.to_dict()["configs"][0]["data_files"] == [{"split": "train", "path": "train-*.tar"}]


def test_a_tar_that_readers_would_take_for_one_of_the_set_is_named_before_anything_is_sent(hub, copy_of_dataset):
    (copy_of_dataset / "train-00000-old.tar").write_bytes(b"not of the plan")
    with pytest.raises(VerificationError, match="train-00000-old.tar: not a shard of this plan; move it away"):
        shards(["push", str(copy_of_dataset), NAME])
    assert NAME not in hub.repositories


def test_a_push_that_breaks_off_leaves_no_manifest_there_and_goes_on_when_repeated(hub, copy_of_dataset):
    before = local(copy_of_dataset)
    hub.refuse = lambda method, path: 403 if "/commit/" in path and commits(hub) == 2 else None
    repeat = f"the folder is whole; repeat with `synclones shards push {copy_of_dataset} {NAME}`$"
    with pytest.raises(MachineError, match=f"^{NAME}: .*403 Forbidden.*{repeat}") as broken:
        shards(["push", str(copy_of_dataset), NAME])
    assert TOKEN not in str(broken.value) and "\n" not in str(broken.value)
    assert "manifest.json" not in files(hub) and "train-00002.tar" in files(hub)
    assert local(copy_of_dataset) == before
    hub.refuse = lambda method, path: None
    shards(["push", str(copy_of_dataset), NAME])
    assert files(hub) == before


def test_a_hub_that_is_not_there_is_a_machine_error(hub, copy_of_dataset, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match=f"^{NAME}: .*onnect.*; run the same command again: `synclones shards push "):
        shards(["push", str(copy_of_dataset), NAME])


def test_who_may_read_it_is_never_changed_unasked(hub, copy_of_dataset):
    hub.repositories[NAME] = {"private": False, "files": {}}
    command = f"`synclones shards push FOLDER {NAME} --public`"
    with pytest.raises(InputError, match=f"^{NAME}: exists and is public; upload .*{command}, or choose another name"):
        shards(["push", str(copy_of_dataset), NAME])
    shards(["push", str(copy_of_dataset), NAME, "--public"])
    assert hub.repositories[NAME]["private"] is False and "manifest.json" in files(hub)
    hub.repositories[NAME] = {"private": True, "files": {}}
    with pytest.raises(InputError, match=f"^{NAME}: exists and is private; change that on its settings page"):
        shards(["push", str(copy_of_dataset), NAME, "--public"])
    assert files(hub) == {}
    del hub.repositories[NAME]
    shards(["push", str(copy_of_dataset), NAME, "--public"])
    assert hub.repositories[NAME]["private"] is False


def test_shards_of_another_set_are_not_mixed_with_this_one(hub, copy_of_dataset, prompts, tmp_path):
    hub.repositories[NAME] = {"private": True, "files": {"train-00003.tar": b"x", "README.md": b"x"}}
    with pytest.raises(InputError, match=f"^{NAME}: holds train-00003.tar, which is not of this set; choose"):
        shards(["push", str(copy_of_dataset), NAME])
    with pytest.raises(InputError, match=f"^{NAME}: holds train-00003.tar, which is not of this set; choose"):
        generate(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--push-to-hub", NAME])
    assert not (tmp_path / "x").exists(), "said before anything is drawn"
    assert commits(hub) == 0


def test_what_is_unfinished_or_damaged_stays_here(hub, copy_of_dataset):
    data = (copy_of_dataset / "train-00001.tar").read_bytes()
    (copy_of_dataset / "train-00001.tar").write_bytes(data[:5000] + b"?" + data[5001:])
    with pytest.raises(VerificationError, match="train-00001.tar: damaged, first in sample"):
        shards(["push", str(copy_of_dataset), NAME])
    (copy_of_dataset / "train-00001.json").unlink()
    with pytest.raises(VerificationError, match="train-00001.json: missing; the shard is unfinished"):
        shards(["push", str(copy_of_dataset), NAME])
    (copy_of_dataset / "manifest.json").unlink()
    with pytest.raises(InputError, match="no manifest.json; give a folder that a synclones command finished"):
        shards(["push", str(copy_of_dataset), NAME])
    shutil.rmtree(copy_of_dataset)
    with pytest.raises(InputError, match="no such folder"):
        shards(["push", str(copy_of_dataset), NAME])
    assert hub.repositories == {}


def without_token(monkeypatch, hub):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", os.devnull)


def offline(monkeypatch, hub):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def with_an_old_token(monkeypatch, hub):
    monkeypatch.setenv("HF_TOKEN", "hf_revoked")


@pytest.mark.parametrize(
    "name, spoil, words",
    [
        ("digits", None, "'digits': no name of a repository; give OWNER/NAME of letters, digits and -_."),
        ("a/b/c", None, "'a/b/c': no name of a repository"),
        ("someone/di gits", None, "no name of a repository"),
        (NAME, without_token, f"{NAME}: no token for the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN"),
        (NAME, offline, f"{NAME}: HF_HUB_OFFLINE is set; unset it to upload"),
        (NAME, with_an_old_token, f"{NAME}: .*Invalid credentials.*; check the token with `hf auth whoami`"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_before_anything_is_drawn(
    hub, prompts, tmp_path, monkeypatch, name, spoil, words
):
    if spoil:
        spoil(monkeypatch, hub)
    with pytest.raises(InputError, match=words) as refused:
        generate(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--push-to-hub", name])
    assert not (tmp_path / "x").exists() and "hf_" not in str(refused.value)


def test_generate_draws_pushes_and_pushes_again_what_failed(hub, prompts, tmp_path, capfd):
    out = tmp_path / "x"
    command = ["--prompts", str(prompts), "--num-images", "20", "--out", str(out), *QUICK, "--push-to-hub", NAME]
    hub.refuse = lambda method, path: 403 if path == "/api/repos/create" else None
    with pytest.raises(MachineError, match="403 Forbidden.*the folder is whole; repeat with `synclones shards push"):
        generate(command)
    shards(["verify", str(out)])
    hub.refuse = lambda method, path: None
    generate(command)
    printed = capfd.readouterr()
    assert f"{out}: is at {hub.url}/datasets/{NAME}" in printed.out and TOKEN not in printed.out + printed.err
    assert files(hub) == local(out) and not list(out.glob(".*"))
    assert load(GenerateConfig, ["--config", str(out / "config.yaml")], "generate").push_to_hub == "", (
        "not for versions"
    )
    assert not any(TOKEN.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())
    generate([*command[:3], "40", *command[4:], "--extend"])
    assert files(hub) == local(out) and "train-00001.tar" in files(hub)


def test_of_several_processes_one_pushes(hub, copy_of_dataset, prompts, capfd):
    command = ["--prompts", str(prompts), "--out", str(copy_of_dataset), *QUICK, "--push-to-hub", NAME]
    with claim(copy_of_dataset, "hub"):
        generate(command)
    assert f"another process uploads it to {NAME}" in capfd.readouterr().out and hub.repositories == {}


def test_a_set_in_a_store_is_copied_first(hub, prompts):
    with pytest.raises(InputError, match="--push-to-hub: is for folders; copy the finished set, and run `synclones sh"):
        generate(["--prompts", str(prompts), "--out", "s3://b/x", *QUICK, "--push-to-hub", NAME])
    with pytest.raises(InputError, match="aws s3 sync s3://b/x data/x"):
        shards(["push", "s3://b/x", NAME])
