"""Small files that grow when they are read are refused before they grow, in a process with little memory and time."""

import json
import sys
from pathlib import Path

from conftest import ROOT, run_command

BOMBS = Path(__file__).with_name("bombs.py")
PEAK_MIB, CPU_S = 400, 10  # a header of 16 MB of JSON may cost that; the files would cost gigabytes


def _ends(folder: Path, *naive: str) -> dict:
    done = run_command(sys.executable, str(BOMBS), str(folder), *naive, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_bomb_is_refused_before_it_grows(tmp_path):
    found = _ends(tmp_path / "bombs")
    ends = found["ends"]
    assert ends.pop("a good folder")[0] == "read"
    assert {name: end for name, (end, _) in ends.items() if not end.startswith("refused: ")} == {}
    assert len(ends) >= 18 and all("\n" not in end for end, _ in ends.values())
    assert {name: seconds for name, (_, seconds) in ends.items() if seconds > CPU_S} == {}
    assert found["peak"] < PEAK_MIB


def test_naive_readers_grow(tmp_path):
    """The must-fail twin."""
    found = _ends(tmp_path / "bombs", "naive")
    grown = [name for name, (end, _) in found["ends"].items() if not end.startswith("refused") and end != "read"]
    assert len(grown) >= 2 and ("PNG" in grown or found["peak"] > PEAK_MIB / 2), found
