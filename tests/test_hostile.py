"""Hostile folders, tars, tables and models: refused in one line, nothing runs, nothing is written elsewhere."""

import json
import os
import re
import shutil
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import GENERATOR, QUICK, ROOT, run_command
from fuzz_targets import some_plan
from hostile_corpus import END, GOOD, TARS, member, write_tars
from shard_helpers import PLAN, batches, write_folder

from synclones.base.errors import InputError, SynclonesError, VerificationError, as_synclones_error
from synclones.base.files import sha256_file
from synclones.base.weights import check_safetensors, weight_files
from synclones.generate.generators.model import find_model
from synclones.generate.plan import read_plan
from synclones.prompts.table import PromptTable
from synclones.shards.lock import claim
from synclones.shards.read import ShardFolder
from synclones.shards.schema import PARQUET_SCHEMA
from synclones.shards.sources.images import list_images
from synclones.shards.sources.tars import image_offsets, read_foreign, read_texts
from synclones.shards.write import ShardWriter

CORPUS = Path(__file__).with_name("hostile_corpus.py")


@pytest.fixture
def canary(tmp_path) -> Path:
    """A file outside, and its folder, in which nothing may change."""
    path = tmp_path / "outside" / "canary"
    path.parent.mkdir()
    path.write_text("alive")
    return path


def _untouched(canary: Path) -> bool:
    return canary.read_text() == "alive" and [p.name for p in canary.parent.iterdir()] == ["canary"]


# ------------------------------------------------------------------ tars


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / "a.tar"
    path.write_bytes(TARS[name] + END)
    with pytest.raises(SynclonesError) as caught:
        list(read_foreign(path))
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_a_good_tar_of_the_same_making_is_read(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(GOOD + END)
    (sample,) = read_foreign(path)
    assert (sample.index, sample.jpg, sample.txt) == (1, b"abc", "abc")


@pytest.mark.parametrize("name", TARS)
def test_readers_that_pass_over_pictures_end_and_give_plain_names(tmp_path, name):
    path = tmp_path / "a.tar"
    path.write_bytes(TARS[name] + END)
    for read in (image_offsets, read_texts):
        found = []
        try:
            for place in read(path):
                found.append(place)
                assert len(found) < 10, "a negative size leads back to the same header for ever"
        except SynclonesError:
            continue
        keys = [place[0] if isinstance(place, tuple) else place.key for place in found]
        assert all(key.isprintable() and ".." not in key and not key.startswith("/") for key in keys)


def test_very_many_members_are_read_one_by_one(tmp_path):
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.writelines(member(f"{n:010d}.jpg", data=b"x") for n in range(20_000))
        file.write(member("0000000001.txt") + END)
    with pytest.raises(InputError, match="sample 0000000001 appears twice"):
        for _ in read_foreign(path):
            pass


# ------------------------------------------------------------------ sidecars, plans, links


def _swap(path: Path, **other: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | other))


SIDECARS = {
    "name of another place": {"name": "../../outside/canary"},
    "name with a line break": {"name": "train-00000\n"},
    "counts that are none": {"ok": 10**400},
    "counts that do not add up": {"ok": 1},
    "more than all samples": {"planned": 2**33, "ok": 2**33},
    "sizes below zero": {"tar": {"bytes": -1, "sha256": "0" * 64}},
    "reasons that are none": {"reasons": [1]},
    "a list as text": {"plan_id": []},
}


