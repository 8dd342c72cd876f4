"""What `fuzz_harness` feeds: for every kind of file that is read, a small valid one, and the functions that read it."""

import contextlib
import io
import json
import os
import shutil
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from image_trees import write_annotations
from PIL import Image
from shard_helpers import PLAN, batches, picture, write_folder

from synclones.base.config import load
from synclones.base.errors import InputError, as_synclones_error
from synclones.base.files import sha256_file
from synclones.base.json_file import canonical_json, pretty_json
from synclones.base.manifest import trace, write_manifest
from synclones.base.weights import check_safetensors, tensor_shapes, weight_files
from synclones.evaluate.audit.audit import findings, text
from synclones.evaluate.audit.logs import read_logs as read_evaluations
from synclones.evaluate.audit.repair import repairable, repaired
from synclones.evaluate.layout import layouts
from synclones.generate.gates.near_duplicates import _read_kept
from synclones.generate.generators.mended_sources import planned_sources
from synclones.generate.generators.model import find_model, scheduler_class
from synclones.generate.plan import Plan, differences, read_plan
from synclones.generate.preview.sheet import write_preview
from synclones.generate.progress import bytes_reproduced, read_logs
from synclones.generate.settings import GenerateConfig
from synclones.lab.world import GENERATOR
from synclones.prompts.build import build
from synclones.prompts.captions.files import CaptionFile
from synclones.prompts.captions.journal import EarlierJournal, PieceJournal
from synclones.prompts.captions.pieces import Work
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.run import main as prompts
from synclones.prompts.table import PromptTable, class_names
from synclones.serve.dataset import Dataset
from synclones.serve.folders import Folder, Folders, kind_of
from synclones.serve.pages.home import home_page
from synclones.serve.pages.image import image_page
from synclones.serve.pages.images import classes_page, images_page
from synclones.serve.pages.results import results_page
from synclones.serve.pages.runs import runs_page
from synclones.shards.columns import SideColumns
from synclones.shards.read import ShardFolder
from synclones.shards.run import main as shards
from synclones.shards.similarity.near import MAX_DISTANCE
from synclones.shards.similarity.phash import hash_folder, listing_of
from synclones.shards.sources.class_lists import read_class_list
from synclones.shards.sources.decode import decode_image, image_fault
from synclones.shards.sources.files import PassedOver
from synclones.shards.sources.images import list_images, read_images
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import open_source
from synclones.shards.sources.tars import image_offsets, read_foreign, read_image
from synclones.shards.stores.lease import read_holder
from synclones.shards.tools.leftovers import in_folder
from synclones.shards.unfinished import resume_command
from synclones.shards.write import ShardWriter, stored_rows


@dataclass(frozen=True)
class Target:
    """``make`` writes valid files into a folder and names those to harm; ``mend`` makes hashes right again."""

    make: Callable[[Path], list[str]]
    read: Callable[[Path], object]
    mend: Callable[[Path], object] | None = None


def some_plan(**other: object) -> Plan:
    """A plan of 40 samples in four shards."""
    numbers = {"num_samples": 40, "images_per_shard": 10, "batch_size": 5, "drawn_px": 32, "stored_px": 32}
    texts = dict.fromkeys(("prompts_sha256", "model_sha256"), "0" * 64) | {"model_name": "lab", "model_revision": ""}
    texts |= {"scheduler": "DDIMScheduler", "negative_prompt": "", "dtype": "float32", "device": "cpu"}
    how = {"guidance_scale": 2.0, "num_inference_steps": 5, "jpeg_quality": 90, "seed": 0, "max_attempts": 3}
    more = {"threads_per_worker": 1, "split": "train", "versions": {"torch": "2.10"}, "has_labels": True}
    retries = [{"status": "failed", "attempts": 2, "parent": "0" * 64}]
    values = {**numbers, **texts, **how, **more, "gates": {"blank": "fail"}, "retries": retries, **other}
    return Plan(**values)  # type: ignore[arg-type]


# ------------------------------------------------------------------ shards


