"""What ``--model`` may name, what is refused in one line, and what is said of what is read."""

import argparse
import json
import random
import shutil
import zipfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
from PIL import Image
from published import ARGS, CASES, CLIPS, TINY, behind, linear_probe_file, plain_head, random_tensors
from safetensors.torch import save_file
from test_clip import export
from timm.data import create_transform, resolve_data_config
from torch import nn

from synclones.base.errors import InputError, MachineError
from synclones.base.files import sha256_bytes, sha256_file
from synclones.base.json_file import canonical_json
from synclones.evaluate.run import main
from synclones.models import checkpoint_format, network
from synclones.models.checkpoint import read_checkpoint
from synclones.models.checkpoint_format import CLASSES, CheckpointFormat, expanded, formats, recognise
from synclones.models.formats import linear_probe, mae, moco_v3, synclr, synvit
from synclones.models.heads import is_head, read_head
from synclones.models.imagenet import imagenet_ids, imagenet_texts
from synclones.models.named import timm_preprocessing
from synclones.models.open_model import open_models
from synclones.models.zero_shot import ZeroShotTexts

VARIANTS = [(name, variant) for name, form in formats().items() for variant in form.variants]


@pytest.fixture
def tiny(monkeypatch):
    """Every format of a vision transformer knows one more size, small enough to be built in a moment."""
    known = dict(formats())
    for name, module, makers in (
        ("synvit", synvit, [synvit.variant]),
        ("synclr", synclr, [synclr.variant]),
        ("mae", mae, [mae.pretrained, mae.probe, mae.finetuned_token]),
        ("moco_v3", moco_v3, [moco_v3.pretrained, moco_v3.probe]),
        ("linear_probe", linear_probe, [linear_probe.variant]),
    ):
        facts = {field: getattr(module.FORMAT, field) for field in ("title", "source", "preprocessing")}
        known[name] = CheckpointFormat(**facts, variants=tuple(make(TINY) for make in makers))
    monkeypatch.setattr(checkpoint_format, "formats", lambda: known)


def weights(variant, classes=1000):
    return random_tensors(variant.table, classes)


def saved(folder, value, name="weights.pth"):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
    return path


def refused(given, *says):
    with pytest.raises(InputError) as raised:
        open_models(given)
    text = str(raised.value)
    assert "\n" not in text and all(words in text for words in says), text


# ------------------------------------------------------------------ tables


def hollow(table, classes=1000):
    """Tensors of these shapes that take no room, in memory or in a file."""
    return {
        name: torch.zeros(()).expand([classes if side == CLASSES else side for side in shape])
        for name, shape in expanded(table).items()
    }


def shapes(model):
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def test_tables_are_those_of_the_published_architectures():
    with torch.device("meta"):
        published = {
            ("synvit", 0): timm.create_model("vit_base_patch16_224"),
            ("resnet50", 0): torchvision.models.resnet50(),
            ("synclip", 0): open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu")),
            ("moco_v3", 3): timm.create_model("vit_base_patch16_224"),
        }
    for (name, number), model in published.items():
        table = expanded(formats()[name].variants[number].table)
        ours = {row: tuple(1000 if side == CLASSES else side for side in shape) for row, shape in table.items()}
        assert ours == shapes(model), name