@pytest.mark.parametrize("name", SIDECARS)
def test_a_hostile_sidecar_is_refused(tmp_path, name, canary):
    folder = write_folder(tmp_path / "set", 1)
    text = json.dumps(json.loads((folder / "train-00000.json").read_bytes()) | SIDECARS[name])
    (folder / "train-00000.json").write_text(text)
    with pytest.raises(SynclonesError, match="not the json of a shard"):
        ShardFolder(folder)
    assert _untouched(canary)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("offset", -1), ("offset", 2**63 - 1), ("nbytes", -1), ("nbytes", 2**62), ("index", -1), ("index", 2**32)),
        *(
            ("label", -2),
            ("jpg_offset", -5),
            ("jpg_size", 2**63 - 1),
            ("crc32", -1),
            ("status", "fine"),
            ("seed", None),
        ),
    ],
)
def test_a_parquet_sidecar_that_would_lead_out_of_its_tar_is_refused(tmp_path, column, value):
    folder = write_folder(tmp_path / "set", 1)
    path = folder / "train-00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[2][column] = value
    schema = PARQUET_SCHEMA if value is not None else pa.schema([f.with_nullable(True) for f in PARQUET_SCHEMA])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    _swap(folder / "train-00000.json", parquet={"bytes": path.stat().st_size, "sha256": sha256_file(path)})
    with pytest.raises(VerificationError, match="missing or damaged"):
        list(ShardFolder(folder).sequential())
    with pytest.raises(VerificationError, match=f"{column} is not in|a status is none|other columns"):
        ShardFolder(folder).open("train-00000")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("num_samples", 10**30, "num_samples is 1000"),
        ("num_samples", -1, "num_samples is -1"),
        ("images_per_shard", 0, "images_per_shard is 0"),
        ("num_samples", "many", "num_samples: Input should be a valid integer"),
        ("versions", [1], "versions: Input should be"),
        ("retries", [{"attempts": 10**9, "status": "failed"}], "a retry without"),
        ("retries", [{"attempts": "3", "status": "failed"}], "a retry without"),
        ("guidance_scale", None, "guidance_scale: Input should be a valid number"),
    ],
)
def test_a_hostile_plan_is_refused(tmp_path, field, value, told):
    (tmp_path / "plan.json").write_text(json.dumps(some_plan().stated() | {field: value}))
    with pytest.raises(InputError, match=f"plan.json: not a plan of this format .*{told}") as caught:
        read_plan(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []}, {"rows": None}, {"rows": [1]}, {"rows": [{"index": 0}]}, {"start": 0.0}, {"start": -5},
        {"end": None}, {"end": 10**30}, {"end": -1}, {"crc32": None}, {"batch": "0"},
        {"x": "\ud800"}, {"x": float("nan")},
    ],
)  # fmt: skip
def test_a_hostile_line_of_a_journal_is_a_batch_to_draw_again(tmp_path, change):
    writer = ShardWriter(tmp_path, "train-00000", PLAN)
    writer.add_batch(0, batches(0)[0])
    writer.close()
    journal = tmp_path / ".train-00000.part.jsonl"
    first, second = journal.read_bytes().splitlines()
    record = json.loads(second)["line"] | change
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    journal.write_bytes(first + b"\n" + json.dumps({"line": record, "line_crc32": zlib.crc32(text)}).encode() + b"\n")
    with ShardWriter(tmp_path, "train-00000", PLAN) as again:
        assert again.next_batch == (1 if change == {"rows": []} else 0)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
@pytest.mark.parametrize("name", [".train-00000.part", ".train-00000.part.jsonl", ".train-00000.lock"])
def test_nothing_is_written_through_what_lies_in_a_shards_place(tmp_path, canary, kind, name):
    place = tmp_path / "set" / name
    place.parent.mkdir()
    if kind == "link":
        place.symlink_to(canary)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    if name.endswith(".lock") and kind == "pipe":
        return  # a lock needs no content
    with pytest.raises((SynclonesError, OSError)) as caught:
        with claim(place.parent, "train-00000") or pytest.fail("no lock"):
            ShardWriter(place.parent, "train-00000", PLAN)
    known = as_synclones_error(caught.value)
    assert isinstance(known, InputError) and str(place) in str(known)
    assert _untouched(canary)


# ------------------------------------------------------------------ models


def _copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GENERATOR, tmp_path / "model"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_class_name": ["pipeline", "Evil"]}, "_class_name is"),
        ({"_class_name": {"a": 1}}, "_class_name is"),
        ({"unet": ["pipeline", "UNet2DConditionModel"]}, "comes from 'pipeline'"),
        ({"unet": ["diffusers", "DiffusionPipeline"]}, "'DiffusionPipeline' is no part"),
        ({"text_encoder": ["transformers", "AutoModel"]}, "'AutoModel' is no part"),
        ({"scheduler": ["diffusers", "__builtins__"]}, "'__builtins__' is no part"),
        ({"../../outside": ["diffusers", "AutoencoderKL"]}, "is no part of a known model"),
        ({"extra": ["transformers", "CLIPTextModel"]}, "'extra' of class"),
        ({"vae": [["x"], {}]}, "comes from"),
    ],
)
def test_a_model_index_that_asks_for_other_code_is_refused(tmp_path, change, told):
    model = _copy(tmp_path)
    _swap(model / "model_index.json", **change)
    with pytest.raises(InputError, match=re.escape(told)):
        find_model(str(model))


@pytest.mark.parametrize("part", ["../../outside/canary", "/etc/passwd", "model.bin", "x/y.safetensors", "", ["x"]])
def test_an_index_of_weights_names_files_beside_it_only(tmp_path, part):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": part}}))
    with pytest.raises(InputError, match="is no safetensors file beside it"):
        weight_files(tmp_path, "model.safetensors")


