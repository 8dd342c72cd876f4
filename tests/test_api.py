"""The Python API: what its functions make is what the commands make, and what is wrong is one of our errors."""

import inspect
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import identity

import synclones
from synclones import api
from synclones.base.config import flags_of
from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.manifest import write_manifest
from synclones.cli import dispatch
from synclones.train.trained import TrainedRun

DRAWN = {"num_inference_steps": 1, "batch_size": 10, "images_per_shard": 20}
TRAINED = {"samples": 40, "batch_size": 20, "torch_threads": 1}
MEASURED = {"resamples": 100, "attacks": (), "torch_threads": 1}


def flags(settings):
    return [
        word for name, value in settings.items() if value != () for word in (f"--{name.replace('_', '-')}", str(value))
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which everything was made from Python, with the defaults of --out."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        prompts = api.build_prompts("lab-digits", recipe="class-name", num_images=40)
        data = api.generate(prompts, **DRAWN)
        run = api.train(data, recipe="lab", **TRAINED)
        results = api.evaluate(run.export, data, **MEASURED)
    return root, prompts, data, run, results


def test_paths_and_dataclasses_come_back(made):
    root, prompts, data, run, results = made
    assert str(prompts) == "data/prompts/lab-digits-class-name-40.parquet"
    assert (str(data), str(run.folder), str(run.export)) == (
        "data/lab-digits-class-name-40",
        "runs/lab-digits-class-name-40",
        "runs/lab-digits-class-name-40/export",
    )
    lines = TrainedRun(root / run.folder).metrics()
    assert [line["step"] for line in lines] == [2] and lines[0]["samples"] == 40
    assert results.report.name == "report.html" and len(results) == len(results.cells) >= 2


def test_the_commands_make_the_same(made, tmp_path, monkeypatch):
    root, prompts, data, run, results = made
    monkeypatch.chdir(tmp_path)
    dispatch(["prompts", "build", "--classes", "lab-digits", "--recipe", "class-name", "--num-images", "40"])
    assert (tmp_path / prompts).read_bytes() == (root / prompts).read_bytes()
    dispatch(["generate", "--prompts", str(prompts), *flags(DRAWN)])
    assert identity(tmp_path / data) == identity(root / data)
    assert (tmp_path / data / "config.yaml").read_bytes() == (root / data / "config.yaml").read_bytes()
    dispatch(["train", "--recipe", "lab", "--data", str(data), *flags(TRAINED)])
    for name in ("export/model.safetensors", "plan.json", "config.yaml"):
        assert (tmp_path / run.folder / name).read_bytes() == (root / run.folder / name).read_bytes(), name


def test_the_same_call_again_touches_no_file(made, monkeypatch, capsys):
    root, prompts, data, run, results = made
    monkeypatch.chdir(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}
    api.generate(prompts, **DRAWN)
    api.train([data], recipe="lab", **TRAINED)
    assert api.evaluate([str(run.export)], data, **MEASURED).cells == results.cells == api.results(results.folder).cells
    assert {
        path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"
    } == before


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: api.build_prompts(["a,b"]), "'a,b' has a comma"),
        (lambda: api.build_prompts("nope"), "no class list and no file 'nope'"),
        (lambda: api.build_prompts(recipe="nope"), "--recipe: 'nope' is unknown"),
        (lambda: api.generate("nope.parquet"), "--prompts: no file 'nope.parquet'"),
        (lambda: api.generate(num_imges=3), r"generate\(\): key 'num_imges' is unknown; did you mean 'num_images'"),
        (lambda: api.generate(num_images="x"), r"generate\(\): num_images: got 'x', expected a count"),
        (lambda: api.generate(num_images=np.ones(3)), r"generate\(\): num_images: got ndarray, expected"),
        (lambda: api.generate(flip=True), r"generate\(\): key 'flip' is unknown"),
        (lambda: api.open_generator("nope"), "--model: no folder 'nope'"),
        (lambda: api.open_generator(batch_size="auto"), "batch_size='auto' are for generate"),
        (lambda: api.open_dataset("nope"), "nope: no such folder"),
        (lambda: api.train("nope", recipe="lab"), "nope: no such folder"),
        (lambda: api.train(recipe="nope"), "recipe 'nope' is unknown"),
        (lambda: api.train(recipe="lab", epochs=[1]), r"train\(\): epochs: got a list, expected a number"),
        (lambda: api.train(recipe="lab", samples=10, epochs=1), "expected exactly one length"),
        (lambda: api.train(config="nope.yaml"), "nope.yaml"),
        (lambda: api.evaluate("nope"), "nope: no such model folder"),
        (lambda: api.evaluate("nope", class_ids=("a",)), "class_ids: is about a network of your own"),
        (lambda: api.results("nope"), "nope: no such folder"),
        (lambda: api.results("."), "holds no results"),
    ],
)
def test_what_is_wrong_is_an_input_error_and_writes_nothing(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


def test_what_the_machine_refuses_is_a_machine_error(tmp_path, monkeypatch):
    import synclones.prompts.run as run

    def full(*_):
        raise OSError(28, "No space left on device", "p.parquet")

    monkeypatch.setattr(run, "make_table", full)
    with pytest.raises(MachineError, match="No space left on device"):
        api.build_prompts("cifar10", out=tmp_path / "p.parquet")
    monkeypatch.setattr(run, "make_table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a bug keeps its name and its traceback
        api.build_prompts("cifar10", out=tmp_path / "p.parquet")


# ------------------------------------------------------------------ sets


def test_a_set_has_a_length_positions_and_images(made):
    root, _, data, *_ = made
    dataset = api.open_dataset(root / data)
    assert len(dataset) == 40 == len(list(dataset)) and dataset.classes == tuple("0123456789")
    assert [sample.index for sample in dataset] == list(range(40)) == [dataset[n].index for n in range(40)]
    sample = dataset[-1]
    assert (sample.index, sample.prompt, sample.label, sample.class_id) == (39, sample.prompt, 9, "9")
    assert sample.prompt == "nine" and sample.image.size == (32, 32) and sample.pixels.shape == (32, 32, 3)
    for position in (40, -41):
        with pytest.raises(IndexError, match="it has 40"):
            dataset[position]


def test_positions_are_of_stored_images_where_some_are_missing(tmp_path):
    from shard_helpers import write_folder

    write_folder(tmp_path / "set", 3)
    assert api.open_dataset(tmp_path / "set").classes == (), "shards that no manifest is with have no names"
    write_manifest(tmp_path / "set", "test", {}, [], {}, {})
    dataset = api.open_dataset(tmp_path / "set")
    stored = [sample.index for sample in dataset]
    assert len(stored) == len(dataset) < stored[-1] + 1, "the set of this test has an image that failed"
    assert [dataset[n].index for n in range(len(dataset))] == stored
    assert dataset.classes == () and dataset[0].class_id is None and dataset[0].label is not None


def test_an_unfinished_set_is_refused_with_the_command_that_goes_on(made, tmp_path):
    root, _, data, *_ = made
    folder = shutil.copytree(root / data, tmp_path / "set")
    for name in ("train-00001.json", "manifest.json", "info.json", "SHA256SUMS"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="unfinished, 1 of 2 shards.*go on with: synclones generate --config"):
        api.open_dataset(folder)


def test_a_damaged_sample_is_refused_when_it_is_read(made, tmp_path):
    root, _, data, *_ = made
    folder = shutil.copytree(root / data, tmp_path / "set")
    tar = folder / "train-00000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"\xff\xd8\xff", b"\xff\xd8\x00", 1))
    dataset = api.open_dataset(folder)
    with pytest.raises(VerificationError, match="sample 0"):
        dataset[0]
    assert dataset[1].image.size == (32, 32)


def test_other_libraries_read_the_same_set(made, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import torch
    from torch.utils.data import DataLoader

    root, _, data, *_ = made
    dataset = api.open_dataset(root / data)
    images, labels = next(iter(DataLoader(dataset.to_torch(), batch_size=20, num_workers=2)))
    assert images.shape == (20, 3, 32, 32) and images.dtype == torch.uint8 and labels.tolist() == list(range(10)) * 2
    assert (images[3].permute(1, 2, 0).numpy() == dataset[3].pixels).all()
    pairs = dataset.to_torch(transform=lambda image: image.size)
    assert pairs[5] == ((32, 32), 5) and len(pairs) == 40
    assert [row["__key__"] for row in dataset.webdataset()] == [f"{n:010d}" for n in range(40)]
    loaded = dataset.to_hf(cache_dir=str(tmp_path))
    assert len(loaded) == 40 and loaded[11]["txt"] == dataset[11].prompt and loaded[11]["cls"] == 1


# ------------------------------------------------------------------ the generator


def test_a_generator_draws_what_a_generation_draws(made):
    root, _, data, *_ = made
    dataset = api.open_dataset(root / data)
    batch = [dataset[n] for n in range(10)]
    generator = api.open_generator(**DRAWN)
    drawn = generator.sample([sample.prompt for sample in batch], [sample.seed for sample in batch])
    assert [image.reason for image in drawn] == [""] * 10 and drawn[0].image.size == (32, 32)
    import simplejpeg

    for image, sample in zip(drawn, batch, strict=True):
        jpg = simplejpeg.encode_jpeg(image.pixels, quality=90, colorspace="RGB", colorsubsampling="420")
        assert jpg == sample.jpg, "the very bytes"
    one, other, again = generator.sample(["three"] * 3, [1, 2, 1])
    assert (one.pixels == again.pixels).all() and (one.pixels != other.pixels).any()
    assert [image.seed for image in generator.sample(["a", "b"])] == [0, 1]
    assert generator.sample("seven")[0].prompt == "seven"


@pytest.mark.parametrize(
    "prompts, seeds, message",
    [([], None, "at least one"), (["a", " "], None, "none of them empty"), ("a", [1, 2], "2 were given for 1 prompts"),
     ("a", [2**32], "expected 0 to"), ("a", [-1], "expected 0 to"), ([3], None, "expected texts")],
)  # fmt: skip
def test_texts_and_seeds_that_cannot_be_drawn_are_refused(prompts, seeds, message):
    from synclones.generate.open import OpenGenerator

    with pytest.raises(InputError, match=message):
        OpenGenerator(None, None).sample(prompts, seeds)


# ------------------------------------------------------------------ results


def test_results_are_a_table_of_pandas(made, monkeypatch):
    root, *_, results = made
    table = api.results(root / results.folder).to_pandas()
    row = table[table.metric == "accuracy"].iloc[0]
    cell = next(cell for cell in results.cells if cell.metric == "accuracy")
    assert (row.value, row.ci_low, row.n, row.dataset) == (cell.value, cell.ci_low, 40, cell.dataset)
    assert table[table.metric == "ece"].bins.iloc[0] == 20
    monkeypatch.setattr("synclones.evaluate.stored.opened.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pandas"):
        api.results(root / results.folder).to_pandas()


# ------------------------------------------------------------------ the module


def test_importing_it_loads_no_library_and_knows_its_version():
    code = (
        "import sys, synclones, synclones.api; libraries = {'torch', 'numpy', 'cyclopts', 'pydantic', 'diffusers'}; "
        "print(synclones.__version__, sorted(libraries & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    from importlib import metadata

    assert done.stdout.split() == [metadata.version("synclones"), "[]"] and synclones.__version__
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        synclones.nope  # noqa: B018


def test_everything_in_it_says_what_it_does_and_is_named_like_its_flags():
    from synclones.evaluate.settings import EvaluateConfig
    from synclones.generate.settings import GenerateConfig
    from synclones.prompts.settings import BuildConfig
    from synclones.train.settings import TrainConfig

    configs = {
        "build_prompts": BuildConfig,
        "generate": GenerateConfig,
        "train": TrainConfig,
        "evaluate": EvaluateConfig,
    }
    own_network = {"preprocessing", "name", "class_ids", "identity", "function_device"}
    for name in api.__all__:
        item = getattr(api, name)
        assert inspect.getdoc(item), name
        if name in configs:
            parameters = {
                p for p, kind in inspect.signature(item).parameters.items() if kind.kind is not kind.VAR_KEYWORD
            }
            taken = {flag.lstrip("-").replace("-", "_") for flag in flags_of(configs[name])}
            assert parameters - own_network <= taken, name
