"""The tiny Stable Diffusion of the lab: its five parts with fresh weights, and their folder on disk.

Out: a folder that ``StableDiffusionPipeline.from_pretrained`` loads (text_encoder, tokenizer, unet, vae, scheduler,
model_index.json), 32x32 px images, 8x8x4 latents, weights stored in float16 below 6 MB.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from synclones.base.json_file import parse_json
from synclones.lab.digits import DIGIT_NAMES, PLACES
from synclones.lab.render import COLOURS, SIZE_PX
from synclones.prompts.recipes.clip_templates import templates

HERE = Path(__file__).resolve().parent
MAX_TOKENS = 32
TEXT_WIDTH = 64
LATENT_CHANNELS = 4
SPECIAL_TOKENS = ["<|startoftext|>", "<|endoftext|>"]


def load_tokenizer() -> CLIPTokenizer:
    """Load the tokenizer that ships with the generator.

    It is data, not rebuilt by training: the library that learned it orders equally frequent pairs differently in each
    process, and token numbers are part of what the weights mean.
    """
    return CLIPTokenizer.from_pretrained(HERE / "generator" / "tokenizer", local_files_only=True)


def learn_tokenizer() -> CLIPTokenizer:
    """Byte-pair encoding of the caption grammar: each of its words is one token, any other text still splits."""
    blank = CLIPTokenizer()
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer, bpe.pre_tokenizer = blank._tokenizer.normalizer, blank._tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4000, min_frequency=1, show_progress=False, initial_alphabet=alphabet, end_of_word_suffix="</w>"
    )
    bpe.train_from_iterator(_corpus(), trainer)
    learned = parse_json(bpe.to_str())["model"]
    merged = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokens += [token for token in merged if token not in set(tokens)] + SPECIAL_TOKENS
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[tuple(merge) for merge in learned["merges"]],
        model_max_length=MAX_TOKENS,
    )


def _corpus() -> list[str]:
    words = [*DIGIT_NAMES, *COLOURS, *PLACES, "digit", "number", "inside", "in front of", "behind"]
    return [template.replace("{}", name) for template in templates() for name in DIGIT_NAMES] + words


def new_scheduler() -> DDIMScheduler:
    """Velocity prediction with zero terminal signal, so that very bright and very dark images can be drawn.

    Source: Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def new_vae() -> AutoencoderKL:
    """Return the autoencoder of 0.39 M parameters: float[n, 3, 32, 32] in -1..1 to float[n, 4, 8, 8] and back."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 40, 40),
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE_PX,
    )


def new_unet() -> UNet2DConditionModel:
    """Return the denoiser, 2.2 M parameters: latents, times, states float[n, 32, 64] to velocity float[n, 4, 8, 8]."""
    return UNet2DConditionModel(
        sample_size=SIZE_PX // 4,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 80),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return the text encoder of 0.2 M parameters: token ids int64[n, 32] to states float[n, 32, 64]."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def save_pipeline(
    folder: Path,
    *,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    """Write the folder of a ``StableDiffusionPipeline`` with float16 weights in safetensors."""
    pipeline = StableDiffusionPipeline(
        vae=vae.to(torch.float16),
        text_encoder=text_encoder.to(torch.float16),
        tokenizer=tokenizer,
        unet=unet.to(torch.float16),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    # The library adds what it was called with to a tokenizer's files: they are data, and stay as they are.
    shipped = {path.name: path.read_bytes() for path in (HERE / "generator" / "tokenizer").iterdir()}
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name, data in shipped.items():
        (folder / "tokenizer" / name).write_bytes(data)
