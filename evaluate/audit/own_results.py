"""Checks of this project's own result files: attacks within their bounds, one protocol, numbers that can be.

In: `Log`s. Out: `Finding`s.
"""

import math
from collections.abc import Iterator

from synclones.base.json_file import canonical_json
from synclones.evaluate.audit.findings import Finding
from synclones.evaluate.audit.logs import Log, number


def own_results(logs: list[Log]) -> Iterator[Finding]:
    """Find what only one of several result files, or several of them together, show."""
    results = [log for log in logs if log.kind == "result"]
    protocols: dict[tuple[str, str], dict[str, str]] = {}
    for log in results:
        entry = log.entries[0]
        settings = entry["settings"] if isinstance(entry["settings"], dict) else {}
        step, epsilon = number(settings, "alpha_255"), number(settings, "epsilon_255")
        if step > epsilon:
            text = f"step {step:g}/255 is larger than epsilon {epsilon:g}/255"
            yield Finding("D3", "certain", log.name, text)
        low, value, high = (number(entry, key) for key in ("ci_low", "value", "ci_high"))
        if not math.isnan(low + value + high) and not low <= high:
            yield Finding("unit", "certain", log.name, "the interval ends before it begins")
        protocols.setdefault((log.text("metric"), log.text("dataset")), {}).setdefault(log.text("protocol"), log.name)
    for (metric, dataset), names in protocols.items():
        if len(names) > 1:
            text = f"{metric} on {dataset} by protocols {' and '.join(sorted(names))}: not to be compared"
            yield Finding("protocol", "note", ", ".join(sorted(names.values())), text)
    yield from _weak(results)


def _weak(results: list[Log]) -> Iterator[Finding]:
    """Find attacks of many steps that leave more than FGSM of the same strength on the same images."""
    accuracy: dict[tuple[str, bytes], dict[str, tuple[float, str]]] = {}
    for log in results:
        entry, metric = log.entries[0], log.text("metric")
        if not metric.startswith("accuracy_") or not isinstance(entry["settings"], dict):
            continue
        of = canonical_json([entry.get(key) for key in ("weights_sha256", "dataset_sha256", "preprocessing")])
        strength = canonical_json(entry["settings"].get("epsilon_255"))
        key = (strength.decode(), of)
        accuracy.setdefault(key, {})[metric.removeprefix("accuracy_")] = (number(entry, "value"), log.name)
    for attacks in accuracy.values():
        single, other = attacks.get("fgsm", (math.nan, ""))
        for attack, (value, name) in attacks.items():
            if attack.startswith("pgd") and value > single:
                text = f"more is left under {attack} ({value:.4f}) than under FGSM ({single:.4f}, {other})"
                yield Finding("D3", "certain", name, text)
