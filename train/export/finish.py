"""What a finished training leaves behind: the exported model with its card, and the manifest.

In: a `Job` and its `Trainer` after the last step. Out: ``export/`` and ``manifest.json`` in the run folder.
"""

from pathlib import Path
from typing import Any

from synclones.base.config import to_dict
from synclones.base.escape import markdown_code, markdown_text
from synclones.base.files import sha256_file
from synclones.base.manifest import Parent, read_manifest, write_manifest
from synclones.base.output import print_json, wants_json
from synclones.base.resume import typed
from synclones.base.units import format_count, format_duration
from synclones.models.folder import CONFIG_HASH, num_parameters
from synclones.models.load import files_of
from synclones.models.stored import folder_of
from synclones.train.export.batch_norm import recompute_for
from synclones.train.job import Job
from synclones.train.loop import Trainer
from synclones.train.objective import LABEL
from synclones.train.progress import Metrics
from synclones.train.recovery.folder_names import EXPORT

HEAD_LINES = """
Logits are products of image features of length 1 and the rows of `weight` in `zero_shot_head.safetensors`, one a class:

    logits = model.encode_image(images, normalize=True) @ load_file("zero_shot_head.safetensors")["weight"].T
"""


def end_weights(job: Job, trainer: Trainer) -> None:
    """Make the learner's weights what is kept for others, after the last step; every process takes part."""
    if trainer.ema is not None:
        trainer.learner.network.load_state_dict(trainer.ema.state_dict())
    recompute_for(job, trainer.learner)


def finish(job: Job, trainer: Trainer, metrics: Metrics, lab_classes: tuple[str, ...]) -> None:
    """Export the weights, write the manifest, and print what to do next.

    Args:
        lab_classes: of the digits that an evaluation takes where no test set is named; others need one.
    """
    config, learner = job.config, trainer.learner
    digest = job.objective.export(job.task, learner, config.out / EXPORT, model_card(job, trainer))
    sources = [source for part in job.mixed.parts for source in part.sets]
    parents = [Parent("data", str(source.folder), source.set_hash()) for source in sources]
    for part in job.statistics.parts if job.statistics else ():
        more = [Parent("batch norm data", str(source.folder), source.set_hash()) for source in part.sets]
        parents += [parent for parent in more if parent.content_hash not in {known.content_hash for known in parents}]
    for path in {item.only or item.without: None for item in config.mixture().items if item.only or item.without}:
        parents.append(Parent("chosen images", path, sha256_file(Path(path))))
    if job.task.stored is not None:
        parents.append(Parent("weights", str(folder_of(job.task.stored)), job.task.stored.sha256))
    counts = {
        "steps": job.num_steps,
        "samples": job.num_steps * config.batch_size,
        "parameters": num_parameters(learner.network),
        "skipped": trainer.skipped_before,
    }
    times = {"seconds": round(metrics.seconds, 1), "images_per_s": round(metrics.rate, 1)}
    facts: dict[str, Any] = {"content_hash": digest, "plan_id": job.plan_id, "classes": list(job.class_ids)}
    facts["mixture"] = job.mixed.rows()
    facts |= {"chosen": trainer.chosen} if trainer.chosen else {}
    export = config.out / EXPORT
    facts[CONFIG_HASH] = sha256_file(export / files_of(export)[0])
    write_manifest(config.out, "train", to_dict(config), parents, counts, times, facts)
    classifies = LABEL in job.objective.columns or config.zero_shot_classes
    evaluation = ["evaluate", "--model", str(config.out)]
    evaluation += [] if tuple(job.class_ids) == lab_classes else ["--data", "TEST"]
    print(
        f"{config.out}: {format_count(job.num_steps, 'step')} of {config.batch_size} images, this start took "
        f"{format_duration(metrics.seconds)} at {metrics.rate:.0f} images/s\n"
        f"load: {job.objective.loading(config).format(export)}" + (f"\nnext: {typed(evaluation)}" if classifies else "")
    )
    print_result(job)


def print_result(job: Job) -> None:
    """Print what the manifest of a finished run says, where that is wanted as JSON."""
    if wants_json():
        manifest = read_manifest(job.config.out)
        facts = {name: manifest[name] for name in ("counts", "times", "content_hash")}
        print_json({"folder": str(job.config.out), "complete": True, "export": str(job.config.out / EXPORT), **facts})


def model_card(job: Job, trainer: Trainer) -> str:
    """Return the card: what the model is, and by hash what it was trained on."""
    config = job.config
    rows = "\n".join(
        f"| {markdown_code(part.source.folder.name)} | {row['unique']} | {row['repeats']:g} | {row['share']:.1%} "
        f"| `{part.source.set_hash()}` |"
        for part, row in zip(job.mixed.parts, job.mixed.rows(), strict=True)
    )
    shape = ", ".join(f"{name} {value}" for name, value in config.model_args().items())
    library, tag = job.objective.library(config)
    classes = f"{len(job.class_ids)} classes, " if job.class_ids else ""
    averaged = f"exponential moving average of the weights ({config.ema_decay}), " if trainer.ema else ""
    chosen = f"Chosen for export: {markdown_text(trainer.chosen)}.\n\n" if trainer.chosen else ""
    return f"""---
library_name: {library}
tags: [{tag}, {library}, synthetic-data]
---

# {markdown_text(config.out.name)}

{_architecture(job)}{f" ({shape})" if shape else ""}, {num_parameters(trainer.learner.network):,} parameters, \
{classes}input {config.image_size_px} px, trained from {_beginning(job)} by `synclones train` (objective \
{job.objective.name}).

| data | images | times per epoch | share | content sha256 |
|---|---|---|---|---|
{rows}

{job.num_steps} steps of {config.batch_size} images, {config.optimizer} at {config.learning_rate}, {averaged}seed \
{config.seed}, {job.precision}. All settings: `config.yaml` of the run; its identity: plan `{job.plan_id}`. \
{{hashes}}

{chosen}Input pixels in 0..1 are normalised with mean {job.preprocessing.mean} and std {job.preprocessing.std}.
{HEAD_LINES if job.task.is_zero_shot else ""}"""


def _architecture(job: Job) -> str:
    stored = job.task.stored
    if not job.task.is_zero_shot or stored is None:
        return job.config.architecture
    tower = stored.clip.model_cfg.vision_cfg
    kind = tower.timm_model_name or f"{tower.layers} blocks of width {tower.width}"
    return f"open_clip image tower ({kind}) and a head of {len(job.class_ids)} classes"


def _beginning(job: Job) -> str:
    """Say what the training began from, and which parts it left alone."""
    config, stored = job.config, job.task.stored
    if stored is None:
        text = "fresh weights"
    else:
        name = markdown_code(folder_of(stored).name)
        text = f"the weights {name} (sha256 `{stored.sha256}`, head {config.head})"
    for name in ("reinitialise", "freeze", "train_only"):
        parts = " ".join(getattr(config, name))
        text += f", {name} {markdown_code(parts)}" if parts else ""
    if config.batch_norm != "trained":
        hashes = " ".join(f"`{p.source.content_hash()}`" for p in job.statistics.parts) if job.statistics else ""
        text += f", batch normalisation {config.batch_norm}" + (f" from {hashes}" if hashes else "")
    return text