def _make_folder(folder: Path) -> list[str]:
    write_folder(folder, 2)
    manifest = [{"name": "prompts", "path": "p.parquet", "content_hash": "0" * 64}]
    write_manifest(folder, "generate", {}, [], {"ok": 14}, {}, {"classes": ["a", "b", "c"]})
    record = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(pretty_json({**record, "parents": manifest}))
    sidecars = [f"train-0000{n}.{suffix}" for n in range(2) for suffix in ("tar", "parquet", "json")]
    return [*sidecars, "plan.json", "info.json", "sizes.json", "SHA256SUMS", "manifest.json"]


def _sign(folder: Path) -> None:
    """Sidecars that state the files as they are, as somebody with bad intentions would write them."""
    for path in sorted(folder.glob("train-*.json")):
        try:
            summary = json.loads(path.read_bytes())
            for suffix in ("tar", "parquet"):
                file = path.with_suffix(f".{suffix}")
                summary[suffix] |= {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        path.write_text(json.dumps(summary))


def _read_folder(folder: Path) -> None:
    _each(
        lambda: shards(["verify", str(folder)]),
        lambda: shards(["show", str(folder)]),
        lambda: shards(["show", str(folder), "--index", "3"]),
        lambda: shards(["gc", str(folder), "--older-than", "0"]),
        lambda: list(in_folder(folder, 0.0)),
        lambda: list(ShardFolder(folder).sequential(on_bad_shard="skip")),
        lambda: [ShardFolder(folder).rows(name) for name in ShardFolder(folder).shards],
        lambda: _all_pictures(LabelledSource(folder)),
        lambda: _groups(folder),
        lambda: hash_folder(folder, "DIR"),
        lambda: write_preview(folder, some_plan(num_samples=16, images_per_shard=8, batch_size=4), {}),
        lambda: trace(folder),
        lambda: shards(["finish", str(folder)]),
        lambda: shards(["dedup", str(folder), "--max-distance", str(MAX_DISTANCE)]),
    )


def _all_pictures(source: LabelledSource) -> None:
    for position in range(len(source)):
        source.read(position)


def _groups(folder: Path) -> None:
    with contextlib.suppress(InputError):  # no caption of the valid folder has two images
        LabelledSource(folder, 2)


def _each(*steps: Callable[[], object]) -> None:
    """Every step, whatever the others say; the last refusal is raised."""
    refused = None
    for step in steps:
        try:
            step()
        except Exception as error:
            if as_synclones_error(error) is None:
                raise
            refused = error
    if refused is not None:
        raise refused


def _make_part(folder: Path) -> list[str]:
    writer = ShardWriter(folder, "train-00000", PLAN)
    writer.add_batch(0, batches(0)[0])
    writer.close()
    return [".train-00000.part.jsonl", ".train-00000.part.jsonl", ".train-00000.part"]


def _read_part(folder: Path) -> None:
    with ShardWriter(folder, "train-00000", PLAN) as writer:
        for number, batch in enumerate(batches(0)):
            if number >= writer.next_batch:
                writer.add_batch(number, batch)
        writer.finish()
    ShardFolder(folder).open("train-00000")


def _make_rows(folder: Path) -> list[str]:
    """A set, and what a user may have for its images, in every format."""
    write_folder(folder / "set", 2)
    rows = [{"index": n, "key": f"{n:010d}", "caption": f"a cat, {n}", "score": n / 4} for n in range(16)]
    (folder / "r.jsonl").write_text("".join(json.dumps({**row, "v": [[0.5, 1.0]] * 2}) + "\n" for row in rows))
    lines = ["index,key,caption,score", *(f'{r["index"]},{r["key"]},"{r["caption"]}",{r["score"]}' for r in rows)]
    (folder / "r.csv").write_text("\n".join(lines) + "\n")
    texts = pa.array([[row["caption"]] * (1 + row["index"] % 2) for row in rows])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(32, dtype=np.float16)), 2)
    table = pa.Table.from_pylist(rows).append_column("texts", texts).append_column("w", vectors)
    pq.write_table(table, folder / "r.parquet", row_group_size=6)
    return ["r.jsonl", "r.csv", "r.parquet"]


def _annotate(folder: Path, suffix: str, *columns: str, by: str = "index") -> None:
    command = ["annotate", str(folder / "set"), "--from", str(folder / f"r.{suffix}"), "--by", by]
    shards([*command, "--columns", *columns, "--name", *(f"{column}-{suffix}-{by}" for column in columns)])


