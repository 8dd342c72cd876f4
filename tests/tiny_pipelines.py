"""A tiny text-to-image pipeline of every family, with random weights but the real classes, files and configurations.

In: a folder and the name of a family. Out: the folder, as ``save_pretrained`` fills it. No network is needed.
"""

from pathlib import Path

import diffusers as d
import torch
import transformers as t
from tokenizers import Tokenizer, models, pre_tokenizers, processors

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,"


def clip_tokenizer() -> t.CLIPTokenizer:
    words = ["!", "a</w>", "photo</w>", "of</w>", "two</w>", *LETTERS, *(f"{x}</w>" for x in LETTERS if x != "a")]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return t.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16, pad_token="!")


def clip_text(size: int = 32, projected: bool = False) -> t.CLIPTextModel | t.CLIPTextModelWithProjection:
    words = len(clip_tokenizer())
    config = t.CLIPTextConfig(
        vocab_size=words,
        hidden_size=size,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=size,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=0,
    )
    return (t.CLIPTextModelWithProjection if projected else t.CLIPTextModel)(config)


def t5_tokenizer() -> t.T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return t.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=32)


def t5_encoder() -> t.T5EncoderModel:
    size = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return t.T5EncoderModel(t.T5Config(vocab_size=len(t5_tokenizer()), **size))


def unet(cross: int, **more) -> d.UNet2DConditionModel:
    return d.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross,
        norm_num_groups=8,
        **more,
    )


def vae(latents: int = 4, **more) -> d.AutoencoderKL:
    return d.AutoencoderKL(
        block_out_channels=(16, 32),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latents,
        norm_num_groups=8,
        sample_size=16,
        **more,
    )


def _sd() -> d.DiffusionPipeline:
    return d.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet(32),
        scheduler=d.DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _lcm() -> d.DiffusionPipeline:
    return d.LatentConsistencyModelPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet(32, time_cond_proj_dim=32),
        scheduler=d.LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> d.DiffusionPipeline:
    more = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "transformer_layers_per_block": (1, 2)}
    network = unet(
        64, attention_head_dim=(2, 4), use_linear_projection=True, projection_class_embeddings_input_dim=80, **more
    )
    return d.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=network,
        scheduler=d.EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def _sd3() -> d.DiffusionPipeline:
    network = d.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    return d.StableDiffusion3Pipeline(
        transformer=network,
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(),
        tokenizer_3=t5_tokenizer(),
    )


def _pixart() -> d.DiffusionPipeline:
    network = d.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )
    return d.PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae(),
        transformer=network,
        scheduler=d.DPMSolverMultistepScheduler(),
    )


def _sana() -> d.DiffusionPipeline:
    network = d.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=8,
    )
    autoencoder = d.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )
    words = gemma_tokenizer()
    encoder = t.Gemma2Model(
        t.Gemma2Config(
            head_dim=16,
            hidden_size=8,
            intermediate_size=8,
            num_attention_heads=2,
            num_hidden_layers=1,
            num_key_value_heads=2,
            vocab_size=len(words),
            max_position_embeddings=512,
        )
    )
    return d.SanaPipeline(
        tokenizer=words,
        text_encoder=encoder,
        vae=autoencoder,
        transformer=network,
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def gemma_tokenizer() -> t.PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", " ", *LETTERS])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    plain.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    return t.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )


def _flux() -> d.DiffusionPipeline:
    network = d.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    return d.FluxPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        transformer=network,
    )


FAMILIES = {"sd": _sd, "lcm": _lcm, "sdxl": _sdxl, "sd3": _sd3, "pixart": _pixart, "sana": _sana, "flux": _flux}


def write_pipeline(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(folder, safe_serialization=True)
    return folder
