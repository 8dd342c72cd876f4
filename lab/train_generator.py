"""Trains the lab's tiny Stable Diffusion on real digits, from nothing, and writes its folder.

In: the generator-train digits and two photographs that come with scikit-learn. Out: ``lab/generator`` (a
``StableDiffusionPipeline`` folder) and a work folder with checkpoints; the same command resumes after a kill. Every
batch is a function of (seed, stage, step), so on one thread the same machine gives the same bytes.

    python -m synclones.lab.train_generator --out lab/generator --work runs/lab-generator
"""

import json
import os
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save

from synclones.base.config import load, to_dict
from synclones.base.files import write_atomic
from synclones.base.json_file import parse_json, pretty_json
from synclones.base.process import run_main
from synclones.generate.generators.classes import CLASSES_FILE
from synclones.lab.architecture import (
    load_tokenizer,
    new_scheduler,
    new_text_encoder,
    new_unet,
    new_vae,
    save_pipeline,
)
from synclones.lab.captions import DROPPED_CAPTIONS, draw_caption, draw_look
from synclones.lab.digits import DIGIT_NAMES, load_split
from synclones.lab.render import AUGMENTED, render


@dataclass(frozen=True, kw_only=True)
class TrainGeneratorConfig:
    """Train the lab's generator."""

    out: Path = Path("lab/generator")
    """Folder of the finished pipeline."""
    work: Path = Path("runs/lab-generator")
    """Folder of checkpoints and the loss log."""
    seed: int = 0
    """Seed of the initial weights and of every batch."""
    vae_steps: int = 3500
    """Steps of the autoencoder."""
    diffusion_steps: int = 5000
    """Steps of the denoiser and the text encoder together."""
    decoder_steps: int = 1200
    """Further steps of the decoder alone, its latents fixed."""
    vae_batch: int = 64
    """Images per step of the autoencoder."""
    diffusion_batch: int = 128
    """Images per step of the denoiser."""
    threads: int = 1
    """Torch's threads; the bytes are promised for one."""
    checkpoint_every: int = 250
    """Steps between checkpoints (and exports, once the denoiser trains)."""