def _read_rows(folder: Path) -> None:
    _each(
        lambda: _annotate(folder, "jsonl", "caption", "v"),
        lambda: _annotate(folder, "csv", "caption", "score", by="key"),
        lambda: _annotate(folder, "parquet", "score", "texts", "w"),
    )


def _make_columns(folder: Path) -> list[str]:
    _make_rows(folder)
    _annotate(folder, "parquet", "caption", "texts", "w")
    files = sorted((folder / "set" / "columns").glob("*/*"))
    return [path.relative_to(folder).as_posix() for path in files if "00001" not in path.name]


def _sign_columns(folder: Path) -> None:
    for path in sorted((folder / "set" / "columns").glob("*/train-*.json")):
        try:
            record, file = json.loads(path.read_bytes()), path.with_suffix(".parquet")
            record |= {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        path.write_text(json.dumps(record))


def _read_columns(folder: Path) -> None:
    columns = SideColumns(folder / "set")
    reads = [
        lambda name=name: [columns.drawn(name, shard, row, 1, 0) for shard in range(2) for row in range(7)]
        for name in columns.names
    ]
    _each(lambda: shards(["verify", str(folder / "set")]), lambda: shards(["show", str(folder / "set")]), *reads)


# ------------------------------------------------------------------ tars and pictures


def _make_tar(folder: Path) -> list[str]:
    with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        for index in range(3):
            members = {"jpg": picture(index), "txt": b"a cat", "cls": b"1", "json": b'{"caption": "x"}'}
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{index:05d}.{extension}")
                info.size, info.mtime = len(data), 1
                tar.addfile(info, io.BytesIO(data))
    return ["a.tar"]


def _read_tar(folder: Path) -> None:
    path = folder / "a.tar"
    _each(
        lambda: list(read_foreign(path)),
        lambda: [read_image(path, offset) for _, offset in image_offsets(path)],
        lambda: _read_captions(path),
        lambda: list(list_images(folder)),
        lambda: list(read_images(folder)),
    )


def _make_pictures(folder: Path) -> list[str]:
    pixels = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    for suffix in ("png", "jpg", "webp"):
        pixels.save(
            folder / f"a.{suffix}", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
        )
    return ["a.png", "a.jpg", "a.webp"]


def _read_pictures(folder: Path) -> None:
    for read in (decode_image, image_fault):
        _each(*(lambda path=path, read=read: read(path.read_bytes()) for path in sorted(folder.iterdir())))


# ------------------------------------------------------------------ sets that others made, and their indexes

SETS = ("tars", "hub", "files/images.csv", "files")


def _make_foreign(folder: Path) -> list[str]:
    for name in ("tars", "hub", "files/x"):
        (folder / name).mkdir(parents=True)
    _make_tar(folder / "tars")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": picture(n), "path": None} for n in range(6)], kind)
    names = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["x", "y"]}}}}
    table = pa.table({"image": images, "label": [0, 1] * 3, "caption": ["a cat"] * 6})
    stated = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    pq.write_table(stated, folder / "hub" / "train.parquet", row_group_size=4)
    (folder / "files" / "x" / "a.jpg").write_bytes(picture(0))
    (folder / "files" / "images.csv").write_text("path,class_id,caption\nx/a.jpg,x,a cat\n")
    (folder / "classes.csv").write_text("class_id,name\nx,X\ny,Y\n")
    (folder / "classes.json").write_text(json.dumps({"x": 0, "y": 1}))
    _each(*(lambda name=name: _read_set(folder, name) for name in SETS))
    harmed = ["tars/a.tar", "hub/train.parquet", "files/images.csv", "classes.csv", "classes.json"]
    indexes = [str(path.relative_to(folder)) for path in sorted(folder.glob("*/.synclones/*/*.*"))]
    return harmed + [name for name in indexes if name.endswith((".json", ".parquet"))]


def _read_set(folder: Path, name: str) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    source = open_source(folder / name)
    assert source.content_hash()
    source.check(quick=True)
    for number, count in enumerate(source.images_per_shard):
        shard = source.open(number)
        assert len(shard) == count and shard.label.min() >= -1 and len(shard.caption_ids()) == count
        assert all(shard.image(row) and shard.where(row) and shard.caption(row) is not None for row in range(count))


