"""What a finished training leaves behind: the exported model with its card, and the manifest.

In: a `Job` and its `Trainer` after the last step. Out: ``export/`` and ``manifest.json`` in the run folder.
"""

from typing import Any

from synclones.base.config import format_duration, to_dict
from synclones.base.escape import markdown_code, markdown_text
from synclones.base.files import sha256_file
from synclones.base.manifest import Parent, write_manifest
from synclones.models.folder import CONFIG, CONFIG_HASH, export_classifier, num_parameters
from synclones.train.job import Job
from synclones.train.loop import Trainer
from synclones.train.progress import Metrics
from synclones.train.run_folder import EXPORT


def finish(job: Job, trainer: Trainer, metrics: Metrics) -> None:
    """Export the weights, write the manifest, and print what to do next."""
    config, classifier = job.config, trainer.classifier
    digest = export_classifier(config.out / EXPORT, classifier, config.model_args(), model_card(job, trainer))
    sources = [source for part in job.mixed.parts for source in part.sets]
    parents = [Parent("data", str(source.folder), source.content_hash()) for source in sources]
    counts = {
        "steps": job.num_steps,
        "samples": job.num_steps * config.batch_size,
        "parameters": num_parameters(classifier.network),
        "skipped": trainer.skipped_before,
    }
    times = {"seconds": round(metrics.seconds, 1), "images_per_s": round(metrics.rate, 1)}
    facts: dict[str, Any] = {"content_hash": digest, "plan_id": job.plan_id, "classes": list(job.class_ids)}
    facts["mixture"] = job.mixed.rows()
    facts[CONFIG_HASH] = sha256_file(config.out / EXPORT / CONFIG)
    write_manifest(config.out, "train", to_dict(config), parents, counts, times, facts)
    print(
        f"{config.out}: {job.num_steps} steps of {config.batch_size} images, this start took "
        f"{format_duration(metrics.seconds)} at {metrics.rate:.0f} images/s\n"
        f"load: timm.create_model('local-dir:{config.out / EXPORT}', pretrained=True)\n"
        f"next: synclones evaluate --model {config.out}"
    )


def model_card(job: Job, trainer: Trainer) -> str:
    """Return the card: what the model is, and by hash what it was trained on."""
    config = job.config
    rows = "\n".join(
        f"| {markdown_code(part.source.folder.name)} | {row['unique']} | {row['repeats']:g} | {row['share']:.1%} "
        f"| `{part.source.content_hash()}` |"
        for part, row in zip(job.mixed.parts, job.mixed.rows(), strict=True)
    )
    shape = ", ".join(f"{name} {value}" for name, value in config.model_args().items())
    return f"""---
library_name: timm
tags: [image-classification, timm, synthetic-data]
---

# {markdown_text(config.out.name)}

{config.architecture}{f" ({shape})" if shape else ""}, {num_parameters(trainer.classifier.network):,} parameters, \
{len(job.class_ids)} classes, input {config.image_size_px} px, trained from fresh weights by `synclones train`.

| data | images | times per epoch | share | content sha256 |
|---|---|---|---|---|
{rows}

{job.num_steps} steps of {config.batch_size} images, AdamW at {config.learning_rate}, seed {config.seed}, \
{job.precision}. All settings: `config.yaml` of the run; its identity: plan `{job.plan_id}`. \
{{hashes}}

Input pixels in 0..1 are normalised with mean {job.preprocessing.mean} and std {job.preprocessing.std}.
"""