@dataclass(frozen=True)
class Stage:
    """One of the three trainings: what it optimises and for how long."""

    name: str
    number: int
    steps: int
    batch_size: int
    peak_learning_rate: float
    modules: dict[str, torch.nn.Module]
    loss: Callable[[torch.Tensor, list[str], torch.Generator], torch.Tensor]
    reads_captions: bool = False


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 200 steps, constant, linear decay to a hundredth over the last 30 %."""
    warm_up = min(1.0, (step + 1) / 200)
    decay = min(1.0, (steps - step) / (0.3 * steps))
    return peak * warm_up * max(0.01, decay)


class EmaOptimizer:
    """AdamW and an exponential moving average of the weights, saved to and restored from one safetensors file."""

    def __init__(self, stage: Stage):
        self.parameters = {
            f"{name}.{key}": value for name, module in stage.modules.items() for key, value in module.named_parameters()
        }
        self.averages = {key: value.detach().clone() for key, value in self.parameters.items()}
        self.adamw = torch.optim.AdamW(self.parameters.values(), weight_decay=0.01, betas=(0.9, 0.99))

    def step(self, step: int, rate: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.adamw.param_groups[0]["lr"] = rate
        self.adamw.step()
        self.adamw.zero_grad()
        decay = min(0.998, (1 + step) / (10 + step))
        for key, value in self.parameters.items():
            self.averages[key].lerp_(value.detach(), 1 - decay)

    def tensors(self) -> dict[str, torch.Tensor]:
        state = {f"weights/{key}": value.detach() for key, value in self.parameters.items()}
        state |= {f"averages/{key}": value for key, value in self.averages.items()}
        for key, value in self.parameters.items():
            for name, moment in self.adamw.state[value].items():
                state[f"adamw/{name}/{key}"] = moment
        return {key: value.contiguous().clone() for key, value in state.items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        for key, value in self.parameters.items():
            value.data.copy_(state[f"weights/{key}"])
            self.averages[key].copy_(state[f"averages/{key}"])
            names = ("step", "exp_avg", "exp_avg_sq")
            self.adamw.state[value] = {name: state[f"adamw/{name}/{key}"].clone() for name in names}

    def put_averages_into_modules(self) -> None:
        for key, value in self.parameters.items():
            value.data.copy_(self.averages[key])


class GeneratorTraining:
    """The models and the two stages that train them."""

    def __init__(self, config: TrainGeneratorConfig):
        self.config = config
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.strokes, self.labels = load_split("generator-train")
        self.tokenizer, self.scheduler = load_tokenizer(), new_scheduler()
        self.vae = new_vae().to(memory_format=torch.channels_last)
        self.unet = new_unet().to(memory_format=torch.channels_last)
        self.text_encoder = new_text_encoder(self.tokenizer).train()
        self.log = config.work / "log.jsonl"
        config.work.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        config = self.config
        autoencoder = Stage("vae", 0, config.vae_steps, config.vae_batch, 2e-3, {"vae": self.vae}, self.vae_loss)
        self.train(autoencoder)
        self.vae.requires_grad_(False).eval()
        self.vae.register_to_config(scaling_factor=self.measure_scaling_factor())
        networks = {"unet": self.unet, "text_encoder": self.text_encoder}
        size = config.diffusion_batch
        self.train(
            Stage("diffusion", 1, config.diffusion_steps, size, 1e-3, networks, self.diffusion_loss, True), self.export
        )
        # The latents are fixed from here on; their decoder alone can still learn to show more of what they hold.
        decoder = {"vae.decoder": self.vae.decoder, "vae.post_quant_conv": self.vae.post_quant_conv}
        for module in decoder.values():
            module.requires_grad_(True)
        self.train(
            Stage("decoder", 3, config.decoder_steps, config.vae_batch, 1e-3, decoder, self.decoder_loss), self.export
        )

    def batch(self, stage: Stage, step: int) -> tuple[torch.Tensor, list[str], torch.Generator]:
        """Images float[b, 3, 32, 32] in -1..1, captions, and the noise generator of one step."""
        rng = np.random.default_rng([self.config.seed, stage.number, step])
        chosen = rng.integers(len(self.labels), size=stage.batch_size)
        if stage.reads_captions:
            drawn = [draw_caption(int(digit), rng) for digit in self.labels[chosen]]
        else:
            drawn = [("", draw_look(rng)) for _ in chosen]
        images = render(self.strokes[chosen], [look for _, look in drawn], rng, AUGMENTED) * 2 - 1
        captions = ["" if rng.random() < DROPPED_CAPTIONS else caption for caption, _ in drawn]
        noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
        return images.contiguous(memory_format=torch.channels_last), captions, noise

    def vae_loss(self, images: torch.Tensor, captions: list[str], noise: torch.Generator) -> torch.Tensor:
        """Error of pixels, and a light pull of latents to the standard normal."""
        posterior = self.vae.encode(images).latent_dist
        restored = self.vae.decode(posterior.sample(generator=noise)).sample
        pull = 2e-4 * posterior.kl().mean() / posterior.mean[0].numel()
        return _image_loss(restored, images) + pull

    def decoder_loss(self, images: torch.Tensor, captions: list[str], noise: torch.Generator) -> torch.Tensor:
        """Return the autoencoder's loss of pixels, for latents of the frozen encoder."""
        with torch.no_grad():
            latents = self.vae.encode(images).latent_dist.sample(generator=noise)
        return _image_loss(self.vae.decode(latents).sample, images)

    def diffusion_loss(self, images: torch.Tensor, captions: list[str], noise: torch.Generator) -> torch.Tensor:
        """Mean squared error of the predicted velocity."""
        with torch.no_grad():
            latents = self.vae.encode(images).latent_dist.sample(generator=noise) * self.vae.config.scaling_factor
        target_noise = torch.randn(latents.shape, generator=noise)
        times = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(latents),), generator=noise)
        ids = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        states = self.text_encoder(ids).last_hidden_state
        noisy = self.scheduler.add_noise(latents, target_noise, times)
        velocity = self.unet(noisy, times, states).sample
        return F.mse_loss(velocity, self.scheduler.get_velocity(latents, target_noise, times))

    @torch.no_grad()
    def measure_scaling_factor(self) -> float:
        """Return one over the latents' standard deviation, as Stable Diffusion defines it (Rombach et al. 2022)."""
        stage = Stage("scaling", 2, 1, 1024, 0.0, {}, self.vae_loss)
        images, _, noise = self.batch(stage, 0)
        return round(1 / self.vae.encode(images).latent_dist.sample(generator=noise).std().item(), 5)

    def train(self, stage: Stage, export: Callable[[EmaOptimizer, int], None] | None = None) -> None:
        """Train one stage from its newest checkpoint to its end; leaves the averaged weights in the modules."""
        optimizer = EmaOptimizer(stage)
        path = self.config.work / f"{stage.name}.safetensors"
        first = self.resume(path, optimizer)
        started, running = time.monotonic(), 0.0
        for step in range(first, stage.steps):
            loss = stage.loss(*self.batch(stage, step))
            loss.backward()
            optimizer.step(step, learning_rate(step, stage.steps, stage.peak_learning_rate))
            running = loss.item() if step == first else 0.98 * running + 0.02 * loss.item()
            if (step + 1) % 100 == 0:
                self.report(stage, step + 1, running, (time.monotonic() - started) / (step + 1 - first))
            if (step + 1) % self.config.checkpoint_every == 0 or step + 1 == stage.steps:
                write_atomic(path, save(optimizer.tensors(), {"step": str(step + 1)}))
                if export:
                    export(optimizer, step + 1)
        optimizer.put_averages_into_modules()

    def resume(self, path: Path, optimizer: EmaOptimizer) -> int:
        if not path.exists():
            return 0
        optimizer.restore(load_file(path))
        with path.open("rb") as file:
            header = parse_json(file.read(int.from_bytes(file.read(8), "little")))
        print(f"resuming from {path} at step {header['__metadata__']['step']}", flush=True)
        return int(header["__metadata__"]["step"])

    def report(self, stage: Stage, step: int, loss: float, seconds_per_step: float) -> None:
        hours_left = (stage.steps - step) * seconds_per_step / 3600
        line = {"stage": stage.name, "step": step, "loss": round(loss, 5), "s_per_step": round(seconds_per_step, 4)}
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{stage.name} {step}/{stage.steps} loss {loss:.4f}, {hours_left:.2f} h left", flush=True)

    def export(self, optimizer: EmaOptimizer, step: int) -> None:
        """Write the averaged weights as a pipeline folder; the training's own weights stay as they are."""
        parts = {name: deepcopy(getattr(self, name)).eval() for name in ("unet", "text_encoder", "vae")}
        parameters = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.named_parameters()}
        for key, average in optimizer.averages.items():
            parameters[key].data.copy_(average)
        save_pipeline(self.config.out, tokenizer=self.tokenizer, **parts)
        record = {"config": to_dict(self.config), "last_step_of_stage": step, "torch": str(torch.__version__)}
        write_atomic(self.config.out / "training.json", pretty_json(record))
        write_atomic(self.config.out / CLASSES_FILE, pretty_json({"draws_only": list(DIGIT_NAMES)}))


def _image_loss(restored: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Absolute error of pixels and of their differences, and squared error of 4x4 px means, which hold colour.

    An absolute error alone asks for the median, and so for the commonest ink wherever the latents leave a doubt.
    """
    edges = sum(F.l1_loss(restored.diff(dim=d), images.diff(dim=d)) for d in (2, 3))
    colours = F.mse_loss(F.avg_pool2d(restored, 4), F.avg_pool2d(images, 4))
    return F.l1_loss(restored, images) + 0.5 * edges + 12 * colours


def main(argv: list[str]) -> None:
    """Train, or resume training, the generator that ``argv`` describes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    GeneratorTraining(load(TrainGeneratorConfig, argv, prog="python -m synclones.lab.train_generator")).run()


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
