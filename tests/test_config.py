"""Configuration: YAML and flags build the same dataclass, and every mistake is one line that says what to do."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclones.base.config import (
    FLAT,
    Count,
    Duration,
    flags_of,
    grouped,
    load,
    parse_count,
    parse_points,
    save,
    to_dict,
)
from synclones.base.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Settings that belong together, used as they are by another part."""

    num_inference_steps: int = 50
    """Steps."""
    eta: float = 0.0
    """Noise of a step."""

    def __post_init__(self):
        if self.num_inference_steps < 1:
            raise InputError("--num-inference-steps: 0 was given, expected at least 1")


@grouped(Where="out", How="mode guidance_scale")
@dataclass(frozen=True, kw_only=True)
class Job:
    """The job of these tests."""

    out: Path
    """Where to write."""
    sampler: Annotated[Sampler, FLAT] = Sampler()
    """How images are drawn."""
    names: tuple[str, ...] = ()
    mode: Literal["fast", "slow"] = "fast"
    guidance_scale: float = 2.0
    num_images: Count = 1000
    size_px: int | None = None
    pages: Count | None = None
    patience: Duration = 60.0
    note: str = ""
    dry_run: bool = False
    batch_size: int = 10
    shard_size: int = 100
    preset: str = ""

    def __post_init__(self):
        if self.shard_size % self.batch_size:
            raise InputError(f"--shard-size: {self.shard_size} is not a multiple of --batch-size {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class Look:
    """Look at a folder."""

    folder: Path = field(kw_only=False)
    """The folder."""
    quick: bool = False


@pytest.fixture
def job(tmp_path, monkeypatch):
    """``job(*yamls, flags=...)`` loads a Job from files a.yaml, b.yaml ... and flags, in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def run(*yamls: str, flags: str = "--out x", presets: Path | None = None) -> Job:
        files = [f"{name}.yaml" for name, _ in zip("abc", yamls, strict=False)]
        for name, text in zip(files, yamls, strict=True):
            Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        config = ["--config", *files] if files else []
        return load(Job, [*config, *flags.split()], prog="synclones job", presets=presets)

    return run


def refusal(job, *yamls, flags="--out x", presets=None) -> str:
    with pytest.raises(InputError) as caught:
        job(*yamls, flags=flags, presets=presets)
    text = str(caught.value)
    assert "\n" not in text and "│" not in text and "  " not in text
    return text


# ------------------------------------------------------------------ what works


def test_flags_win_over_later_files_win_over_earlier_files_win_over_defaults(job):
    made = job("batch_size: 2\nnote: a\nmode: slow", "batch_size: 5\nnote: b", flags="--out x --note c")
    assert (made.batch_size, made.note, made.mode, made.shard_size) == (5, "c", "slow", 100)


def test_the_fields_of_a_nested_dataclass_have_their_own_names_in_files_and_flags(job):
    made = job("num_inference_steps: 7\neta: 1", flags="--out x --eta 0.5")
    assert made.sampler == Sampler(num_inference_steps=7, eta=0.5)
    assert {"num_inference_steps": 7, "eta": 0.5}.items() <= to_dict(made).items()


def test_a_required_field_may_come_from_yaml_alone(job):
    assert job("out: there", flags="").out == Path("there")


def test_a_flag_mends_what_a_file_alone_would_not_allow(job):
    assert job("batch_size: 7", flags="--out x --shard-size 70").batch_size == 7


def test_yaml_scalars_mean_what_they_look_like(job):
    made = job("guidance_scale: 1e-4\nnames: [12:30, 010, 2024-01-01, 1e]\nsize_px: 1_000\nnote: 'no'")
    assert (made.guidance_scale, made.size_px, made.note) == (1e-4, 1000, "no")
    assert made.names == ("12:30", "010", "2024-01-01", "1e")


def test_an_empty_file_changes_nothing(job):
    assert job("") == job("# only a comment\n") == job("~") == job()


def test_flags_may_be_written_with_equals_and_underscores(job):
    made = job(flags="--out=x --num_images=16M --dry-run --names a b")
    assert (made.num_images, made.dry_run, made.names) == (16_000_000, True, ("a", "b"))
    assert (job(flags="--out x --pages 2k").pages, job(flags="--out x --patience 2min").patience) == (2000, 120.0)
    assert job("dry_run: true", flags="--out x --no-dry-run").dry_run is False


def test_config_files_may_be_given_one_by_one(job, tmp_path):
    (tmp_path / "d.yaml").write_text("note: d\n")
    assert job("note: a", flags="--config=d.yaml --out x").note == "d"


@pytest.mark.parametrize("value, count", [("16M", 16_000_000), ("10k", 10_000), ("1_000", 1000), (7, 7), ("0", 0)])
def test_counts_are_written_with_k_m_and_underscores(value, count):
    assert parse_count(value) == count


@pytest.mark.parametrize("value", ["1e6", "1.5", 1.5, True, "-5", "", "M", "10 k", None])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(ValueError, match="is not a count; write an integer such as 250, 10k or 16M"):
        parse_count(value)


@pytest.mark.parametrize("value, points", [("1pp", 1), ("0.5 pp", 0.5), ("2", 2), (0.25, 0.25), (1, 1)])
def test_points_are_written_with_pp_or_bare(value, points):
    assert parse_points(value) == points


@pytest.mark.parametrize("value", ["1%", "-1", ".5", "1e-3", "nan", "", True, None])
def test_what_are_no_points_is_refused(value):
    with pytest.raises(ValueError, match="are no points; write some such as 1pp or 0.5pp"):
        parse_points(value)


plain_text = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20)
look_alikes = st.sampled_from(["1e-4", "12:30", "no", "null", "~", "010", "1_000", "=", "<<", ".5", "0x1F", "16M", ""])


@settings(deadline=None)
@given(
    note=plain_text | look_alikes,
    names=st.lists(plain_text | look_alikes, max_size=3),
    guidance_scale=st.floats(allow_nan=False, allow_infinity=False),
    sampler=st.builds(Sampler, num_inference_steps=st.integers(1, 99), eta=st.floats(0, 1)),
    num_images=st.integers(0, 2**40),
)
def test_a_saved_configuration_gives_itself_back(tmp_path_factory, note, names, guidance_scale, sampler, num_images):
    path = tmp_path_factory.mktemp("saved") / "config.yaml"
    made = Job(
        out=Path("x"),
        note=note,
        names=tuple(names),
        guidance_scale=guidance_scale,
        sampler=sampler,
        num_images=num_images,
    )
    save(made, path)
    assert load(Job, ["--config", str(path)], prog="job") == made


def test_to_dict_is_plain_json(job):
    assert to_dict(job("names: [a]"))["names"] == ["a"] and to_dict(job())["out"] == "x"


def test_help_shows_docstrings_under_headings_and_defaults_that_say_something_and_exits_0(job, capsys):
    with pytest.raises(SystemExit) as end:
        job(flags="--help")
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert "Where to write." in shown and "--config" in shown and "[choices: fast, slow] [default: fast]" in shown
    assert shown.index("─ Where ─") < shown.index("Where to write.") < shown.index("─ How ─") < shown.index("--mode C")
    assert "None" not in shown and "[default: ]" not in shown and "False" not in shown


def test_flags_of_lists_every_flag_and_positional_arguments_without_dashes():
    assert flags_of(Look) == {"folder": "a path", "--quick": "true or false"}
    assert {"--out", "--num-inference-steps", "--num-images", "--dry-run"} <= set(flags_of(Job))


# ------------------------------------------------------------------ presets


@pytest.fixture
def presets(tmp_path):
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "sd15.yaml").write_text("guidance_scale: 7.5\nnote: preset\n")
    return folder


@pytest.mark.parametrize(
    "yaml, flags", [("", "--out x --preset sd15"), ("", "--out x --preset=sd15"), ("preset: sd15", "--out x")]
)
def test_a_preset_comes_before_config_files_and_flags(job, presets, yaml, flags):
    made = job(yaml + "\nnote: mine", flags=flags, presets=presets)
    assert (made.guidance_scale, made.note, made.preset) == (7.5, "mine", "sd15")


def test_no_preset_is_none(job, presets):
    assert job(presets=presets).guidance_scale == 2.0


def test_an_unknown_preset_is_refused_with_the_near_one(job, presets):
    text = refusal(job, flags="--out x --preset sd51", presets=presets)
    assert text == "--preset: preset 'sd51' is unknown; did you mean 'sd15'?"
    assert refusal(job, "note: a\npreset: qqq", presets=presets).startswith(
        "a.yaml:2: preset 'qqq' is unknown; expected"
    )


# ------------------------------------------------------------------ mistakes in files


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("note: a\nguidence_scale: 1", "a.yaml:2: key 'guidence_scale' is unknown; did you mean 'guidance_scale'?"),
        ("zzz: 1", "a.yaml:1: key 'zzz' is unknown; expected one of out, num_inference_steps, eta"),
        ("<<: {note: a}", "a.yaml:1: key '<<' is unknown"),
        ("\nsize_px: big", "a.yaml:2: size_px: got 'big', expected a whole number or null"),
        ("size_px: 1.0", "a.yaml:1: size_px: got 1.0, expected a whole number"),
        ("batch_size: true", "a.yaml:1: batch_size: got true, expected a whole number"),
        ("batch_size: '3'", "a.yaml:1: batch_size: got '3', expected a whole number"),
        ("batch_size: 010", "a.yaml:1: batch_size: got '010', expected a whole number"),
        ("guidance_scale: high", "a.yaml:1: guidance_scale: got 'high', expected a number"),
        ("guidance_scale: null", "a.yaml:1: guidance_scale: got null, expected a number"),
        ("num_images: 1e6", "a.yaml:1: num_images: got 1000000.0, expected a count such as 250, 10k or 16M"),
        ("num_images: 12:30", "a.yaml:1: num_images: got '12:30', expected a count"),
        ("note: no", "a.yaml:1: note: got false, expected text; quote it to make it text"),
        ("note: 12", "a.yaml:1: note: got 12, expected text; quote it to make it text"),
        ("out: 3", "a.yaml:1: out: got 3, expected a path; quote it to make it text"),
        ("dry_run: 1", "a.yaml:1: dry_run: got 1, expected true or false"),
        ("mode: sloow", "a.yaml:1: mode: got 'sloow', expected 'fast' or 'slow'"),
        ("mode: off", "a.yaml:1: mode: got false, expected 'fast' or 'slow'; quote it"),
        ("num_steps: 1", "a.yaml:1: key 'num_steps' is unknown; did you mean 'num_inference_steps'?"),
        ("num_inference_step: 1", "a.yaml:1: key 'num_inference_step' is unknown; did you mean 'num_inference_steps'?"),
        ("sampler: {eta: 1}", "a.yaml:1: key 'sampler' is unknown"),
        ("num_inference_steps: 0", "--num-inference-steps: 0 was given, expected at least 1"),
        ("mode: [fast]", "a.yaml:1: mode: got a list, expected 'fast' or 'slow'"),
        ("patience: soon", "a.yaml:1: patience: got 'soon', expected a duration such as 90s, 30min or 24h"),
        ("names: a", "a.yaml:1: names: got 'a', expected a list, each text"),
        ("names:\n- a\n- 1", "a.yaml:3: names.1: got 1, expected text; quote it"),
        ("note: a\nnote: b", "a.yaml:2: key 'note' is given twice; keep one"),
        ("note: &x a\nmode: *x", "a.yaml:1: anchors and aliases are not allowed; write the value out"),
        ("note: !!binary aGk=", "a.yaml:1: tags such as 'tag:yaml.org,2002:binary' are not allowed"),
        ("note: !!python/object/apply:os.getcwd []", "a.yaml:1: tags such as"),
        ("? [a]\n: 1", "a.yaml:1: a key is a list or a mapping, expected a name"),
        ("- a", "a.yaml:1: got a list, expected lines of `key: value`"),
        ("just words", "a.yaml:1: got 'just words', expected lines of `key: value`"),
        ("note: a\n  b: c", "a.yaml:2: not YAML (mapping values are not allowed here)"),
        ("note: a\n---\nnote: b", "a.yaml:2: not YAML (but found another document)"),
        ("note: \0", "a.yaml: not YAML (unacceptable character"),
        ("note: " + "[" * 30 + "]" * 30, "a.yaml:1: nested more than 20 deep"),
        pytest.param("note: " + "x" * 2**20, "a.yaml: more than 1048576 bytes", id="long file"),
        (b"note: \xff", "a.yaml: not UTF-8 text; save it as UTF-8"),
        ("guidance_scale: .nan", "a number is infinite or `nan`; give finite numbers"),
        ("batch_size: 7", "--shard-size: 100 is not a multiple of --batch-size 7"),
    ],
)
def test_a_mistake_in_a_file_names_file_line_key_and_what_is_expected(job, yaml, message):
    assert refusal(job, yaml).startswith(message)


def test_the_file_with_the_mistake_is_the_one_named(job):
    assert refusal(job, "note: a", "\nmode: b").startswith("b.yaml:2: mode")
    assert refusal(job, "mode: b", "note: a").startswith("a.yaml:1: mode")


def test_long_values_are_cut_in_messages(job):
    assert len(refusal(job, f"batch_size: {'x' * 500}")) < 200


@pytest.mark.parametrize("flags", ["--config nope.yaml", "--config .", "--config a.yaml/b"])
def test_a_config_file_that_cannot_be_read_is_named(job, flags):
    text = refusal(job, "note: a", flags=f"{flags} --out x")
    assert text.startswith(f"--config: cannot read {flags.split()[1]!r}") and "give a YAML file" in text


# ------------------------------------------------------------------ mistakes in flags


@pytest.mark.parametrize(
    "flags, message",
    [
        ("", "--out: required by `synclones job` and not given; expected a path (Where to write)"),
        ("--guidence-scale 3", "--guidence-scale: unknown flag of `synclones job`; did you mean '--guidance-scale'?"),
        ("--out x --conf a.yaml", "--conf: unknown flag of `synclones job`; did you mean '--config'?"),
        ("--out x --steps 3", "--steps: unknown flag of `synclones job`; here it is --num-inference-steps"),
        ("--out x --resume", "--resume: unknown flag of `synclones job`; the same command resumes, without a flag"),
        ("--out x --lr 3", "--lr: unknown flag of `synclones job`; see `synclones job --help`"),
        ("--output x", "--output: unknown flag of `synclones job`; here it is --out"),
        ("--out x --batch-size 1.0", "--batch-size: got '1.0', expected a whole number"),
        ("--out x --size-px 8.0", "--size-px: got '8.0', expected a whole number or null"),
        ("--out x --dry-run=maybe", "--dry-run: got 'maybe', expected true or false"),
        ("--out x --pages many", "--pages: got 'many', expected a count such as 250, 10k or 16M or null"),
        ("--out x --qqqq", "--qqqq: unknown flag of `synclones job`; see `synclones job --help`"),
        ("--out x -z", "-z: unknown flag of `synclones job`"),
        ("--out x more", "'more' is unexpected in `synclones job`; every value follows its flag"),
        ("--out x --dry-run yes", "'yes' is unexpected in `synclones job`"),
        ("--out", "--out: no value or too few were given, expected a path"),
        ("--out x --batch-size many", "--batch-size: got 'many', expected a whole number"),
        ("--out x --batch-size=1.5", "--batch-size: got '1.5', expected a whole number"),
        ("--out x --size-px big", "--size-px: got 'big', expected a whole number or null"),
        ("--out x --guidance-scale high", "--guidance-scale: got 'high', expected a number"),
        ("--out x --guidance-scale nan", "a number is infinite or `nan`"),
        ("--out x --num-images 1e6", "--num-images: got '1e6', expected a count such as 250, 10k or 16M"),
        ("--out x --mode sloow", "--mode: got 'sloow', expected 'fast' or 'slow'; did you mean 'slow'?"),
        ("--out x --mode 8", "--mode: got '8', expected 'fast' or 'slow'"),
        ("--out x --batch-size 7", "--shard-size: 100 is not a multiple of --batch-size 7"),
        ("--out x --num-inference-steps 0", "--num-inference-steps: 0 was given, expected at least 1"),
        ("--out x --names", "--names: no value or too few were given, expected a list, each text"),
        ("--out x --config", "--config: no file was given; write --config path/to/file.yaml"),
    ],
)
def test_a_mistake_in_a_flag_names_flag_given_and_expected(job, flags, message):
    assert refusal(job, flags=flags).startswith(message)


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "folder: required by `look` and not given; expected a path (The folder)"),
        (["--quik", "x"], "--quik: unknown flag of `look`; did you mean '--quick'?"),
        (["a", "b"], "'b' is unexpected in `look`"),
    ],
)
def test_mistakes_around_a_positional_argument_are_named(args, message):
    with pytest.raises(InputError) as caught:
        load(Look, args, prog="look")
    assert str(caught.value).startswith(message)


def test_a_bug_in_a_dataclass_is_not_taken_for_the_users_mistake():
    @dataclass(frozen=True, kw_only=True)
    class Broken:
        number: int = 1

        def __post_init__(self):
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        load(Broken, [], prog="broken")
