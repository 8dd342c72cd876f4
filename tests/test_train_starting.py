"""Starting weights, frozen parts and statistics: what is taken is what was stored, and what is frozen does not move."""

import json
import shutil
import sys

import numpy as np
import open_clip
import pytest
import timm
import torch
from conftest import ROOT, run_command
from safetensors.torch import load_file, save_file

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.files import sha256_file
from synclones.base.manifest import read_manifest
from synclones.models.clip import ClipSpec, build_clip
from synclones.models.folder import load_classifier
from synclones.models.load import load_model
from synclones.models.stored import read_stored
from synclones.models.zero_shot import HEAD
from synclones.shards.sources.labelled import LabelledSource
from synclones.train import launch, loop
from synclones.train.export.batch_norm import recompute
from synclones.train.job import prepare
from synclones.train.network.freezing import batch_norms
from synclones.train.network.parts import blocks_from_end, tensors_of
from synclones.train.progress import read_metrics
from synclones.train.run import main
from synclones.train.settings import TrainConfig

COMMON = {"image_size_px": 32, "batch_size": 12, "steps": 2, "log_every": 1, "torch_threads": 1, "device": "cpu"}
VIT = {"architecture": "vit_tiny_patch16_224", "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
RESNET = {"architecture": "resnet10t"}
TEXT = {"text_width": 16, "text_heads": 2, "text_layers": 2, "joint_dim": 8, "text_length": 12}
CLIP = {"objective": "clip", **VIT, "depth": 2, **TEXT}
CONTRAST = {"objective": "multipositive", "positives": "label", "projection_hidden": 16, "projection_dim": 8, **VIT}


def train(data, out, **settings):
    """Train by the command, and return the run's folder."""
    flags = []
    for name, value in {"data": data, "out": out, **COMMON, **settings}.items():
        values = value if isinstance(value, list) else [value]
        flags += ["--" + name.replace("_", "-"), *map(str, values)]
    main(flags)
    return out


def weights_of(run):
    return load_file(next((run / "export").glob("*model.safetensors")))


def job(data, out, **settings):
    return prepare(TrainConfig(data=(str(data),), out=out, **(COMMON | settings)), 0, 1)


def trainer(data, out, **settings):
    prepared = job(data, out, **settings)
    return loop.Trainer(prepared, launch.start_accelerator(prepared))


@pytest.fixture(scope="module")
def vit(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("vit") / "run", **VIT)


@pytest.fixture(scope="module")
def resnet(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("resnet") / "run", **RESNET, batch_size=6)


@pytest.fixture(scope="module")
def clip(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("clip") / "run", **CLIP)


@pytest.fixture(scope="module")
def names(tmp_path_factory, dataset):
    """Names of the classes, in another order than the data's."""
    path = tmp_path_factory.mktemp("names") / "names.csv"
    ids = LabelledSource(dataset).class_ids
    path.write_text("class_id,name\n" + "".join(f"{c},digit {c}\n" for c in reversed(ids)))
    return path


# ------------------------------------------------------------------ what is taken


def test_a_run_a_folder_and_a_file_give_the_same_first_weights(dataset, vit, tmp_path, capsys):
    stored = weights_of(vit)
    for number, weights in enumerate((vit, vit / "export", vit / "export" / "model.safetensors")):
        trained = trainer(dataset, tmp_path / str(number), weights=str(weights), **VIT)
        state = trained.learner.network.state_dict()
        same = {name for name in state if torch.equal(state[name], stored[name])}
        assert state.keys() - same == {"head.weight", "head.bias"}
        assert "fresh: head.bias, head.weight (2)" in trained.began


def test_a_kept_head_gives_the_same_logits(dataset, vit, tmp_path):
    trained = trainer(dataset, tmp_path / "x", weights=str(vit), head="kept", **VIT)
    pixels = torch.rand(3, 3, 32, 32)
    classifier, _ = load_classifier(vit)
    assert torch.equal(trained.learner.eval()(pixels), classifier(pixels)) and "nothing fresh" in trained.began


def test_a_bias_that_an_objective_holds_at_zero_stays_there(dataset, vit, tmp_path):
    assert weights_of(vit)["head.bias"].any()
    settings = {**VIT, "objective": "multicrop", "weights": str(vit), "head": "kept"}
    trained = trainer(dataset, tmp_path / "x", **settings)
    state = trained.learner.network.state_dict()
    assert not state["head.bias"].any() and torch.equal(state["head.weight"], weights_of(vit)["head.weight"])


def test_reinitialised_parts_begin_as_in_a_training_without_weights(dataset, vit, tmp_path):
    fresh = trainer(dataset, tmp_path / "x", **VIT).learner.network.state_dict()
    trained = trainer(
        dataset, tmp_path / "y", weights=str(vit), head="kept", reinitialise=("last:1", "pos_embed"), **VIT
    )
    stored = weights_of(vit)
    for name, tensor in trained.learner.network.state_dict().items():
        began_fresh = name.startswith(("blocks.2.", "norm.", "head.", "pos_embed"))
        assert torch.equal(tensor, (fresh if began_fresh else stored)[name]), name


def test_the_architecture_may_be_that_of_the_weights(dataset, vit, tmp_path):
    named = job(dataset, tmp_path / "x", weights=str(vit), architecture="weights")
    assert named.plan == job(dataset, tmp_path / "y", weights=str(vit), **VIT).plan
    with pytest.raises(InputError, match=r"--depth: the shape is that of --architecture weights"):
        job(dataset, tmp_path / "x", weights=str(vit), architecture="weights", depth=3)


def test_weights_go_into_backbones_and_out_of_them(dataset, vit, tmp_path):
    own = {**CONTRAST, "steps": 1}
    learner = trainer(dataset, tmp_path / "x", weights=str(vit), **own).learner
    stored = weights_of(vit)
    assert all(torch.equal(t, stored[name]) for name, t in learner.backbone.state_dict().items())
    run = train(dataset, tmp_path / "run", weights=vit, **own)  # leaves a backbone without a classifier
    again = trainer(dataset, tmp_path / "y", weights=str(run), **VIT).learner.network.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights_of(run).items())
    checkpoint = next((run / "checkpoints").iterdir()) / "model.safetensors"  # has the projection too
    began = trainer(dataset, tmp_path / "z", weights=str(checkpoint), **VIT)
    assert torch.equal(began.learner.network.state_dict()["norm.weight"], again["norm.weight"])
    assert "of other parts left" in began.began