@pytest.mark.parametrize(
    ("name", "rows", "facts"),
    [
        ("synvit", 152, {"blocks.11.attn.qkv.weight": (2304, 768), "pos_embed": (1, 197, 768)}),
        ("synresnet50", 266, {"fc.weight": (CLASSES, 2048), "layer4.2.conv3.weight": (2048, 512, 1, 1)}),
        ("synclip", 302, {"visual.proj": (768, 512), "token_embedding.weight": (49408, 512)}),
        ("synthclip", 301, {"image_projection": (768, 512), "visual.blocks.0.mlp.fc1.weight": (3072, 768)}),
        ("dinov2", 175, {"pos_embed": (1, 1370, 384), "mask_token": (1, 384)}),
        ("deit3", 176, {"pos_embed": (1, 196, 384), "blocks.0.gamma_1": (384,)}),
        ("swin", 173, {"layers.0.blocks.0.attn.relative_position_bias_table": (169, 3)}),
        ("convnext", 182, {"stages.3.2.gamma": (768,), "downsample_layers.1.1.weight": (192, 96, 2, 2)}),
        ("mae", 150, {"norm.weight": (768,)}),
    ],
)
def test_tables_hold_the_facts_of_the_reference(name, rows, facts):
    table = expanded(formats()[name].variants[0].table)
    assert len(table) == rows and {row: table[row] for row in facts} == facts


@pytest.mark.parametrize("case", [*CASES, *CLIPS], ids=lambda case: case.name)
def test_a_published_file_is_recognised_by_its_format_alone(case, tmp_path):
    """At its full size, as its authors write it."""
    variant = case.variant(case.full)
    path = saved(tmp_path, case.file(hollow(variant.table), case.full))
    match = recognise(read_checkpoint(path))
    assert (match.name, match.variant.name) == (case.module.__name__.rpartition(".")[2], variant.name)
    assert set(match.tensors) == set(expanded(variant.table))


def test_every_format_has_a_case_and_says_who_published_it():
    assert {case.module.FORMAT.title for case in [*CASES, *CLIPS]} == {form.title for form in formats().values()}
    assert all("/" in form.source for form in formats().values())


# ------------------------------------------------------------------ preprocessing


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("synvit", ("bilinear", 256, "half")),
        ("synresnet50", ("bicubic", 224, "imagenet")),
        ("resnet50", ("bilinear", 256, "imagenet")),
        ("swin", ("bicubic", 256, "imagenet")),
        ("convnext", ("bicubic", 256, "imagenet")),
        ("deit3", ("bicubic", 224, "imagenet")),
        ("mae", ("bicubic", 256, "imagenet")),
        ("moco_v3", ("bilinear", 256, "imagenet")),
        ("dinov2", ("bicubic", 256, "imagenet")),
        ("synclr", ("bilinear", 256, "imagenet")),
        ("stablerep", ("bilinear", 256, "imagenet")),
        ("linear_probe", ("bilinear", 256, "imagenet")),
        ("synclip", ("bicubic", 224, "clip")),
        ("synthclip", ("bilinear", 224, "imagenet")),
    ],
)
def test_images_are_prepared_as_the_authors_evaluate(name, expected):
    interpolation, resized, pixels = expected
    words = network.described(formats()[name].preprocessing)
    assert words == f"{interpolation} {resized}, crop 224 x 224, pixels {pixels}"


@pytest.mark.parametrize(
    "name",
    [
        "resnet50.a1_in1k",
        "vit_base_patch16_224.augreg_in1k",
        "swin_base_patch4_window7_224.ms_in1k",
        "convnext_base.fb_in22k_ft_in1k",
        "deit3_large_patch16_224.fb_in1k",
    ],
)
@pytest.mark.parametrize("size", [(301, 477), (640, 333)])
def test_images_for_names_of_timm_are_prepared_as_timm_does(name, size):
    config = timm.get_pretrained_cfg(name).to_dict()
    transform = create_transform(**resolve_data_config({}, pretrained_cfg=config))
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    theirs = transform(Image.fromarray(pixels))
    prepared = timm_preprocessing(config, name)
    ours = torch.from_numpy(prepared.fit(pixels)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (prepared.mean, prepared.std))
    assert torch.allclose((ours - mean) / std, theirs, atol=1e-6)


def test_timms_other_ways_to_crop_are_refused():
    config = timm.get_pretrained_cfg("resnet50.a1_in1k").to_dict() | {"crop_mode": "squash"}
    with pytest.raises(InputError, match="crop mode 'squash'"):
        timm_preprocessing(config, "x")


