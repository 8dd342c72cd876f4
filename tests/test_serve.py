"""The browser's server: every image and every number is shown as it is stored, and nothing else is, whoever asks."""

import json
import re
import shutil
import signal
import subprocess
import sys
from html import escape
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import synclones
from serve_world import EARLIER, HOSTILE, PER_SHARD, SHARDS, hostile_sample, serving, write_hostile_set, write_world
from shard_helpers import PLAN

from synclones.base.errors import InputError
from synclones.base.files import sha256_file, write_atomic
from synclones.serve.dataset import Dataset
from synclones.serve.folders import Folders, kind_of
from synclones.serve.search import Wanted, search
from synclones.shards.read import ShardFolder
from synclones.shards.schema import FailedSample, shard_name
from synclones.shards.write import ShardWriter

SET = "data/hostile"
PAGES = {
    "/": {},
    "/images": {"folder": SET},
    "/image": {"folder": SET, "index": 7},
    "/classes": {"folder": SET},
    "/runs": {"folder": ["earlier/run", "earlier/stopped-run", "runs/live"]},
    "/results": {"folder": "earlier/results"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def server(world):
    with serving("data", "earlier", "runs", cwd=world) as running:
        yield running


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file with its hash and time."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (sha256_file(path), path.stat().st_mtime_ns) for path in files}


# ------------------------------------------------------------------ what is shown


def test_the_first_page_lists_every_folder_with_how_far_it_is(server):
    text = server.page("/").text
    assert all(name in text for name in (SET, "earlier/set", "earlier/stopped-run", "runs/live", "earlier/results"))
    assert "unfinished: 1 of 2 shards are complete" in text and "20 images" in text and "6 numbers" in text
    # A long path does not push what stands beside it off a telephone.
    assert b">earlier/<wbr>stopped-run</a>" in server.page("/").body


def test_every_image_has_the_bytes_that_the_reader_of_shards_gives(server, world):
    for name in (SET, "earlier/set"):
        for sample in ShardFolder(world / name).sequential():
            answer = server.page("/image.jpg", folder=name, index=sample.index)
            assert answer.body == sample.jpg and answer.headers["content-type"] == "image/jpeg"


def test_pages_show_every_sample_once_and_in_order(server):
    answer, seen = server.page("/images", folder=SET), []
    while True:
        seen += answer.indices()
        following = answer.link("next page")
        if not following:
            break
        answer = server.ask(following)
    assert seen == list(range(SHARDS * PER_SHARD)) and "That is all." in answer.text


@pytest.mark.parametrize(
    "asked, meant",
    [
        ({"class": "2"}, lambda s: s.label == 2),
        ({"class": f"{HOSTILE} 1".upper()}, lambda s: s.label == 1),
        ({"text": "of red"}, lambda s: "of RED" in getattr(s, "txt", "")),
        ({"text": HOSTILE}, lambda s: hasattr(s, "txt")),
        ({"text": ".*"}, lambda s: False),
        ({"status": "dropped"}, lambda s: getattr(s, "status", "ok") == "dropped"),
        ({"status": "ok", "from": "31"}, lambda s: getattr(s, "status", "ok") == "ok" and s.index >= 31),
        ({"score": "clip:x", "min": "0.25", "max": "0.5"}, lambda s: s.scores and 0.25 <= score(s) <= 0.5),
        ({"score": "clip:x", "max": "1e-1", "class": "0"}, lambda s: s.scores and score(s) <= 0.1 and s.label == 0),
        ({"score": "clip:y", "min": "0"}, lambda s: False),
        ({"from": "159"}, lambda s: s.index == 159),
        ({"class": "77"}, lambda s: False),
    ],
)
def test_a_search_shows_exactly_what_is_sought(server, asked, meant):
    answer, seen = server.page("/images", folder=SET, **asked), []
    while True:
        seen += answer.indices()
        following = answer.link("next page")
        if not following:
            break
        answer = server.ask(following)
    assert seen == [i for i in range(SHARDS * PER_SHARD) if meant(hostile_sample(i))]


def score(sample) -> float:
    return json.loads(sample.scores)["clip:x"]


@pytest.mark.parametrize(
    "asked, words",
    [
        ({"class": "zebra"}, "not in this set"),
        ({"status": "lost"}, "expected ok, failed, dropped"),
        ({"min": "1"}, "of which score?"),
        ({"score": "clip:x"}, "from where to where?"),
        ({"score": "clip:x", "min": "nan"}, "expected a number"),
        ({"from": "-1"}, "expected a number of 0"),
        ({"from": "9" * 40}, "expected a number of 0"),
        ({"text": "x" * 201}, "at most 200"),
    ],
)
def test_what_cannot_be_sought_is_said_in_one_line(server, asked, words):
    answer = server.ask("/images?" + "&".join(f"{k}={quote(v)}" for k, v in {"folder": SET, **asked}.items()))
    assert answer.status == 400 and words in answer.text and "Traceback" not in answer.text


def test_an_image_stands_with_prompt_seed_scores_neighbours_and_the_command_that_redraws_it(server):
    text = server.page("/image", folder="earlier/set", index=12).text
    assert "the plushie two." in text and ">744308992 " in text
    assert "<pre>synclones generate redraw earlier/set --index 12 --out 12.jpg</pre>" in text
    answer = server.page("/image", folder="earlier/set", index=12)
    assert sorted({*answer.indices()}) == list(range(7, 18))  # across the border of two shards
    assert answer.link("← 11") and answer.link("13 →") and "2 two</a>" in text


def test_side_columns_of_an_image_stand_beside_it(tmp_path):
    write_hostile_set(tmp_path / "set")
    ids = [f"{index:010d}" for index in range(160)]
    rows = pa.table({"key": ids, "caption": [f"{HOSTILE} by hand {i}" for i in range(160)], "rank": list(range(160))})
    pq.write_table(rows, tmp_path / "captions.parquet")
    done = synclones(
        "shards", "annotate", "set", "--from", "captions.parquet", "--columns", "caption", "rank", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with serving("set", cwd=tmp_path) as running:
        for index in (6, 158):
            text = running.page("/image", folder="set", index=index).text
            assert f"<td>{escape(HOSTILE)} by hand {index}</td>" in text and f"<th>rank</th><td>{index}</td>" in text
        assert "by hand" not in running.page("/image", folder="set", index=5).text  # which has no image


def test_a_sample_without_an_image_says_why(server):
    text = server.page("/image", folder=SET, index=5).text
    assert escape(f"failed: {HOSTILE} 5") in text and "/image.jpg" not in text.partition("Its neighbours")[0]
    assert server.ask(f"/image.jpg?folder={SET}&index=5").status == 400


def test_what_another_command_made_is_not_said_to_be_redrawn(server):
    assert "generate redraw" not in server.page("/image", folder=SET, index=0).text


def test_runs_stand_side_by_side_with_curves_and_what_differs(server):
    text = server.page("/runs", folder=["runs/other", "earlier/stopped-run"]).text
    assert text.count('<svg class="curve"') == 4 and "runs/other from 2.299 to 2.273" in text
    differ = text.partition("Settings in which they differ")[2].partition("</table>")[0]
    assert "<th>learning_rate</th><td>0.01</td><td>0.001</td>" in differ and "batch_size" not in differ
    assert "synclones train --config earlier/stopped-run/config.yaml" in text


def test_a_run_that_diverges_while_it_is_written_says_so(server):
    answer = server.page("/runs", folder="runs/live")
    assert "runs/live: no finite number from 16 images on" in answer.text  # and the torn last line is left out
    assert answer.headers["refresh"] == "15"


def test_results_are_the_numbers_of_the_folder_with_links_to_model_and_set(server):
    text = server.page("/results", folder="earlier/results").text
    assert "15.0<small>[5.2, 36.0]</small>" in text and "R_adv 8/255" in text
    assert "/runs?folder=earlier%2Frun" in text and "/images?folder=earlier%2Fset" in text


def test_results_that_are_not_the_same_in_two_folders_are_named(world, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(world / "earlier" / "results", tmp_path / name)
    (cell,) = [p for p in (tmp_path / "b").glob("*.json") if '"metric": "accuracy",' in p.read_text()]
    cell.write_text(cell.read_text().replace('"value": 0.15', '"value": 0.2'))
    with serving("a", "b", cwd=tmp_path) as running:
        same = running.page("/results", folder=["a"]).text
        both = running.page("/results", folder=["a", "b"]).text
    assert "differs" not in same and "1 number differs between" in both and "accuracy of run (a, b)" in both


# ------------------------------------------------------------------ what is being written


def test_a_set_shows_what_is_drawn_so_far_and_renews_itself(server, world):
    answer = server.page("/images", folder="earlier/stopped-set")
    assert answer.indices() == list(range(15)) and answer.headers["refresh"] == "15"
    assert "Unfinished: 1 of 2 shards are complete" in answer.text
    assert "synclones generate --config earlier/stopped-set/config.yaml" in answer.text
    still = server.ask("/images" + answer.link("stop that"))
    assert "refresh" not in still.headers and still.indices() == answer.indices()
    part = (world / "earlier/stopped-set/.train-00001.part").read_bytes()
    image = server.page("/image.jpg", folder="earlier/stopped-set", index=12).body
    assert image.startswith(b"\xff\xd8\xff") and image in part
    assert "As soon as its shard is finished" in server.page("/image", folder="earlier/stopped-set", index=12).text


def test_a_finished_set_does_not_renew_itself(server):
    assert "refresh" not in server.page("/images", folder=SET).headers


def test_images_appear_as_their_batches_are_stored_and_stay_when_the_shard_is_finished(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps({"plan_id": PLAN, "num_shards": 1}))
    samples = [hostile_sample(index) for index in range(12)]
    with serving("set", cwd=tmp_path) as running:
        assert "No image so far." in running.page("/images", folder="set").text
        with ShardWriter(folder, shard_name("train", 0, 1), PLAN) as writer:
            for batch in range(3):
                writer.add_batch(batch, samples[4 * batch : 4 * batch + 4])
                assert running.page("/images", folder="set").indices() == list(range(4 * batch + 4))
                image = running.page("/image.jpg", folder="set", index=4 * batch).body
                assert image == samples[4 * batch].jpg
            writer.finish()
        assert running.page("/images", folder="set").indices() == list(range(12))
        assert running.page("/image.jpg", folder="set", index=11).body == samples[11].jpg


def test_a_folder_that_is_begun_while_the_server_runs_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("synclones.serve.folders.RENEWED_S", -1.0)
    write_hostile_set(tmp_path / "data" / "a")
    folders = Folders([tmp_path / "data"])
    assert [Path(name).name for name in folders.all()] == ["a"]
    write_hostile_set(tmp_path / "data" / "b")
    assert [Path(name).name for name in folders.all()] == ["a", "b"]


# ------------------------------------------------------------------ searches that take long


@pytest.mark.parametrize(
    "wanted", [Wanted(text="photo 15"), Wanted(label=3, status="ok"), Wanted(score="clip:x", low=0.9)]
)
@pytest.mark.parametrize("step", [7, 20_000])
def test_a_search_without_time_goes_on_from_page_to_page_and_misses_nothing(world, monkeypatch, wanted, step):
    monkeypatch.setattr("synclones.serve.search.STEP", step)
    monkeypatch.setattr("synclones.serve.search.SLOW_STEP", step)
    dataset = Dataset(world / SET)
    whole = [row["index"] for row in search(dataset, wanted, 0, 1000, seconds=60).rows]
    start, seen, pages = 0, [], 0
    while start is not None:
        hits = search(dataset, wanted, start, 3, seconds=-1)
        assert hits.next_index is None or hits.next_index > start
        seen, start, pages = seen + [row["index"] for row in hits.rows], hits.next_index, pages + 1
    assert seen == whole and whole and pages > 1


def test_a_search_that_found_nothing_yet_goes_on_by_itself_until_it_is_stopped(world, monkeypatch):
    from synclones.serve.folders import Folder
    from synclones.serve.pages.images import images_page

    monkeypatch.setattr("synclones.serve.pages.images.search", lambda *all: search(*all, seconds=-1))
    folder = Folder(SET, world / SET, "set")
    parameters = [("folder", SET), ("text", "photo 159 <")]
    shown = images_page(folder, Dataset(world / SET), parameters, Folders([world / SET]))
    assert re.fullmatch(r"0; url=/images\?folder=data%2Fhostile&text=photo\+159\+%3C&from=\d+", shown.refresh)
    assert "Searched up to image" in shown.page.decode() and ">stop here</a>" in shown.page.decode()
    stopped = images_page(folder, Dataset(world / SET), [*parameters, ("still", "1")], Folders([world / SET]))
    assert stopped.refresh == ""


def test_prompts_of_the_table_are_sought_as_those_in_the_tars_are(world):
    with_table = Dataset(world / "earlier/set")
    assert with_table.prompts is not None
    without = Dataset(world / "earlier/set")
    without.__dict__["prompts"] = None
    for text in ("photo", "A PLASTIC", "the plushie two.", "zebra"):
        results = [[row["index"] for row in search(d, Wanted(text=text), 0, 99).rows] for d in (with_table, without)]
        assert results[0] == results[1]
    assert len(results) == 2 and search(with_table, Wanted(text="plushie"), 0, 99).rows


def test_prompts_and_class_names_of_the_table_are_texts_and_lost_images_are_sought_by_them(server):
    answer = server.page("/images", folder="data/planned", text="PLANNED 5")
    assert answer.indices() == [5, *range(50, 60)] and escape(f"{HOSTILE} planned 5") in answer.text
    assert "<script" not in answer.text and "<img src=x" not in answer.text
    lost = server.page("/image", folder="data/planned", index=5).text
    assert escape(f"{HOSTILE} planned 5") in lost and escape(f"1 {HOSTILE} name 1") in lost and "<script" not in lost
    classes = server.page("/classes", folder="data/planned").text
    assert escape(f"{HOSTILE} name 3") in classes and "<script" not in classes
    named = server.page("/images", folder="data/planned", **{"class": f"{HOSTILE} name 3", "status": "failed"})
    assert named.indices() == [] and "Nothing like that." in named.text
    assert server.page("/images", folder="data/planned", status="failed").indices() == list(range(5, 160, 16))


def test_a_table_that_is_not_the_plan_s_is_not_believed(world, tmp_path):
    shutil.copytree(world / "earlier", tmp_path / "earlier")
    plan = tmp_path / "earlier/set/plan.json"
    plan.write_text(re.sub(r'"prompts_sha256": "[0-9a-f]+"', f'"prompts_sha256": "{"0" * 64}"', plan.read_text()))
    assert Dataset(tmp_path / "earlier/set").prompts is None


# ------------------------------------------------------------------ who asks, and for what


@pytest.mark.parametrize(
    "name",
    [
        *("..", "../secret.txt", "/etc", "/etc/passwd", "data/../..", "data/hostile/../hostile", "data", "", "."),
        *("data/hostile/", "./data/hostile", "data//hostile", "data/hostile\0", "data%2Fhostile", "secret.txt"),
    ],
)
@pytest.mark.parametrize("page", ["/images", "/image", "/image.jpg", "/classes", "/runs", "/results", "/report"])
def test_a_folder_that_is_not_looked_at_is_not_there(server, page, name):
    answer = server.ask(f"{page}?folder={quote(name, safe='')}&index=0")
    assert answer.status in (400, 404) and b"the secret" not in answer.body and b"root:" not in answer.body


@pytest.mark.parametrize(
    "target",
    [
        *("/../secret.txt", "/images/../../secret.txt", "/..%2f..%2fsecret.txt", "/%2e%2e/secret.txt", "//etc/passwd"),
        *("/data/hostile/plan.json", "/static/../secret.txt", "/image.jpg/../../secret.txt", "/earlier/set"),
    ],
)
def test_paths_lead_nowhere(server, target):
    answer = server.ask(target)
    assert answer.status == 404 and b"the secret" not in answer.body


def test_a_report_that_is_a_link_out_of_its_folder_is_not_shown(world, tmp_path):
    shutil.copytree(world / "earlier" / "results", tmp_path / "results")
    (tmp_path / "results" / "report.html").symlink_to(world / "secret.txt")
    with serving("results", cwd=tmp_path) as running:
        answer = running.ask("/report?folder=results")
        assert answer.status == 400 and b"the secret" not in answer.body
        (tmp_path / "results" / "report.html").unlink()
        (tmp_path / "results" / "report.html").write_text("<h1>a report</h1>")
        assert running.page("/report", folder="results").body == b"<h1>a report</h1>"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        "[",
        "a b",
    ],
)
def test_a_request_for_another_host_is_refused_whatever_it_asks_for(server, host):
    for target in ("/", f"/image.jpg?folder={SET}&index=0"):
        answer = server.ask(target, host=host.format(port=server.port))
        assert answer.status == 400 and len(answer.body) < 200 and HOSTILE.encode() not in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:{port}", "LOCALHOST:8765", "[::1]:{port}"])
def test_this_machine_s_own_names_are_answered(server, host):
    assert server.ask("/", host=host.format(port=server.port)).status == 200


def test_a_name_that_was_allowed_is_answered(world):
    with serving("data", "--allowed-hosts", "gpu7.cluster", cwd=world) as running:
        assert running.ask("/", host="gpu7.cluster:80").status == 200
        assert running.ask("/", host="gpu8.cluster:80").status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_nothing_but_get_and_head_is_answered(server, method):
    answer = server.ask("/", method=method, body=b"x=1")
    assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD" and SET not in answer.text


def test_head_gives_the_headers_of_a_page_and_no_more(server):
    head, whole = server.ask("/", method="HEAD"), server.page("/")
    assert head.status == 200 and head.body == b"" and head.headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize(
    "target", ["/", f"/images?folder={SET}", "/nothing", "/images?folder=x", f"/image.jpg?folder={SET}&index=0"]
)
def test_every_answer_forbids_scripts_frames_and_guesses(server, target):
    headers = server.ask(target).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


@pytest.mark.parametrize("page", PAGES)
def test_hostile_names_are_texts_everywhere(server, page):
    text = server.page(page, **PAGES[page]).text
    assert "<script" not in text and "<img src=x" not in text
    if page in ("/images", "/image", "/classes"):
        assert escape(HOSTILE) in text
    echoed = server.ask(f"/images?folder={SET}&text={quote(HOSTILE)}&class={quote(HOSTILE)}").text
    assert "<script" not in echoed and "onerror=window.hacked=1>" not in echoed


def test_asking_for_everything_changes_no_file(server, world):
    before = tree(world)
    for page, parameters in PAGES.items():
        server.page(page, **parameters)
    for index in range(0, 160, 20):
        server.page("/image.jpg", folder=SET, index=index)
    server.ask("/images?folder=earlier/stopped-set", method="POST", body=b"x")
    assert tree(world) == before


def test_a_damaged_image_is_said_to_be_and_the_others_are_shown(tmp_path):
    write_hostile_set(tmp_path / "set")
    tar = tmp_path / "set" / "train-00000.tar"
    data = bytearray(tar.read_bytes())
    sample = ShardFolder(tmp_path / "set").get(3)
    data[data.index(sample.jpg) + 40] ^= 1
    tar.write_bytes(data)
    with serving("set", cwd=tmp_path) as running:
        answer = running.ask("/image.jpg?folder=set&index=3")
        assert answer.status == 500 and b"is damaged" in answer.body
        assert running.ask("/image?folder=set&index=3").status == 500
        assert running.page("/image.jpg", folder="set", index=4).body == ShardFolder(tmp_path / "set").get(4).jpg
        assert 3 in running.page("/images", folder="set").indices()
        write_atomic(tmp_path / "set" / "train-00001.json", b"{")
        assert "not the json of a shard" in running.ask("/images?folder=set").text
        assert running.page("/").status == 200


# ------------------------------------------------------------------ how it starts and ends


def test_a_folder_that_is_none_of_ours_is_refused_in_one_line(tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "plan.json").write_text('{"of": "a house"}')
    done = synclones("serve", "photographs", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "photographs: neither a set of images, a training run nor results" in done.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nowhere"], "nowhere: no such folder"),
        ([], "no folder data, runs, results here; give folders, as in `synclones serve data/x runs/x`"),
        (["s3://bucket/set"], "s3://bucket/set"),
        (["--allowed-hosts", "*"], "--allowed-hosts: '*' was given, expected a name or an address without a port"),
        (["--allowed-hosts", "gpu7:8765"], "'gpu7:8765' was given, expected a name"),
        (["data", "--host", "256.1.1.1"], "--host 256.1.1.1 --port 8765: "),
        (["--port", "70000"], "--port: 70000 was given, expected 0 to 65535"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(tmp_path, arguments, words):
    if "data" in arguments:
        shutil.copytree(EARLIER / "set", tmp_path / "data")
    done = synclones("serve", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_refused_in_one_line(server, world):
    done = synclones("serve", "data", "--port", str(server.port), cwd=world)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"--port {server.port}: Address already in use; give another" in done.stderr


def test_without_its_libraries_it_says_what_to_install(tmp_path):
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'uvicorn' else real(name, *more)\n"
        "from synclones.base.process import run_main; from synclones.cli import dispatch\n"
        "run_main(lambda: dispatch(['serve', '.']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "uvicorn is not installed; run: pip install 'synclones[serve]'" in done.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_it_at_once_and_frees_its_port(world, number, code):
    with serving("data", cwd=world) as running:
        running.page("/")
        running.process.send_signal(number)
        assert running.process.wait(timeout=10) == code
        assert "Traceback" not in running.process.stderr.read()


def test_kinds_of_folders_are_told_by_what_lies_in_them(world, tmp_path):
    kinds = {"set": "set", "stopped-set": "set", "run": "run", "stopped-run": "run", "results": "results"}
    assert {name: kind_of(world / "earlier" / name) for name in kinds} == kinds
    assert kind_of(world / "earlier") == kind_of(world / "earlier/run/export") == kind_of(tmp_path) == ""


def test_failed_rows_of_the_helper_are_what_the_tests_take_them_for():
    samples = [hostile_sample(index) for index in range(160)]
    lost = [s for s in samples if isinstance(s, FailedSample)]
    assert {s.status for s in lost} == {"failed", "dropped"} and len(lost) == 20


def test_several_classes_of_one_name_are_asked_for_by_number(tmp_path):
    folder = write_hostile_set(tmp_path / "set")
    manifest = folder / "manifest.json"
    record = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(record | {"classes": ["crane", "crane", "x", "y"]}))
    with pytest.raises(InputError, match=r"2 classes are called so: give one of the numbers \[0, 1\]"):
        Dataset(folder).label_of("Crane")
