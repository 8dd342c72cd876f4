"""Practice: a closed loop that draws where its learner is unsure, and what it is compared with.

In: policies, sizes, a world of prompts, generator and learner. Out: for each seed and policy every round's candidates,
choice, images and learner, each made by a public command in a folder of its own; results of all learners; a table.

    synclones ablate practice --policy entropy random at-once same-compute --seeds 3 --out practice
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synclones.ablate.policy import Policy, load_policy, load_score
from synclones.ablate.practice_table import write_table
from synclones.ablate.recorded import OUT, Running, Step, named_by_command
from synclones.ablate.rounds import Arm, Sizes, World, arm, candidates, learners_of, start
from synclones.base.config import Count, check_ranges, grouped, to_dict
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.process import stop_on_signals
from synclones.shards.lock import claim

STAGE = "ablate practice"


@grouped(
    What="policy seeds seed out workers dry_run",
    How_much="rounds start candidates samples measure",
    World="prompts classes preset learner teacher data candidate_steps",
    Settings="prompts_config generate_config train_config evaluate_config torch_threads",
)
@dataclass(frozen=True, kw_only=True)
class PracticeConfig:
    """Train, look where the learner is unsure, draw there, and train on; beside it the same images drawn at once."""

    policy: tuple[str, ...] = ("entropy", "random", "at-once", "same-compute")
    """What is taken of the candidates, and what loops are compared with: files of ablate/policies, or your own."""
    seeds: int = 1
    """How often everything is done, with seeds of prompts, noise and training that follow each other."""
    seed: int = 0
    """The first of them."""
    rounds: int = 3
    """Rounds after the start."""
    start: Count = 500
    """Images of the start, equally many of each class."""
    candidates: Count = 1000
    """Candidates of each round, of which the policy takes its share."""
    samples: Count = 20_000
    """Images that a learner sees at the start, and again in each round."""
    measure: bool = True
    """Evaluate all learners at the end and write the table; false where a grid does."""
    prompts: str = "clip-templates"
    """Recipe of the prompts, of start and candidates."""
    classes: str = "lab-digits"
    """Class list, as of `synclones prompts build`."""
    preset: str = "lab"
    """Preset of the generator."""
    learner: str = "lab"
    """Recipe of the learner."""
    teacher: str = ""
    """Model whose answers score candidates, for policies that ask one."""
    data: Path | None = None
    """Labelled set that learners are tested on; by default the lab's real test digits."""
    candidate_steps: int = 0
    """Steps of the sampler for candidates whose prompts alone are kept; 0 for as many as images get."""
    prompts_config: tuple[Path, ...] = ()
    """YAML files with further settings of `synclones prompts build`."""
    generate_config: tuple[Path, ...] = ()
    """YAML files with further settings of `synclones generate`."""
    train_config: tuple[Path, ...] = ()
    """YAML files with further settings of `synclones train`."""
    evaluate_config: tuple[Path, ...] = ()
    """YAML files with further settings of `synclones evaluate`."""
    torch_threads: int = 1
    """Torch's CPU threads of a training: one, so that weights are the same however often it was stopped."""
    workers: int = 1
    """Seeds worked on at once."""
    out: Path = Path("practice")
    """Folder of everything; the same command goes on after a kill, and adds rounds, policies and seeds."""
    dry_run: bool = False
    """Print the commands and what they draw and train, and run none."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            seeds=(1, 1000),
            seed=(0, 10**9),
            rounds=(1, 99),
            start=(1, 2**32),
            candidates=(1, 2**32),
            samples=(1, 2**53),
            candidate_steps=(0, 1000),
            torch_threads=(1, 1024),
            workers=(1, 1000),
        )
        if not self.policy:
            raise InputError("--policy: none was given; name one, such as entropy")
        if any(character in str(self.out) for character in ",{}"):
            raise InputError(f"--out: {self.out} has a comma or a brace, which --data reads otherwise; rename it")


def run_practice(config: PracticeConfig) -> None:
    """Run what is missing of all loops, measure the learners, and write the table.

    Raises:
        InputError: a policy or a number that cannot be; the folder is another's, or somebody practises there.
        SystemExit: with the exit code of a command that failed; its own line says why.
    """
    policies = _policies(config)
    seeds = range(config.seed, config.seed + config.seeds)
    arms = {seed: _arms(config, policies, seed) for seed in seeds}
    chains = [_chain(config, arms[seed], seed) for seed in seeds]
    if config.dry_run:
        _print_plan(config, chains, [one for several in arms.values() for one in several])
        return
    stop_on_signals()  # and with this process end the commands that it runs
    _refuse_other(config.out)
    config.out.mkdir(parents=True, exist_ok=True)
    claimed = claim(config.out, "practice")
    if claimed is None:
        raise InputError(f"--out: another process practises in {config.out}; wait for it, or give a new folder")
    with claimed:
        Running().run_all(config.out, chains, config.workers)
        _finish(config, [one for several in arms.values() for one in several if one.clones])


def _policies(config: PracticeConfig) -> dict[str, Policy]:
    """Return the policies by name; refuse what they lack before anything is drawn."""
    policies = {name: load_policy(name) for name in config.policy}
    shorts = [Path(name).stem for name in policies]
    twice = next((name for name in shorts if shorts.count(name) > 1 or name in ("start", "candidates")), None)
    if twice or len(policies) < len(config.policy):
        raise InputError(f"--policy: {twice or config.policy[0]!r} is given twice or is a word of ours; rename one")
    asking = [name for name, policy in policies.items() if load_score(policy.score).teacher]
    if bool(asking) != bool(config.teacher):
        why = f"{asking[0]} asks one; name a model" if asking else "no policy asks one; leave it out"
        raise InputError(f"--teacher: {why}")
    return policies


def _world(config: PracticeConfig) -> World:
    def settings(files: Sequence[Path]) -> tuple[str, ...]:
        return ("--config", *map(str, files)) if files else ()

    steps = ("--num-inference-steps", str(config.candidate_steps)) if config.candidate_steps else ()
    threads = ("--torch-threads", str(config.torch_threads))
    return World(
        table=("--recipe", config.prompts, "--classes", config.classes, *settings(config.prompts_config)),
        images=("--preset", config.preset, *settings(config.generate_config)),
        cheap=steps,
        learner=("--recipe", config.learner, *settings(config.train_config), *threads),
        teacher=config.teacher,
    )


def _arms(config: PracticeConfig, policies: dict[str, Policy], seed: int) -> list[Arm]:
    """Return what is done with one seed: the start, candidates, then each policy."""
    world = _world(config)
    sizes = Sizes(start=config.start, candidates=config.candidates, rounds=config.rounds, samples=config.samples)
    loops = [policy for policy in policies.values() if policy.draw == "rounds"]
    shared = [start(world, sizes, seed, max(map(learners_of, loops)))] if loops else []
    kinds = dict.fromkeys(policy.keep for policy in loops)
    drawn = {step: None for keep in kinds for step in candidates(world, sizes, seed, keep).steps}  # each once
    shared += [Arm(policy="candidates", seed=seed, steps=tuple(drawn))] if drawn else []
    return [*shared, *(arm(name, world, sizes, seed) for name in policies)]


def _chain(config: PracticeConfig, arms: Sequence[Arm], seed: int) -> list[Step]:
    """Return the commands of one seed in order, the evaluation of all its learners last: final ones first."""
    steps = [step for one in arms for step in one.steps]
    clones = [clone for one in arms for clone in one.clones[-1:]] + [c for one in arms for c in one.clones[:-1]]
    models = [f"{OUT}/{clone.name}" for clone in clones]
    more = ("--config", *map(str, config.evaluate_config)) if config.evaluate_config else ()
    data = ("--data", str(config.data)) if config.data else ()
    results = f"seed-{seed}/results"
    command = ("evaluate", "--model", *models, *data, *more, "--out", f"{OUT}/{results}")
    return [*steps, named_by_command(results, command)] if config.measure else steps


def _refuse_other(out: Path) -> None:
    if (out / MANIFEST_FILE).exists() and (stage := read_manifest(out)["stage"]) != STAGE:
        raise InputError(f"--out {out}: belongs to `synclones {stage}`; give a new folder")


def _print_plan(config: PracticeConfig, chains: Sequence[Sequence[Step]], arms: Sequence[Arm]) -> None:
    for step in (step for chain in chains for step in chain):
        print(f"synclones {' '.join(step.words(config.out))}")
    for one in (one for one in arms if one.clones):
        last = one.clones[-1]
        print(
            f"seed {one.seed} {one.policy}: {last.images} images trained on, {last.drawn} drawn, {last.samples} seen",
            file=sys.stderr,
        )


def _finish(config: PracticeConfig, arms: Sequence[Arm]) -> None:
    """Write the table of all learners, and the manifest that names them."""
    runs = [config.out / clone.name for one in arms for clone in one.clones]
    weights = [str(read_manifest(run)["content_hash"]) for run in runs]
    parents = [Parent("learner", str(run), digest) for run, digest in zip(runs, weights, strict=True)]
    content = sha256_bytes(canonical_json([[one.name for a in arms for one in a.clones], weights]))
    table = write_table(config.out, arms, dict(zip(runs, weights, strict=True))) if config.measure else ""
    counts = {"learners": len(runs), "seeds": config.seeds, "rounds": config.rounds}
    write_manifest(config.out, STAGE, to_dict(config), parents, counts, {}, {"content_hash": content})
    print(table or f"{config.out}: {len(runs)} learners")