# ------------------------------------------------------------------ what is refused


class Runs:
    """An object whose pickle calls a function."""

    def __reduce__(self):
        return (print, ("it ran",))


def test_a_checkpoint_that_would_run_code_is_refused_before_it_runs(tmp_path, capsys):
    refused(saved(tmp_path, {"model": {"a": torch.zeros(1)}, "extra": Runs()}), "print", "code is never loaded")
    refused(saved(tmp_path, nn.Linear(2, 2)), "Linear", "state_dict()")
    assert "it ran" not in capsys.readouterr().out


def test_arguments_of_a_trainer_are_passed_over(tiny, tmp_path):
    value = {"model": weights(mae.probe(TINY)), "args": argparse.Namespace(lr=1, nested=argparse.Namespace(a=[1]))}
    (model,) = open_models(saved(tmp_path, value))
    assert "args (entry)" in model.notes[0]
    value["args"].bad = Runs()
    refused(saved(tmp_path, value), "print")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_refused(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    refused(path, "TorchScript", "open_clip:ViT-B-16-quickgelu/openai")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a file of weights"),
        (b"PK\x03\x04 and no more", "not a file of weights"),
        (b"\x80\x02", "not a file of weights"),
        (b"<!DOCTYPE html>", "not a file of weights"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, data, says):
    (tmp_path / "a.pth").write_bytes(data)
    refused(tmp_path / "a.pth", says)


def test_a_file_that_grows_is_refused_before_it_does(tmp_path):
    path, packed = saved(tmp_path, {"a": torch.zeros(2**20)}), tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert packed.stat().st_size < 2**16
    refused(packed, "grows from", "as nothing does that torch writes")


def test_tensors_of_which_the_file_stores_a_part_are_refused(tiny, tmp_path):
    refused(saved(tmp_path, hollow(synvit.variant(TINY).table, 10**9)), "of which the file stores a part")
    path = saved(tmp_path, {"model": behind("visual.", weights(synclr.variant(TINY)))})
    head = saved(tmp_path, {"weight": torch.zeros(1).expand(10**9, 48)}, "head.pth")
    refused(f"{path}+{head}", "weight is [1000000000, 48]")


@pytest.mark.parametrize("old", [False, True])
def test_harmed_files_end_in_a_value_or_one_of_our_errors(tmp_path, old):
    value = {
        "model": {"module.weight": torch.ones(2, 3), "module.bias": torch.ones(2).half()},
        "args": ARGS,
        "epoch": 3,
    }
    torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    whole, draw, ends = (tmp_path / "a.pth").read_bytes(), random.Random(0), Counter()
    for _ in range(150):
        harmed = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            harmed[draw.randrange(len(harmed))] = draw.randrange(256)
        (tmp_path / "a.pth").write_bytes(harmed[: draw.choice([len(harmed), draw.randrange(len(harmed))])])
        try:
            checkpoint = read_checkpoint(tmp_path / "a.pth")
            ends["head" if is_head(checkpoint) else "value"] += 1
            read_head(checkpoint)
        except (InputError, MachineError) as error:
            ends["refused"] += 1
            assert len(str(error)) < 2000
    assert ends["refused"] > 60 and ends["head"], ends


@pytest.mark.parametrize("old", [False, True])
def test_names_of_any_length_stay_short(tmp_path, old):
    value = {"model": {"x" * 10**6: torch.zeros(1), "line\nbreak": torch.zeros(1)}}
    torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError) as raised:
        open_models(tmp_path / "a.pth")
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({"epoch": 3, "args": ARGS}, "holds no tensors by name, but epoch, args"),
        ({1: torch.zeros(1)}, "expected tensors by name"),
        ({"model": {"nobody": torch.zeros(1)}}, "fits no known format"),
    ],
)
def test_what_holds_no_known_weights_is_refused(tmp_path, value, says):
    refused(saved(tmp_path, value), says)


