"""``synclones evaluate audit``: what went wrong in an evaluation, as far as its log files show it, and mended logs.

In: a file of results, or a folder of them. Out: findings as text, sure ones first; repaired logs where asked for.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from synclones.base.errors import InputError, VerificationError, one_line
from synclones.evaluate.audit.checks import low_accuracies, low_backgrounds, running_means, weak_attacks
from synclones.evaluate.audit.findings import CERTAINTIES, Finding
from synclones.evaluate.audit.logs import Log, read_logs
from synclones.evaluate.audit.meanings import bins, scores, units
from synclones.evaluate.audit.own_results import own_results
from synclones.evaluate.audit.repair import repairable, targets, write_repaired
from synclones.evaluate.published.deviations import deviations
from synclones.shards.sources.files import PassedOver

CHECKS: tuple[Callable[[list[Log]], Iterator[Finding]], ...] = (
    *(running_means, weak_attacks, low_accuracies, low_backgrounds),
    *(scores, units, bins, own_results),
)
_WORDS = {
    "bins": "stored bins and stated numbers disagree, or have nothing beside them",
    "clean": "one model has several clean accuracies",
    "protocol": "one metric is measured by two protocols",
    "unit": "numbers that cannot be",
}
_UNSEEN = (
    "Not seen in logs: D2, D5, D8, D10, D11, D12; a step larger than epsilon that still beats FGSM;\n"
    "a wrong normalisation of a model whose accuracy is not known."
)
MANY = 3
"""From how many logs on one statement about all of them takes one line."""


def findings(logs: list[Log]) -> list[Finding]:
    """Return everything that the checks find: certain, likely, notes; each by id and file."""
    every = [finding for check in CHECKS for finding in check(logs)]
    return sorted(every, key=lambda item: (CERTAINTIES.index(item.certainty), item.id, item.log))


def audit(results: Path, out: Path | None) -> None:
    """Print what is found in a file or folder, and write repaired logs to ``out``.

    Raises:
        InputError: when nothing there can be read, ``out`` exists, or there is nothing to repair.
        VerificationError: after all is printed and written, when a finding is certain.
    """
    passed = PassedOver()
    logs = read_logs(results, passed)
    # What is in the way of repaired files is said before anything is printed or written.
    mended = repairable(logs)
    paths = {} if out is None else targets(mended, results, out)
    if out is not None and not mended:
        raise InputError(f"--out: no log in {results} holds running means, so that there is nothing to repair")
    # Everything is told before the exit code is, which a script stops on.
    passed.tell(results)
    every = findings(logs)
    print(text(logs, every))
    write_repaired(paths)
    if mended:
        print(_repairs(mended, out))
    sys.stdout.flush()
    certain = sum(finding.certainty == "certain" for finding in every)
    if certain:
        raise VerificationError(f"{results}: certain findings: {certain}; mend the evaluation, or the logs by --out")


def text(logs: list[Log], every: list[Finding]) -> str:
    """Return a summary of what was read, then the findings under a heading for each kind."""
    kinds = Counter(log.kind for log in logs)
    models = {log.model for log in logs if log.kind not in ("bins", "result")}
    parts = [f"files       {', '.join(f'{kind} {count}' for kind, count in kinds.items())}"]
    parts += [f"models      {len(models)}"] if models else []
    for (certainty, word), group in groupby(every, key=lambda item: (item.certainty, item.id)):
        members = list(group)
        title = deviations()[word].title if word in deviations() else _WORDS[word]
        parts += ["", f"{certainty}: {word}, {title} ({len(members)})"]
        parts += _lines(members)
    return "\n".join([*parts, "", f"findings    {len(every)}", _UNSEEN])


def _lines(members: list[Finding]) -> list[str]:
    """Return a line for each finding, one for all logs of which the same is said."""
    logs: dict[str, list[str]] = {}
    for item in members:
        logs.setdefault(item.text, []).append(item.log)
    lines = []
    for statement, names in logs.items():
        shown = names if len(names) < MANY else [f"{len(names)} logs (the first: {names[0]})"]
        lines += [f"  {one_line(name)}: {one_line(statement)}" for name in shown]
    return lines


def _repairs(mended: list[Log], out: Path | None) -> str:
    if out is None:
        return f"repairable  {len(mended)}, by --out"
    return f"repaired    {len(mended)}, in {out}"
