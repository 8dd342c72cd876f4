"""Grids, worlds, plans and addresses: exact, shared, cheap, and one line with file and line for every mistake."""

import os
import subprocess
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import pytest

from synclones.ablate import world as worlds
from synclones.ablate.costs import costs, done_steps, missing_inputs
from synclones.ablate.foretold import expected_rows
from synclones.ablate.gather import gather
from synclones.ablate.grid import grid_names, read_grid, scaled_count
from synclones.ablate.plan import make_plan
from synclones.ablate.plan_text import plan_lines
from synclones.ablate.references import identity, resolve, words
from synclones.ablate.run import planned
from synclones.ablate.settings import PlanConfig
from synclones.ablate.store import Store
from synclones.ablate.world import parse_scale, read_world, world_names
from synclones.base.config import flags_of, load
from synclones.base.errors import InputError, VerificationError
from synclones.cli import dispatch
from synclones.evaluate.suite import read_suite
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.recipe import recipe_names

GRID = """title: Small
axes:
  prompts: {names: {recipe: class-name}, templates: {recipe: clip-templates}}
  images: [1k, 4k]
scaled: [images]
seeds: 2
budget: {samples: 60k}
steps:
  table:
    run: prompts build
    flags: {recipe: "{prompts.recipe}", classes: "{world.classes}", num-images: "{largest.images}"}
  drawn: {run: generate, amount: "{largest.images}", flags: {prompts: "{step.table}", num-images: "{largest.images}"}}
  clone:
    run: train
    amount: "{budget.samples}"
    also: "{world.supervised}"
    flags: {data: ["{step.drawn},first={images}"], seed: "{seed}"}
  result: {run: evaluate, flags: {model: "{step.clone}", data: "{world.test}"}}
columns: [accuracy]
"""
WORLD = """title: Small
values:
  classes: lab-digits
  supervised: {recipe: lab, flip: false}
inputs:
  test: {path: PLACE/test, get: "make it", gb: 2}
machine: {train: {torch-threads: 1}}
rates:
  images: {per_second: 10, bytes: 1000000, source: a guess}
  clone: {per_second: 100, source: a guess}
  results: {seconds: 36, source: a guess}
price: {per_hour: 2, source: a friend}
grids: {small: {scale: 1/10}}
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "small.yaml").write_text(GRID)
    (tmp_path / "world.yaml").write_text(WORLD.replace("PLACE", str(tmp_path)))
    return tmp_path


def plan(files: Path, grid: str = "", world: str = "", **more):
    (files / "small.yaml").write_text(grid or GRID)
    (files / "world.yaml").write_text((world or WORLD).replace("PLACE", str(files)))
    return make_plan(read_grid(str(files / "small.yaml")), read_world(str(files / "world.yaml")), **more)


def flags(made, kind: str) -> list[list[str]]:
    return [step.flag_words(Path("O")) for step in made.steps.values() if step.kind == kind]


# ------------------------------------------------------------------ what is planned


def test_cells_are_the_product_of_the_axes_and_seeds_and_share_every_step_that_is_the_same(files):
    made = plan(files)
    assert [(*cell.values.values(), cell.seed) for cell in made.cells[:3]] == [
        ("names", "1k", 0),
        ("names", "1k", 1),
        ("names", "4k", 0),
    ]
    kinds = [step.kind for step in made.steps.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"prompts": 2, "images": 2, "clone": 8, "results": 8}
    for cell in made.cells:
        assert [step.kind for step in cell.steps] == ["prompts", "images", "clone", "results"]
        seen: set[str] = set()
        for step in cell.steps:  # in the order in which they can be run
            assert all(need.key in seen for need in step.needs)
            seen.add(step.key)


def test_commands_are_exact_and_read_the_first_images_of_one_drawing(files):
    made = plan(files)
    table, drawn, clone, result = (step.address for step in made.cells[0].steps)
    assert [step.shown(Path("O")) for step in made.cells[0].steps] == [
        "synclones prompts build --recipe class-name --classes lab-digits --num-images 400 "
        f"--out O/steps/prompts/{table}-400.parquet",
        f"synclones generate --prompts O/steps/prompts/{table}-400.parquet --num-images 400 "
        f"--out O/steps/images/{drawn}",
        f"synclones train --recipe lab --no-flip --data O/steps/images/{drawn},first=100 --seed 0 --torch-threads 1 "
        f"--out O/steps/clone/{clone}",
        f"synclones evaluate --model O/steps/clone/{clone} --data {files}/test --out O/steps/results/{result}",
    ]


def test_a_scale_multiplies_counts_and_budgets_and_the_world_may_fix_either(files):
    budget = GRID.replace('seed: "{seed}"', 'seed: "{seed}", samples: "{budget.samples}"')
    samples = {words[words.index("--samples") + 1] for words in flags(plan(files, budget), "clone")}
    assert samples == {"6000"}  # equal between cells
    halved = plan(files, budget, scale=Fraction(1, 2))
    assert {words[words.index("--num-images") + 1] for words in flags(halved, "images")} == {"2000"}
    fixed = WORLD.replace("scale: 1/10", "scale: 1/10, budget: {samples: 777}")
    assert {words[words.index("--samples") + 1] for words in flags(plan(files, budget, fixed), "clone")} == {"777"}
    assert [scaled_count(n, Fraction(1, 4), "x") for n in (0, 2, 3, 5, 6)] == [0, 1, 1, 1, 2]


def test_an_address_is_of_everything_that_goes_in_and_of_nothing_else(files):
    def addresses(kind: str, grid: str = "", world: str = "", **more) -> set[str]:
        return {step.address for step in plan(files, grid, world, **more).steps.values() if step.kind == kind}

    before = {kind: addresses(kind) for kind in ("prompts", "images", "clone", "results")}
    # Speed, names of steps and values, order of flags: nothing changes.
    for grid, world in (
        ("", WORLD.replace("torch-threads: 1", "torch-threads: 7")),
        (GRID.replace("names:", "plain:").replace("title: Small", "title: Other"), ""),
        (GRID.replace("drawn", "pictures"), ""),
        (
            GRID.replace(
                'data: ["{step.drawn},first={images}"], seed: "{seed}"',
                'seed: "{seed}", data: ["{step.drawn},first={images}"]',
            ),
            "",
        ),
    ):
        assert {kind: addresses(kind, grid, world) for kind in before} == before
    # A flag of the training changes it and what follows, and nothing before it.
    after = {kind: addresses(kind, "", WORLD.replace("flip: false", "flip: true")) for kind in before}
    assert [kind for kind in before if not before[kind] & after[kind]] == ["clone", "results"]
    # So does what lies at an input, of the evaluation alone.
    (files / "test").mkdir()
    (files / "test" / "a.jpg").write_bytes(b"x")
    moved = {kind: addresses(kind) for kind in before}
    assert [kind for kind in before if not before[kind] & moved[kind]] == ["results"]
    # A larger drawing is the same one, grown; so are the trainings on its first images.
    (files / "test" / "a.jpg").unlink()
    (files / "test").rmdir()
    larger = GRID.replace("[1k, 4k]", "[1k, 4k, 8k]")
    assert addresses("images", larger) == before["images"] and addresses("clone", larger) > before["clone"]


def test_an_input_that_lies_elsewhere_is_known_by_its_content_and_not_by_what_the_world_says_of_its_own(files):
    (files / "one").mkdir()
    (files / "other").mkdir()
    for folder, text in (("one", "a"), ("other", "bb")):
        (files / folder / "x.jpg").write_text(text)
    stated = WORLD.replace("get: ", "identity: published, get: ")
    (files / "world.yaml").write_text(stated.replace("PLACE", str(files)))
    (files / "small.yaml").write_text(GRID)
    grid, world = read_grid(str(files / "small.yaml")), read_world(str(files / "world.yaml"))
    results = {
        name: {step.key for step in make_plan(grid, given).steps.values() if step.kind == "results"}
        for name, given in (
            ("world's own", world),
            ("one", world.with_inputs((f"test={files}/one",))),
            ("other", world.with_inputs((f"test={files}/other",))),
        )
    }
    assert not results["one"] & results["other"] and not results["one"] & results["world's own"]
    (files / "one").rename(files / "moved")
    moved = make_plan(grid, world.with_inputs((f"test={files}/moved",)))
    assert results["one"] <= set(moved.steps)


def test_a_file_that_nobody_states_as_an_input_is_refused(files):
    (files / "mine.csv").write_text("class_id,name\n0,zero\n")
    with pytest.raises(InputError, match=r"classes: .*mine.csv lies here, .* state it under `inputs:`"):
        plan(files, world=WORLD.replace("lab-digits", f"{files}/mine.csv"))


def test_values_can_be_chosen_and_the_rest_is_not_drawn(files):
    made = plan(files, only=["images=1k", "prompts=templates"], seeds=1)
    assert len(made.cells) == 1 and made.axes == {"prompts": ("templates",), "images": ("1k",)}
    assert [words[words.index("--num-images") + 1] for words in flags(made, "images")] == ["100"]
    whole = plan(files)
    assert {step.address for step in made.steps.values()} < {step.address for step in whole.steps.values()}


def test_a_step_in_several_sizes_is_made_once_in_the_largest(files):
    grid = GRID.replace("{largest.images}", "{images}").replace(",first={images}", ",first=10")
    made = plan(files, grid)
    assert sorted(step.size for step in made.steps.values() if step.kind == "images") == [400, 400]


def test_costs_are_of_what_is_not_done_by_the_worlds_rates(files):
    made, store = plan(files), Store(files / "out")
    by_rate = {cost.rate: cost for cost in costs(made, done_steps(made, store))}
    assert by_rate["images"].amount == 800 and by_rate["images"].gigabytes == pytest.approx(0.8)
    assert by_rate["images"].hours == pytest.approx(80 / 3600)
    assert by_rate["clone"].amount == 8 * 6000 and by_rate["clone"].hours == pytest.approx(480 / 3600)
    assert by_rate["results"].hours == pytest.approx(0.08) and by_rate["prompts"].hours is None
    first = next(step for step in made.steps.values() if step.kind == "images")
    store.beside(first, "").parent.mkdir(parents=True)
    store.finish(first, [], first.size, 1, 1)
    left = {cost.rate: cost for cost in costs(made, done_steps(made, store))}
    assert (left["images"].done, left["images"].amount) == (1, 400)
    grown = plan(files, GRID.replace("[1k, 4k]", "[1k, 8k]"))
    assert done_steps(grown, store) == set()  # it is there, and too small


def test_the_plan_says_what_is_missing_and_how_to_get_it_and_results_never_say_zero(files):
    made, store = plan(files), Store(files / "out")
    assert [one.name for one in missing_inputs(made, set())] == ["test"]
    text = "\n".join(plan_lines(made, store, -1))
    assert f"missing: {files}/test" in text and "test, 2.0 GB: make it" in text
    assert "the world world states no rate 'prompts'" in text and "at 2 an hour (a friend)" in text
    results = gather(made, store)
    assert len(results.cells) == 8 and all(cell.results is None and cell.missing for cell in results.cells)
    assert results.cells[0].commands[0].startswith("synclones prompts build --recipe class-name")
    store.beside(made.cells[0].steps[0], "").parent.mkdir(parents=True)
    store.fail(made.cells[0].steps[0], "no room", 4)
    assert gather(made, store).cells[0].missing == "failed: prompts build: no room"


def test_a_cell_that_cannot_be_built_says_why_and_the_others_are_planned(files):
    grid = GRID.replace("names: {recipe: class-name}", "names: {name: class-name}")
    made = plan(files, grid)
    reasons = {cell.values["prompts"]: cell.reason for cell in made.cells}
    assert reasons["templates"] == "" and "small.yaml:11: {prompts.recipe} is unknown" in reasons["names"]
    assert "cannot be built: " in "\n".join(plan_lines(made, Store(files), -1))


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    "before, after, expected",
    [
        ("seeds: 2", "seds: 2", "small.yaml:6: 'seds' is no key of a grid; did you mean 'seeds'?"),
        ("seeds: 2", "seeds: 0", "small.yaml:6: seeds: got 0, expected 1 to 1000"),
        (
            "scaled: [images]",
            "scaled: [image]",
            "small.yaml:5: scaled: 'image' is no axis of this grid; did you mean 'images'?",
        ),
        ("samples: 60k", "samples: many", "small.yaml:7: samples: 'many' is not a count"),
        (
            "run: train",
            "run: trian",
            "small.yaml:13: run: 'trian' is no command that can be a step; did you mean 'train'?",
        ),
        ("run: train", "runs: train", "small.yaml:14: 'runs' is no key of a step; did you mean 'run'?"),
        ("{prompts.recipe}", "{promts.recipe}", "small.yaml:11: {promts.recipe} is unknown; did you mean 'prompts'?"),
        ("{step.drawn},", "{step.dravn},", "small.yaml:17: {step.dravn} is unknown; did you mean 'step.drawn'?"),
        (
            "{world.classes}",
            "{world.clases}",
            "small.yaml:11: {world.clases} is unknown; did you mean 'world.classes'?",
        ),
        ("{largest.images}", "{largest.prompts}", "small.yaml:11: {largest.prompts} is unknown; did you mean"),
        ("{step.table}", "{step.clone}", "the step clone needs itself"),
        ("[1k, 4k]", "[1k, 1k]", "small.yaml:4: images: a value stands twice"),
        ("[1k, 4k]", "[1k, lots]", "small.yaml:4: images: 'lots' is not a count"),
        ("[1k, 4k]", "[1, 4]", "--scale 1/10: of images=1, 1, nothing is left; give at least 1/2"),
        ("[1k, 4k]", "[1001, 1002]", "--scale 1/10: images=1001 and images=1002 are both 100"),
        ("  prompts: {names", "  seed: {names", "small.yaml:3: no axis can be called 'seed'"),
        ("columns: [accuracy]", "", "small.yaml: has no `columns:`"),
    ],
)
def test_a_mistake_in_a_grid_names_file_and_line(files, before, after, expected):
    assert before in GRID
    with pytest.raises(InputError) as caught:
        plan(files, GRID.replace(before, after))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "before, after, expected",
    [
        ("machine:", "machines:", "world.yaml:7: 'machines' is no key of a world; did you mean 'machine'?"),
        ('get: "make it", ', "", "world.yaml:6: test: an input needs `path:` and `get:`"),
        ("gb: 2", "gb: large", "world.yaml:6: gb: got 'large', expected a number"),
        ("bytes: 1000000, source: a guess", "bytes: 1000000", "world.yaml:9: images: a rate needs `source:`"),
        (", source: a friend", "", "world.yaml:12: price: needs `per_hour:`"),
        ("scale: 1/10", "scale: 2", "world.yaml:13: scale: '2' was given, expected a share such as 1/4000"),
    ],
)
def test_a_mistake_in_a_world_names_file_and_line(files, before, after, expected):
    assert before in WORLD
    with pytest.raises(InputError) as caught:
        plan(files, world=WORLD.replace(before, after))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"grid": "tabel6"}, "grid 'tabel6' is unknown; did you mean 'table6'?"),
        ({"world": "imagnet"}, "--world 'imagnet' is unknown; did you mean 'imagenet'?"),
        ({"only": ("image=1M",)}, "--only: table6 has no axis 'image'; did you mean 'images'?"),
        ({"only": ("images=2M",)}, "--only: images has no value '2M'; expected one of 1M"),
        ({"only": ("images",)}, "--only: 'images' is no AXIS=VALUE"),
        ({"scale": "4000"}, "--scale: '4000' was given, expected a share"),
        ({"scale": "1/0"}, "--scale: '1/0' was given, expected a share"),
        ({"scale": "1/9000000"}, "of images=1M, 1,000,000, nothing is left; give at least 1/2000000"),
        (
            {"input": ("rael=x",), "world": "imagenet"},
            "--input: the world imagenet has no input 'rael'; did you mean 'real'?",
        ),
        ({"input": ("real",), "world": "imagenet"}, "--input: 'real' is no NAME=PATH"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(given, expected):
    with pytest.raises(InputError) as caught:
        planned(PlanConfig(**given))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_store_whose_path_the_language_of_data_would_read_otherwise_is_refused():
    with pytest.raises(InputError, match="has a comma, colon or brace"):
        PlanConfig(out=Path("a,b"))


def test_a_broken_record_is_told_of_and_not_taken_for_done(files):
    made, store = plan(files), Store(files / "out")
    step = next(iter(made.steps.values()))
    store.beside(step, "").parent.mkdir(parents=True)
    store.beside(step, ".step.json").write_text("{")
    with pytest.raises(VerificationError, match="not the record of a step; delete it"):
        store.is_done(step)


# ------------------------------------------------------------------ references


def test_references_give_values_lists_and_texts():
    known = {"a": 3, "l": ["x", "{a}"], "m": {"k": "{a}"}, "none": None, "round": "{round}"}
    lookup = lambda name, where: known[name]  # noqa: E731
    assert resolve("{a}", lookup) == 3 and resolve("n={a}", lookup) == "n=3"
    assert resolve(["{l}", "{none}", "y"], lookup) == ["x", 3, "y"]
    assert resolve("{m}", lookup) == {"k": 3}
    assert identity(resolve("{l}", lookup)) == ["x", 3] and words(["x", 3, True], Path("o")) == ["x", "3", "true"]
    with pytest.raises(InputError, match="circle"):
        resolve("{round}", lookup)
    with pytest.raises(InputError, match="is no single value"):
        resolve("n={l}", lookup)


# ------------------------------------------------------------------ what is shipped


LACKING = {("retrieval", "cifar10")}  # no pool of its size is stated
PLANNED = [(grid, world) for grid in grid_names() for world in world_names() if (grid, world) not in LACKING]


@pytest.mark.parametrize(("grid", "world"), PLANNED)
def test_every_grid_plans_in_full_and_at_lab_scale_with_flags_that_exist(grid, world, tmp_path):
    made, store = planned(PlanConfig(grid=grid, world=world, out=tmp_path / "out"))
    assert [cell.reason for cell in made.cells if cell.reason] == []
    known = {run: set(flags_of(settings)) for run, settings in settings_of_commands().items()}
    assert {step.run for step in made.steps.values()} <= known.keys()
    for step in made.steps.values():
        given = {word for word in step.flag_words(tmp_path) if word.startswith("--")}
        wrong = {word for word in given if not {word, word.replace("--no-", "--", 1)} & known[step.run]}
        assert not wrong, (step.run, wrong)
    lacking = [cost.rate for cost in costs(made, set()) if cost.hours is None]
    assert lacking == [] and not (tmp_path / "out").exists()
    if world == "lab":
        assert missing_inputs(made, set()) == []  # everything is made on the way


@pytest.mark.parametrize(("grid", "world"), PLANNED)
def test_every_command_takes_what_its_grid_gives_it(grid, world, tmp_path):
    """Types, ranges, recipes and presets are looked at when settings are read; lists of classes and suites here."""
    made, _ = planned(PlanConfig(grid=grid, world=world, out=tmp_path / "out", seeds=1))
    settings = settings_of_commands()
    # What they read from each other is a path like any other: of steps that differ in nothing else one is enough.
    reads = ("data", "weights", "model", "prompts")
    alike = {
        repr((one.run, {k: v for k, v in one.flags.items() if k not in reads})): one for one in made.steps.values()
    }
    for step in alike.values():
        stage = import_module(f"synclones.{step.run.split()[0]}.run").STAGE
        words, presets = step.flag_words(tmp_path), None
        if step.run == stage.name:
            words, presets = stage.implied(words), stage.presets
        config = load(settings[step.run], words, step.run, presets)
        classes = str(getattr(config, "classes", None) or "")
        if classes and not classes.startswith(str(tmp_path)):
            load_classes(classes)
        if suite := getattr(config, "suite", None):
            read_suite(suite)
        if step.run == "prompts build":
            assert config.recipe in recipe_names()


def test_a_grid_that_needs_what_a_world_does_not_state_names_the_worlds_that_do(tmp_path):
    for grid, world in LACKING:
        with pytest.raises(
            InputError, match=f"needs .*, which the world {world} does not state; take --world imagenet or lab"
        ):
            planned(PlanConfig(grid=grid, world=world, out=tmp_path / "out"))


def settings_of_commands() -> dict[str, type]:
    listed = {}
    for stage in ("prompts", "generate", "shards", "train", "evaluate", "ablate"):
        verbs = import_module(f"synclones.{stage}.run").STAGE.verbs
        listed |= {f"{stage} {name}": verb.settings for name, verb in verbs.items()}
        listed[stage] = next(iter(verbs.values())).settings
    return listed


def test_the_papers_grid_is_twelve_cells_of_sixteen_million_rows_and_plans_in_seconds_without_torch():
    code = (
        "import sys, time; start = time.process_time()\n"
        "from synclones.cli import dispatch\n"
        "dispatch(['ablate', 'plan', 'table6', '--world', 'imagenet', '--seeds', '2'])\n"
        "assert time.process_time() - start < 5\n"
        "assert not {'torch', 'diffusers', 'transformers', 'timm', 'open_clip'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "48,000,000" in done.stdout and "12 cells x 2 seeds" in done.stdout
    assert "GPU-hours" in done.stdout and "image-net.org" in done.stdout


def test_worlds_can_be_read_and_scales_are_shares():
    assert {"lab", "cifar10", "imagenet"} <= set(world_names())
    assert all(read_world(name).title for name in world_names()) and worlds.FOLDER.is_dir()
    assert (parse_scale("1/4000"), parse_scale("0.01")) == (Fraction(1, 4000), Fraction(1, 100))


def test_scripts_have_every_step_that_is_left_in_levels_that_can_run_at_once(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", str(files / "small.yaml"), "--world", str(files / "world.yaml"), "--out", "store"]
    for kind, has in (("slurm", "sbatch --parsable"), ("torchrun", "sh "), ("kubernetes", "kubectl apply")):
        dispatch(["ablate", *words, "--write", kind, "--write-to", kind])
        levels = [Path(kind, f"level-{n}.txt").read_text().split() for n in range(4)]
        assert [len(level) for level in levels] == [2, 2, 8, 8]
        assert sorted(path.name for path in Path(kind, "steps").iterdir()) == sorted(
            n for level in levels for n in level
        )
        script = Path(kind, "steps", levels[2][0]).read_text()
        assert "torchrun --standalone --nproc-per-node 8 -m synclones.train.run --recipe lab --no-flip" in script
        assert has in Path(kind, "submit.sh").read_text()
        assert subprocess.run(["sh", "-n", f"{kind}/submit.sh"]).returncode == 0
    with pytest.raises(InputError, match="holds files; give another folder"):
        dispatch(["ablate", *words, "--write", "slurm", "--write-to", "slurm"])
    assert not Path("store").exists()


FAKES = {  # a Slurm that runs what it is given at once, and commands that only make what --out names
    "sbatch": "while [ $# -gt 0 ]; do case $1 in --array=*) last=${1##*-};; --*) ;; *) break;; esac; "
    'shift; done\nfor i in $(seq 1 "$last"); do SLURM_ARRAY_TASK_ID=$i bash "$1" "$2" >&2 || exit 1; done\necho 7\n',
    "srun": 'exec "$@"\n',
    "synclones": 'while [ "$1" != --out ]; do shift; done\nmkdir -p "$2"\n',
}


@pytest.mark.parametrize("kind", ["slurm", "torchrun"])
def test_scripts_make_everything_in_the_store_from_wherever_they_are_begun(files, tmp_path, monkeypatch, kind):
    (tmp_path / "bin").mkdir()
    for name, text in FAKES.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    words = ["run", str(files / "small.yaml"), "--world", str(files / "world.yaml"), "--out", "store"]
    dispatch(["ablate", *words, "--write", kind, "--write-to", "jobs", "--gpus", "1"])
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", str(tmp_path / "work" / "jobs" / "submit.sh")], cwd="/", env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    made = plan(files)
    assert {step.path(Path("store")) for step in made.steps.values()} == {
        str(path) for path in Path("store/steps").glob("*/*")
    }


def test_an_argument_without_a_flag_comes_first_and_is_in_the_address(files):
    grid = GRID.replace('"{world.test}"', '"{step.found}"')
    steps = []
    for of in ("drawn", "clone"):
        found = f'  found: {{run: shards retrieve, on: "{{step.{of}}}", flags: {{model: x}}}}\n'
        made = plan(files, grid.replace("  result:", f"{found}  result:"), only=["prompts=names", "images=1k"], seeds=1)
        steps.append(next(step for step in made.steps.values() if step.kind == "neighbours"))
    assert [step.flag_words(Path("O"))[0].split("/")[2] for step in steps] == ["images", "clone"]
    assert steps[0].address != steps[1].address


def test_what_lies_behind_a_result_is_not_made_again(files):
    made, store = plan(files), Store(files / "out")
    for cell in made.cells[:4]:
        store.beside(cell.steps[-1], "").parent.mkdir(parents=True, exist_ok=True)
        store.finish(cell.steps[-1], [], 0, 1, 1)
    left = {cost.rate: (cost.steps, cost.amount) for cost in costs(made, done_steps(made, store))}
    assert left["results"] == (8, 4) and left["images"] == (2, 400) and left["clone"] == (8, 4 * 6000)


def test_a_report_says_when_steps_were_made_by_different_versions(files, monkeypatch):
    made, store = plan(files), Store(files / "out")
    steps = list(made.steps.values())
    for number, step in enumerate(steps[:3]):
        monkeypatch.setattr("synclones.ablate.store.versions", lambda number=number: {"torch": f"2.{number // 2}"})
        store.beside(step, "").parent.mkdir(parents=True, exist_ok=True)
        store.finish(step, [], step.size, 1, 1)
        notes = gather(made, store).notes
        assert len(notes) == (number == 2)
    assert "torch 2.0 and 2.1" in notes[0]


def test_a_plan_at_the_papers_size_says_what_the_law_expects_and_one_at_another_says_why_not(tmp_path):
    rows = {}
    for scale in ("", "1/100"):
        made, store = planned(PlanConfig(world="imagenet", scale=scale, out=tmp_path / "out", seeds=1))
        rows[scale] = {(kind, size): said for kind, size, said, _ in expected_rows(gather(made, store))}
        assert len(rows[scale]) == 12
    assert rows[""]["captions", "16M"].startswith("accuracy 60.3 % (59.")  # published: 60.40
    assert rows[""]["captions", "1M"].startswith("nothing is expected: its interval")
    assert all(said.startswith("nothing is expected: only 0 of at least 3 sizes") for said in rows["1/100"].values())
    made, store = planned(PlanConfig(grid="guidance", world="imagenet", out=tmp_path / "out"))
    assert expected_rows(gather(made, store)) == []
