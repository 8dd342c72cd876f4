"""Our exports as models of other evaluators: timm's validate.py and CLIP_benchmark answer as we do on the same images.

timm's wheel leaves validate.py out: what stands here is the way it takes, through timm's own functions. CLIP_benchmark
is no dependency: ``pip install --no-deps --target DIR clip_benchmark``, and DIR on PYTHONPATH.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from test_clip import SMALL, fresh

from synclones.evaluate.test_set import TestSet
from synclones.models.clip_folder import export_clip
from synclones.models.folder import export_classifier
from synclones.models.load import load_model
from synclones.models.network import PIXELS, Classifier, Preprocessing, create_network
from synclones.models.zero_shot import ZeroShotTexts, write_zero_shot

CLASSES = ("n01440764", "n01443537", "n02123045", "n02999410", "n03417042")
NAMES = ("tench", "goldfish", "tabby cat", "chain", "golf ball")
TEMPLATES = ("a photo of a {}.", "a bad drawing of the {}.")
SIZES = ((48, 40), (64, 64), (37, 90), (90, 37))
MEAN, STD = PIXELS["half"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tree(folder, classes=CLASSES, each=8, sizes=SIZES):
    """A folder of images per class, of several sizes: smooth, so that a shift of a pixel changes little."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            image = coarse.resize(sizes[number % len(sizes)], Image.Resampling.BICUBIC)
            image.save(folder / name / f"{number}.{('png', 'jpg')[number % 2]}")
    return folder


def ours(export, folder) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32[n, classes] and labels int64[n] as an evaluation computes them."""
    classifier, _ = load_model(export)
    images = TestSet(folder)
    assert images.class_ids == classifier.class_ids
    fitted = np.stack([classifier.preprocessing.fit(images[number].pixels) for number in range(len(images))])
    with torch.inference_mode():
        return classifier(torch.from_numpy(fitted).permute(0, 3, 1, 2).float() / 255).numpy(), images.labels


def export(folder, preprocessing, classes=CLASSES):
    shape = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    torch.manual_seed(0)
    network = create_network("vit_tiny_patch16_224", len(classes), preprocessing.size_px, shape)
    with torch.no_grad():
        network.eval().head.weight.mul_(30)
        network.head.bias -= network(torch.randn(64, 3, 32, 32)).mean(0)  # so that images are answered differently
    export_classifier(folder, Classifier(network, preprocessing, classes), shape | {"img_size": 32}, "a card")
    return folder


def as_timm_validates(export, folder, class_map="", **more) -> tuple[np.ndarray, np.ndarray, float]:
    """Return logits, labels and top-1 in points, by the calls of timm's validate.py (0041cb7), --no-prefetcher, CPU."""
    import timm
    from timm.data import create_dataset, create_loader, resolve_data_config
    from timm.utils import AverageMeter, accuracy

    model = timm.create_model(f"local-dir:{export}", pretrained=True)
    config = resolve_data_config(more, model=model, use_test_size=True)
    dataset = create_dataset(root=str(folder), name="", split="validation", class_map=class_map, input_img_mode="RGB")
    names = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
    loader = create_loader(
        dataset, batch_size=16, use_prefetcher=False, num_workers=0, **{name: config[name] for name in names}
    )
    model.eval()
    top1, logits, labels = AverageMeter(), [], []
    with torch.inference_mode():
        for pixels, target in loader:
            output = model(pixels)
            top1.update(accuracy(output.detach(), target, topk=(1, 5))[0].item(), pixels.size(0))
            logits.append(output.numpy())
            labels.append(target.numpy())
    return np.concatenate(logits), np.concatenate(labels), top1.avg


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(size_px=32),
        Preprocessing(size_px=32, crop_fraction=0.8, interpolation="bicubic", mean=MEAN, std=STD),
    ],
)
def test_timm_validates_an_export_to_our_top_1(tmp_path, preprocessing):
    model, folder = export(tmp_path / "export", preprocessing), tree(tmp_path / "val")
    logits, labels = ours(model, folder)
    theirs, targets, top1 = as_timm_validates(model, folder)
    assert len(set(logits.argmax(1))) >= 3
    same_answers(theirs, logits)
    np.testing.assert_array_equal(targets, labels)
    assert top1 == pytest.approx(100 * (logits.argmax(1) == labels).mean())