def changed(tensors, **changes):
    return {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"norm.weight": None}, "without norm.weight"),
        ({"blocks.1.ls1.gamma": torch.ones(48)}, "with unknown blocks.1.ls1.gamma"),
        ({"pos_embed": torch.zeros(1, 50, 48)}, "pos_embed (1, 50, 48) instead of (1, 197, 48)"),
        ({"head.weight": torch.zeros(7, 48)}, "heads of 7 and 1000 classes"),
        ({"head.weight": torch.zeros(0, 48), "head.bias": torch.zeros(0)}, "head.weight (0, 48)"),
        ({"norm.bias": torch.zeros(48, dtype=torch.complex64)}, "norm.bias as torch.complex64"),
    ],
)
def test_a_silent_mismatch_is_refused_by_name_and_shape(tiny, tmp_path, change, says):
    refused(saved(tmp_path, changed(weights(synvit.variant(TINY)), **change)), "nearest is synvit (tiny)", says)


def test_many_faults_are_counted(tiny, tmp_path):
    tensors = weights(synvit.variant(TINY))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("blocks.1.")}
    refused(saved(tmp_path, kept), "without blocks.1.norm1.weight", "and 8 more")


def test_16_bit_weights_are_taken_as_32_bit_ones(tiny, tmp_path):
    tensors = {name: tensor.half() for name, tensor in weights(synvit.variant(TINY)).items()}
    (model,) = open_models(saved(tmp_path, tensors))
    assert {tensor.dtype for tensor in model.classifier.network.state_dict().values()} == {torch.float32}


def test_what_two_formats_fit_is_asked_for(tiny, tmp_path):
    """The entry tells MAE's fine-tuned from SynViT-B; a file that says neither way goes by what is asked."""
    tensors = weights(synvit.variant(TINY))
    wrapped = saved(tmp_path, {"teacher": tensors})
    refused(wrapped, "has the names and shapes of mae and synvit, but its weights in 'teacher'", "say so: mae:")
    (model,) = open_models(f"synvit:{wrapped}")
    assert model.format == "SynViT-B, tiny" and model.classifier.preprocessing.mean == (0.5, 0.5, 0.5)
    (other,) = open_models(f"mae:{wrapped}")
    assert other.format == "MAE, tiny fine-tuned on the class token"
    assert other.classifier.preprocessing != model.classifier.preprocessing and other.sha256 == model.sha256


def test_two_formats_at_once_are_refused(tiny, monkeypatch, tmp_path):
    both = checkpoint_format.formats()
    monkeypatch.setattr(checkpoint_format, "formats", lambda: both | {"another": both["synvit"]})
    refused(saved(tmp_path, weights(synvit.variant(TINY))), "could be another or synvit", "say which: another:")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nowhere.pth", "no such model folder, and no file"),
        ("tim:resnet50", "timm:NAME"),
        ("timm:resnet51", "did you mean"),
        ("timm:resnet50.nope", "--model: timm has no weights 'resnet50.nope'"),
        ("open_clip:ViT-B-16/nope", "--model: open_clip has no weights"),
        ("hub:owner", "hub:OWNER/NAME"),
        ("hub:owner/name/../secret.pt", "hub:OWNER/NAME"),
        ("hub:/name", "hub:OWNER/NAME"),
        ("timm:resnet50+head.pth", "takes classes alone after the +, got head.pth"),
        ("timm:resnet50+a.csv+b.csv", "give one classes"),
        ("timm:resnet50+", "after the +"),
    ],
)
def test_what_names_no_model_is_refused(given, says):
    refused(given, says)


# ------------------------------------------------------------------ heads and classes