def test_position_embeddings_of_another_grid_are_resampled_aloud_as_timm_does(dataset, vit, tmp_path):
    trained = trainer(dataset, tmp_path / "x", weights=str(vit), **VIT, **{"image_size_px": 48})
    shape = {name: VIT[name] for name in ("patch_size", "embed_dim", "depth", "num_heads")}
    timms = timm.create_model(VIT["architecture"], img_size=48, num_classes=10, **shape)
    kept = {name: tensor for name, tensor in weights_of(vit).items()}
    from timm.models.vision_transformer import checkpoint_filter_fn

    expected = checkpoint_filter_fn(kept, timms)["pos_embed"]
    assert torch.equal(trained.learner.network.state_dict()["pos_embed"], expected)
    assert "pos_embed resampled from 17 to 37 positions" in trained.began


def test_a_clip_goes_on_as_a_clip(dataset, clip, tmp_path):
    trained = trainer(dataset, tmp_path / "x", weights=str(clip), **CLIP)
    state = trained.learner.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights_of(clip).items())


def test_a_network_of_timm_goes_into_a_clips_tower_and_out_of_it(dataset, resnet, tmp_path):
    own = {"objective": "clip", **RESNET, **TEXT}
    into = trainer(dataset, tmp_path / "x", weights=str(resnet), **own)
    stored, trunk = weights_of(resnet), into.learner.network.visual.trunk.state_dict()
    assert trunk.keys() == {name for name in stored if not name.startswith("fc.")}
    assert all(torch.equal(tensor, stored[name]) for name, tensor in trunk.items())
    clip = weights_of(train(dataset, tmp_path / "clip", **own))
    out = trainer(dataset, tmp_path / "y", weights=str(tmp_path / "clip"), **RESNET).learner.network.state_dict()
    assert all(torch.equal(out[name], clip[f"visual.trunk.{name}"]) for name in trunk)


