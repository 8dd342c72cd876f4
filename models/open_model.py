"""Opens whatever ``--model`` names as a classifier of pixels: runs, folders, published checkpoints, names of libraries.

In: a run, its export or another folder of timm's or open_clip's layout; a published checkpoint or a folder of them;
``timm:NAME``, ``open_clip:MODEL/TAG``, ``hub:OWNER/NAME``. Additions follow a +. What exists as a path is one.
Out: `OpenedModel`s.
"""

from dataclasses import replace
from pathlib import Path

from synclones.base.errors import InputError, MachineError, as_synclones_error
from synclones.base.files import sha256_bytes, sha256_file
from synclones.base.json_file import canonical_json
from synclones.base.weights import find_folder, refuse_old_libraries
from synclones.models.checkpoint_format import formats
from synclones.models.folder import CLIP_CONFIG, CLIP_WEIGHTS, CONFIG, WEIGHTS, load_classifier
from synclones.models.imagenet import imagenet_ids, imagenet_texts
from synclones.models.load import files_of, find_model, load_model
from synclones.models.named import (
    REFUSALS,
    exact_fraction,
    open_clip_folder,
    timm_file,
    timm_network,
    timm_preprocessing,
)
from synclones.models.network import Classifier
from synclones.models.open_checkpoint import (
    FLAG,
    Additions,
    OpenedModel,
    additions_of,
    checkpoints_below,
    class_ids_of,
    open_checkpoint,
    open_tree,
)

TIMM, OPEN_CLIP, HUB = "timm", "open_clip", "hub"
TEXTS = "zero_shot.json"


def open_models(given: str | Path) -> list[OpenedModel]:
    """Return the models that ``given`` names, in evaluation mode: one, but for a folder of published checkpoints.

    Raises:
        InputError: it names none, or what it names is no classifier.
        VerificationError: a file is not the one that is named by its hash.
        MachineError: it has to be fetched, and cannot be; it does not fit into memory.
    """
    refuse_old_libraries()
    base, rest = _divided(str(given))
    additions = additions_of(rest, base)
    path, (kind, _, name) = Path(base), base.partition(":")
    if not path.exists():
        if kind in (TIMM, OPEN_CLIP, HUB):
            opener = {TIMM: _of_timm, OPEN_CLIP: _of_open_clip, HUB: _of_hub}[kind]
            return [replace(opener(base, name, additions), source=additions.after(base))]
        if name and kind in formats():
            return [open_checkpoint(Path(name), additions, kind)]
    if path.is_file():
        return [open_checkpoint(path, additions)]
    if not path.exists():
        raise InputError(
            f"{base}: no such model folder, and no file of weights; give one, or timm:NAME, open_clip:MODEL/TAG or "
            "hub:OWNER/NAME"
        )
    if path.is_dir() and not _is_model_folder(path) and (files := checkpoints_below(path)):
        return open_tree(path, files, additions)
    return [_of_folder(find_model(path), additions)]


def _divided(given: str) -> tuple[str, list[str]]:
    """Return the model and what is added to it: a path may have a + of its own."""
    parts = given.split("+")
    for end in range(len(parts), 1, -1):
        if Path(base := "+".join(parts[:end])).exists():
            return base, parts[end:]
    return parts[0], parts[1:]


def _is_model_folder(path: Path) -> bool:
    """Return whether a folder is a run or a model of timm's or open_clip's layout, finished or not."""
    configs = (folder / name for folder in (path, path / "export") for name in (CONFIG, CLIP_CONFIG))
    return any(config.is_file() for config in configs) or (path / "checkpoints").is_dir()


def _of_folder(folder: Path, additions: Additions) -> OpenedModel:
    is_clip = files_of(folder)[0] == CLIP_CONFIG
    additions.refuse_but(("texts" if is_clip else "classes",), str(folder))
    run = folder.parent if folder.name == "export" else folder
    name = run.resolve().name
    if additions.texts is not None:
        return replace(_zero_shot(name, additions.after(run), folder, additions, None), folder=folder)
    classifier, sha256 = load_model(folder)
    if additions.classes is not None:
        classifier.class_ids = class_ids_of(len(classifier.class_ids), additions.classes, str(folder))
    return OpenedModel(name, str(run), classifier, sha256, "open_clip folder" if is_clip else "timm folder", folder)