def test_a_backbone_without_its_head_is_refused_with_what_to_do(tiny, tmp_path):
    path = saved(tmp_path, {"model": behind("visual.", weights(synclr.variant(TINY)))})
    refused(path, "SynCLR, tiny is a backbone", f"{path}+HEAD")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (lambda: plain_head(50), "the head reads 50 numbers, SynCLR, tiny gives 48"),
        (lambda: plain_head(48) | {"bias": torch.zeros(3)}, "bias does not fit"),
        (lambda: {"weight": torch.zeros(48)}, "weight does not fit"),
        (lambda: {"1.weight": torch.zeros(9, 48), "0.running_mean": torch.zeros(48)}, "its normalisation"),
        (lambda: {"conv.weight": torch.zeros(9, 48)}, "no linear head (weight, bias), but conv.weight"),
        (lambda: plain_head(48) | {"more": torch.zeros(1)}, "no linear head"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(tiny, tmp_path, head, says):
    path = saved(tmp_path, {"model": behind("visual.", weights(synclr.variant(TINY)))})
    refused(f"{path}+{saved(tmp_path, head(), 'head.pth')}", says)


def test_a_head_alone_is_refused(tmp_path):
    refused(saved(tmp_path, plain_head(48)), "a linear head alone", "BACKBONE+")


def test_a_head_counts_for_the_identity(tiny, tmp_path):
    path = saved(tmp_path, {"model": behind("visual.", weights(synclr.variant(TINY)))})
    first, second = (saved(tmp_path, plain_head(48, seed), f"{seed}.pth") for seed in (1, 2))
    (one,), (two,) = open_models(f"{path}+{first}"), open_models(f"{path}+{second}")
    assert one.sha256 == sha256_bytes(canonical_json([sha256_file(path), sha256_file(first)])) != two.sha256
    assert one.name == f"{tmp_path.name}/weights+{tmp_path.name}/1" and one.source == f"{path}+{first}"


def test_a_path_with_a_plus_of_its_own_is_one(tiny, tmp_path):
    path = saved(tmp_path / "a+b", weights(synvit.variant(TINY)), "x+y.pth")
    assert open_models(path)[0].sha256 == sha256_file(path)
    assert open_models(f"{path}+{_classes(tmp_path, 1000)}")[0].classifier.class_ids[0] == "c0"


def _classes(folder, number):
    path = Path(folder) / "classes.csv"
    path.write_text("class_id,name\n" + "".join(f"c{i},class {i}\n" for i in range(number)))
    return path


def test_other_numbers_of_classes_need_their_list(tiny, tmp_path):
    path = saved(tmp_path, weights(synvit.variant(TINY), 10))
    refused(path, "has 10 outputs and does not say for which classes", "+CLASSES.csv")
    refused(f"{path}+{_classes(tmp_path, 9)}", "has 9 classes")
    assert open_models(f"{path}+{_classes(tmp_path, 10)}")[0].classifier.class_ids == tuple(f"c{i}" for i in range(10))


def test_the_benchmarks_head_is_taken_of_ten_and_another_by_name(tiny, tmp_path):
    tensors = weights(synclr.variant(TINY))
    path, pixels = saved(tmp_path, linear_probe_file(tensors, TINY)), torch.rand(1, 3, 224, 224)
    models = {name: open_models(f"{path}{name}")[0] for name in ("", "+classifier_lr_0_0050", "+classifier_lr_0_5000")}
    logits = {name: model.classifier(pixels) for name, model in models.items()}
    assert torch.equal(logits[""], logits["+classifier_lr_0_0050"])
    assert not torch.allclose(logits[""], logits["+classifier_lr_0_5000"])
    assert len({model.sha256 for model in models.values()}) == 2
    refused(f"{path}+classifier_lr_9_0000", "has no head 'classifier_lr_9_0000'", "classifier_lr_0_0010")


def test_what_is_left_out_is_listed(tiny, tmp_path):
    encoder = weights(moco_v3.pretrained(TINY))
    both = behind("base_encoder.", encoder | {"head.0.weight": torch.zeros(2, 48)}) | behind(
        "momentum_encoder.", encoder
    )
    value = {"epoch": 3, "state_dict": behind("module.", both | {"predictor.0.weight": torch.zeros(2, 2)})}
    path, head = saved(tmp_path, value), saved(tmp_path, plain_head(48), "head.pth")
    (note,) = open_models(f"{path}+{head}")[0].notes
    assert note.startswith(f"{path}: read as MoCo v3, tiny pretrained of facebookresearch/moco-v3")
    assert note.endswith(
        f"left out: base_encoder (1 tensor), momentum_encoder ({len(encoder)} tensors), predictor (1 tensor), "
        "epoch (entry)"
    )


def test_the_classes_are_imagenets_and_those_of_the_class_list():
    """Whatever library they are taken from."""
    rows = (Path(__file__).parent.parent / "prompts" / "classes" / "imagenet1k.csv").read_text().splitlines()[1:]
    assert imagenet_ids() == tuple(row.partition(",")[0] for row in rows) == tuple(sorted(imagenet_ids()))
    texts = imagenet_texts()
    assert sha256_bytes("\n".join(texts.class_names).encode())[:16] == "571ae1c583b4be7d"
    assert (len(texts.templates), imagenet_ids(21_843)[0], imagenet_ids(17)) == (80, "n00004475", None)


# ------------------------------------------------------------------ folders


def released_tree(folder):
    """The tree in which visinf/benchmarking-synthetic-clones publishes weights, with small networks."""
    vit, trunk = weights(synvit.variant(TINY)), weights(mae.pretrained(TINY))
    for prompt in ("classname", "captions"):
        for size in ("1M", "4M"):
            seed = len(prompt) + int(size[0])
            tensors = random_tensors(synvit.variant(TINY).table, 1000, seed)
            saved(folder / "scaling" / "supervised" / prompt, tensors, f"{size}.pt")
    saved(folder / "mae", {"model": weights(mae.probe(TINY))}, "mae_lp_e90.pth")
    saved(folder / "mae", {"model": trunk}, "mae_pretrain_vit_base.pth")
    saved(folder / "mocov3", {"state_dict": behind("module.", vit), "arch": "vit_base"}, "mocov3_linear.tar")
    pretrained = {"state_dict": behind("module.base_encoder.", trunk), "arch": "vit_base"}
    saved(folder / "mocov3", pretrained, "vit-b-300ep.pth.tar")
    saved(folder / "synclr", linear_probe_file(trunk, TINY), "linear_best.pt")
    saved(folder / "synclr", {"model": behind("visual.", trunk)}, "synclr_vit_b_16.pt")
    (folder / "mae" / "readme.txt").write_text("not weights")
    return folder


def test_the_released_tree_is_taken_as_it_is(tiny, tmp_path):
    models = open_models(released_tree(tmp_path / "Pretrained_Models"))
    names = [model.name for model in models]
    assert sorted(names) == [
        *("captions/1M", "captions/4M", "classname/1M", "classname/4M"),
        *("mae/mae_lp_e90", "mocov3/mocov3_linear", "synclr/linear_best"),
    ]
    passed = [note for model in models for note in model.notes if "passed over" in note]
    assert len(passed) == 3 and any("vit-b-300ep.pth.tar: MoCo v3" in note for note in passed)
    assert {model.format.split(",")[0] for model in models} == {"SynViT-B", "MAE", "MoCo v3", "linear probe"}
    (one,) = open_models(tmp_path / "Pretrained_Models" / "mocov3")
    assert one.name == "mocov3/mocov3_linear"


def test_a_folder_of_a_backbone_and_its_head_is_one_model(tiny, tmp_path):
    path = saved(tmp_path / "x", {"model": behind("visual.", weights(synclr.variant(TINY)))}, "backbone.pth")
    refused(tmp_path / "x", "is a backbone")
    head = saved(tmp_path / "x", plain_head(48), "head.pth")
    (model,) = open_models(tmp_path / "x")
    assert model.sha256 == open_models(f"{path}+{head}")[0].sha256
    saved(tmp_path / "x", plain_head(48, 2), "other.pth")
    refused(tmp_path / "x", "holds 1 backbones and 2 heads", "BACKBONE+HEAD")


def test_a_folder_with_a_file_of_no_format_is_refused(tiny, tmp_path):
    saved(tmp_path, weights(synvit.variant(TINY)), "a.pt")
    saved(tmp_path, {"optimizer": {"step": torch.zeros(1)}, "what": torch.zeros(1)}, "b.pt")
    refused(tmp_path, "b.pt: fits no known format")


# ------------------------------------------------------------------ names of the libraries


@pytest.fixture
def timms(monkeypatch, tmp_path):
    """A cache of the hub with a model of timm."""
    torch.manual_seed(3)
    model = timm.create_model("test_vit")
    save_file(model.state_dict(), tmp_path / "blob")
    (tmp_path / "model.safetensors").symlink_to("blob")
    monkeypatch.setattr("synclones.models.named.find_folder", lambda *given: (tmp_path, ""))
    return model.eval()


def test_a_name_of_timm_is_timms_network(timms, tmp_path):
    (model,) = open_models("timm:test_vit.r160_in1k")
    pixels = torch.rand(2, 3, 160, 160)
    with torch.inference_mode():
        assert torch.allclose(model.classifier(pixels), timms((pixels - 0.5) / 0.5), atol=1e-5)
    assert model.sha256 == sha256_file(tmp_path / "blob") and model.folder is None
    assert model.classifier.class_ids == imagenet_ids() and model.name == model.source
    assert network.described(model.classifier.preprocessing) == "bicubic 168, crop 160 x 160, pixels half"


def test_a_file_that_is_not_timms_is_refused(timms, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "blob")
    refused("timm:test_vit.r160_in1k", "not its weights")


def test_a_backbone_of_timm_is_refused(timms, monkeypatch):
    backbone = timm.create_model("test_vit", num_classes=0)
    monkeypatch.setattr("synclones.models.open_model.timm_network", lambda *given: backbone)
    refused("timm:test_vit.r160_in1k", "a backbone, which tells no classes apart")


def test_without_network_and_cache_a_name_is_the_machines_failure(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("timm:resnet50.a1_in1k", "open_clip:ViT-B-16/openai", "hub:nobody/nothing", "hub:nobody/nothing/a.pt"):
        with pytest.raises(MachineError, match="--model .*cannot be reached and the model is not in its cache"):
            open_models(name)


@pytest.fixture
def clip_folder(monkeypatch, tmp_path):
    folder = export(tmp_path / "hub")
    (folder / "zero_shot.json").unlink(missing_ok=True)
    for module in ("named", "open_model"):
        monkeypatch.setattr(f"synclones.models.{module}.find_folder", lambda *given: (folder, "abc"))
    return folder


def _few(monkeypatch):
    texts = ZeroShotTexts(("a", "b"), ("cat", "sea"), ("a {}",))
    monkeypatch.setattr("synclones.models.open_model.imagenet_texts", lambda: texts)
    return texts


def test_a_name_of_open_clip_is_its_model_with_the_activation_of_the_tag(clip_folder, monkeypatch):
    texts = _few(monkeypatch)
    (plain,), (quick,) = open_models("open_clip:ViT-B-16/laion2b_s34b_b88k"), open_models("open_clip:ViT-B-16/openai")
    own = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")[0].eval()
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = plain.classifier.mean, plain.classifier.std
    head = open_clip.build_zero_shot_classifier(
        own, open_clip.get_tokenizer(f"local-dir:{clip_folder}"), texts.class_names, texts.templates
    )
    with torch.inference_mode():
        expected = own.logit_scale.exp() * own.encode_image((pixels - mean) / std, normalize=True) @ head
        assert torch.allclose(plain.classifier(pixels), expected, atol=1e-5)
        assert not torch.allclose(quick.classifier(pixels), expected, atol=1e-4)
    assert plain.sha256 != quick.sha256


def test_texts_may_be_given_for_any_image_text_model(clip_folder, tmp_path):
    texts = ZeroShotTexts(("x", "y", "z"), ("one", "two", "three"), ("{}",))
    (tmp_path / "own.json").write_bytes(canonical_json(asdict(texts)))
    for given in ("open_clip:ViT-B-16/openai", "hub:owner/name", str(clip_folder)):
        (model,) = open_models(f"{given}+{tmp_path / 'own.json'}")
        assert model.classifier.class_ids == ("x", "y", "z")
        assert model.classifier(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_a_folder_of_open_clip_names_its_classes_as_before(clip_folder):
    refused(clip_folder, "without zero_shot.json")


def test_a_repository_of_timms_layout_is_imagenets_where_it_names_no_classes(monkeypatch, tmp_path):
    from timm.models import save_for_hf

    model = timm.create_model("test_vit").eval()
    save_for_hf(model, tmp_path / "x", safe_serialization=True)
    asked = []
    monkeypatch.setattr(
        "synclones.models.open_model.find_folder", lambda *given: asked.append(given) or (tmp_path / "x", "")
    )
    (opened,) = open_models("hub:timm/test_vit@abc")
    assert asked[0][:2] == ("timm/test_vit", "abc") and opened.classifier.class_ids == imagenet_ids()
    assert opened.sha256 == sha256_file(tmp_path / "x" / "model.safetensors")
    assert network.described(opened.classifier.preprocessing) == "bicubic 168, crop 160 x 160, pixels half"


def test_a_file_of_a_repository_is_a_checkpoint(tiny, monkeypatch, tmp_path):
    path = saved(tmp_path / "a", weights(synvit.variant(TINY)), "b.pt")
    monkeypatch.setattr("synclones.models.open_model.find_folder", lambda *given: (tmp_path, ""))
    (model,) = open_models("hub:owner/name/a/b.pt")
    assert (model.sha256, model.source) == (sha256_file(path), "hub:owner/name/a/b.pt")


# ------------------------------------------------------------------ the command


def test_the_command_evaluates_a_checkpoint_and_shows_how_it_reads_it(tiny, dataset, tmp_path, capsys):
    from synclones.evaluate.predict import TestSet

    path = saved(tmp_path / "clones", weights(synvit.variant(TINY), 10), "1M.pt")
    ids = TestSet(dataset).class_ids
    rows = "class_id,name\n" + "".join(f"{name},{name}\n" for name in ids)
    (tmp_path / "digits.csv").write_text(rows)
    flags = ["--model", f"{path}+{tmp_path / 'digits.csv'}", "--data", str(dataset), "--out", str(tmp_path / "out")]
    main([*flags, "--dry-run"])
    out, err = capsys.readouterr()
    line = f"model      clones/1M, weights {sha256_file(path)[:16]}, SynViT-B, tiny, bilinear 256, crop 224 x 224, "
    assert line + "pixels half" in out and "read as SynViT-B, tiny of google-research/syn-rep-learn" in err
    main([*flags, "--epsilons-255", "1", "--torch-threads", "1", "--resamples", "100"])
    cells = [json.loads(row) for row in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {cell["weights_sha256"] for cell in cells} == {sha256_file(path)} and len(cells) == 4
    assert json.loads(cells[0]["preprocessing"])["mean"] == [0.5, 0.5, 0.5]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {"name": "model", "path": str(path), "content_hash": sha256_file(path)} in manifest["parents"]


def test_the_same_model_twice_is_refused(tiny, dataset, tmp_path):
    path = saved(tmp_path, weights(synvit.variant(TINY)))
    copy = shutil.copy(path, tmp_path / "copy.pth")
    for other, says in ((path, "appears twice"), (copy, "hold the same weights")):
        with pytest.raises(InputError, match=says):
            main(["--model", str(path), str(other), "--data", str(dataset), "--out", str(tmp_path / "out")])