def test_pixels_of_other_statistics_are_mentioned(dataset, vit, tmp_path):
    folder = shutil.copytree(vit / "export", tmp_path / "folder")
    (folder / "README.md").unlink()
    value = json.loads((folder / "config.json").read_text())
    value["pretrained_cfg"]["mean"] = [0.5, 0.5, 0.5]
    (folder / "config.json").write_text(json.dumps(value))
    assert "their pixels had mean (0.5, 0.5, 0.5)" in trainer(dataset, tmp_path / "x", weights=str(folder), **VIT).began


# ------------------------------------------------------------------ names of the libraries


def test_weights_that_timm_names_are_timms(monkeypatch, tmp_path):
    """As the hub's cache keeps them: a name that leads to a file named by its hash."""
    torch.manual_seed(3)
    network = timm.create_model("vit_tiny_patch16_224")
    save_file(network.state_dict(), tmp_path / "blob")
    (tmp_path / "model.safetensors").symlink_to("blob")
    asked = []
    monkeypatch.setattr("synclones.models.named.find_folder", lambda *given: asked.append(given[0]) or (tmp_path, ""))
    stored = read_stored("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert asked == ["timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"] and stored.mean == (0.5, 0.5, 0.5)
    assert stored.architecture == "vit_tiny_patch16_224" and stored.sha256 == sha256_file(
        tmp_path / "model.safetensors"
    )
    common = [name for name in network.state_dict() if not name.startswith("head.")]
    assert all(torch.equal(stored.tensors[name], network.state_dict()[name]) for name in common)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("timm:vit_base_patch16_24", InputError, "did you mean 'vit_base_patch16_224'"),
        ("timm:vit_base_patch16_224.nope", InputError, "has no weights .* it has vit_base_patch16_224"),
        ("open_clip:ViT-B-16/nope", InputError, "has no weights"),
        ("open_clip:ViT-B-16", InputError, "MODEL/TAG"),
        ("timm:vit_base_patch16_224.augreg_in21k", MachineError, "cannot be reached and the model is not in its cache"),
        ("open_clip:ViT-B-16/laion2b_s34b_b88k", MachineError, "cannot be reached and the model is not in its cache"),
    ],
)
def test_names_that_cannot_be_had_are_one_line(monkeypatch, name, error, says):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(error, match=says) as raised:
        read_stored(name)
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------ what is frozen


def moved(before, run):
    return {name for name, tensor in weights_of(run).items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    ("given", "trained"),
    [
        (
            {"freeze": ["patch_embed", "blocks.0", "blocks.1.attn."]},
            ("cls_token", "pos_", "blocks.1.mlp", "blocks.1.norm"),
        ),
        ({"train_only": ["blocks.1.mlp", "head"]}, ("blocks.1.mlp", "head")),
        ({"train_only": ["last:1"]}, ("blocks.2.", "norm.", "head.")),
        ({"train_only": ["last:0"]}, ("head.",)),
        ({"train_only": ["last:2"], "freeze": ["blocks.2", "norm"]}, ("blocks.1.", "head.")),
    ],
)
def test_what_is_frozen_keeps_its_bytes_and_what_is_not_moves(dataset, vit, tmp_path, given, trained):
    run = train(dataset, tmp_path / "run", weights=vit, head="kept", **VIT, **given, weight_decay=0.1, ema_decay=0.5)
    after = ("blocks.2.", "norm.", "head.") if "train_only" not in given else ()
    expected = {name for name in weights_of(vit) if name.startswith((*trained, *after))}
    assert moved(weights_of(vit), run) == expected
    state = load_file(next((run / "checkpoints").glob("step-*")) / "optimizer.safetensors")
    assert {name.partition("/")[2] for name in state} == expected  # nothing is kept of what does not move


