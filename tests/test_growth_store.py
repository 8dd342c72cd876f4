"""A kind of store is one file: added to a copy of the package, it is named, opened, and a set in it is read."""

from growth import copy, example  # noqa: F401
from shard_helpers import write_folder

STORE = example("shards/stores/mem.py")

USE = """
from pathlib import Path
from synclones.shards.mirror import open_set
from synclones.shards.run import main
from synclones.shards.stores.store import copy_command, open_store, store_schemes, store_url

store = open_store(store_url("mem://bucket/x"))
for path in Path({folder!r}).iterdir():
    store.put(path.name, path.read_bytes())
main(["verify", "mem://bucket/x"])
with open_set(Path("mem://bucket/x")) as opened:
    print(opened.shards().get(9).txt)
print(store_schemes(), copy_command("mem://bucket/x", "x"))
"""


def test_a_store_that_was_added_is_named_and_read(copy, tmp_path):  # noqa: F811
    refusal = copy.command("shards", "verify", "mem://bucket/x").stderr
    assert "give gs:// or s3://" in refusal
    copy.add("shards/stores/mem.py", STORE)
    folder = write_folder(tmp_path / "set")
    printed = copy.python(USE.format(folder=str(folder))).splitlines()
    assert printed[0].startswith("ok: 3 shards, 21 samples") and printed[1] == "a photo of 9"
    assert printed[2] == "['gs', 'mem', 's3'] copy-memory mem://bucket/x x"
    assert "give gs:// or mem:// or s3://" in copy.command("shards", "verify", "ftp://bucket/x").stderr