def same_answers(theirs, logits):
    np.testing.assert_array_equal(theirs.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(theirs, logits, atol=2e-4 * np.abs(logits).max())


def test_images_of_the_input_s_size_are_not_resized_here_and_are_by_timm(tmp_path):
    model = export(tmp_path / "export", Preprocessing(size_px=32, crop_fraction=0.8))
    folder = tree(tmp_path / "val", sizes=((32, 32),))
    logits, _ = ours(model, folder)
    assert np.abs(as_timm_validates(model, folder)[0] - logits).max() > 0.01 * np.abs(logits).max()
    same_answers(as_timm_validates(model, folder, crop_pct=1.0)[0], logits)


def test_timm_orders_numbered_classes_by_a_map(tmp_path):
    # timm sorts 2 before 10, we as texts; a file of the export's classes, one a line, gives timm ours.
    classes = ("1", "10", "2", "3", "4")
    model, folder = export(tmp_path / "export", Preprocessing(size_px=32), classes), tree(tmp_path / "val", classes)
    logits, labels = ours(model, folder)
    (tmp_path / "classes.txt").write_text("\n".join(classes) + "\n")
    theirs, targets, top1 = as_timm_validates(model, folder, str(tmp_path / "classes.txt"))
    by_class = targets.argsort(kind="stable")  # it lists the images in the order of its own classes
    same_answers(theirs[by_class], logits)
    assert targets[by_class].tolist() == labels.tolist()
    assert top1 == pytest.approx(100 * (logits.argmax(1) == labels).mean())
    theirs, targets, _ = as_timm_validates(model, folder)
    assert theirs[targets.argsort(kind="stable")].argmax(1).tolist() != logits.argmax(1).tolist()


def test_clip_benchmark_classifies_with_an_export_to_our_top_1(tmp_path):
    reason = "clip_benchmark is not installed; see the file's first lines"
    zero_shot = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification", reason=reason)
    from clip_benchmark.models import load_clip
    from torchvision.datasets import ImageFolder

    folder, model = tree(tmp_path / "val"), tmp_path / "export"
    preprocessing = Preprocessing(size_px=32, interpolation="bicubic", mean=MEAN, std=STD)
    network = fresh(SMALL)
    with torch.no_grad():  # so that images are answered differently
        outputs = []
        hook = network.visual.ln_post.register_forward_hook(lambda *called: outputs.append(called[2]))
        network.encode_image(torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
        hook.remove()
        network.visual.ln_post.bias -= outputs[0][:, 0].mean(0)
    export_clip(model, network, SMALL, preprocessing, "a card")
    write_zero_shot(model, ZeroShotTexts(CLASSES, NAMES, TEMPLATES))
    logits, labels = ours(model, folder)
    name = f"local-dir:{model}"
    theirs, transform, tokenizer = load_clip("open_clip", name, None, None, "cpu")
    dataset = ImageFolder(str(folder), transform)
    dataset.classes = list(NAMES)
    loader = torch.utils.data.DataLoader(dataset, batch_size=16)
    templates = [template.replace("{}", "{c}") for template in TEMPLATES]
    # What its `evaluate` does until it counts; counting fails there under NumPy 2.4 (1.6.2 makes floats of arrays).
    head = zero_shot.zero_shot_classifier(theirs.eval(), tokenizer, dataset.classes, templates, "cpu", amp=False)
    answers, targets = zero_shot.run_classification(theirs, head, loader, "cpu", amp=False)
    assert targets.tolist() == labels.tolist() and len(set(logits.argmax(1))) >= 3
    np.testing.assert_array_equal(answers.numpy().argmax(1), logits.argmax(1))
    # Its logits are cosines times 100, whatever the model's own scale is.
    scale = float(theirs.logit_scale.exp())
    np.testing.assert_allclose(answers.numpy() / 100, logits / scale, atol=1e-4)