def test_the_last_blocks_of_a_resnet_are_its_last_residual_blocks(dataset, resnet, tmp_path):
    run = train(dataset, tmp_path / "run", weights=resnet, head="kept", **RESNET, train_only="last:1")
    before = weights_of(resnet)
    changed = moved(before, run)
    assert {name.partition(".")[0] for name in changed} == {"layer4", "fc"}
    assert changed == {name for name in before if name.startswith(("layer4.", "fc."))}  # statistics among them


@pytest.mark.parametrize(
    ("architecture", "blocks", "last"),
    [
        ("vit_base_patch16_clip_224", 12, {"blocks", "norm"}),
        ("resnet50", 16, {"layer4"}),
        ("convnext_atto", 12, {"stages"}),
        ("efficientnet_b0", 16, {"blocks", "conv_head", "bn2"}),
    ],
)
def test_blocks_are_counted_from_the_end(architecture, blocks, last):
    with torch.device("meta"):
        network = timm.create_model(architecture)
    numbers = blocks_from_end(network)
    assert max(numbers.values()) == blocks + 1  # the stem's, in which the norm before a CLIP's blocks is
    assert {name.partition(".")[0] for name, number in numbers.items() if number == 1} == last
    assert tensors_of(network, ["last:0"], "--x") == {name for name, number in numbers.items() if not number}


def test_the_towers_of_a_clip_end_together():
    with torch.device("meta"):
        model = build_clip(ClipSpec(model="ViT-B-32"))
    last = tensors_of(model, ["last:1"], "--x")
    blocks = {"transformer.resblocks.11", "visual.transformer.resblocks.11"}
    after = {"text_projection", "logit_scale", "visual.proj", "visual.ln_post", "ln_final"}
    assert all(any(name.startswith(part) for name in last) for part in blocks | after)
    assert all(name.startswith(tuple(blocks | after)) for name in last)


def test_frozen_modules_stay_in_evaluation_mode_whatever_puts_them_out_of_it(dataset, resnet, tmp_path):
    trained = trainer(dataset, tmp_path / "x", weights=str(resnet), train_only=("last:1",), **RESNET)
    network = trained.learner.network
    trained.model = trained.learner.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for batch in trained.job.loader().batches(0, 2):
        trained.learner.train()  # as an evaluation in between would end
        trained.train_step(batch)
        assert not network.bn1.training and not network.layer3.training and network.layer4.training
    after = network.state_dict()
    statistics = [name for name in after if "running" in name or "tracked" in name]
    changed = {name for name in statistics if not torch.equal(before[name], after[name])}
    assert changed == {name for name in statistics if name.startswith("layer4")}


@pytest.mark.parametrize("family", ["resnet", "clip"])
def test_a_stopped_training_with_frozen_parts_ends_with_the_same_weights(
    dataset, resnet, clip, names, tmp_path, monkeypatch, family
):
    own = {
        "resnet": {**RESNET, "weights": resnet, "train_only": "last:1", "batch_norm": "recomputed", "ema_decay": 0.5},
        "clip": {"architecture": "weights", "weights": clip, "head": "zero-shot", "zero_shot_classes": names},
    }[family]
    if family == "resnet":
        own["batch_norm_data"] = dataset
    own |= {"steps": 5, "checkpoint_every": 2, "freeze": {"resnet": "layer4.0.conv1", "clip": "visual.conv1"}[family]}
    whole = weights_of(train(dataset, tmp_path / "whole", **own))
    step = loop.Trainer.train_step

    def failing(self, batch):
        if self.step == 3:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(loop.Trainer, "train_step", failing)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "cut", **own)
    monkeypatch.setattr(loop.Trainer, "train_step", step)
    cut = weights_of(train(dataset, tmp_path / "cut", **own))
    assert all(torch.equal(cut[name], tensor) for name, tensor in whole.items())


# ------------------------------------------------------------------ statistics


def test_frozen_statistics_are_those_of_the_weights(dataset, resnet, tmp_path):
    run = train(dataset, tmp_path / "run", weights=resnet, **RESNET, batch_norm="frozen")
    before, after = weights_of(resnet), weights_of(run)
    assert all(torch.equal(before[name], after[name]) for name in after if "running" in name or "tracked" in name)
    assert not torch.equal(before["bn1.weight"], after["bn1.weight"])


