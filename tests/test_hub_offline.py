"""With HF_HUB_OFFLINE set a set on the hub is what lies in the cache, and the hub is asked nothing."""

import json

import huggingface_hub.constants
import pytest
from test_foreign_sets import NAMES, content, imagenet_members
from test_remote_source import NAME, ROWS, SHARDS, contents, folder, hub, same  # noqa: F401 - two are fixtures
from test_sources import write_tar

from synclones.base.errors import InputError
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import open_source
from synclones.shards.sources.remote_set import RemoteSource

URL = f"hf://datasets/{NAME}"


@pytest.fixture
def offline(hub, monkeypatch):  # noqa: F811
    """Set the variable, and forget what was asked before."""

    def set_it() -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        hub.requests.clear()

    return set_it


def read_all(source) -> None:
    for number in range(len(source.images_per_shard)):
        source.open(number).image(0)


def test_a_set_that_was_read_before_is_read_without_the_hub(hub, offline, folder):  # noqa: F811
    read_all(RemoteSource(URL))
    offline()
    source = open_source(URL)
    same(source, folder)
    source.check(quick=True)
    source.check(quick=False)
    assert source.revision == "0" * 40 and hub.requests == []
    assert len(LabelledSource(source)) == SHARDS * ROWS


def test_tars_of_others_that_were_indexed_are_read_without_the_hub(hub, offline, tmp_path):  # noqa: F811
    write_tar(tmp_path / "set" / "train-0.tar", imagenet_members(range(5)))
    (tmp_path / "set" / "classes.txt").write_text("\n".join(NAMES))
    hub.repositories[NAME]["files"] = contents(tmp_path / "set")
    before = content(open_source(URL))
    offline()
    assert content(open_source(URL)) == before and hub.requests == []


def test_what_is_not_in_the_cache_names_the_file_and_the_variable(hub, offline):  # noqa: F811
    source = RemoteSource(URL)
    for number in range(SHARDS):
        source.open(number)
    source.open(0).image(0)
    offline()
    source = RemoteSource(URL)
    source.open(0).image(0)
    with pytest.raises(
        InputError, match=f"^{URL}/train-00001.tar: HF_HUB_OFFLINE is set and .*; unset it, or copy"
    ) as e:
        source.open(1).image(0)
    assert "\n" not in str(e.value) and hub.requests == []


@pytest.mark.parametrize("url", [URL, f"{URL}@main"])
def test_a_set_that_was_never_read_names_the_variable(hub, offline, url):  # noqa: F811
    if url != URL:
        RemoteSource(URL)  # as another revision, which may be another commit
    offline()
    with pytest.raises(InputError, match=f"^{url}: HF_HUB_OFFLINE is set and the set was never read here; unset it"):
        open_source(url)
    assert hub.requests == []


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"files": [[1]], "format": 1, "revision": ""}', "again"])
def test_a_memory_of_odd_content_is_none(hub, offline, tmp_path, damage):  # noqa: F811
    RemoteSource(URL)
    (path,) = tmp_path.glob("cache/synclones/shards/*/hub.json")
    facts = json.loads(path.read_text())
    path.write_text(damage if damage != "again" else json.dumps(facts | {"format": 2}))
    offline()
    with pytest.raises(InputError, match="was never read here"):
        RemoteSource(URL)


def test_without_the_variable_a_newer_commit_takes_the_place_of_the_one_before(hub, folder, tmp_path):  # noqa: F811
    RemoteSource(URL)
    (path,) = tmp_path.glob("cache/synclones/shards/*/hub.json")
    before = path.read_bytes()
    hub.repositories[NAME]["files"]["more.txt"] = b"x"
    RemoteSource(URL)
    assert path.read_bytes() != before