def _read_foreign_sets(folder: Path) -> None:
    _each(
        *(lambda name=name: _read_set(folder, name) for name in SETS),
        *(lambda name=name: read_class_list(folder / name) for name in ("classes.csv", "classes.json")),
    )


# ------------------------------------------------------------------ prompts


def _make_prompts(folder: Path) -> list[str]:
    build("clip-templates", load_classes("lab-digits"), 20, 0, folder / "p.parquet")
    return ["p.parquet"]


def _read_prompts(folder: Path) -> None:
    def rows() -> None:
        table = PromptTable(folder / "p.parquet")
        table.rows(0, min(5, table.num_rows))
        table.has_labels(table.num_rows)
        table.class_ids()
        class_names(table.metadata)
        table.prefix_sha256(min(3, table.num_rows))

    _each(
        lambda: PromptTable(folder / "p.parquet").check(),
        rows,
        lambda: prompts(["show", str(folder / "p.parquet")]),
        lambda: prompts(["show", str(folder / "p.parquet"), "--index", "1"]),
        lambda: prompts(["show", str(folder / "p.parquet"), "--out", str(folder / "o.html")]),
    )


def _make_captions(folder: Path) -> list[str]:
    rows = [{"caption": f"a {name}", "class": 1, "key": f"k{name}"} for name in ("cat", "dog", "cow")]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "c.txt").write_text("a cat\na dog\n")
    for suffix, mark in (("csv", ","), ("tsv", "\t")):
        lines = [mark.join(("caption", "class", "key")), *(mark.join(map(str, row.values())) for row in rows)]
        (folder / f"c.{suffix}").write_text("\n".join(lines) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), folder / "c.parquet")
    return ["c.jsonl", "c.txt", "c.csv", "c.tsv", "c.parquet"]


def _read_captions(path: Path) -> None:
    for bad in ("stop", "skip"):
        file = CaptionFile(path, bad)  # type: ignore[arg-type]
        file.rows(0, 1)
        list(file.blocks())


def _make_classes(folder: Path) -> list[str]:
    (folder / "c.csv").write_text("id,name,hypernym\na,cat,animal\nb,dog,animal\n")
    (folder / "c.json").write_text(json.dumps([{"id": "a", "name": "cat"}, {"id": "b", "name": "dog"}]))
    (folder / "d.json").write_text(json.dumps({"a": "cat", "b": {"name": "dog"}}))
    return ["c.csv", "c.json", "d.json"]


def _make_journal(folder: Path) -> list[str]:
    records = [{"key": f"k{n}", "caption": "a cat", "fault": ""} for n in range(3)]
    lines = [canonical_json(line) + b"\n" for line in ({"settings": {"model": "m", "seed": 0}}, *records)]
    (folder / "j.jsonl").write_bytes(b"".join(lines))
    with PieceJournal(folder / "p.part", "work", 0) as journal:
        journal.add(records)
        journal.add(records)
    Work(folder / "c.parquet", {"model": "m"}, 6, 3).begin()
    return ["j.jsonl", "p.part", "c.parquet.parts/settings.json"]


def _read_journal(folder: Path) -> None:
    EarlierJournal(folder / "j.jsonl", {"model": "m", "seed": 0, "batch_size": 4}).close()
    with PieceJournal(folder / "p.part", "work", 0) as journal:
        assert all(record["caption"] + record["key"] for batch in journal.batches for record in batch)
    Work(folder / "c.parquet", {"model": "m"}, 6, 3).check()


# ------------------------------------------------------------------ generation