def test_recomputed_statistics_are_those_of_all_images(dataset, resnet, tmp_path):
    run = train(dataset, tmp_path / "run", weights=resnet, **RESNET, batch_norm="recomputed", batch_norm_data=dataset)
    classifier, _ = load_classifier(run)
    # 60 images are one batch: the statistics of a layer are those of its input in training mode, all layers alike.
    images = np.stack([classifier.preprocessing.fit(LabelledSource(dataset).read(n).pixels) for n in range(60)])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    network, stored = classifier.network, {n: t.clone() for n, t in classifier.network.state_dict().items()}
    for norm in batch_norms(network).values():
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        network.train()((pixels - classifier.mean) / classifier.std)
    for name, tensor in network.state_dict().items():
        if "running" in name:
            assert torch.allclose(stored[name], tensor, rtol=1e-4, atol=1e-5), name
            assert not torch.allclose(tensor, weights_of(resnet)[name], rtol=1e-2), name
    parents = read_manifest(run)["parents"]
    assert [parent["name"] for parent in parents] == ["data", "weights"]  # the set is one, and stands there once


def test_statistics_of_batches_add_up_to_those_of_all():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3)
    network = torch.nn.Sequential(norm, torch.nn.Dropout(0.5)).train()
    images = torch.randn(10, 3, 4, 4) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1) + 5
    recompute(network, {"0": norm}, iter([images[:3], images[3:4], images[4:]]), 1)
    assert torch.allclose(norm.running_mean, images.mean((0, 2, 3)), rtol=1e-6)
    assert torch.allclose(norm.running_var, images.var((0, 2, 3)), rtol=1e-6)
    assert network.training and norm.momentum == 0.1 and norm.num_batches_tracked == 0


# ------------------------------------------------------------------ from zero-shot

LOADER = """
import sys, json, torch, open_clip
from safetensors.torch import load_file
model, _ = open_clip.create_model_from_pretrained(f"local-dir:{sys.argv[1]}")
torch.manual_seed(0)
head = load_file(sys.argv[1] + "/zero_shot_head.safetensors")["weight"]
mean, std = (torch.tensor(json.loads(sys.argv[n])).view(1, 3, 1, 1) for n in (2, 3))
pixels = (torch.rand(4, 3, 32, 32) - mean) / std
with torch.no_grad():
    print(json.dumps((model.encode_image(pixels, normalize=True) @ head.T).tolist()))
"""


def zero_shot(clip, names, **more):
    return {"weights": clip, "head": "zero-shot", "architecture": "weights", "zero_shot_classes": names, **more}


def test_a_zero_shot_head_begins_with_the_predictions_of_the_clip(dataset, clip, names, tmp_path):
    named = train(dataset, tmp_path / "clip", **CLIP, zero_shot_classes=names)
    flags = {name: str(value) for name, value in zero_shot(named, names).items()}
    learner = trainer(dataset, tmp_path / "x", **flags).learner.eval()
    classifier, _ = load_model(named)  # in the order of the file, the reverse of the data's
    pixels = torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        ours, theirs = learner(pixels), classifier(pixels)
    order = [classifier.class_ids.index(class_id) for class_id in learner.class_ids]
    assert order == list(reversed(range(10)))
    assert torch.allclose(ours, theirs[:, order], atol=1e-5) and ours.std() > 0.01


