"""The smallest judges of pictures in their real file formats, with random weights: an open_clip CLIP, a safety checker.

In: a folder. Out: the folder, filled as the libraries fill it. No network is needed.
"""

import json
from pathlib import Path

import open_clip
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}


def write_clip(folder: Path, seed: int = 0) -> Path:
    """``open_clip_config.json`` and ``open_clip_model.safetensors``, as `open_clip.push_to_hf_hub` saves them."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**CLIP)
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": PREPROCESS}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_checker(model: Path, threshold: float) -> Path:
    """``safety_checker/`` and ``feature_extractor/`` in a model's folder; flagged are pictures whose cosine with
    a random concept is above ``threshold``."""
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config={**vision, "image_size": 32, "patch_size": 8}, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config)
    torch.nn.init.normal_(checker.concept_embeds)
    checker.concept_embeds_weights.data.fill_(2.0)
    checker.concept_embeds_weights.data[0] = threshold
    checker.special_care_embeds_weights.data.fill_(2.0)
    checker.save_pretrained(model / "safety_checker", safe_serialization=True)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**size).save_pretrained(model / "feature_extractor")
    return model
