"""Checkpoints as their authors publish them, of random weights, and what other libraries compute of the same weights.

In: a format's table of names and shapes. Out: `Case`s: the file as it is saved, and reference logits of transformers
and torchvision, which share no code with timm or open_clip.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

from synclones.models.checkpoint_format import CLASSES, expanded
from synclones.models.formats import (
    convnext,
    deit3,
    dinov2,
    linear_probe,
    mae,
    moco_v3,
    resnet50,
    stablerep,
    swin,
    synclip,
    synclr,
    synresnet50,
    synthclip,
    synvit,
)
from synclones.models.towers import TextSize
from synclones.models.vision_transformer import B16, Size

CLASSES_USED = 1000
ARGS = argparse.Namespace(model="base", lr=1e-3, data="somewhere")
TINY, TINY14 = Size("tiny", 48, 2, 3), Size("tiny", 48, 5, 3, 14)
SMALL_TEXT = TextSize(width=32, depth=2, heads=2, joint=24)


def random_tensors(table, classes=CLASSES_USED, seed=0):
    """Weights whose every part changes the logits: norms and scales near 1, matrices that keep the size of vectors."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, stated in expanded(table).items():
        shape = tuple(classes if side == CLASSES else side for side in stated)
        noise = torch.randn(shape, generator=generator)
        last = name.rpartition(".")[2]
        if last == "running_var":
            tensors[name] = 0.5 + noise.abs()
        elif last in ("bias", "running_mean", "in_proj_bias"):
            tensors[name] = 0.1 * noise
        elif last.startswith("gamma") or (last == "weight" and len(shape) == 1):
            tensors[name] = 1 + 0.1 * noise
        elif name == "logit_scale":
            tensors[name] = torch.tensor(3.0)
        elif len(shape) < 2 or shape[0] == 1 or "positional" in name or last.endswith("_table"):
            tensors[name] = 0.3 * noise
        else:
            tensors[name] = noise / max(1, noise[0].numel()) ** 0.5
    return tensors


# ------------------------------------------------------------------ reference networks


def filled(model, tensors):
    missing, surplus = model.load_state_dict(tensors, strict=False)
    assert not surplus and not [name for name in missing if "position_ids" not in name and "num_batches" not in name]
    return model.eval()


def parted(name, tensor):
    """One tensor of queries, keys and values -> three."""
    return zip((name.format(letter) for letter in "qkv"), tensor.chunk(3), strict=True)


