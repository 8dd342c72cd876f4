"""What turns drawn shards into a dataset to hand on: indexes, hashes, data card, contact sheet, manifest.

In: a folder whose plan's shards are all complete. Out: the files of the dataset folder. Safe to repeat, and for several
processes to do at once: all of it is derived from the shards.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from synclones.base.config import to_dict
from synclones.base.errors import VerificationError
from synclones.base.escape import markdown_code, markdown_text
from synclones.base.manifest import Parent, write_manifest
from synclones.generate.gates.policy import BETWEEN_MARKS
from synclones.generate.gates.unsafe import card_words
from synclones.generate.generators.families import licence_note
from synclones.generate.job import Job
from synclones.generate.plan import Plan
from synclones.generate.preview.sheet import write_preview
from synclones.generate.progress import bytes_reproduced, read_logs
from synclones.prompts.table import PromptTable, class_names
from synclones.shards.card import write_card, write_croissant
from synclones.shards.index import finish_folder, read_checksums, read_summary
from synclones.shards.schema import STATUSES, ShardFiles
from synclones.shards.stores.store import store_url

_DONE = {"ok": "marked"}  # a stored image whose row has a reason


def write_dataset_card(folder: Path, plan: Plan, table: PromptTable) -> None:
    """Write ``README.md``, before the first image, so that even a part of the set says what it is."""
    # Texts of others (a class list's name, a negative prompt) must not become markup.
    recipe, classes = (markdown_code(str(table.metadata.get(key, "unknown"))) for key in ("recipe", "classes"))
    gates = ", ".join(f"{name} {value}" for name, value in plan.gates.items())
    rows = "".join(f"| {heading} | {markdown_text(text)} |\n" for heading, text in plan.described().items())
    promise = "reproduced by the same plan" if plan.device.startswith("cpu") else "not promised on a GPU"
    text = f"""
{plan.num_samples} images planned by `synclones generate`, all of them synthetic.

| | |
|---|---|
| prompts | recipe {recipe}, classes {classes}, content sha256 `{plan.prompts_sha256}` |
| generator | `{plan.model_name}` {plan.model_revision}, content sha256 `{plan.model_sha256}` |
| licence of the generator | {licence_note(plan.model_name)} |
{rows}| pixels | drawn at {plan.drawn_px}, stored at {plan.stored_px}, JPEG quality {plan.jpeg_quality} 4:2:0 |
{_equipment(plan)}| seed | {plan.seed}; each image's own seed is in its `json` and in the Parquet sidecars |
| safety checker | {card_words(plan.gates)} |
| quality gates | {gates or "not finite and blank: fail"} |
| plan | `{plan.plan_id}`, all settings in `plan.json` |
| bytes | {promise} |

Each sample has the members `jpg`, `json`, `txt`{" and `cls`" if plan.has_labels else ""}. Check the folder with
`sha256sum -c SHA256SUMS` or `synclones shards verify`.
"""
    write_card(folder, f"Synthetic images: {folder.name}", text, plan.num_samples, plan.split)


def _equipment(plan: Plan) -> str:
    """The card's rows about what the generator was drawn with beside its own parts, for those sets that have it."""
    rows = ""
    if plan.lora:
        licence = licence_note(plan.lora.partition(":")[0])
        rows += f"| LoRA | `{plan.lora}` times {plan.lora_scale}, sha256 `{plan.lora_sha256}`; licence: {licence} |\n"
    if plan.tiny_vae:
        licence = licence_note(plan.tiny_vae)
        rows += f"| decoder | `{plan.tiny_vae}`, sha256 `{plan.tiny_vae_sha256}`; licence: {licence} |\n"
    if plan.images_sha256:
        how = f"strength {plan.strength}" if plan.strength else f"noise level {plan.noise_level} on their embedding"
        rows += (
            f"| drawn from real images | content sha256 `{plan.images_sha256}`, {how}; their rights travel along |\n"
        )
    return rows