def _make_plan(folder: Path) -> list[str]:
    (folder / "plan.json").write_bytes(some_plan().to_json())
    (folder / "log").mkdir()
    lines = [{"time": 1.0, "event": "start", "already_done": 0}, {"time": 2.0, "event": "end", "alike": True}]
    (folder / "log" / "h-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["plan.json", "plan.json", "log/h-1.jsonl"]


def _read_plan(folder: Path) -> None:
    plan = read_plan(folder)
    assert len(plan.plan_id) == 16 and plan.batches(0) and plan.shard_name(0) and plan.rounds
    differences(plan, some_plan())
    plan.to_json()
    read_logs(folder)
    bytes_reproduced(folder)


def _make_config(folder: Path) -> list[str]:
    text = "model: lab\nnum_images: 16k\nguidance_scale: 2.5\nsize_px: 32\nnegative_prompt: 'x: y'\n"
    (folder / "c.yaml").write_text(text + "seed: 3\n")
    shutil.copyfile(GENERATOR.parent.parent / "generate" / "presets" / "synclr.yaml", folder / "preset.yaml")
    return ["c.yaml", "preset.yaml"]


def _read_config(folder: Path) -> None:
    _each(
        lambda: load(GenerateConfig, ["--config", str(folder / "c.yaml")], "synclones generate"),
        lambda: load(GenerateConfig, ["--preset", "preset"], "synclones generate", presets=folder),
    )


def _safetensors(sizes: dict[str, int]) -> bytes:
    header, end = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "F32", "shape": [size], "data_offsets": [end, end + 4 * size]}
        end += 4 * size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def _make_model(folder: Path) -> list[str]:
    for path in GENERATOR.rglob("*"):
        place = folder / path.relative_to(GENERATOR)
        if path.suffix in (".json", ".txt"):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        elif path.suffix == ".safetensors":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(_safetensors({"a": 2, "b": 3}))
    name = "diffusion_pytorch_model.safetensors"
    (folder / "vae" / name).rename(folder / "vae" / "part-1.safetensors")
    (folder / "vae" / f"{name}.index.json").write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
    configs = [f"{part}/config.json" for part in ("unet", "vae", "text_encoder")]
    weights = [f"unet/{name}", "vae/part-1.safetensors", f"vae/{name}.index.json"]
    return ["model_index.json"] * 3 + configs + weights + ["scheduler/scheduler_config.json", "synclones.json"]


def _read_model(folder: Path) -> None:
    for path in (folder / "unet" / "diffusion_pytorch_model.safetensors",):
        check_safetensors(path)
        tensor_shapes(path)
    weight_files(folder / "vae", "diffusion_pytorch_model.safetensors")
    model = find_model(str(folder))
    assert model.native_size_px and model.size_step_px and model.kind
    assert scheduler_class(model, "").endswith("Scheduler")


def _make_unfinished(folder: Path) -> list[str]:
    _make_part(folder)
    (folder / "plan.json").write_text(json.dumps(some_plan(num_samples=16, images_per_shard=8).stated()))
    (folder / "config.yaml").write_text("out: data/x\nmodel: lab\n")
    (folder / "mended_sources.json").write_text(json.dumps({"source": "a", "files": {"b.jpg": "0" * 64}}))
    journals = [path.name for path in folder.glob("*.jsonl")] + [path.name for path in folder.glob(".*.jsonl")]
    return [*set(journals), "plan.json", "config.yaml", "mended_sources.json"]


def _read_unfinished(folder: Path) -> None:
    _each(
        lambda: stored_rows(folder, "train-00000"),
        lambda: shards(["show", str(folder)]),
        lambda: resume_command(folder),
        lambda: planned_sources([folder], "a"),
    )


def _make_kept(folder: Path) -> list[str]:
    (folder / "set").mkdir()
    (folder / "set" / "a.png").write_bytes(b"x")
    columns = {"key": ["a.png"], "hash": np.array([1], np.uint64), "content": np.array([2], np.uint64)}
    facts = {"synclones": json.dumps({"listing": listing_of(folder / "set")})}
    pq.write_table(pa.table(columns).replace_schema_metadata(facts), folder / "test_set.parquet")
    return ["test_set.parquet"]


def _make_lease(folder: Path) -> list[str]:
    lease = {"owner": "x", "host": "h", "pid": 1, "heartbeat": 1.5}
    (folder / "train-00000.json").write_text(json.dumps(lease))
    return ["train-00000.json"]


class _Store:
    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, name: str) -> bytes:
        return (self.folder / Path(name).name).read_bytes()


def _read_lease(folder: Path) -> None:
    holder = read_holder(_Store(folder), "train-00000")  # type: ignore[arg-type]
    assert holder is None or (str(holder) and holder.is_stale in (True, False))


