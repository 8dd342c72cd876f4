"""Measures the lab's generator against real digits that it has never seen, and prints what the model card quotes.

In: a generator folder. Out: a JSON of figures, and a table on the terminal. About four minutes on two cores.

    python -m synclones.lab.measure_generator --out lab/generator/quality.json
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from synclones.base.config import load
from synclones.base.files import write_atomic
from synclones.base.json_file import pretty_json
from synclones.base.process import run_main
from synclones.generate.batch import draw_batch
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.job import make_plan
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.settings import GenerateConfig
from synclones.lab.attributes import ATTRIBUTES, caption, luminance, read_attribute
from synclones.lab.digits import DIGIT_NAMES, load_split
from synclones.lab.render import Look, render
from synclones.prompts.table import SCHEMA, PromptTable, write_table
from synclones.shards.schema import Sample
from synclones.shards.sources.decode import decode_image


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Measure the lab's generator."""

    model: Path = Path("lab/generator")
    """The generator's folder."""
    out: Path | None = None
    """File for the figures."""
    plain: int = 1000
    """Images drawn from class names alone."""
    per_attribute: int = 100
    """Images drawn for each attribute."""
    seed: int = 1
    """Seed of the drawn set, of the classifier and of the intervals."""
    guidance_scale: float = 2.0
    """Classifier-free guidance."""
    step_cache: int = 1
    """As `synclones generate --step-cache`."""
    token_merging: float = 0.0
    """As `synclones generate --token-merging`."""


def draw(config: MeasureConfig, prompts: list[str]) -> torch.Tensor:
    """Stored images float32[n, 3, 32, 32] in 0..1 of ``prompts``, drawn as `synclones generate` draws them."""
    n = len(prompts)
    with tempfile.TemporaryDirectory() as folder:
        # A table of these prompts, in batches of the plan: an image depends on the batch that it is drawn in.
        path = Path(folder) / "prompts.parquet"
        empty, zeros = [""] * n, np.zeros(n, dtype=np.int64)
        columns = {"index": np.arange(n), "prompt": prompts, "label": zeros.astype(np.int32) - 1, "class_id": empty}
        more = {"recipe": empty, "caption_id": zeros, "source_key": empty, "detail": empty}
        write_table(path, [pa.table(columns | more, schema=SCHEMA)], {})
        table, model = PromptTable(path), find_model(str(config.model))
        settings = GenerateConfig(
            model=str(config.model),
            seed=config.seed,
            guidance_scale=config.guidance_scale,
            images_per_shard=50,
            step_cache=config.step_cache,
            token_merging=config.token_merging,
        )
        generator = make_generator(model, settings)
        plan = make_plan(settings, table, generator, "cpu")
        pipeline = load_pipeline(generator, plan.scheduler, plan.dtype, "cpu")
        batches = [table.rows(start, min(start + plan.batch_size, n)) for start in range(0, n, plan.batch_size)]

        # Two workers of one thread each, as `synclones generate` has on two cores.
        def drawn(rows: list) -> list:
            torch.set_num_threads(1)
            return draw_batch(plan, Sampler(pipeline, plan), rows)

        with ThreadPoolExecutor(2) as pool:
            samples = [sample for batch in pool.map(drawn, batches) for sample in batch]
    images = np.stack([decode_image(s.jpg) for s in samples if isinstance(s, Sample)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def train_classifier(seed: int) -> torch.nn.Module:
    """Train a small convolutional network on plainly rendered digits of the classifier's split."""
    torch.manual_seed(seed)
    strokes, labels = load_split("classifier-train")
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(32, 64, 3, padding=1), torch.nn.BatchNorm2d(64), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(64, 96, 3, padding=1), torch.nn.BatchNorm2d(96), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Dropout(0.3), torch.nn.Linear(96 * 16, 10)),
    )
    steps, batch = 400, 96
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        chosen = rng.integers(len(labels), size=batch)
        images = render(strokes[chosen], [Look()] * batch, rng)
        F.cross_entropy(network(images), torch.from_numpy(labels[chosen]), label_smoothing=0.05).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return network.eval()


def shape(images: torch.Tensor) -> torch.Tensor:
    """Ink at the 8x8 resolution of the real digits, float32[n, 64] in 0..1, from plain images."""
    tone = luminance(images)
    paper, ink = tone.flatten(1).quantile(0.9, dim=1), tone.flatten(1).quantile(0.02, dim=1)
    coverage = ((paper.view(-1, 1, 1) - tone) / (paper - ink).view(-1, 1, 1)).clamp(0, 1)
    return F.adaptive_avg_pool2d(coverage[:, 5:27, 5:27], 8).flatten(1)


