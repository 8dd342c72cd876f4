"""The commands of a loop of practice, of what it is compared with, and their order: all known before the first runs.

In: numbers, the words that all commands share, policies. Out: `Arm`s of `recorded.Step`s. What a round chooses is in
files that the next commands name, so a round is a function of policy, seed and the rounds before.

    start        prompts -> images -> a learner (a second one for scores that compare two)
    round r      candidates (the same for all policies) -> choice -> images of chosen prompts, if so -> the learner
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from synclones.ablate.choice import number_taken
from synclones.ablate.policy import Policy, load_policy, load_score
from synclones.ablate.recorded import OUT, Step
from synclones.base.draws import hash_int

_CANDIDATES = 0x43414E44  # tells these seeds from others of the same number
SECOND = "-second"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is drawn and trained, in images and images seen."""

    start: int
    candidates: int
    rounds: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class World:
    """The words of the commands that are the same in all rounds."""

    table: tuple[str, ...]
    """Flags of ``prompts build``."""
    images: tuple[str, ...]
    """Flags of ``generate``."""
    cheap: tuple[str, ...]
    """Further flags of candidates whose prompts alone are kept."""
    learner: tuple[str, ...]
    """Flags of ``train``."""
    teacher: str = ""


@dataclass(frozen=True, kw_only=True)
class Clone:
    """A trained learner of an arm, and what it has cost until then.

    Attributes:
        name: of its run, a path below the folder of everything.
        round: 0 for the start.
        images: different images that it was trained on.
        drawn: images drawn for it, candidates included.
        samples: images seen in training, by all learners of the arm.
    """

    name: str
    round: int
    images: int
    drawn: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One policy with one seed: its commands, and the learners that it has trained."""

    policy: str
    seed: int
    steps: tuple[Step, ...] = ()
    clones: tuple[Clone, ...] = field(default=())


def start(world: World, sizes: Sizes, seed: int, learners: int) -> Arm:
    """Return what all loops of a seed begin with: a balanced set, and learners of it."""
    base = f"seed-{seed}/start"
    steps = _drawn(world, base, sizes.start, seed)
    steps += [
        _trained(world, f"{base}/start", [_of(f"{base}/images")], sizes.samples, seed, 0, k) for k in range(learners)
    ]
    clone = Clone(name=f"{base}/start", round=0, images=sizes.start, drawn=sizes.start, samples=sizes.samples)
    return Arm(policy="start", seed=seed, steps=tuple(steps), clones=(clone,))


def candidates(world: World, sizes: Sizes, seed: int, keep: str) -> Arm:
    """Return how the candidates of all rounds are drawn: the same for all policies that keep the same."""
    steps = []
    for number in range(1, sizes.rounds + 1):
        folder = _candidates(world, seed, number, keep)
        cheap = world.cheap if keep == "prompts" else ()
        steps += _drawn(world, folder, sizes.candidates, candidate_seed(seed, number), cheap)
    return Arm(policy=f"candidates of {keep}", seed=seed, steps=tuple(steps))


def candidate_seed(seed: int, number: int) -> int:
    """Return the seed of the candidates of a round, 0 to 2^62-1."""
    return hash_int(seed, number, _CANDIDATES) >> 2


def arm(name: str, world: World, sizes: Sizes, seed: int) -> Arm:
    """Return the commands of a policy after `start` and `candidates`."""
    policy = load_policy(name)
    if policy.draw == "rounds":
        return _loop(_short(name), name, policy, world, sizes, seed)
    return _at_once(_short(name), policy, sizes, world, seed)


def learners_of(policy: Policy) -> int:
    """Return how many learners a loop trains side by side: as many as its score compares, at least one."""
    return max(1, load_score(policy.score).learners)


def _loop(short: str, name: str, policy: Policy, world: World, sizes: Sizes, seed: int) -> Arm:
    base, score, learners = f"seed-{seed}/{short}", load_score(policy.score), learners_of(policy)
    steps, clones, take = list[Step](), list[Clone](), number_taken(policy, sizes.candidates)
    before, images, table = (
        f"seed-{seed}/start/start",
        f"seed-{seed}/start/images",
        f"seed-{seed}/start/prompts.parquet",
    )
    data = [_of(images)]
    for number in range(1, sizes.rounds + 1):
        here, drawn = f"{base}/round-{number:02d}", f"{_candidates(world, seed, number, policy.keep)}/images"
        asked = [word for k in range(score.learners) for word in ("--learner", _of(before + SECOND * k))]
        asked += ["--teacher", world.teacher] if score.teacher else []
        asked += ["--table", _of(table)] if policy.keep == "prompts" else []
        steps.append(
            Step(
                f"{here}/choice",
                (
                    *("ablate", "choose", "--candidates", _of(drawn), "--policy", name, *_joined(asked)),
                    *("--take", str(take), "--seed", str(candidate_seed(seed, number)), "--out", _of(f"{here}/choice")),
                ),
            )
        )
        if policy.keep == "images":
            data = [*data, f"{_of(drawn)},name=round-{number:02d},only={_of(f'{here}/choice/images.txt')}"]
        else:
            table = f"{here}/choice/prompts.parquet"
            more = ("--extend", "--parent", _of(images))
            images = f"{here}/images"
            steps.append(_generated(world, images, table, seed, more))
            data = [_of(images)]
        run = f"{here}/{short}-{number:02d}"
        further = policy.learner == "goes on"
        steps += [
            _trained(world, run, data, sizes.samples, seed, number, k, before if further else "")
            for k in range(learners)
        ]
        per_round = sizes.candidates + (take if policy.keep == "prompts" else 0)
        clones.append(
            Clone(
                name=run,
                round=number,
                images=sizes.start + number * take,
                drawn=sizes.start + number * per_round,
                samples=(number + 1) * sizes.samples * learners,
            )
        )
        before = run
    return Arm(policy=short, seed=seed, steps=tuple(steps), clones=tuple(clones))


def _at_once(short: str, policy: Policy, sizes: Sizes, world: World, seed: int) -> Arm:
    """Return what a loop is compared with.

    The same computing: every image that the loop draws, cheap candidates counted as whole ones; all that its learners
    see in training, and a third of what they and a teacher look at, since a training step is a pass forwards and one
    backwards of twice its cost.
    """
    like, base = load_policy(policy.like), f"seed-{seed}/{short}/round-{sizes.rounds:02d}"
    take, learners, score = number_taken(like, sizes.candidates), learners_of(like), load_score(like.score)
    images, samples = sizes.start + sizes.rounds * take, (sizes.rounds + 1) * sizes.samples
    if policy.draw == "same compute":
        images += sizes.rounds * (sizes.candidates - (take if like.keep == "images" else 0))
        looks = score.learners + score.teacher
        samples = samples * learners + sizes.rounds * sizes.candidates * looks // 3
    run = f"{base}/{short}-{sizes.rounds:02d}"
    steps = _drawn(world, base, images, seed)
    steps.append(_trained(world, run, [_of(f"{base}/images")], samples, seed, 0, 0))
    clone = Clone(name=run, round=sizes.rounds, images=images, drawn=images, samples=samples)
    return Arm(policy=short, seed=seed, steps=tuple(steps), clones=(clone,))


# ------------------------------------------------------------------ one command each


def _drawn(world: World, base: str, images: int, seed: int, more: Sequence[str] = ()) -> list[Step]:
    table = f"{base}/prompts.parquet"
    flags = ("--num-images", str(images), "--seed", str(seed), "--out", _of(table))
    build = Step(f"{base}/prompts", ("prompts", "build", *world.table, *flags))
    return [build, _generated(world, f"{base}/images", table, seed, more)]


def _generated(world: World, out: str, table: str, seed: int, more: Sequence[str] = ()) -> Step:
    flags = ("--prompts", _of(table), "--seed", str(seed), "--out", _of(out))
    return Step(out, ("generate", *world.images, *flags, *more))


def _trained(
    world: World, out: str, data: Sequence[str], samples: int, seed: int, number: int, which: int, before: str = ""
) -> Step:
    """Return the training of a learner in a round: ``before``: the run whose weights it begins with.

    Rounds and learners have seeds of their own: the same seed would show earlier images in the order and under the
    augmentations that they were shown in before.
    """
    run, weights = out + SECOND * which, ("--weights", _of(before + SECOND * which), "--head", "kept")
    flags = ("--samples", str(samples), "--seed", str(seed * 10_000 + number * 10 + which), "--out", _of(run))
    return Step(run, ("train", *world.learner, "--data", *data, *(weights if before else ()), *flags))


def _candidates(world: World, seed: int, number: int, keep: str) -> str:
    kind = "cheap-candidates" if keep == "prompts" and world.cheap else "candidates"
    return f"seed-{seed}/{kind}/round-{number:02d}"


def _joined(flags: Sequence[str]) -> list[str]:
    """Return flags with the values of a repeated one behind its first."""
    pairs = list(zip(flags[::2], flags[1::2], strict=True))
    names = list(dict.fromkeys(name for name, _ in pairs))
    return [word for name in names for word in (name, *(value for key, value in pairs if key == name))]


def _short(name: str) -> str:
    """Return a policy's name as folders have it."""
    return Path(name).stem


def _of(path: str) -> str:
    return f"{OUT}/{path}"