def _make_evaluations(folder: Path) -> list[str]:
    means = [60.0, 55.0, 50.0, 51.0, 49.5, 47.0]
    cell = {"model": "m", "weights_sha256": "a", "dataset": "d", "settings": {"epsilon_255": 1.0, "alpha_255": 0.5}}
    logs = {
        "fgsm": [{"model": "m", "attack": "fgsm", "clean_acc": 80.0, "robust_acc": 2.0}],
        "pgd": [{"model": "m", "attack": "pgd", "clean_acc": 80.0, "robust_acc": 1.0, "eps": 1.0, "alpha": 0.5}],
        "corruptions": [
            {"model": "m", "corruption": "ab"[n // 3], "severity": 1 + n % 3, "acc": mean}
            for n, mean in enumerate(means)
        ],
        "backgrounds": {"model": "m", "original_acc": 0.9, "mixed_same_acc": 0.8, "mixed_rand_acc": 0.7, "bg_gap": 0.1},
        "outliers": {"model": "m", "ood_dist": "SUN", "auroc": 0.8, "aupr": 0.9, "fpr": 0.7, "score": "msp"},
        "x": {"model": "m", "dataset": "imagenet", "ece": 0.1, "test_error": 0.2},
        "rel_plot_x": {str(n): {"count": 5, "acc": 4, "bin_acc": 0.8, "bin_conf": 0.3 + n / 2} for n in range(2)},
        "cell": cell | {"metric": "accuracy_pgd", "value": 0.5, "protocol": "paper", "ci_low": 0.4, "ci_high": 0.6},
    }
    for name, log in logs.items():
        (folder / f"{name}.json").write_text(json.dumps(log))
    return [f"{name}.json" for name in logs]


def _read_evaluations(folder: Path) -> None:
    def whole() -> None:
        logs = read_evaluations(folder, PassedOver())
        assert "\x1b" not in text(logs, findings(logs)) and all(map(repaired, repairable(logs)))

    _each(whole, *(lambda p=p: findings(read_evaluations(p, PassedOver())) for p in sorted(folder.iterdir())))


def _make_image_sets(folder: Path) -> list[str]:
    for name in ("x/1.jpg", "y/2.jpg"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(picture(0))
    write_annotations(
        folder / "annotations.db",
        [("/x/1.jpg", "x", "night", "foggy", "sand, snow"), ("/y/2.jpg", "y", "", None, "{}")],
    )
    (folder / "map.json").write_text(json.dumps({"x": "a", "y": ["a", "b"]}))
    (folder / "map.csv").write_text("x,a\ny,b\n")
    (folder / "labels.txt").write_text("x/1.jpg a\ny/2.jpg b\n")
    (folder / "list.txt").write_text("set/x/1.jpg -1\nset/y/2.jpg -1\n")
    return ["annotations.db", "annotations.db", "x/1.jpg", "map.json", "map.csv", "labels.txt", "list.txt"]


def _read_image_sets(folder: Path) -> None:
    context = {"members": {"x": ["a"], "y": ["b"]}, "uncommon": {"x": {"time": ["night"]}, "y": {}}}
    asked = (
        ("focus", context),
        ("outliers", {"list": "list.txt"}),
        *(("folders", {key: value}) for key, value in (("mapping_file", "map.json"), ("mapping_file", "map.csv"))),
        ("folders", {"labels": "labels.txt"}),
    )
    _each(*(lambda n=name, o=options: list(layouts()[n].inspect(folder, o, ("a", "b"))) for name, options in asked))


# ------------------------------------------------------------------ the browser's pages


def _make_shown_set(folder: Path) -> list[str]:
    names = _make_folder(folder)
    build("class-name", load_classes("lab-digits"), 16, 0, folder / "p.parquet")
    plan = json.loads((folder / "plan.json").read_bytes())
    table = PromptTable(folder / "p.parquet").metadata["content_sha256"]
    (folder / "plan.json").write_bytes(pretty_json({**plan, "prompts_sha256": table}))
    return [*names, "p.parquet"]


def _show_set(folder: Path) -> None:
    shown = Folder("x", folder, kind_of(folder) or "set")
    folders = Folders([folder])
    searches = ({}, {"text": "photo"}, {"class": "1", "status": "ok"}, {"score": "x", "min": "0"}, {"from": "9"})
    _each(
        *(lambda s=s: images_page(shown, Dataset(folder), [("folder", "x"), *s.items()], folders) for s in searches),
        *(lambda i=i: image_page(shown, Dataset(folder), i) for i in (0, 5, 8, 15)),
        *(lambda i=i: Dataset(folder).sample(i) for i in (0, 3, 8)),
        lambda: classes_page(shown, Dataset(folder), {}),
        lambda: home_page(folders),
    )


def _show_growing_set(folder: Path) -> None:
    shown, folders = Folder("x", folder, "set"), Folders([folder])
    _each(
        lambda: images_page(shown, Dataset(folder), [], folders),
        lambda: images_page(shown, Dataset(folder), [("text", "photo")], folders),
        *(lambda i=i: image_page(shown, Dataset(folder), i) for i in (0, 3)),
        *(lambda i=i: Dataset(folder).sample(i) for i in (0, 3)),
        lambda: home_page(folders),
    )


def _make_growing_set(folder: Path) -> list[str]:
    names = _make_part(folder)
    (folder / "plan.json").write_text(json.dumps({"plan_id": PLAN, "num_shards": 2}))
    return [*names, "plan.json"]


def _make_runs_and_results(folder: Path) -> list[str]:
    earlier = Path(__file__).with_name("earlier")
    for name in ("stopped-run", "results"):
        shutil.copytree(earlier / name, folder / name, ignore=shutil.ignore_patterns("checkpoints", "logits"))
    run = [f"stopped-run/{name}" for name in ("metrics.jsonl", "plan.json", "config.yaml")]
    return [*run, *(str(path.relative_to(folder)) for path in sorted((folder / "results").glob("*.json")))]


def _show_runs_and_results(folder: Path) -> None:
    folders = Folders([folder])
    run, results = Folder("a", folder / "stopped-run", "run"), Folder("b", folder / "results", "results")
    _each(
        lambda: home_page(folders),
        lambda: runs_page([run], folders, []),
        lambda: runs_page([run, run], folders, []),
        lambda: results_page([results], folders),
    )


TARGETS = {
    "the browser's set": Target(_make_shown_set, _show_set, _sign),
    "the browser's growing set": Target(_make_growing_set, _show_growing_set),
    "the browser's runs and results": Target(_make_runs_and_results, _show_runs_and_results),
    "image sets": Target(_make_image_sets, _read_image_sets),
    "dataset folder": Target(_make_folder, _read_folder, _sign),
    "rows for a set": Target(_make_rows, _read_rows),
    "side columns": Target(_make_columns, _read_columns, _sign_columns),
    "part of a shard": Target(_make_part, _read_part),
    "foreign tar": Target(_make_tar, _read_tar),
    "foreign sets": Target(_make_foreign, _read_foreign_sets),
    "pictures": Target(_make_pictures, _read_pictures),
    "prompt table": Target(_make_prompts, _read_prompts),
    "captions": Target(
        _make_captions, lambda folder: _each(*(lambda p=p: _read_captions(p) for p in sorted(folder.iterdir())))
    ),
    "class list": Target(
        _make_classes, lambda folder: _each(*(lambda p=p: load_classes(str(p)) for p in sorted(folder.iterdir())))
    ),
    "caption journal": Target(_make_journal, _read_journal),
    "plan and logs": Target(_make_plan, _read_plan),
    "config": Target(_make_config, _read_config),
    "model": Target(_make_model, _read_model),
    "logs of an evaluation": Target(_make_evaluations, _read_evaluations),
    "unfinished set": Target(_make_unfinished, _read_unfinished),
    "kept test set": Target(_make_kept, lambda folder: _read_kept(folder / "test_set.parquet", folder / "set")),
    "lease": Target(_make_lease, _read_lease),
}


def _read_naively(folder: Path) -> None:
    plan = Plan(**json.loads((folder / "plan.json").read_text()))
    assert plan.batches(0) and plan.rounds


def _make_naive_plan(folder: Path) -> list[str]:
    (folder / "plan.json").write_text(json.dumps(some_plan().stated()))
    return ["plan.json"]


def _read_sidecar_naively(folder: Path) -> None:
    for row in pq.read_table(folder / "train-00000.parquet").to_pylist():
        with (folder / "train-00000.tar").open("rb") as tar:
            tar.seek(row["offset"])
            assert row["status"] != "ok" or len(tar.read(row["nbytes"])) == row["nbytes"]


NAIVE = {
    "naive plan": Target(_make_naive_plan, _read_naively),
    "naive sidecar": Target(lambda folder: [_make_folder(folder)[1]], _read_sidecar_naively),
}