def test_weights_beside_an_index_count_too(tmp_path):
    """diffusers reads the parts even where the one file is there."""
    (tmp_path / "m.safetensors").write_bytes(b"x")
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "p.safetensors"}}))
    assert [path.name for path in weight_files(tmp_path, "m.safetensors")] == ["m.safetensors", "p.safetensors"]


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [1], "data_offsets": [0, float("inf")]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]},
        [],
        "x",
    ],
)
def test_a_hostile_safetensors_header_is_refused(tmp_path, tensor):
    text = json.dumps({"a": tensor}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(InputError, match="cut short or not safetensors"):
        check_safetensors(path)


# ------------------------------------------------------------------ whole commands, as the kernel saw them

WRITES = re.compile(r'open(?:at)?\((?:AT_FDCWD<[^>]*>|AT_FDCWD), "([^"]*)", [^)]*O_(?:WRONLY|RDWR|CREAT)[^)]*\)\s+= \d')
EVIL = "import pathlib\npathlib.Path({path!r}).write_text('run')\nclass Evil: pass\n"


def _hostile_folders(place: Path, canary: Path, prompts: Path) -> dict[str, tuple[list[str], int, str]]:
    """name -> (arguments, exit code, words of the line) of commands on hostile folders below ``place``.

    -1 where captions or images may be taken from a tar all the same: what else it holds is passed over.
    """
    commands: dict[str, tuple[list[str], int, str]] = {}
    good = write_folder(place / "good", 1)
    made = ("--out", str(place / "made"))
    verbs: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(("verify", "show", "finish", "dedup", "stats"), ()),
        "subset": ("--count", "1", *made),
        "export": ("--to", "hf", *made),
        "merge": (str(good), *made),
    }
    for verb, more in verbs.items():
        folder = Path(shutil.copytree(good, place / verb))
        _swap(folder / "train-00000.json", name="../../outside/canary")
        commands[verb] = (["shards", verb, str(folder), *more], 3, "not the json of a shard")
    folder = Path(shutil.copytree(good, place / "repair"))
    _swap(folder / "train-00000.json", name="../../outside/canary")
    _swap(folder / "plan.json", made_by="push")  # no verb that makes sets: it is not run
    commands["repair"] = (["shards", "repair", str(folder)], 3, "plan.json: damaged, and it says what is drawn")
    commands["missing"] = (["shards", "missing", str(place / "show")], 0, "")
    folder = Path(shutil.copytree(good, place / "many"))
    _swap(folder / "plan.json", num_shards=10**12)
    commands["many shards"] = (["shards", "verify", str(folder)], 3, "num_shards is above")
    commands["gc"] = (["shards", "gc", str(place / "gc"), "--older-than", "0"], 0, "")
    (Path(shutil.copytree(good, place / "gc")) / ".train-00000.part").symlink_to(canary)
    commands["pipe:"] = (["shards", "verify", "pipe:touch x"], 2, "no such folder")
    commands["file:"] = (["shards", "verify", "file:/etc"], 2, "is no store")
    commands["finish file:"] = (["shards", "finish", "file:/etc"], 2, "is read from a disk only")
    manifest = {"stage": "generate", "parents": [{"name": "a", "path": "../" * 9 + "etc/passwd", "content_hash": "x"}]}
    (place / "manifest.json").write_text(json.dumps(manifest | {"counts": {"\x1b[2J": "\n"}}))
    commands["trace"] = (["trace", str(place)], 0, "")
    for name, path in write_tars(place / "tars").items():
        flags = ["prompts", "build", "--recipe", "text-file", "--captions", str(path), "--out", f"{place}/c.parquet"]
        commands[f"captions {name}"] = (flags, -1, "")
        commands[f"index {name}"] = (["shards", "index", str(path.parent)], -1, "")
    commands["no table"] = (["prompts", "show", str(path)], 2, "not a Parquet file")
    model = Path(shutil.copytree(GENERATOR, place / "model"))
    _swap(model / "model_index.json", unet=["pipeline", "Evil"])
    (model / "pipeline.py").write_text(EVIL.format(path=str(canary)))
    drawn = ["generate", "--prompts", str(prompts), "--out", str(place / "new"), "--model"]
    commands["custom code"] = ([*drawn, str(model)], 2, "comes from 'pipeline'")
    commands["a pickle"] = ([*drawn, str(place / "model.ckpt")], 2, "no folder")
    commands["redraw"] = (["generate", "redraw", str(place / "many"), "--index", "0"], 2, "not a plan of this format")
    return commands