def _of_timm(given: str, model: str, additions: Additions) -> OpenedModel:
    """Return timm's network with its own weights and its own way to prepare images."""
    additions.refuse_but(("classes",), given)
    path, _ = timm_file(model, FLAG)
    try:
        network = timm_network(model, path)
    except REFUSALS as error:
        if isinstance(known := as_synclones_error(error), MachineError):
            raise known from None
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{FLAG} {given}: {path}: not its weights ({reason}); copy it again") from None
    if not network.num_classes:
        raise InputError(f"{FLAG} {given}: a backbone, which tells no classes apart; take weights of a classifier")
    ids = class_ids_of(network.num_classes, additions.classes, given)
    classifier = Classifier(network, timm_preprocessing(network.pretrained_cfg, f"{FLAG} {given}"), ids).eval()
    return OpenedModel(given, given, classifier, sha256_file(path), "timm")


def _of_open_clip(given: str, model: str, additions: Additions) -> OpenedModel:
    """Return open_clip's model with the activation that its weights were trained with, as its list of them says."""
    additions.refuse_but(("texts",), given)
    folder, quick_gelu = open_clip_folder(model, FLAG)
    return _zero_shot(given, given, folder, additions, quick_gelu)


def _of_hub(given: str, name: str, additions: Additions) -> OpenedModel:
    """Return a model of the hub: a repository of timm's or open_clip's layout, or one file of any repository."""
    owner, _, rest = name.partition("/")
    repository, *inner = rest.split("/")
    repository, _, revision = repository.partition("@")
    if not owner or not repository or {"", ".", ".."} & set(inner):
        raise InputError(f"{FLAG} {given}: expected hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:OWNER/NAME/FILE")
    # One file is a checkpoint, whatever else the repository holds; without one, its configuration says what it is.
    wanted = ["/".join(inner)] if inner else [CONFIG, WEIGHTS, CLIP_CONFIG, CLIP_WEIGHTS, TEXTS]
    folder, _ = find_folder(f"{owner}/{repository}", revision, wanted, FLAG)
    if inner:
        return replace(open_checkpoint(folder / wanted[0], additions), name=given)
    if (folder / CLIP_CONFIG).is_file():
        additions.refuse_but(("texts",), given)
        return _zero_shot(given, given, folder, additions, None)
    additions.refuse_but(("classes",), given)
    classifier, sha256 = load_classifier(folder)
    known, prepared = imagenet_ids(len(classifier.class_ids)), classifier.preprocessing
    # A repository without names of classes is one of ImageNet, as timm takes it.
    unnamed = classifier.class_ids == tuple(map(str, range(len(classifier.class_ids))))
    if additions.classes is not None or (unnamed and known is not None):
        classifier.class_ids = class_ids_of(len(classifier.class_ids), additions.classes, given)
    if isinstance(prepared.size_px, int):
        fraction = exact_fraction(prepared.size_px, prepared.crop_fraction)
        classifier.preprocessing = replace(prepared, crop_fraction=fraction)
    return OpenedModel(given, given, classifier, sha256, "timm folder")


def _zero_shot(name: str, source: str, folder: Path, additions: Additions, quick_gelu: bool | None) -> OpenedModel:
    """Return the image-text model of a folder by texts: those that were given, its own, or ImageNet's."""
    # open_clip takes seconds to import, and is for these alone.
    from synclones.models.clip_folder import load_clip
    from synclones.models.tokenizer import tokenizer_for
    from synclones.models.zero_shot import ZeroShotClassifier, read_texts

    path = additions.texts or (folder / TEXTS if (folder / TEXTS).is_file() else None)
    texts = imagenet_texts() if path is None else read_texts(path)
    loaded = load_clip(folder, quick_gelu)
    classifier = ZeroShotClassifier(loaded.model, loaded.preprocessing, texts, tokenizer_for(loaded.context_length))
    parts = [loaded.weights_sha256, loaded.config_sha256, texts.sha256]
    parts += [] if quick_gelu is None else [f"quick_gelu {quick_gelu}"]
    return OpenedModel(name, source, classifier.eval(), sha256_bytes(canonical_json(parts)), "open_clip folder")