def vit(tensors, size, norm=True):
    """transformers' ViT: normalised images -> tokens after the last norm, or before it."""
    config = ViTConfig(
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        patch_size=size.patch_px,
        layer_norm_eps=1e-6,
    )
    model = ViTModel(config, add_pooling_layer=False)
    own = {
        "embeddings.cls_token": tensors["cls_token"],
        "embeddings.position_embeddings": tensors["pos_embed"],
        **{f"embeddings.patch_embeddings.projection.{p}": tensors[f"patch_embed.proj.{p}"] for p in ("weight", "bias")},
    }
    for i in range(size.depth):
        for part in ("weight", "bias"):
            there, here = f"blocks.{i}.{{}}.{part}", f"layers.{i}.{{}}.{part}"
            own |= dict(parted(here.format("attention.{}_proj"), tensors[there.format("attn.qkv")]))
            for theirs, ours in (
                ("attn.proj", "attention.o_proj"),
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                own[here.format(ours)] = tensors[there.format(theirs)]
    if norm:
        own |= {f"layernorm.{part}": tensors[f"norm.{part}"] for part in ("weight", "bias")}
    else:
        model.layernorm = nn.Identity()
    model = filled(model, own)
    return lambda images: model(images).last_hidden_state


def token_head(tensors, size):
    tokens = vit(tensors, size)
    return lambda images: F.linear(tokens(images)[:, 0], tensors["head.weight"], tensors["head.bias"])


def averaged_head(tensors, size):
    """MAE's fine-tuning: the mean of the patches, normalised, then the head."""
    tokens = vit(tensors, size, norm=False)

    def logits(images):
        mean = tokens(images)[:, 1:].mean(1)
        normed = F.layer_norm(mean, (size.width,), tensors["fc_norm.weight"], tensors["fc_norm.bias"], 1e-6)
        return F.linear(normed, tensors["head.weight"], tensors["head.bias"])

    return logits


def normed_head(features, head):
    """BatchNorm1d(affine=False, eps=1e-6) and a linear layer, by formula."""
    normed = (features - head["0.running_mean"]) / (head["0.running_var"] + 1e-6).sqrt()
    return normed @ head["1.weight"].T + head["1.bias"]


def mae_probe(tensors, size):
    tokens = vit(tensors, size)
    head = {name.removeprefix("head."): t for name, t in tensors.items() if name.startswith("head.")}
    return lambda images: normed_head(tokens(images)[:, 0], head)


def dino(tensors, size, scale_names):
    """transformers' DINOv2: normalised images -> normalised tokens of all blocks, the last of them last."""
    registers = "register_tokens" in tensors
    kind, model_class = (
        (Dinov2WithRegistersConfig, Dinov2WithRegistersModel) if registers else (Dinov2Config, Dinov2Model)
    )
    positions = tensors["pos_embed"]
    config = kind(
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        patch_size=size.patch_px,
        image_size=round((positions.shape[1] - 1) ** 0.5) * size.patch_px,
        layer_norm_eps=1e-6,
        **({"num_register_tokens": 4} if registers else {}),
    )
    own = {
        "embeddings.cls_token": tensors["cls_token"],
        "embeddings.mask_token": tensors.get("mask_token", torch.zeros(1, size.width)),
        "embeddings.position_embeddings": positions,
        **{f"embeddings.patch_embeddings.projection.{p}": tensors[f"patch_embed.proj.{p}"] for p in ("weight", "bias")},
        **{f"layernorm.{part}": tensors[f"norm.{part}"] for part in ("weight", "bias")},
    }
    if registers:
        own["embeddings.register_tokens"] = tensors["register_tokens"]
    for i in range(size.depth):
        here = f"encoder.layer.{i}"
        for number, name in enumerate(scale_names, 1):
            own[f"{here}.layer_scale{number}.lambda1"] = tensors[f"blocks.{i}.{name}"]
        for part in ("weight", "bias"):
            own |= dict(parted(f"{here}.attention.{{}}_proj.{part}", tensors[f"blocks.{i}.attn.qkv.{part}"]))
            own[f"{here}.attention.o_proj.{part}"] = tensors[f"blocks.{i}.attn.proj.{part}"]
            for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                own[f"{here}.{layer}.{part}"] = tensors[f"blocks.{i}.{layer}.{part}"]
    model = filled(model_class(config), own)
    return lambda images: [
        model.layernorm(state) for state in model(images, output_hidden_states=True).hidden_states[1:]
    ]


def dino_head(tensors, size, head, blocks):
    """DINOv2 under a linear head: class tokens of the last blocks, normalised, and the mean of the last patches."""
    own = dict(tensors)
    skipped = 5 if "register_tokens" in tensors else 1
    if skipped == 1:  # transformers resamples to a size there, the authors by a factor
        own["pos_embed"] = by_the_factor(tensors["pos_embed"])
    layers = dino(own, size, ("ls1.gamma", "ls2.gamma"))

    def logits(images):
        last = layers(images)[-blocks:]
        read = [*(state[:, 0] for state in last), *([last[-1][:, skipped:].mean(1)] if head_reads_patches else [])]
        return F.linear(torch.cat(read, 1), head["weight"], head["bias"])

    head_reads_patches = head["weight"].shape[1] > size.width
    return logits


def by_the_factor(positions):
    """The position embeddings of 37 x 37 patches at 16 x 16, as dinov2's interpolate_pos_encoding makes them."""
    grid = positions[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    smaller = F.interpolate(grid, mode="bicubic", scale_factor=(float(16 + 0.1) / 37, float(16 + 0.1) / 37))
    return torch.cat([positions[:, :1], smaller.permute(0, 2, 3, 1).reshape(1, 256, -1)], 1)


def deit(tensors, size):
    """DeiT III is a DINOv2 network whose class token has no position."""
    own = tensors | {"pos_embed": torch.cat([torch.zeros(1, 1, size.width), tensors["pos_embed"]], 1)}
    layers = dino(own, size, ("gamma_1", "gamma_2"))
    return lambda images: F.linear(layers(images)[-1][:, 0], tensors["head.weight"], tensors["head.bias"])


def torchvisions_resnet(tensors, _):
    model = torchvision.models.resnet50()
    model.fc = nn.Linear(2048, CLASSES_USED, bias="fc.bias" in tensors)
    return filled(model, tensors)


def torchvisions_swin(tensors, size):
    model = torchvision.models.SwinTransformer(
        [4, 4], size.width, list(size.depths), list(size.heads), [7, 7], num_classes=CLASSES_USED
    )
    own = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if parts[0] == "patch_embed":
            own[f"features.0.{0 if parts[1] == 'proj' else 2}.{parts[2]}"] = tensor
        elif parts[0] == "layers" and parts[2] == "blocks":
            rest = ".".join(parts[4:]).replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")
            own[f"features.{2 * int(parts[1]) + 1}.{parts[3]}.{rest}"] = tensor
        elif parts[0] == "layers":
            own[f"features.{2 * int(parts[1]) + 2}.{'.'.join(parts[3:])}"] = tensor
        else:
            own[name] = tensor
    indexes = {name: t for name, t in model.state_dict().items() if name.endswith("relative_position_index")}
    return filled(model, own | indexes)


def torchvisions_convnext(tensors, size):
    widths = [*size.widths, None]
    setting = [
        torchvision.models.convnext.CNBlockConfig(width, widths[i + 1], depth)
        for i, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True))
    ]
    layers = {"dwconv": "block.0", "norm": "block.2", "pwconv1": "block.3", "pwconv2": "block.5"}
    own = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if parts[0] == "downsample_layers":
            own[f"features.{2 * int(parts[1])}.{'.'.join(parts[2:])}"] = tensor
        elif parts[0] == "stages" and parts[3] == "gamma":
            own[f"features.{2 * int(parts[1]) + 1}.{parts[2]}.layer_scale"] = tensor[:, None, None]
        elif parts[0] == "stages":
            own[f"features.{2 * int(parts[1]) + 1}.{parts[2]}.{layers[parts[3]]}.{parts[4]}"] = tensor
        else:
            own[f"classifier.{0 if parts[0] == 'norm' else 2}.{parts[1]}"] = tensor
    return filled(torchvision.models.ConvNeXt(setting, num_classes=CLASSES_USED), own)