def test_a_classifier_from_zero_shot_is_loaded_by_us_and_by_plain_open_clip(dataset, clip, names, tmp_path):
    run = train(dataset, tmp_path / "run", **zero_shot(clip, names, steps=4, learning_rate=0.01))
    before, after = weights_of(clip), weights_of(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("visual.")}
    classifier, digest = load_model(run)
    assert classifier.class_ids == LabelledSource(dataset).class_ids
    numbers = [json.dumps(x) for x in (classifier.preprocessing.mean, classifier.preprocessing.std)]
    done = run_command(sys.executable, "-c", LOADER, str(run / "export"), *numbers, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-2000:]
    torch.manual_seed(0)
    with torch.no_grad():
        ours = classifier(torch.rand(4, 3, 32, 32))
    assert torch.allclose(ours, torch.tensor(json.loads(done.stdout.splitlines()[-1])), atol=1e-4)
    assert read_metrics(run / "metrics.jsonl")[-1]["loss"] < read_metrics(run / "metrics.jsonl")[0]["loss"]
    # Another head is another model, none is a damaged one, and the run makes it again from its checkpoint.
    path = run / "export" / HEAD
    whole = path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(VerificationError, match="differs from the hash"):
        load_model(run)
    path.unlink()
    with pytest.raises(VerificationError, match=HEAD):
        load_model(run)
    train(dataset, run, **zero_shot(clip, names, steps=4, learning_rate=0.01))
    assert path.read_bytes() == whole and load_model(run)[1] == digest


# ------------------------------------------------------------------ whose weights


def test_plan_manifest_and_card_name_the_weights_by_hash(dataset, vit, resnet, tmp_path):
    run = train(dataset, tmp_path / "run", weights=vit, **VIT, train_only="last:1")
    digest = sha256_file(vit / "export" / "model.safetensors")
    assert json.loads((run / "plan.json").read_text())["weights"] == digest
    parent = read_manifest(run)["parents"][-1]
    assert parent == {"name": "weights", "path": str(vit), "content_hash": digest}
    assert read_manifest(vit)["content_hash"] == digest
    card = (run / "export" / "README.md").read_text()
    assert f"trained from the weights `run` (sha256 `{digest}`, head fresh), train_only `last:1`" in card
    assert "fresh weights" in (vit / "export" / "README.md").read_text()
    with pytest.raises(InputError, match="belongs to another training: weights"):
        train(dataset, run, weights=train(dataset, tmp_path / "other", **VIT, seed=1), **VIT, train_only="last:1")


