"""A server of the browser's pages as a process, hand-written requests, and the folders that the tests show by it."""

import http.client
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
from shard_helpers import PLAN, picture

from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json, pretty_json
from synclones.base.manifest import Parent, write_manifest
from synclones.prompts.schema import SCHEMA
from synclones.prompts.table import write_table
from synclones.shards.index import finish_folder
from synclones.shards.schema import FailedSample, Sample, shard_name
from synclones.shards.write import ShardWriter

EARLIER = Path(__file__).with_name("earlier")
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&amp;"
PER_SHARD, SHARDS = 80, 2


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The page; where a line may break is no part of it."""
        return self.body.decode().replace("<wbr>", "")

    def indices(self) -> list[int]:
        """The numbers of the images that a page shows."""
        return [int(number) for number in re.findall(r'<a href="/image\?[^"]*index=(\d+)"', self.text)]

    def link(self, words: str) -> str:
        """The address of a link by its words; empty when there is none."""
        match = re.search(rf'<a href="([^"]*)">{re.escape(words)}</a>', self.text)
        return unescape(match[1]) if match else ""


class Server:
    """A running `synclones serve`."""

    def __init__(self, process: subprocess.Popen, address: str):
        self.process, self.address, self.port = process, address, int(address.rpartition(":")[2])

    def ask(self, target: str, method: str = "GET", host: str | None = None, body: bytes | None = None) -> Answer:
        """Send one request as it stands: no client mends its path or its Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        if host != "":
            connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, data)

    def page(self, path: str, **parameters) -> Answer:
        """Ask for a page that must be there."""
        answer = self.ask(f"{path}?{urlencode(parameters, doseq=True)}" if parameters else path)
        assert answer.status == 200, (path, parameters, answer.text[-300:])
        return answer


@contextmanager
def serving(*arguments: str, cwd: Path) -> Iterator[Server]:
    """Serve folders at a free port of this machine."""
    command = [sys.executable, "-m", "synclones.cli", "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Server(process, line.split()[0])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def hostile_sample(index: int) -> Sample | FailedSample:
    """A sample whose texts attack a page; every eighth has no image."""
    label = index % 4
    if index % 8 == 5:
        reason = f"{HOSTILE} {index}"
        return FailedSample(index=index, status="failed" if index % 16 == 5 else "dropped", reason=reason, label=label)
    text = f"{HOSTILE} photo {index} of {'RED' if index % 3 else 'blue'}"
    facts, scores = (
        canonical_json({"class_id": f"c{label}"}),
        canonical_json({"clip:x": round(index / 160, 4)}).decode(),
    )
    return Sample(index=index, jpg=picture(index), json=facts, txt=text, label=label, scores=scores, seed=index * 7)


def write_hostile_set(folder: Path) -> Path:
    """A finished set of 160 samples in two shards, whose classes are called as a page's attacker would."""
    folder.mkdir(parents=True)
    write_atomic(folder / "plan.json", pretty_json({"plan_id": PLAN, "num_shards": SHARDS, "model_name": HOSTILE}))
    for shard in range(SHARDS):
        with ShardWriter(folder, shard_name("train", shard, SHARDS), PLAN) as writer:
            samples = [hostile_sample(index) for index in range(shard * PER_SHARD, (shard + 1) * PER_SHARD)]
            writer.add_batch(0, samples)
            writer.finish()
    finish_folder(folder)
    write_manifest(folder, "test", {}, [], {"ok": 140}, {}, {"classes": [f"{HOSTILE} {n}" for n in range(4)]})
    return folder


def write_planned_set(folder: Path) -> Path:
    """The same set beside the prompt table that its plan and its manifest name: prompts of lost images are known."""
    write_hostile_set(folder)
    index = list(range(SHARDS * PER_SHARD))
    columns = {"index": index, "prompt": [f"{HOSTILE} planned {i}" for i in index], "label": [i % 4 for i in index]}
    texts = {name: [""] * len(index) for name in ("recipe", "source_key", "detail")}
    columns |= {"class_id": [f"c{i % 4}" for i in index], "caption_id": index, **texts}
    names = {f"c{n}": f"{HOSTILE} name {n}" for n in range(4)}
    facts = {"class_ids": list(names), "class_names": names}
    table = folder.parent / "planned.parquet"
    digest = write_table(table, [pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)], facts)
    plan = {"plan_id": PLAN, "num_shards": SHARDS, "prompts_sha256": digest, "images_per_shard": PER_SHARD}
    write_atomic(folder / "plan.json", pretty_json(plan))
    parents = [Parent("prompts", str(table), digest)]
    write_manifest(folder, "test", {}, parents, {"ok": 140}, {}, {"classes": list(names)})
    return folder


def write_world(root: Path) -> Path:
    """All kinds of folders, finished and not, beside a secret that none of them holds."""
    shutil.copytree(EARLIER, root / "earlier")
    write_hostile_set(root / "data" / "hostile")
    write_planned_set(root / "data" / "planned")
    log = b'{"step": 1, "samples": 8, "loss": 2.5}\n{"step": 2, "samples": 16, "loss": NaN}\n{"step": 3, "sam'
    (root / "runs" / "live").mkdir(parents=True)
    (root / "runs" / "live" / "metrics.jsonl").write_bytes(log)
    shutil.copytree(EARLIER / "run", root / "runs" / "other")
    config = root / "runs" / "other" / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.001", "learning_rate: 0.01"))
    (root / "secret.txt").write_text("the secret")
    return root