def clip_blocks(tensors, theirs, ours, depth):
    own = {}
    for i in range(depth):
        there, here = f"{theirs}.transformer.resblocks.{i}".lstrip("."), f"{ours}.encoder.layers.{i}"
        for part in ("weight", "bias"):
            own |= dict(parted(f"{here}.self_attn.{{}}_proj.{part}", tensors[f"{there}.attn.in_proj_{part}"]))
            own[f"{here}.self_attn.out_proj.{part}"] = tensors[f"{there}.attn.out_proj.{part}"]
            own |= {f"{here}.layer_norm{n}.{part}": tensors[f"{there}.ln_{n}.{part}"] for n in (1, 2)}
            own[f"{here}.mlp.fc1.{part}"] = tensors[f"{there}.mlp.c_fc.{part}"]
            own[f"{here}.mlp.fc2.{part}"] = tensors[f"{there}.mlp.c_proj.{part}"]
    return own


def clip_text(tensors, text):
    """Shape and weights of the text tower of transformers' CLIP, whose activation is the quick one."""
    shape = {"hidden_size": text.width, "num_hidden_layers": text.depth, "num_attention_heads": text.heads}
    own = clip_blocks(tensors, "", "text_model", text.depth) | {
        "text_model.embeddings.token_embedding.weight": tensors["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": tensors["positional_embedding"],
        "text_projection.weight": tensors["text_projection"].T,
        "logit_scale": tensors["logit_scale"],
        **{f"text_model.final_layer_norm.{part}": tensors[f"ln_final.{part}"] for part in ("weight", "bias")},
    }
    return shape | {"intermediate_size": 4 * text.width, "projection_dim": text.joint}, own


def clip_whole(tensors, sizes):
    """(images, tokens of texts [classes, templates, 77]) -> logits, by transformers' CLIP."""
    size, text = sizes
    text_config, own = clip_text(tensors, text)
    vision_config = {
        "hidden_size": size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "patch_size": size.patch_px,
        "projection_dim": text.joint,
    }
    config = CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=text.joint)
    own |= clip_blocks(tensors, "visual", "vision_model", size.depth) | {
        "vision_model.embeddings.class_embedding": tensors["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": tensors["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": tensors["visual.conv1.weight"],
        "visual_projection.weight": tensors["visual.proj"].T,
    }
    for part in ("weight", "bias"):
        own[f"vision_model.pre_layrnorm.{part}"] = tensors[f"visual.ln_pre.{part}"]
        own[f"vision_model.post_layernorm.{part}"] = tensors[f"visual.ln_post.{part}"]
    model = filled(CLIPModel(config), own)
    images = lambda pixels: vectors(model.get_image_features(pixels))  # noqa: E731
    return zero_shot(images, model, tensors)


def vectors(output):
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def zero_shot(image_vectors, model, tensors):
    def logits(images, tokens):
        flat = vectors(model.get_text_features(tokens.flatten(0, 1)))
        head = F.normalize(F.normalize(flat, dim=-1).unflatten(0, tokens.shape[:2]).mean(1), dim=-1)
        return tensors["logit_scale"].exp() * F.normalize(image_vectors(images), dim=-1) @ head.T

    return logits


def synth_clip(tensors, sizes):
    """transformers' ViT beside transformers' CLIP text tower."""
    size, text = sizes
    text_config, own = clip_text(tensors, text)
    one = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = CLIPConfig(text_config=text_config, vision_config=one, projection_dim=text.joint)
    model = CLIPModel(config)
    unused = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("vis")}
    model = filled(model, own | unused)
    trunk = {name.removeprefix("visual."): t for name, t in tensors.items() if name.startswith("visual.")}
    tokens = vit(trunk, size)
    return zero_shot(lambda images: tokens(images)[:, 0] @ tensors["image_projection"], model, tensors)


# ------------------------------------------------------------------ files as their authors write them


def behind(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def bare(tensors, size):
    return dict(tensors)


def in_model(tensors, size):
    return {"model": tensors, "optimizer": {"state": {}}, "epoch": 90, "scaler": {}, "args": ARGS}


def moco_probe_file(tensors, size):
    wrapped = behind("module.", tensors)
    return {"epoch": 90, "arch": "vit_base", "state_dict": wrapped, "best_acc1": torch.tensor(76.5), "optimizer": {}}


def projection(name, widths):
    """A head of layers with normalisations between them, the last without parameters, as MoCo v3 stacks them."""
    tensors, last = {}, len(widths) - 2
    for layer, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        tensors[f"{name}.{3 * layer}.weight"] = torch.zeros(outputs, inputs)
        parts = ("running_mean", "running_var") if layer == last else ("weight", "bias", "running_mean", "running_var")
        tensors |= {f"{name}.{3 * layer + 1}.{part}": torch.ones(outputs) for part in parts}
        tensors[f"{name}.{3 * layer + 1}.num_batches_tracked"] = torch.tensor(7)
    return tensors


def moco_pretraining_file(tensors, size):
    heads = projection("head", [size.width, 64, 64, 16])
    encoder = tensors | heads
    both = behind("base_encoder.", encoder) | behind("momentum_encoder.", encoder)
    state = behind("module.", both | projection("predictor", [16, 64, 16]))
    return {"epoch": 300, "arch": "vit_base", "state_dict": state, "optimizer": {}, "scaler": {}}


def mae_pretraining_file(tensors, size):
    decoder = {"mask_token": torch.zeros(1, 1, 16), "decoder_embed.weight": torch.zeros(16, size.width)}
    return {"model": tensors | decoder | {"decoder_blocks.0.norm1.weight": torch.ones(16)}, "args": ARGS}


def synclr_file(tensors, size):
    return {"model": behind("visual.", tensors) | {"visual.head.0.weight": torch.zeros(16, size.width)}}


def stablerep_file(tensors, size):
    mlp = {f"layer{n}.weight": torch.zeros(4, 4) for n in (1, 2, 3)} | {
        f"layer{n}.bias": torch.zeros(4) for n in (1, 2)
    }
    norms = {f"bn{n}.{part}": torch.ones(4) for n in (1, 2) for part in ("weight", "running_mean")}
    state = behind("visual.", tensors) | behind(
        "image_mlp.", mlp | norms | {"bn1.num_batches_tracked": torch.tensor(3)}
    )
    return {"model": state, "optimizer": {}, "epoch": 15, "scaler": {}, "args": ARGS}


def synthclip_file(tensors, size):
    state = behind("module.", tensors)
    return {"epoch": 40, "state_dict": state, "optimizer": {}, "scaler": {}, "best_acc1": 30.5, "args": ARGS}


RATES = ("0_0010", "0_0050", "0_5000")


def probe_heads(width, classes=CLASSES_USED):
    """Heads with their normalisations, by learning rate."""
    table = {
        "0.running_mean": (width,),
        "0.running_var": (width,),
        "1.weight": (classes, width),
        "1.bias": (classes,),
    }
    return {rate: random_tensors(table, classes, seed) for seed, rate in enumerate(RATES, 10)}


def linear_probe_file(tensors, size):
    heads = {}
    for rate, head in probe_heads(size.width).items():
        head = head | {"0.num_batches_tracked": torch.tensor(9)}
        heads |= behind(f"module.classifiers_dict.classifier_lr_{rate}.", head)
    return {"args": ARGS, "epoch": 90, "model": tensors, "linear_classifiers": heads, "acc1": 80.4, "optimizer": {}}


def plain_head(width, seed=5):
    return random_tensors({"weight": (CLASSES_USED, width), "bias": (CLASSES_USED,)}, seed=seed)


@dataclass(frozen=True)
class Case:
    """One format at two sizes."""

    name: str
    module: object
    variant: Callable
    small: object
    full: object
    file: Callable = bare
    reference: Callable | None = None
    """(tensors, size) -> images -> logits, of a classifier."""
    head: Callable | None = field(default=None)
    """size -> the tensors of a head's file, of a backbone; ``with_head`` is the reference then."""
    with_head: Callable | None = None


def backbone(name, module, variant, file, small=TINY, full=B16):
    """A backbone whose head reads the class token."""

    def reference(tensors, size, head):
        tokens = vit(tensors, size)
        return lambda images: F.linear(tokens(images)[:, 0], head["weight"], head["bias"])

    return Case(name, module, variant, small, full, file, head=lambda size: plain_head(size.width), with_head=reference)


def dinos(registers, blocks, reads):
    return Case(
        f"dinov2 {registers} registers, {blocks} blocks, {reads} vectors",
        dinov2,
        lambda size: dinov2.variant(size, registers),
        TINY14,
        dinov2.SIZES[1],
        head=lambda size: plain_head(reads * size.width),
        with_head=lambda tensors, size, head: dino_head(tensors, size, head, blocks),
    )


def probed(tensors, size):
    tokens = vit(tensors, size)
    head = probe_heads(size.width)["0_0050"]
    return lambda images: normed_head(tokens(images)[:, 0], head)


CASES = [
    Case("synvit", synvit, synvit.variant, TINY, B16, bare, token_head),
    Case("mae fine-tuned", mae, mae.finetuned, TINY, B16, in_model, averaged_head),
    Case("mae fine-tuned token", mae, mae.finetuned_token, TINY, B16, in_model, token_head),
    Case("mae probe", mae, mae.probe, TINY, B16, in_model, mae_probe),
    backbone("mae pretrained", mae, mae.pretrained, mae_pretraining_file),
    Case("moco v3 probe", moco_v3, moco_v3.probe, TINY, B16, moco_probe_file, token_head),
    backbone("moco v3 pretrained", moco_v3, moco_v3.pretrained, moco_pretraining_file, full=moco_v3.SMALL),
    backbone("synclr", synclr, synclr.variant, synclr_file),
    backbone("stablerep", stablerep, stablerep.variant, stablerep_file),
    Case("linear probe", linear_probe, linear_probe.variant, TINY, B16, linear_probe_file, probed),
    dinos(0, 1, 2),
    dinos(0, 4, 5),
    dinos(4, 4, 5),
    dinos(4, 1, 2),
    dinos(4, 1, 1),
    Case("deit3", deit3, deit3.variant, TINY, B16, lambda t, _: {"model": t}, deit),
    Case(
        "swin",
        swin,
        swin.variant,
        swin.SwinSize("tiny", 24, (2, 2, 2), (2, 3, 4)),
        swin.SIZES[2],
        lambda t, _: {"model": t | {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}},
        torchvisions_swin,
    ),
    Case(
        "convnext",
        convnext,
        convnext.variant,
        convnext.ConvNextSize("tiny", (16, 24, 32, 40), (2, 1, 2, 1)),
        convnext.SIZES[2],
        lambda t, _: {"model": t},
        torchvisions_convnext,
    ),
    Case("resnet50", resnet50, lambda _: resnet50.FORMAT.variants[0], None, None, bare, torchvisions_resnet),
    Case("synresnet50", synresnet50, lambda _: synresnet50.FORMAT.variants[0], None, None, bare, torchvisions_resnet),
]
CLIPS = [
    Case(
        "synclip",
        synclip,
        lambda sizes: synclip.variant(*sizes),
        (TINY, SMALL_TEXT),
        (B16, TextSize()),
        bare,
        clip_whole,
    ),
    Case(
        "synthclip",
        synthclip,
        lambda sizes: synthclip.variant(*sizes),
        (TINY, SMALL_TEXT),
        (B16, TextSize()),
        synthclip_file,
        synth_clip,
    ),
]