@pytest.fixture(scope="module")
def traced(tmp_path_factory, prompts):
    """What commands on hostile input said, what the kernel saw of them, and the canary."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    root = tmp_path_factory.mktemp("hostile")
    place, canary = root / "in", root / "outside" / "canary"
    canary.parent.mkdir()
    canary.write_text("alive")
    commands = _hostile_folders(place, canary, prompts)
    # A resumed generation whose folder has links in the places of its own files.
    linked = place / "linked"
    flags = ["generate", "--prompts", str(prompts), "--out", str(linked), *QUICK, "--num-images", "20"]
    assert run_command(sys.executable, "-m", "synclones.cli", *flags, "--plan-only", cwd=ROOT).returncode == 0
    for name in (".train-00000.part", ".train-00000.part.jsonl"):
        (linked / name).symlink_to(canary)
    commands["linked"] = (flags, 2, "Too many levels of symbolic links")
    # A sound model that brings code along: it is drawn with, and the code is not run.
    model = Path(shutil.copytree(GENERATOR, place / "brings-code"))
    (model / "text_encoder" / "evil.py").write_text(EVIL.format(path=str(canary)))
    _swap(model / "text_encoder" / "config.json", auto_map={"AutoModel": "evil.Evil", "CLIPTextModel": "evil.Evil"})
    dry = ["generate", "--prompts", str(prompts), "--out", str(place / "dry"), "--num-images", "2", "--dry-run"]
    small = ["--num-inference-steps", "1", "--batch-size", "2", "--images-per-shard", "2"]
    commands["brings code"] = ([*dry, "--model", str(model), *small], 0, "")
    (root / "commands.json").write_text(json.dumps({name: argv for name, (argv, _, _) in commands.items()}))
    log = root / "strace.log"
    calls = "execve,execveat,connect,open,openat,creat,link,linkat,symlink,symlinkat"
    trace = ("strace", "-f", "-qq", "--seccomp-bpf", "-s", "4096", "-e", f"trace={calls}", "-o", str(log))
    driver = (sys.executable, str(CORPUS), str(place), str(root / "commands.json"))
    quiet = {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(place)}
    done = run_command(*trace, *driver, cwd=ROOT, **quiet)
    assert done.returncode == 0, done.stderr[-2000:]
    return commands, json.loads(done.stdout.splitlines()[-1]), log.read_text(), canary, root


@pytest.mark.strace
def test_commands_refuse_hostile_input_in_one_line_with_the_code_that_is_documented(traced):
    commands, said, *_ = traced
    for name, (_, code, words) in commands.items():
        assert said[name][0] in ((0, 2, 3) if code < 0 else (code,)), (name, said[name])
        assert words in said[name][1] and "\n" not in said[name][1], (name, said[name])


@pytest.mark.strace
def test_hostile_input_starts_no_process_and_opens_no_connection(traced):
    *_, log, _, _ = traced
    started = [Path(program).name for program in re.findall(r'\bexecve(?:at)?\(.*?"([^"]*)"', log)]
    assert started[0] == Path(sys.executable).name
    assert set(started[1:]) <= {"ldconfig"}, "torch looks for its libraries when it is imported"
    assert [call for call in re.findall(r"\bconnect\(.*", log) if "nscd" not in call] == []


@pytest.mark.strace
def test_hostile_input_writes_nothing_outside_its_folder(traced):
    *_, log, canary, root = traced
    assert _untouched(canary)
    opened = {path for path in WRITES.findall(log) if not path.startswith("/dev/")}
    assert opened, "the commands that tidy up do write"
    assert [path for path in opened if not str(Path(path)).startswith(f"{root / 'in'}/") and path.startswith("/")] == []
    assert re.findall(r'\b(?:sym)?link(?:at)?\([^"]*"(?!/dev/shm/).*', log) == []


def test_the_checker_sees_a_process_a_connection_and_a_write_elsewhere(tmp_path):
    """The must-fail twin: a log of a program that does all three."""
    log = f'1 openat(AT_FDCWD, "{tmp_path}/x", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3\n1 connect(3, {{}}) = 0\n'
    assert WRITES.findall(log) == [f"{tmp_path}/x"]
    assert WRITES.findall('1 openat(AT_FDCWD, "/x", O_RDONLY|O_CLOEXEC) = 3') == []


# ------------------------------------------------------------------ tables


def test_a_label_beyond_all_classes_is_refused_wherever_the_table_is_read(tmp_path, prompts):
    table = pq.read_table(prompts)
    labels = table["label"].to_pylist()
    labels[7] = 2**31 - 1
    path = tmp_path / "p.parquet"
    pq.write_table(table.set_column(table.column_names.index("label"), "label", [labels]), path)
    for use in (lambda t: t.check(), lambda t: t.class_ids(), lambda t: t.rows(0, 10)):
        with pytest.raises(InputError, match="row 7: label 2147483647 is above 16777215"):
            use(PromptTable(path))


def test_pipes_among_pictures_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(InputError, match="no tars and no"):
        list(list_images(tmp_path))
