"""Manifests: files appear whole or not at all, equal values give equal bytes, a folder leads back to its prompts."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclones.base.errors import InputError
from synclones.base.files import remove_dead_temporaries, sha256_bytes, sha256_file, write_atomic
from synclones.base.json_file import canonical_json, pretty_json
from synclones.base.manifest import Parent, read_manifest, trace, versions, write_manifest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# ------------------------------------------------------------------ writing


def naive_write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def survives_failure_at_every_operation(write, folder: Path, monkeypatch) -> bool:
    """Whether the file keeps its old bytes, alone in its folder, when any one operation of ``write`` fails."""
    path = folder / "file"
    sound = True
    for broken in ("fsync", "replace"):
        path.write_bytes(b"old")
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, _full_disk)
            try:
                write(path, b"new")
                failed = False
            except OSError:
                failed = True
        sound &= (path.read_bytes() == b"old" if failed else path.read_bytes() == b"new") and os.listdir(folder) == [
            "file"
        ]
    return sound


def _full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    assert survives_failure_at_every_operation(write_atomic, tmp_path, monkeypatch)


def test_a_naive_writer_fails_the_same_test(tmp_path, monkeypatch):
    assert not survives_failure_at_every_operation(naive_write, tmp_path, monkeypatch)


def test_a_write_is_synced_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (events.append(name), real(*args))[1])
    write_atomic(tmp_path / "file", b"new")
    assert events == ["fsync", "replace", "fsync"]


# A writer in a child process, killed somewhere in the middle: the file is always whole.
KILLED_WRITER = """
import sys
from pathlib import Path
from synclones.base.files import write_atomic
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        write_atomic(Path(sys.argv[1]), letter * 200_000)
"""


def test_a_reader_never_sees_half_a_file_when_the_writer_is_killed(tmp_path):
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        seen = set()
        while len(seen) < 2:
            if path.exists():
                seen.add(path.read_bytes())
        process.kill()
    assert seen | {path.read_bytes()} == {b"a" * 200_000, b"b" * 200_000}


@given(json_values)
def test_canonical_and_pretty_json_give_the_value_back(value):
    assert json.loads(canonical_json(value)) == json.loads(pretty_json(value)) == value


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert canonical_json({"b": 1, "a": "é"}) == canonical_json({"a": "é", "b": 1}) == '{"a":"é","b":1}'.encode()


@pytest.mark.parametrize("write", [canonical_json, pretty_json])
def test_values_that_are_no_json_numbers_are_refused(write):
    with pytest.raises(ValueError):
        write({"a": float("nan")})


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    data = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256_bytes(data)
    assert sha256_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# ------------------------------------------------------------------ manifests


def test_versions_are_read_without_importing_the_libraries():
    code = (
        "import sys; from synclones.base.manifest import versions; print('torch' in versions(), 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["True", "False"]
    assert {"synclones", "torch", "diffusers", "numpy", "pyarrow"} <= set(versions())


def make(folder: Path, stage: str, content: str, *parents: Parent) -> Path:
    folder.mkdir(parents=True)
    write_manifest(
        folder, stage, {"seed": 0}, list(parents), {"images": 60}, {"seconds": 1.5}, {"content_hash": content}
    )
    return folder


def test_a_manifest_says_what_made_the_folder(tmp_path):
    parent = Parent("prompts", "p.parquet", "f" * 64)
    record = read_manifest(make(tmp_path / "x", "generate", "a" * 64, parent))
    assert (record["schema_version"], record["stage"], record["config"]) == (1, "generate", {"seed": 0})
    assert record["parents"] == [{"name": "prompts", "path": "p.parquet", "content_hash": "f" * 64}]
    assert (record["counts"], record["times"], record["content_hash"]) == ({"images": 60}, {"seconds": 1.5}, "a" * 64)
    assert record["versions"] == versions() and Path(record["import_path"], "base", "manifest.py").is_file()
    assert record["written"].endswith("Z") and isinstance(record["git_commit"], str)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "\xff"])
def test_a_folder_without_a_readable_manifest_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="manifest.*; give a folder that a synclones command finished"):
        read_manifest(tmp_path)


def test_a_folder_in_place_of_a_manifest_is_called_by_its_name(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(InputError, match=f"^{tmp_path}/manifest.json: not a manifest"):
        read_manifest(tmp_path)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give a folder"):
        read_manifest(tmp_path / "file")


@pytest.fixture
def table(tmp_path) -> Parent:
    from synclones.prompts.build import build
    from synclones.prompts.classes.lists import load_classes

    path = tmp_path / "data" / "p.parquet"
    path.parent.mkdir()
    return Parent("prompts", str(path), build("clip-templates", load_classes("lab-digits"), 60, 0, path))


def test_trace_prints_the_chain_down_to_the_prompts(tmp_path, table):
    images = make(tmp_path / "data" / "x", "generate", "a" * 64, table)
    clone = make(tmp_path / "runs" / "y", "train", "b" * 64, Parent("data", str(images), "a" * 64))
    lines = trace(clone).splitlines()
    assert lines[0].startswith(f"train {clone}  {'b' * 16}  60 images  2")
    assert lines[1].startswith(f"  generate {images}  {'a' * 16}  60 images  2")
    facts = "recipe clip-templates, classes lab-digits, num_rows 60, seed 0"
    assert lines[2:] == [f"    prompts {table.path}  {table.content_hash[:16]}  {facts}"]


def test_trace_finds_relative_parents_from_the_folder_upwards_wherever_it_is_called(tmp_path, table, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    images = make(
        tmp_path / "data" / "x", "generate", "a" * 64, Parent("prompts", "data/p.parquet", table.content_hash)
    )
    for place in (tmp_path, elsewhere):
        monkeypatch.chdir(place)
        assert "recipe clip-templates" in trace(images) and "not found" not in trace(images)


def test_trace_follows_a_file_into_the_folder_that_its_maker_wrote(tmp_path):
    learner = make(tmp_path / "r0", "train", "d" * 64)
    chosen = make(tmp_path / "choice", "choose", "c" * 64, Parent("learner", str(learner), "d" * 64))
    (chosen / "images.txt").write_text("1\n")
    (chosen / "others.txt").write_text("2\n")
    record = json.loads((chosen / "manifest.json").read_text())
    (chosen / "manifest.json").write_text(json.dumps(record | {"files": {"images.txt": "e" * 64}}))
    for name, lines in (("images.txt", 4), ("others.txt", 2)):
        clone = make(
            tmp_path / name.removesuffix(".txt"),
            "train",
            "b" * 64,
            Parent("chosen images", str(chosen / name), "e" * 64),
        )
        shown = trace(clone).splitlines()
        assert len(shown) == lines and shown[1] == f"  chosen images {chosen / name}  {'e' * 16}"
    clone = make(tmp_path / "r1", "train", "b" * 64, Parent("chosen images", str(chosen / "images.txt"), "e" * 64))
    assert [line.split()[0] for line in trace(clone).splitlines()] == ["train", "chosen", "choose", "train"]


def test_trace_says_what_is_not_here(tmp_path):
    images = make(tmp_path / "x", "generate", "a" * 64, Parent("prompts", "gone.parquet", "f" * 64))
    assert trace(images).splitlines()[1] == f"  prompts gone.parquet  {'f' * 16}  (not found here)"


def test_trace_says_when_a_parent_has_changed_since(tmp_path, table):
    images = make(tmp_path / "x", "generate", "a" * 64, Parent("prompts", table.path, "f" * 64))
    clone = make(tmp_path / "y", "train", "b" * 64, Parent("data", str(images), "c" * 64))
    shown = trace(clone)
    assert f"(changed since: it was {'c' * 16} then, it is {'a' * 16} now)" in shown
    assert f"(changed since: it was {'f' * 16} then, it is {table.content_hash[:16]} now)" in shown


def test_trace_compares_with_a_parent_that_has_no_hash(tmp_path):
    images = make(tmp_path / "x", "generate", "")
    unchanged = make(tmp_path / "y", "train", "b" * 64, Parent("data", str(images), ""))
    changed = make(tmp_path / "z", "train", "b" * 64, Parent("data", str(images), "c" * 64))
    assert "changed since" not in trace(unchanged)
    assert f"(changed since: it was {'c' * 16} then, it is unhashed now)" in trace(changed)


def test_trace_takes_a_foreign_table_and_a_plain_folder_as_leaves(tmp_path):
    (tmp_path / "foreign.parquet").write_bytes(b"not a table")
    (tmp_path / "model").mkdir()
    parents = [Parent("prompts", "foreign.parquet", "f" * 64), Parent("generator", "model", "e" * 64)]
    images = make(tmp_path / "x", "generate", "a" * 64, *parents)
    assert trace(images).splitlines()[1:] == [
        f"  prompts foreign.parquet  {'f' * 16}",
        f"  generator model  {'e' * 16}",
    ]


def test_trace_ends_when_manifests_name_each_other(tmp_path):
    make(tmp_path / "x", "generate", "a" * 64, Parent("data", str(tmp_path / "y"), "b" * 64))
    make(tmp_path / "y", "generate", "b" * 64, Parent("data", str(tmp_path / "x"), "a" * 64))
    assert "the manifests name each other" in trace(tmp_path / "x")


def test_trace_ends_when_a_manifest_names_itself_many_times(tmp_path):
    itself = Parent("data", str(tmp_path / "x"), "a" * 64)
    make(tmp_path / "x", "generate", "a" * 64, *[itself] * 10)
    lines = trace(tmp_path / "x").splitlines()
    assert len(lines) == 11 and all(line.endswith("(the manifests name each other)") for line in lines[1:])


def test_trace_shows_what_two_folders_were_made_from_once(tmp_path):
    make(tmp_path / "data", "generate", "d" * 64, Parent("generator", "model", "e" * 64))
    data = Parent("data", str(tmp_path / "data"), "d" * 64)
    runs = [make(tmp_path / name, "train", name * 64, data) for name in "ab"]
    both = make(tmp_path / "r", "evaluate", "f" * 64, *(Parent("model", str(run), run.name * 64) for run in runs))
    lines = [line.split() for line in trace(both).splitlines()]
    assert [words[0] for words in lines] == ["evaluate", "train", "generate", "generator", "train", "generate"]
    assert lines[-1][-4:] == ["(its", "parents", "are", "above)"]


def test_temporaries_of_killed_writers_are_removed_and_those_of_living_ones_stay(tmp_path):
    import fcntl

    (tmp_path / ".dead.json.tmp-1-ab").write_bytes(b"half")
    with (tmp_path / ".alive.json.tmp-2-cd").open("xb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        remove_dead_temporaries(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".alive.json.tmp-2-cd"]


def test_a_writer_whose_new_temporary_is_taken_for_dead_starts_over(tmp_path, monkeypatch):
    """The cleaner gets its turn between the writer's open and its lock."""
    import fcntl

    lock, taken = fcntl.flock, []

    def locking(file, how):
        if how == fcntl.LOCK_EX and not taken:
            taken.append(file)
            remove_dead_temporaries(tmp_path)
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", locking)
    write_atomic(tmp_path / "x.json", b"whole")
    assert taken and [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_bytes() == b"whole"


def test_a_write_that_fails_names_its_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device: '.*x.json'"):
        write_atomic(tmp_path / "x.json", b"y")
    assert list(tmp_path.iterdir()) == []
