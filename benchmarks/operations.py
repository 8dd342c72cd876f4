"""Counts the operations behind the costs that presets, recipes and docs state, without computing anything.

Networks of the published shapes on torch's meta device; two operations per multiplication and addition, as torch's
`FlopCounterMode` counts. A rate is at most the rate of large bfloat16 matrix products over the operations of an image:
790 TFLOP/s on an H200 (8192^3 products of random numbers reach 769 to 798; NVIDIA's data sheet says 990).

python benchmarks/operations.py
"""

from collections.abc import Callable

import timm
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

H200_TFLOPS = 790
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD21 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
UNCLIP = SD21 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}
SDXL = {
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}


def count(call: Callable[[], object]) -> float:
    """Return the operations of a call, in 10^12."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def unet(config: dict, side_px: int) -> float:
    """Return the operations of one evaluation of a UNet on the latents of one image, in 10^12."""
    network = UNet2DConditionModel(sample_size=side_px // 8, **config)
    text = torch.zeros(1, 77, config["cross_attention_dim"])
    more = {}
    if "class_embed_type" in config:
        more["class_labels"] = torch.zeros(1, config["projection_class_embeddings_input_dim"])
    if "addition_embed_type" in config:
        more["added_cond_kwargs"] = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
    return count(lambda: network(torch.zeros(1, 4, side_px // 8, side_px // 8), torch.tensor(1), text, **more))


def decoder(side_px: int) -> float:
    """Return the operations of the decoder of Stable Diffusion for one image, in 10^12."""
    network = AutoencoderKL(**VAE)
    return count(lambda: network.decode(torch.zeros(1, 4, side_px // 8, side_px // 8)))


def tiny_decoder(side_px: int) -> float:
    """Return those of TAESD."""
    network = AutoencoderTiny()
    return count(lambda: network.decode(torch.zeros(1, 4, side_px // 8, side_px // 8)))


def say(what: str, operations: float) -> None:
    """Print what an image costs and allows at most."""
    rate = H200_TFLOPS / operations
    million = 1e6 / rate / 3600
    print(
        f"{what:<52} {operations:8.3g} TFLOP an image, at most {rate:.3g} images/s, {million:.3g} GPU-hours a million"
    )


def run() -> None:
    """Print the cost of an image for every preset, and the shares that the docs quote."""
    sd, vae = unet(SD15, 512), decoder(512)
    say("SD 1.5, 512 px, 50 steps with guidance", 100 * sd + vae)
    say("SD 1.5, 512 px, 20 steps with guidance (fast)", 40 * sd + vae)
    say("SD 1.5, 512 px, 4 steps without (lcm, lcm-lora)", 4 * sd + vae)
    say("SD 1.5, 512 px, 1 step without (hyper-sd)", sd + vae)
    say("SD-Turbo, 512 px, 1 step without (turbo)", unet(SD21, 512) + vae)
    say("SDXL, 1024 px, 30 steps with guidance", 60 * unet(SDXL, 1024) + decoder(1024))
    say("SD 2.1 unCLIP, 768 px, 20 steps with guidance", 40 * unet(UNCLIP, 768) + decoder(768))
    print(f"the decoder at 512 px over TAESD: {vae / tiny_decoder(512):.1f} times the operations")
    forward = count(lambda: timm.create_model("vit_base_patch16_224")(torch.zeros(1, 3, 224, 224)))
    say("ViT-B/16 at 224 px, forward and backward (vit-b16)", 3 * forward)


if __name__ == "__main__":
    with torch.device("meta"), torch.inference_mode():
        run()
