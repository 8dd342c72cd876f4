"""The public command surface: what a user may type changes only on purpose, and common flags mean one thing.

After a wanted change: ``python tests/test_surface.py`` rewrites tests/surface.json; review the difference.
"""

import ast
import json
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from synclones.base.config import flags_of
from synclones.base.errors import InputError, VerificationError
from synclones.base.ray_workers import RayConfig
from synclones.cli import STAGES, dispatch, stages

PINNED = Path(__file__).with_name("surface.json")
UPDATE = "if this is wanted, run `python tests/test_surface.py` and commit tests/surface.json"
COMMON = {"--out": "a path", "--seed": "a whole number", "--dry-run": "true or false"}


def configurations(stage: str) -> dict[str, type]:
    """verb -> dataclass of a stage."""
    return {name: verb.settings for name, verb in import_module(f"synclones.{stage}.run").STAGE.verbs.items()}


def surface() -> dict[str, dict[str, dict[str, str]]]:
    """stage -> verb -> flag -> what it expects, for the stages that exist; a positional argument has no dashes."""
    return {stage: {verb: _flags(stage, verb) for verb in configurations(stage)} for stage in stages()}


def _flags(stage: str, name: str) -> dict[str, str]:
    verb = import_module(f"synclones.{stage}.run").STAGE.verbs[name]
    return flags_of(verb.settings) | ({"--json": "true or false"} if verb.json else {})


def pinned_surface() -> dict[str, dict[str, dict[str, str]]]:
    """The surface and the flags of ``synclones ray``, which precede another command."""
    return surface() | {"ray": {"": flags_of(RayConfig)}}


def test_the_surface_is_the_pinned_one():
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))
    assert pinned_surface() == pinned, UPDATE


def test_common_flags_mean_the_same_everywhere():
    odd = [
        (stage, verb, flag, words)
        for stage, verbs in surface().items()
        for verb, flags in verbs.items()
        for flag, words in flags.items()
        if flag in COMMON and words not in (COMMON[flag], f"{COMMON[flag]} or null")
    ]
    assert odd == []


@pytest.mark.parametrize("stage", stages())
def test_every_field_of_every_command_says_what_it_means(stage):
    for config in configurations(stage).values():
        assert is_dataclass(config) and config.__dataclass_params__.frozen and config.__doc__
        described = set[str]().union(*(_described(cls) for cls in config.__mro__ if is_dataclass(cls)))
        assert {field.name for field in fields(config)} == described


def _described(config: type) -> set[str]:
    """The fields that a class adds and has a docstring under."""
    body = next(n for n in ast.walk(ast.parse(_source(config))) if getattr(n, "name", "") == config.__name__).body
    return {
        field.target.id
        for field, after in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }


def _source(config: type) -> str:
    return Path(sys.modules[config.__module__].__file__ or "").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", stages())
def test_the_first_verb_is_the_default_and_needs_no_flag_at_all(stage):
    config = next(iter(configurations(stage).values()))
    required = [f.name for f in fields(config) if f.default is MISSING and f.default_factory is MISSING]
    assert required == [] or stage == "shards"  # which acts on the folder it is given


# ------------------------------------------------------------------ the command itself


def run(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "synclones.cli", *args], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_the_stages_that_exist_with_their_verbs(args, capsys):
    dispatch(args)
    shown = capsys.readouterr().out
    for stage, verbs in surface().items():
        line = next(line for line in shown.splitlines() if f"synclones {stage} " in line)
        assert line.endswith(": " + " | ".join(verbs))
    assert "trace FOLDER" in shown and "ray [FLAGS] COMMAND" in shown
    assert all(f"synclones {stage} " not in shown for stage in STAGES if stage not in stages())