def test_plans_of_trainings_from_fresh_weights_say_nothing_of_this(dataset, tmp_path):
    plan = job(dataset, tmp_path / "x", **VIT).plan
    assert not plan.keys() & {
        "weights",
        "head",
        "reinitialise",
        "freeze",
        "train_only",
        "batch_norm",
        "batch_norm_data",
    }


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"head": "kept"}, "--head kept: without --weights"),
        ({"reinitialise": ("head",)}, "--reinitialise head: without --weights"),
        ({"batch_norm": "frozen"}, "--batch-norm frozen: without --weights"),
        ({"architecture": "weights"}, "--architecture weights: without --weights"),
        ({"batch_norm": "recomputed"}, "one was given without the other"),
        ({"batch_norm_data": ("x",)}, "one was given without the other"),
        ({"weights": "x", "head": "zero-shot"}, "--architecture weights"),
        ({"weights": "x", "head": "kept", "head_bias": -1.0}, "--head-bias: the head is that of --head kept"),
        ({"weights": "nowhere"}, "--weights: nowhere: no such model folder"),
        ({"freeze": ("block.0",)}, r"--freeze: 'block.0' begins no name of the network; did you mean blocks"),
        ({"train_only": ("last:4",)}, "--train-only last:4: the network has 3 blocks; give 0 to 3"),
        ({"freeze": ("last:3", "cls_token", "pos_embed", "patch_embed")}, "nothing is left to train"),
        ({"batch_norm": "recomputed", "batch_norm_data": ("DATA",)}, "the network has no batch normalisation"),
        ({"weights": "VIT", "depth": 2}, r"does not fit .*12 too many: blocks\.2\.attn\.proj\.bias \[24\], .*, \.\.\."),
        ({"weights": "VIT", "depth": 4}, r"12 missing: blocks\.3\.norm1\.weight \[24\]"),
        (
            {"weights": "VIT", "patch_size": 16},
            r"1 of another shape: patch_embed.proj.weight \[24, 3, 8, 8\] for \[24, 3, 16",
        ),
        ({"weights": "VIT", "num_heads": 4}, "is another network: num_heads 2, here 4"),
        (
            {"weights": "VIT", "architecture": "vit_small_patch16_224"},
            "architecture vit_tiny_patch16_224, here vit_small",
        ),
        ({"weights": "CLIP"}, "image tower is open_clip's own; give --architecture weights"),
        ({"weights": "VIT", "objective": "clip", **TEXT}, "the image tower here is open_clip's own"),
        ({"weights": "CLIP", **CLIP, "text_heads": 4}, "text_cfg.heads 2, here 4"),
        ({"weights": "CLIP", **CLIP, "objective": "siglip"}, r"1 missing: logit_bias \[\]"),
        ({"weights": "FILE", "head": "kept"}, "does not say its classes"),
        ({"weights": "OTHER", "head": "kept"}, "number 0 is 'x' and '0'"),
        ({"weights": "VIT", "head": "kept", **CONTRAST}, "has no classifier"),
        ({"weights": "HALF"}, "cut short or not safetensors"),
        ({"weights": "PICKLE"}, "read from .safetensors files alone"),
        ({"weights": "LONG"}, "head.weight is torch.float64, expected torch.float32|is torch.float64"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(dataset, vit, clip, tmp_path, settings, says):
    places = {"VIT": vit, "CLIP": clip, "DATA": dataset, "FILE": vit / "export" / "model.safetensors"}
    places |= {name: tmp_path / f"{name}.safetensors" for name in ("HALF", "LONG")} | {"PICKLE": tmp_path / "x.pth"}
    places["OTHER"] = shutil.copytree(vit / "export", tmp_path / "other")
    (places["OTHER"] / "README.md").unlink()
    config = json.loads((places["OTHER"] / "config.json").read_text())
    (places["OTHER"] / "config.json").write_text(json.dumps(config | {"label_names": list("xyzuvwabcd")}))
    places["HALF"].write_bytes((vit / "export" / "model.safetensors").read_bytes()[:-5])
    save_file({name: tensor.double() for name, tensor in weights_of(vit).items()}, places["LONG"])
    places["PICKLE"].write_bytes(b"\x80\x04.")
    given = {}
    for name, value in (VIT | settings).items():
        put = [str(places.get(text, text)) for text in value] if isinstance(value, tuple) else places.get(value, value)
        given[name] = tuple(put) if isinstance(put, list) else str(put) if name == "weights" else put
    with pytest.raises(InputError, match=says) as raised:
        job(dataset, tmp_path / "run", **given)
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"zero_shot_classes": ""}, "name the classes with --zero-shot-classes"),
        ({"zero_shot_classes": "FEW"}, r"names no class '1' of the data \(9 are missing\)"),
        ({"image_size_px": 64}, "--image-size-px: 64, .* reads 32; give that"),
        ({"crop_fraction": 0.875}, "crops nothing beyond the square"),
        ({"objective": "multicrop"}, "--head zero-shot: multicrop trains no such classifier"),
        ({"weights": "VIT"}, "is no image-text model of open_clip"),
        ({"reinitialise": ("visual.proj",)}, "the whole image tower is that of the weights"),
    ],
)
def test_a_zero_shot_head_that_cannot_be_is_refused(dataset, vit, clip, names, tmp_path, more, says):
    few = tmp_path / "few.csv"
    few.write_text("class_id,name\n0,zero\n")
    settings = {name: str(value) for name, value in zero_shot(clip, names).items()} | more
    settings |= {"weights": str(vit)} if more.get("weights") else {}
    settings |= {"zero_shot_classes": str(few)} if more.get("zero_shot_classes") else {}
    with pytest.raises(InputError, match=says):
        job(dataset, tmp_path / "run", **settings)


def test_weights_that_differ_from_what_their_run_states_are_damage(dataset, vit, tmp_path):
    copy = shutil.copytree(vit, tmp_path / "copy")
    path = copy / "export" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError, match="manifest.json says"):
        job(dataset, tmp_path / "run", weights=str(copy), **VIT)


# ------------------------------------------------------------------ recipes and processes


