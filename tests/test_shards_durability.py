"""What reaches the disk in which order, as the kernel saw it: data before names, names before the next step."""

import re
import sys
from pathlib import Path

import pytest
from conftest import run_command

CALL = re.compile(r"(fsync|rename|renameat|renameat2)\((.*)\)\s+= 0")
PROGRAM = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from shard_helpers import write_folder
write_folder(pathlib.Path(sys.argv[1]), 1)
"""


def _events(log: str, folder: Path) -> list[tuple[str, ...]]:
    """("fsync", path) and ("rename", from, to) of everything inside the folder, in order."""
    events: list[tuple[str, ...]] = []
    for name, arguments in CALL.findall(log):
        if name == "fsync":
            events.append(("fsync", re.search(r"<([^>]*)>", arguments)[1]))
        else:
            events.append(("rename", *re.findall(r'"([^"]*)"', arguments)))
    return [event for event in events if str(folder) in event[1]]


@pytest.mark.strace
def test_each_final_name_appears_after_its_data_and_is_made_durable(tmp_path):
    folder, log = tmp_path / "set", tmp_path / "strace.log"
    trace = ("strace", "-f", "-y", "-s", "4096", "-e", "trace=fsync,rename,renameat,renameat2", "-o", str(log))
    done = run_command(*trace, sys.executable, "-c", PROGRAM, str(folder), str(Path(__file__).parent), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    events = _events(log.read_text(), folder)
    renames = [(place, event[1], event[2]) for place, event in enumerate(events) if event[0] == "rename"]
    finals = [Path(target).name for _, _, target in renames]
    for name in ("train-00000.tar", "train-00000.parquet", "train-00000.json", "SHA256SUMS", "info.json"):
        assert name in finals
    for place, source, target in renames:
        assert ("fsync", source) in events[:place], f"{target}: its data were not on disk before its name"
        following = events[place + 1 :]
        assert following and following[0] == ("fsync", str(folder)), f"{target}: its name was not made durable"
    order = [name for name in finals if name.startswith("train-00000")]
    assert order == ["train-00000.parquet", "train-00000.tar", "train-00000.json"]
    assert finals.index("SHA256SUMS") > finals.index("train-00000.json")


def test_the_checker_sees_a_rename_without_a_sync(tmp_path):
    """The must-fail twin: a log in which the folder is never synced has no event that the test above would accept."""
    log = f'1 fsync(3<{tmp_path}/.a.tmp>) = 0\n1 rename("{tmp_path}/.a.tmp", "{tmp_path}/a") = 0\n'
    events = _events(log, tmp_path)
    assert events == [("fsync", f"{tmp_path}/.a.tmp"), ("rename", f"{tmp_path}/.a.tmp", f"{tmp_path}/a")]
    assert events[2:] == []
