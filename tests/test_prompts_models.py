"""Captions written by models: BLIP-2 and a language model with random weights, a real local server, kills, faults."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_writers import write_blip2, write_llama

from synclones.base.errors import InputError, MachineError
from synclones.prompts.build import make_table
from synclones.prompts.captions import describe as caption_images
from synclones.prompts.captions import language_model
from synclones.prompts.captions.balance import ConceptMatcher, Matches, kept
from synclones.prompts.captions.checks import caption_in, fault
from synclones.prompts.captions.describe import describe
from synclones.prompts.captions.transformers_model import find_text_model, load_text_model
from synclones.prompts.captions.write import KINDS, WriteConfig, caption_requests
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.recipe import Inputs
from synclones.prompts.run import main
from synclones.shards.read import ShardFolder
from synclones.shards.sources.decode import decode_image

DIGITS = load_classes("lab-digits")
SHORT = ("--max-new-tokens", "8")


@pytest.fixture(scope="module")
def blip2(tmp_path_factory):
    return write_blip2(tmp_path_factory.mktemp("models") / "blip2")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve different pictures of two classes, one of them there twice."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(6):
            noise = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{number}.{'png' if number % 2 else 'jpg'}")
    (folder / "dog" / "again.jpg").write_bytes((folder / "dog" / "0.jpg").read_bytes())
    return folder


def _rows(path):
    return pq.read_table(path).to_pylist()


def _journalled(parts):
    """The records in the whole lines of all journals of a work folder."""
    lines = []
    for journal in [*parts.glob("*.jsonl"), *parts.glob(".*.part")]:
        with contextlib.suppress(FileNotFoundError):
            lines += journal.read_bytes().split(b"\n")[:-1]
    return [record for line in lines for record in json.loads(line)["line"].get("records", [])]


# ------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ('"A dog runs."', "A dog runs."),
        ("Sure! Here is a caption:\n\n1. Caption: “A dog\truns.”\nMore", "A dog runs."),
        ("- a  dog\u202e runs\x07", "a dog runs"),
        ("  \n\n", ""),
        ("Caption: {0.__class__} $(rm -rf) %s", "{0.__class__} $(rm -rf) %s"),
    ],
)
def test_the_caption_is_found_in_an_answer(answer, caption):
    assert caption_in(answer) == caption


@pytest.mark.parametrize(
    ("caption", "what"),
    [
        ("a brown dog on a beach", ""),
        ("a photo of a dog", ""),
        ("a very very big dog", ""),
        ("", "empty"),
        ("...", "empty"),
        ("a photo of", "boilerplate"),
        ("This is an image of a", "boilerplate"),
        ("there is a close-up photo", "boilerplate"),
        ("a dog dog dog", "repetition"),
        ("a cat and a cat and a cat and a cat and a", "repetition"),
        ("I'm sorry, I cannot do that", "refusal"),
        (" ".join(f"word{n}" for n in range(61)), "too long"),
    ],
)
def test_faults_are_told_from_captions(caption, what):
    assert fault(caption) == what


# ------------------------------------------------------------------ pictures


def test_pictures_are_described_by_the_model_and_keep_their_source(blip2, pictures, tmp_path, monkeypatch):
    out, shown = tmp_path / "c.parquet", []

    def counted(model, images, *rest):
        shown.extend(images)
        return describe(model, images, *rest)

    monkeypatch.setattr("synclones.prompts.captions.describe.describe", counted)
    main(["caption", "--images", str(pictures), "--model", str(blip2), "--batch-size", "5", *SHORT, "--out", str(out)])
    rows = _rows(out)
    good = [row for row in rows if not row["fault"]]
    assert good and {row["class"] for row in rows} == {"cat", "dog"}
    model = load_text_model(find_text_model(str(blip2), "", "--model"), "image-to-text", "cpu", "--model")
    for row in good[:4]:
        picture = decode_image((pictures / row["source_key"].partition("/")[2]).read_bytes())
        assert describe(model, [picture], "", 8)[0].strip() == row["caption"]
    facts = json.loads(pq.read_schema(out).metadata[b"synclones.captions"])
    assert facts["model"] == "blip2" and len(facts["model_sha256"]) == 64 and sum(facts["counts"].values()) >= 13
    assert len(rows) == 13 and len(shown) == 12, "the same image is described once"
    assert not out.with_name("c.parquet.parts").exists()


def test_our_shards_are_described_and_become_prompts(blip2, dataset, tmp_path):
    out, table = tmp_path / "c.parquet", tmp_path / "p.parquet"
    flags = ["--images", str(dataset), "--model", str(blip2), "--classes", "lab-digits", "--max-new-tokens", "6"]
    main(["caption", *flags, "--out", str(out)])
    rows = _rows(out)
    assert len(rows) == 60 and all(row["class"] == str(n % 10) for n, row in enumerate(rows))
    faulty = [row for row in rows if row["fault"]]
    assert all(row["caption"] == f"a photo of a {DIGITS.classes[int(row['class'])].name}." for row in faulty)
    main(["--recipe", "captions", "--captions", str(out), "--num-images", "60", "--out", str(table)])
    made = pq.read_table(table).to_pylist()
    shard, key = made[7]["source_key"].split("/")[1:]
    assert ShardFolder(dataset).get(int(key)).label == 7 and shard.startswith("train-")


def test_a_killed_captioner_goes_on_and_ends_with_the_same_captions(blip2, pictures, tmp_path):
    command = [
        sys.executable,
        "-m",
        "synclones.cli",
        "prompts",
        "caption",
        "--images",
        str(pictures),
        "--batch-size",
        "1",
    ]
    command += ["--model", str(blip2), *SHORT, "--out"]
    subprocess.run([*command, "whole.parquet"], cwd=tmp_path, check=True, capture_output=True)
    parts, kills = tmp_path / "cut.parquet.parts", 0
    for wanted in (3, 7):
        process = subprocess.Popen([*command, "cut.parquet"], cwd=tmp_path, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(_journalled(parts)) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        for journal in parts.glob(".*.part"):
            with journal.open("ab") as file:
                file.write(b'{"key": "torn')
    assert kills, "no kill came before the end"
    subprocess.run([*command, "cut.parquet"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not parts.exists()


def test_what_cannot_be_captioned_is_refused_first(blip2, pictures, tmp_path):
    def refused(*flags, match):
        with pytest.raises(InputError, match=match):
            main(["caption", "--out", str(tmp_path / "c.parquet"), *map(str, flags)])

    refused(match="--images: none were given")
    (tmp_path / "empty").mkdir()
    refused("--images", tmp_path / "empty", match="no tars and no .jpg")
    refused("--images", pictures, "--model", tmp_path / "nothing", match="no folder|give a model's folder")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    refused("--images", pictures, "--model", broken, match="model.safetensors: the weights are missing")
    (broken / "model.safetensors").write_bytes(b"\0" * 20)
    refused("--images", pictures, "--model", broken, match="cut short or not safetensors")
    (broken / "model.safetensors").write_bytes((9).to_bytes(8, "little") + b"not  json" + b"\0" * 20)
    refused("--images", pictures, "--model", broken, match="cut short or not safetensors")
    (broken / "model.safetensors").write_bytes((blip2 / "model.safetensors").read_bytes())
    refused("--images", pictures, "--model", broken, match="is no complete image-to-text model")
    refused("--images", pictures, "--model", blip2, "--batch-size", 0, match="--batch-size: 0 was given")
    assert not (tmp_path / "c.parquet").exists()


@pytest.mark.parametrize("model", ["Salesforce/blip2-opt-2.7b", "mistralai/Mistral-7B-Instruct-v0.2"])
def test_hub_ids_with_dots_are_hub_ids(model, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MachineError, match="the hub cannot be reached and the model is not in its cache"):
        main(["caption", "--images", str(pictures), "--model", model, "--out", str(tmp_path / "c.parquet")])
    with pytest.raises(InputError, match="no folder 'models/x.safetensors'"):
        find_text_model("models/x.safetensors", "", "--model")


def test_a_picture_of_an_unknown_class_is_named(blip2, pictures, tmp_path):
    flags = ["--images", str(pictures), "--model", str(blip2), "--classes", "lab-digits", "--max-new-tokens", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caption_images, "load_text_model", lambda *_: pytest.fail("a model was loaded"))
        with pytest.raises(InputError, match="cat/0.jpg: class 'cat' is none of --classes"):
            main(["caption", *flags, "--out", str(tmp_path / "c.parquet")])


def test_the_folder_one_stands_in_can_be_captioned(blip2, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(pictures)
    main(["caption", "--images", ".", "--model", str(blip2), "--out", str(tmp_path / "c.parquet"), "--dry-run"])
    assert "13 images" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_said(blip2, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    flags = ["--images", str(pictures), "--model", str(blip2), "--device", "cuda", "--out", str(tmp_path / "c.parquet")]
    with pytest.raises(InputError, match="--device cuda: torch finds no GPU"):
        main(["caption", *flags])


# ------------------------------------------------------------------ language models


class _Server:
    """A local server of the OpenAI form; ``script`` decides what it does with the n-th request."""

    def __init__(self, script):
        self.requests, lock = [], threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):
                body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                with lock:
                    self.requests.append((handler.path, body, handler.headers.get("Authorization")))
                    number = len(self.requests)
                code, answer = script(number, body)
                handler.send_response(code)
                handler.end_headers()
                handler.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            def log_message(handler, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def _says(text):
    return {"choices": [{"message": {"content": text}}]}


def _echo(number, body):
    words = body["messages"][0]["content"].split("shows this: ")[1].split(".")[0]
    return 200, _says(f"Caption: a {words} seen with seed {body['seed']}")


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(language_model.time, "sleep", lambda seconds: None)
    servers = []

    def start(script):
        servers.append(_Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


WRITE = ["write", "--classes", "lab-digits", "--captions-per-class", "3", "--batch-size", "4"]


def test_a_server_writes_captions_that_become_prompts(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server, out = serve(_echo), tmp_path / "c.parquet"
    main([*WRITE, "--server", server.url, "--temperature", "0.5", "--out", str(out)])
    rows = _rows(out)
    assert len(rows) == 30 and [row["class"] for row in rows[:12]] == [*"0123456789", "0", "1"]
    assert all(f"a {DIGITS.classes[int(row['class'])].name} seen" in row["caption"] for row in rows)
    path, body, key = server.requests[0]
    assert path == "/v1/chat/completions" and key == "Bearer secret" and b"secret" not in out.read_bytes()
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.5, 0.95, 60)
    assert len({request["seed"] for _, request, _ in server.requests}) == 30
    again = tmp_path / "d.parquet"
    main([*WRITE, "--server", serve(_echo).url, "--temperature", "0.5", "--out", str(again)])
    assert _rows(again) == rows, "the same settings ask the same"
    table = make_table("concept-llm", Inputs(classes=DIGITS, captions=out), 30)
    assert {row["prompt"] for row in next(table.blocks()).to_pylist()} == {row["caption"] for row in rows}


def test_kinds_of_captions_have_their_shares_and_hostile_names_stay_data():
    classes = load_classes("imagenet1k")
    made = caption_requests(WriteConfig(captions_per_class=10), classes)
    for kind, share in KINDS.items():
        assert abs(sum(wish.kind == kind for wish in made) / len(made) - share) < 0.02
    shorter = caption_requests(WriteConfig(captions_per_class=3), classes)
    assert shorter == made[:3000], "more captions per class keep the first ones"
    assert all(
        wish.setting in wish.instruction(15) and wish.concept.name in wish.instruction(15) for wish in made[:500]
    )


def test_a_server_that_stumbles_is_asked_again(serve, tmp_path):
    def stumbling(number, body):
        if number % 3 == 1:
            return 503, b"busy"
        if number % 3 == 2:
            return 200, b"<html>nonsense"
        return _echo(number, body)

    server = serve(stumbling)
    main([*WRITE, "--batch-size", "1", "--server", server.url, "--out", str(tmp_path / "c.parquet")])
    assert len(_rows(tmp_path / "c.parquet")) == 30 and len(server.requests) == 90


@pytest.mark.parametrize("answer", [(500, b""), (200, b"hello"), (200, {"choices": []}), (200, _says(None))])
def test_a_server_that_stays_broken_stops_with_what_was_saved(serve, tmp_path, answer):
    out = tmp_path / "c.parquet"
    server = serve(lambda number, body: _echo(number, body) if number <= 8 else answer)
    with pytest.raises(MachineError, match="no usable answer in 6 tries .*same command to resume"):
        main([*WRITE, "--server", server.url, "--out", str(out)])
    assert not out.exists() and len(_journalled(out.with_name("c.parquet.parts"))) == 8
    good = serve(_echo)
    main([*WRITE, "--server", good.url, "--out", str(out)])
    assert len(_rows(out)) == 30 and len(good.requests) == 22, "only what was missing"


def test_a_server_that_refuses_or_is_not_there(serve, tmp_path):
    out = ["--out", str(tmp_path / "c.parquet")]
    with pytest.raises(InputError, match="refused with 401 \\(no key\\)"):
        main([*WRITE, "--server", serve(lambda *_: (401, b"no key")).url, *out])
    shutil.rmtree(tmp_path / "c.parquet.parts")
    with pytest.raises(MachineError, match="no usable answer .*URLError"):
        main([*WRITE, "--server", "http://127.0.0.1:9", *out])
    with pytest.raises(InputError, match="expected http://host:port"):
        main([*WRITE, "--server", "localhost:8000", *out])


def test_answers_that_are_no_captions_are_asked_for_again_then_replaced_and_counted(serve, tmp_path, capsys):
    def mostly_silent(number, body):
        return (200, _says("")) if "this: three." in body["messages"][0]["content"] else _echo(number, body)

    out = tmp_path / "c.parquet"
    server = serve(mostly_silent)
    main([*WRITE, "--server", server.url, "--out", str(out)])
    rows = [row for row in _rows(out) if row["class"] == "3"]
    assert [(row["caption"], row["fault"], row["attempt"]) for row in rows] == [("a photo of three.", "empty", 2)] * 3
    assert "27 good, 3 empty" in capsys.readouterr().out and len(server.requests) == 27 + 9


def test_a_model_of_this_process_writes_the_same_after_a_kill(llama, tmp_path, capsys):
    flags = [*WRITE, "--model", str(llama), "--max-tokens", "8", "--device", "cpu"]
    main([*flags, "--out", str(tmp_path / "a.parquet")])
    rows = _rows(tmp_path / "a.parquet")
    assert len(rows) == 30 and len({row["caption"] for row in rows if not row["fault"]}) > 10
    stopped = tmp_path / "b.parquet.parts"
    real = os.fsync

    def fail_once(descriptor):
        real(descriptor)
        if len(_journalled(stopped)) >= 8:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", fail_once)
        main([*flags, "--out", str(tmp_path / "b.parquet")])
    assert not (tmp_path / "b.parquet").exists() and stopped.exists()
    main([*flags, "--out", str(tmp_path / "b.parquet")])
    assert _rows(tmp_path / "b.parquet") == rows
    main([*flags, "--out", str(tmp_path / "c.parquet"), "--dry-run"])
    assert "30 captions of 10 concepts" in capsys.readouterr().out and not (tmp_path / "c.parquet").exists()


# ------------------------------------------------------------------ balance


def test_concepts_are_found_as_whole_words():
    matcher = ConceptMatcher(["dog", "hot dog", "Great white shark", "cat", "dog"])
    assert matcher.find("A Dog eats a hot-dog beside a great white shark; no category") == [0, 1, 2]
    assert matcher.find("dogs and doggies") == []


def test_frequent_concepts_keep_about_t_and_rare_ones_all():
    rng = np.random.default_rng(0)
    counts = [20_000, 1000, 15, 1]
    concept = np.repeat(np.arange(4), counts)
    caption = rng.permutation(len(concept)).astype(np.int64)
    order = np.argsort(caption)
    matches = Matches(len(concept) + 5, caption[order], concept[order])
    stays = kept(matches, 4, 100, 0)
    after = matches.counts(4, stays)
    assert after[2:].tolist() == [15, 1] and all(abs(after[k] - 100) < 40 for k in (0, 1))
    assert not stays[-5:].any(), "captions without a concept are dropped"
    assert (kept(matches, 4, 100, 0) == stays).all() and (kept(matches, 4, 100, 1) != stays).any()


def test_balance_writes_a_file_that_text_file_reads(tmp_path, capsys):
    lines = ["a cat sits"] * 300 + ["a dog and a cat"] * 3 + ["nothing here"] * 7
    (tmp_path / "c.txt").write_text("\n".join(lines))
    (tmp_path / "bank.csv").write_text("name\ncat\ndog\nhorse\n")
    flags = ["--captions", str(tmp_path / "c.txt"), "--concepts", str(tmp_path / "bank.csv"), "--threshold", "30"]
    main(["balance", *flags, "--dry-run", "--out", str(tmp_path / "b.parquet")])
    assert not (tmp_path / "b.parquet").exists()
    main(["balance", *flags, "--out", str(tmp_path / "b.parquet")])
    printed = capsys.readouterr().out
    assert "310 captions, 303 name a concept" in printed and "2 of 3 concepts are named, 2 afterwards" in printed
    main(["--recipe", "text-file", "--captions", str(tmp_path / "b.parquet"), "--out", str(tmp_path / "p.parquet")])
    prompts = pq.read_table(tmp_path / "p.parquet")["prompt"].to_pylist()
    assert prompts.count("a dog and a cat") == 3 and 10 < prompts.count("a cat sits") < 60
    with pytest.raises(InputError, match="exists; choose another file"):
        main(["balance", *flags, "--out", str(tmp_path / "b.parquet")])