def test_the_recipes_say_what_their_papers_do(dataset, resnet, names, clip, tmp_path):
    network = {"architecture": "resnet10t", **COMMON, "batch_size": 60, "epochs": 0}
    run = train(dataset, tmp_path / "mtg", recipe="mtg-last-layers", weights=resnet, **network)
    assert {name.partition(".")[0] for name in moved(weights_of(resnet), run)} == {"layer3", "layer4", "fc"}
    own = {**COMMON, "epochs": 0, "weights": clip, "zero_shot_classes": names}
    run = train(dataset, tmp_path / "up", recipe="unmet-promise-finetune", **own)
    assert load_model(run)[0].class_ids == LabelledSource(dataset).class_ids
    with pytest.raises(InputError, match="--head kept: without --weights"):
        train(dataset, tmp_path / "x", recipe="mtg-last-layers", **network)


def test_two_processes_train_the_same_parts_as_one(dataset, names, tmp_path):
    """Frozen parameters, a head of texts, and statistics that both of them count, in a tower of timm."""
    clip = train(dataset, tmp_path / "clip", objective="clip", **RESNET, **TEXT)
    own = zero_shot(clip, names, train_only=["last:0"], optimizer="sgd", precision="fp32")
    own |= {"batch_norm": "recomputed", "batch_norm_data": f"{dataset},repeat=10"}
    one = weights_of(train(dataset, tmp_path / "one", **own))
    flags = []
    for name, value in {"data": dataset, "out": tmp_path / "two", **COMMON, **own}.items():
        flags += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, list) else [value])]
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = (*launch, str(ROOT / "train" / "run.py"), *flags)
    done = run_command(*command, cwd=tmp_path, ACCELERATE_USE_CPU="true", GLOO_SOCKET_IFNAME="lo")
    assert done.returncode == 0, done.stderr[-2000:]
    two = weights_of(tmp_path / "two")
    assert all(torch.allclose(two[name], tensor, rtol=1e-4, atol=1e-6) for name, tensor in one.items())
    changed = {name for name in one if not torch.equal(weights_of(clip)[name], one[name])}
    # In batch normalisation a process would see its own images alone: none is trained here, but all are counted anew.
    assert all(name.startswith("visual.head.") or "running" in name for name in changed)
    assert {"visual.head.proj.weight", "visual.trunk.bn1.running_mean"} <= changed


def test_a_probe_leaves_the_weights_that_it_began_from_and_learns_a_head(dataset, vit, tmp_path):
    probe = {"objective": "probe", "optimizer": "sgd", "weight_decay": 0, "clip_norm": 1e6, "learning_rate": 1}
    out = train(dataset, tmp_path / "probe", **VIT, **probe, weights=vit, hold_out=0.2, steps=4)
    before, after = weights_of(vit), weights_of(out)
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("quick", [False, True])
def test_a_clip_of_open_clips_own_tower_is_the_vision_transformer_of_timm(dataset, clip, tmp_path, quick):
    folder = shutil.copytree(clip / "export", tmp_path / "folder")
    (folder / "README.md").unlink()
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = quick
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tower = open_clip.create_model(f"local-dir:{folder}").visual.eval()
    ours = trainer(dataset, tmp_path / "x", weights=str(folder), architecture="weights").learner.network.eval()
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = ours.forward_head(ours.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(features @ tower.proj, tower(pixels), rtol=1e-5, atol=1e-5)


def test_a_probe_of_a_clip_is_exported_as_a_classifier_of_timm(dataset, clip, tmp_path):
    probe = {"objective": "probe", "optimizer": "sgd", "weight_decay": 0, "clip_norm": 1e6, "learning_rate": 1}
    out = train(dataset, tmp_path / "p", **probe, weights=clip, architecture="weights", hold_out=0.2, steps=4)
    before, after = weights_of(clip), weights_of(out)
    assert torch.equal(after["blocks.1.mlp.fc2.weight"], before["visual.transformer.resblocks.1.mlp.c_proj.weight"])
    assert load_model(out)[0].class_ids == LabelledSource(dataset).class_ids