def finish_dataset(job: Job) -> dict[str, int]:
    """Write into the job's folder all that follows from complete shards; return the counts of samples by status.

    Raises:
        VerificationError: when the shards do not have the samples of the plan.
    """
    folder, plan = job.config.out, job.plan
    content_hash = finish_folder(folder, plan.split)
    write_preview(folder, plan, class_names(job.table.metadata))
    return describe_dataset(job, folder, content_hash, "reproduced" if bytes_reproduced(folder) else "not reproduced")


def describe_dataset(job: Job, folder: Path, content_hash: str, bytes_promise: str) -> dict[str, int]:
    """Write croissant.json and manifest.json from the shards' jsons and the logs; return the counts of samples.

    Args:
        folder: the dataset folder, or what stands for a set in a store.
        bytes_promise: what is known of whether the bytes are reproduced.

    Raises:
        VerificationError: when the shards do not have the samples of the plan.
    """
    # Only a set that has all of its samples gets a manifest, which is what says that it is finished.
    plan, table = job.plan, job.table
    counts = count_samples(folder, plan)
    if counts["planned"] != plan.num_samples or counts["planned"] != sum(counts[status] for status in STATUSES):
        raise VerificationError(
            f"{folder}: {counts} do not add up to {plan.num_samples}; run `synclones shards verify`"
        )
    made_by = f"{plan.model_name}, {plan.scheduler}, {plan.num_inference_steps} steps, guidance {plan.guidance_scale}"
    write_croissant(folder, folder.name, f"{counts['ok']} synthetic images", read_checksums(folder), made_by)
    # Times and starts are of this run of the set and so outside its identity.
    seconds, starts, drawn = read_logs(folder)
    write_manifest(
        folder,
        "generate",
        to_dict(job.config) | {"out": store_url(job.config.out) or str(job.config.out)},
        _parents(job),
        counts,
        {"process_seconds": round(seconds, 1), "process_starts": starts, "drawn": drawn},
        {
            "content_hash": content_hash,
            "plan": asdict(plan),
            "gates": count_findings(folder, plan),
            "classes": list(table.class_ids()) if plan.has_labels else [],
            "bytes": bytes_promise,
        },
    )
    return counts


def _parents(job: Job) -> list[Parent]:
    """Return everything that the set was made from, with its content hash."""
    plan = job.plan
    parents = [
        Parent("prompts", str(job.table.path), plan.prompts_sha256),
        Parent("generator", str(job.model.path), plan.model_sha256),
    ]
    if job.retry is not None:
        parents.append(job.retry.named())
    if job.smaller is not None:
        parents.append(job.smaller)
    if plan.lora:
        parents.append(Parent("lora", plan.lora, plan.lora_sha256))
    if plan.tiny_vae:
        parents.append(Parent("tiny_vae", plan.tiny_vae, plan.tiny_vae_sha256))
    if plan.images_sha256:
        parents.append(Parent("images", str(job.config.images), plan.images_sha256))
    return parents


def count_samples(folder: Path, plan: Plan) -> dict[str, int]:
    """Return the numbers of samples planned and by status, from the shards' jsons."""
    summaries = [read_summary(ShardFiles(folder, plan.shard_name(n)).json) for n in range(plan.num_shards)]
    return {key: sum(summary[key] for summary in summaries) for key in ("planned", *STATUSES)}


def count_findings(folder: Path, plan: Plan) -> dict[str, dict[str, int]]:
    """Return, by a gate's finding, how many samples failed, were dropped or are marked, from the shards' jsons."""
    findings: dict[str, Counter[str]] = {}
    for number in range(plan.num_shards):
        summary = read_summary(ShardFiles(folder, plan.shard_name(number)).json)
        for status, reasons in summary.get("reasons", {}).items():
            for reason, count in reasons.items():
                for one in reason.split(BETWEEN_MARKS):
                    findings.setdefault(one, Counter())[_DONE.get(status, status)] += count
    return {reason: dict(sorted(counts.items())) for reason, counts in sorted(findings.items())}
