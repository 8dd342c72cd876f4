"""The steps of a plan that are not done as scripts, for Slurm, torchrun on one machine, or Kubernetes.

In: a plan and its store. Out: a file per step with its public command, lists of those that can run at once, and what
submits them in order. A script is safe to run again: its command goes on, or says that nothing is left to do.
"""

import shlex
from pathlib import Path
from typing import Literal

from synclones.ablate.costs import done_steps, left_steps
from synclones.ablate.plan import Plan
from synclones.ablate.steps import Step
from synclones.ablate.store import Store
from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.units import format_count

Kind = Literal["slurm", "torchrun", "kubernetes"]


def write_commands(plan: Plan, store: Store, kind: Kind, folder: Path, gpus: int, report: list[str]) -> str:
    """Write the scripts; return the line that says how to begin.

    Args:
        gpus: processes of one command.
        report: the command that takes up what was made.

    Raises:
        InputError: nothing is left to do, or the folder holds something.
    """
    done = done_steps(plan, store)
    levels = _levels(plan, done)
    if not levels:
        raise InputError("--write: every step is done; nothing is left to write")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--write-to {folder}: holds files; give another folder")
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    # Paths are as they were given. Pods mount the volume where job-*.yaml says; elsewhere they are from here on.
    begin = "" if kind == "kubernetes" else f"cd {shlex.quote(str(Path.cwd()))}\n"
    named = [[(_name(step), _script(step, store, gpus, begin)) for step in level] for level in levels]
    for level in named:
        for name, script in level:
            write_atomic(folder / "steps" / name, script.encode())
    lists = [[name for name, _ in level] for level in named]
    for number, level_names in enumerate(lists):
        write_atomic(folder / f"level-{number}.txt", "".join(f"{name}\n" for name in level_names).encode())
    files = {"slurm": _slurm, "torchrun": _one_machine, "kubernetes": _kubernetes}[kind](
        lists, gpus, shlex.join(report)
    )
    for name, text in files.items():
        write_atomic(folder / name, text.encode())
    steps = sum(map(len, lists))
    counted = f"{format_count(steps, 'step')} in {format_count(len(lists), 'level')}"
    return f"{folder}: {counted}; begin with: sh {folder / 'submit.sh'}"


def _levels(plan: Plan, done: set[str]) -> list[list[Step]]:
    """Return steps that are not done by how many of them stand one behind the other."""
    depth: dict[str, int] = {}
    for key, step in left_steps(plan, done).items():
        depth[key] = 1 + max((depth.get(need.key, -1) for need in step.needs), default=-1)
    levels: list[list[Step]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for key, level in depth.items():
        levels[level].append(plan.steps[key])
    return levels


def _name(step: Step) -> str:
    return f"{step.key.replace('/', '-')}.sh"


def _script(step: Step, store: Store, gpus: int, begin: str) -> str:
    exists = step.command.grows and Path(step.path(store.out), "plan.json").exists()
    flags = shlex.join(step.flag_words(store.out, extend=exists))
    started = f"synclones {step.run}"
    if step.command.module and gpus > 1:
        started = f"torchrun --standalone --nproc-per-node {gpus} -m {step.command.module}"
    folder = shlex.quote(str(store.beside(step, "").parent))
    return f"#!/bin/sh\n# {step.name}\nset -e\n{begin}mkdir -p {folder}\n{started} {flags}\n"


def _slurm(levels: list[list[str]], gpus: int, report: str) -> dict[str, str]:
    array = (
        "#!/bin/bash\n"
        f"#SBATCH --nodes=1 --gpus={gpus} --requeue --signal=TERM@120\n"
        "# A requeued task goes on where it was. $1: the list of this level.\n"
        'srun sh "steps/$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$1")"\n'
    )
    lines = ["#!/bin/sh", "# Every level waits until the one before has ended well.", "set -e", 'cd "$(dirname "$0")"']
    for number, level in enumerate(levels):
        after = "" if number == 0 else " --dependency=afterok:$job"
        lines.append(f"job=$(sbatch --parsable --array=1-{len(level)}{after} task.sbatch level-{number}.txt)")
    return {"task.sbatch": array, "submit.sh": "\n".join([*lines, f"# then: {report}"]) + "\n"}


def _one_machine(levels: list[list[str]], gpus: int, report: str) -> dict[str, str]:
    lines = ["#!/bin/sh", "# One step after the other; run it again after a stop.", "set -e"]
    lines += ['here="$(cd "$(dirname "$0")" && pwd)"']
    lines += [f'sh "$here/steps/{name}"' for level in levels for name in level]
    lines += [f"cd {shlex.quote(str(Path.cwd()))}", report]
    return {"submit.sh": "\n".join(lines) + "\n"}


def _kubernetes(levels: list[list[str]], gpus: int, report: str) -> dict[str, str]:
    lines = ["#!/bin/sh", "# Needs a volume with this folder and the store, at the paths of job-*.yaml.", "set -e"]
    lines += ['cd "$(dirname "$0")"']
    files = {}
    for number, level in enumerate(levels):
        files[f"job-{number}.yaml"] = _job(number, len(level), gpus)
        lines += [
            f"kubectl apply -f job-{number}.yaml",
            f"kubectl wait --for=condition=complete --timeout=-1s job/grid-{number}",
        ]
    return files | {"submit.sh": "\n".join([*lines, f"# then: {report}"]) + "\n"}


def _job(number: int, completions: int, gpus: int) -> str:
    return f"""apiVersion: batch/v1
kind: Job
metadata: {{name: grid-{number}}}
spec:
  completionMode: Indexed
  completions: {completions}
  parallelism: {completions}
  backoffLimitPerIndex: 20
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: step
          image: your/image
          workingDir: /shared
          command: ["/bin/sh", "-c"]
          args: ["sh jobs/steps/$(sed -n $((JOB_COMPLETION_INDEX+1))p jobs/level-{number}.txt)"]
          resources: {{limits: {{nvidia.com/gpu: {gpus}}}}}
          volumeMounts: [{{name: shared, mountPath: /shared}}]
      volumes: [{{name: shared, persistentVolumeClaim: {{claimName: your-claim}}}}]
"""