def nearest_distances(images: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of each image's `shape` to the nearest shape in ``seen``."""
    return torch.cdist(shape(images), seen).amin(1)


def median_interval(values: torch.Tensor, seed: int) -> tuple[float, float, float]:
    """Median with a bootstrap 95 % interval (2,000 resamples)."""
    rng, array = np.random.default_rng(seed), values.numpy()
    medians = np.median(array[rng.integers(len(array), size=(2000, len(array)))], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(np.median(array)), float(low), float(high)


def within_class_spread(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean distance of an image's `shape` to the others of its class."""
    shapes = shape(images)
    means = [torch.pdist(shapes[labels == digit]).mean() for digit in range(10)]
    return float(torch.stack(means).mean())


@torch.inference_mode()
def through_autoencoder(images: torch.Tensor, model: Path) -> torch.Tensor:
    """Images as the generator's latents can hold them, so that thresholds ask what a caption decides, not how much
    8x8 latents lose."""
    vae = AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32, use_safetensors=True).eval()
    return (vae.decode(vae.encode(images * 2 - 1).latent_dist.mode()).sample / 2 + 0.5).clamp(0, 1)


def rendered(split: str, look: Look, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Real digits of a split in one look: images and labels."""
    strokes, labels = load_split(split)  # type: ignore[arg-type]
    rng = np.random.default_rng([seed, 77])
    return render(strokes, [look] * len(labels), rng), torch.from_numpy(labels)


@torch.inference_mode()
def measure(config: MeasureConfig) -> dict:
    """Return all figures; fractions, not percentages."""
    with torch.inference_mode(False):
        classifier = train_classifier(config.seed)
    # Drawn images: of class names, with guidance and without, and of every attribute.
    asked = torch.arange(config.plain) % 10
    attributes = list(ATTRIBUTES)
    digits = [DIGIT_NAMES[i % 10] for i in range(config.per_attribute)]
    prompts = [DIGIT_NAMES[i] for i in asked.tolist()] + [caption(a, name) for a in attributes for name in digits]
    images = draw(config, prompts)
    unguided = draw(replace(config, guidance_scale=1.0), prompts[: config.plain])
    plain, wished = images[: config.plain], images[config.plain :].split(config.per_attribute)
    # Real digits to compare with: never seen, seen in training, and as many of the unseen as of the seen.
    real, real_labels = rendered("test", Look(), config.seed)
    seen = shape(rendered("generator-train", Look(), config.seed)[0])
    others = [rendered(split, Look(), config.seed)[0] for split in ("classifier-train", "test")]
    unseen = shape(torch.cat(others)[torch.randperm(1077, generator=torch.Generator().manual_seed(0))[: len(seen)]])
    figures: dict[str, Any] = {
        "classifier_on_real_test": float((classifier(real).argmax(1) == real_labels).float().mean()),
        "recognised_as_prompted": float((classifier(plain).argmax(1) == asked).float().mean()),
        "nearest_seen_digit": median_interval(nearest_distances(plain, seen), config.seed),
        "nearest_unseen_digit": median_interval(nearest_distances(plain, unseen), config.seed),
        "nearest_seen_digit_unguided": median_interval(nearest_distances(unguided, seen), config.seed),
        "nearest_seen_digit_of_real_test": median_interval(nearest_distances(real, seen), config.seed),
        "spread_over_real": within_class_spread(plain, asked) / within_class_spread(real, real_labels),
        "spread_over_real_unguided": within_class_spread(unguided, asked) / within_class_spread(real, real_labels),
        "recognised_unguided": float((classifier(unguided).argmax(1) == asked).float().mean()),
        "attributes": {},
        "settings": {
            "plain": config.plain,
            "per_attribute": config.per_attribute,
            "guidance_scale": config.guidance_scale,
        },
    }
    for attribute, images in zip(attributes, wished, strict=True):
        figures["attributes"][attribute] = _attribute_figures(attribute, images, plain, config)
    return figures


def _attribute_figures(
    attribute: str, images: torch.Tensor, plain: torch.Tensor, config: MeasureConfig
) -> dict[str, float]:
    looks = (ATTRIBUTES[attribute], Look())
    with_it, without = (
        through_autoencoder(rendered("classifier-train", look, config.seed)[0], config.model) for look in looks
    )
    values, threshold = read_attribute(attribute, images, with_it, without)
    plain_values, _ = read_attribute(attribute, plain, with_it, without)
    distance = (values.mean() - plain_values.mean()) / plain_values.std()
    return {
        "recovered": float((values > threshold).float().mean()),
        "plain_rejected": float((plain_values <= threshold).float().mean()),
        "sd_from_plain": float(distance),
    }


def to_markdown(figures: dict) -> str:
    """Return the figures as the model card shows them."""

    def interval(name: str) -> str:
        return "{:.3f} [{:.3f}, {:.3f}]".format(*figures[name])

    lines = [
        "| measure | guidance 2 | no guidance | real test digits |",
        "|---|---|---|---|",
        f"| class names recognised as prompted | {figures['recognised_as_prompted']:.1%} "
        f"| {figures['recognised_unguided']:.1%} | {figures['classifier_on_real_test']:.1%} |",
        f"| median distance to the nearest digit seen in training | {interval('nearest_seen_digit')} "
        f"| {interval('nearest_seen_digit_unguided')} | {interval('nearest_seen_digit_of_real_test')} |",
        f"| the same to as many digits never seen | {interval('nearest_unseen_digit')} | | |",
        f"| spread within a class over that of real digits | {figures['spread_over_real']:.2f} "
        f"| {figures['spread_over_real_unguided']:.2f} | 1 |",
        "",
        "| attribute | recovered | plain rejected | sd from plain |",
        "|---|---|---|---|",
    ]
    for name, row in figures["attributes"].items():
        lines.append(f"| {name} | {row['recovered']:.0%} | {row['plain_rejected']:.0%} | {row['sd_from_plain']:.1f} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Measure and print; ``--out`` keeps the figures."""
    config = load(MeasureConfig, argv, "python -m synclones.lab.measure_generator")
    figures = measure(config)
    print(to_markdown(figures))
    if config.out is not None:
        write_atomic(config.out, pretty_json(figures))


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