def test_help_loads_nothing_heavy():
    heavy = "torch numpy pyarrow diffusers transformers cyclopts rich pydantic yaml"
    code = (
        "import sys; from synclones.cli import dispatch; dispatch(['--help'])\n"
        f"print([name for name in {heavy.split()} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_an_unknown_command_exits_2_with_one_line_and_the_near_one():
    done = run("generat")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "synclones: error: synclones generat: no such command; did you mean 'generate'?\n"
    assert "expected one of prompts, generate" in run("zzz").stderr


def test_the_version_is_printed():
    assert run("--version").stdout.strip() == "0.1.0"


@pytest.mark.parametrize("args", [["trace", "--help"], ["help", "trace"]])
def test_trace_explains_itself(args, capsys):
    dispatch(args)
    assert "synclones trace FOLDER [--json]: what produced a folder" in capsys.readouterr().out


@pytest.mark.parametrize("args", [[], ["a", "b"], ["--quick"]])
def test_trace_asks_for_one_folder(args):
    with pytest.raises(InputError, match="give one folder, as in `synclones trace data/lab`"):
        dispatch(["trace", *args])


def test_trace_of_a_folder_without_a_manifest_exits_2(tmp_path):
    done = run("trace", str(tmp_path))
    assert done.returncode == 2 and "no manifest.json" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("stage", stages())
def test_an_unknown_verb_is_refused(stage):
    with pytest.raises((InputError, SystemExit)) as caught:
        dispatch([stage, "no-such-verb"])
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    "args, line",
    [
        ("shards verfy data/x", "synclones shards verfy: no such verb; did you mean 'verify'?"),
        ("generate rdraw", "synclones generate rdraw: no such verb; did you mean 'redraw'?"),
        ("prompts bild", "synclones prompts bild: no such verb; did you mean 'build'?"),
        ("train zzz", "synclones train zzz: no such verb; expected one of run, replay, tokenize, onnx"),
        ("generate --steps 3", "--steps: unknown flag of `synclones generate`; here it is --num-inference-steps"),
        ("train --lr 3", "--lr: unknown flag of `synclones train`; here it is --learning-rate"),
        ("train --num-workers 3", "--num-workers: unknown flag of `synclones train`; here it is --decode-threads"),
        ("generate --qqqqq", "--qqqqq: unknown flag of `synclones generate`; see `synclones generate --help`"),
        (
            "prompts show --zzz",
            "--zzz: unknown flag of `synclones prompts show`; see `synclones prompts show --help`",
        ),
    ],
)
def test_a_near_verb_a_near_flag_and_other_tools_habits_are_answered(args, line):
    with pytest.raises(InputError) as caught:
        dispatch(args.split())
    assert str(caught.value) == line


def test_a_folder_is_no_mistyped_verb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "verfy").mkdir()
    with pytest.raises(VerificationError, match="verfy: no shard"):
        dispatch(["shards", "verfy"])


@pytest.mark.parametrize("stage", stages())
@pytest.mark.parametrize("form", ["{} --help", "help {}", "{} help"])
def test_the_help_of_a_stage_lists_verbs_examples_and_flags_in_groups(stage, form, capsys):
    dispatch(form.format(stage).split())
    shown = capsys.readouterr().out
    assert all(f"│ {verb} " in shown for verb in configurations(stage)) and f"synclones {stage} " in shown
    assert shown.count(f" synclones {stage}") >= 3 and "--config" in shown and "Examples:" in shown
    assert "None" not in shown and "[default: ]" not in shown and "{None}" not in shown


@pytest.mark.parametrize("stage", stages())
def test_every_verb_has_a_help(stage, capsys):
    for verb, config in configurations(stage).items():
        dispatch([stage, verb, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert (config.__doc__ or "").split(";")[0].split(",")[0].split(".")[0][:60] in shown
        dispatch(["help", stage, verb])
        assert " ".join(capsys.readouterr().out.split()) == shown


@pytest.mark.parametrize("verb", configurations("shards"))
def test_every_verb_of_shards_shows_examples_of_its_own_that_can_be_typed(verb, capsys):
    dispatch(["shards", verb, "--help"])
    shown = capsys.readouterr().out.partition("Examples:")[2].split("synclones ")[1:]
    assert shown and all(example.startswith(f"shards {verb} ") for example in shown)
    known = flags_of(configurations("shards")[verb])
    for words in (example.split() for example in shown):
        assert {word for word in words if word.startswith("--")} <= set(known)
        assert len(words) > 2


def test_the_help_of_a_stage_loads_no_torch():
    code = (
        "import sys; from synclones.cli import dispatch\n"
        "for stage in ('prompts', 'generate', 'shards', 'train', 'evaluate'): dispatch([stage, '--help'])\n"
        "print([name for name in ('torch', 'diffusers', 'timm') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "synclones", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0.1.0"


def test_completion_is_written_for_the_calling_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("cyclopts.completion.detect_shell", lambda: "bash")
    monkeypatch.setattr("cyclopts.completion.detect.detect_shell", lambda: "bash")
    dispatch(["--install-completion"])
    (script,) = (tmp_path / ".local").rglob("synclones")
    assert str(script) in capsys.readouterr().out and "--num-inference-steps" in script.read_text()


def test_a_question_about_completion_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match="got '--help', expected nothing after it"):
        dispatch(["--install-completion", "--help"])
    assert not list(tmp_path.iterdir())


def test_the_help_shows_several_defaults_as_they_are_typed(capsys):
    dispatch(["evaluate", "--help"])
    assert "[default: 1.0 8.0]" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("stage", ["generate", "train", "evaluate"])
def test_every_flag_of_a_grouped_stage_has_a_heading(stage, capsys):
    dispatch([stage, "--help"])
    assert "Parameters" not in capsys.readouterr().out


if __name__ == "__main__":
    PINNED.write_text(json.dumps(pinned_surface(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {PINNED}")
