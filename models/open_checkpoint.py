"""Opens published checkpoints as classifiers of pixels: files that a format knows, and trees of such files.

In: a file, its additions (`Additions`: a head, texts, class ids); or a folder. Out: `OpenedModel`s.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from synclones.base.class_texts import class_names
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.models.checkpoint import PICKLED_SUFFIXES, Checkpoint, opened_beside, read_checkpoint, refuse_hollow
from synclones.models.checkpoint_format import PROBES, Match, Tensors, recognise
from synclones.models.heads import Head, Probed, head_of, is_head, read_head
from synclones.models.imagenet import imagenet_ids, imagenet_texts
from synclones.models.network import Classifier

FLAG = "--model"
BENCHMARK_PROBE = "classifier_lr_0_0050"
"""The head of which Singh et al. 2024 report SynCLR's numbers, among those of ten learning rates."""
_PROBE = re.compile(r"classifier_lr_\d+_\d+")
MAX_FILES = 1000


@dataclass(frozen=True)
class Additions:
    """What stands after the + of a model: each by what its name ends with."""

    head: Path | None = None
    """A file with a linear head for a backbone."""
    texts: Path | None = None
    """``.json``: names and templates for an image-text model, as ``zero_shot.json``."""
    classes: Path | None = None
    """``.csv``: the class ids of the outputs, in order."""
    probe: str = ""
    """The name of one of several heads."""

    def after(self, model: Path | str) -> str:
        """Return the model with what decides its answers beside its own weights, as it was given."""
        return "+".join(str(part) for part in (model, self.head, self.texts, self.probe) if part)

    def refuse_but(self, allowed: tuple[str, ...], where: str) -> None:
        """Refuse what nothing would be done with.

        Raises:
            InputError: naming it.
        """
        for name, value in vars(self).items():
            if value and name not in allowed:
                takes = f"takes {' and '.join(allowed)} alone" if allowed else "takes nothing"
                raise InputError(f"{FLAG} {where}: {takes} after the +, got {value}; leave it out")


@dataclass(frozen=True)
class OpenedModel:
    """A classifier, and what is said of it."""

    name: str
    """Short, for tables."""
    source: str
    """Where it is from, as manifests name it."""
    classifier: Classifier
    sha256: str
    """Results are filed by it: of the file of weights, or of all that decides an answer together."""
    format: str
    """How the weights were read."""
    folder: Path | None = None
    """Of a model that was exported with manifest or card."""
    notes: tuple[str, ...] = ()
    """What its user should hear, a line each."""


def additions_of(texts: list[str], where: str) -> Additions:
    """Return what the parts after the + are.

    Raises:
        InputError: one kind twice.
    """
    given: dict[str, Path | str] = {}
    for text in texts:
        suffix = Path(text).suffix
        kind = {".json": "texts", ".csv": "classes"}.get(suffix, "probe" if _PROBE.fullmatch(text) else "head")
        if kind in given or not text:
            raise InputError(f"{FLAG} {where}: {text!r} after the +; give one {kind}, a file")
        given[kind] = text if kind == "probe" else Path(text)
    return Additions(**given)  # type: ignore[arg-type]


def class_ids_of(num_classes: int, classes: Path | None, where: str) -> tuple[str, ...]:
    """Return the ids of the outputs: those of a CSV, or ImageNet's by their number.

    Raises:
        InputError: they are not as many, or nobody says what they are.
    """
    if classes is not None:
        ids, _ = class_names(classes)
        if len(ids) != num_classes:
            raise InputError(f"{classes}: has {len(ids)} classes, {where} {num_classes} outputs; give its own list")
        return ids
    known = imagenet_ids(num_classes)
    if known is None:
        raise InputError(
            f"{where}: has {num_classes} outputs and does not say for which classes; add their list, a CSV with the "
            f"columns class_id and name: {where}+CLASSES.csv"
        )
    return known


def open_checkpoint(path: Path, additions: Additions, asked: str = "") -> OpenedModel:
    """Return the model of a checkpoint; ``asked``: the name of its format, where somebody says it.

    Raises:
        InputError: it is none of a known format, what is added does not fit, or a head is missing.
        MachineError: it does not fit into memory.
    """
    checkpoint = read_checkpoint(path)
    if is_head(checkpoint):
        raise InputError(f"{path}: a linear head alone; give it after its backbone: BACKBONE+{path}")
    return _opened(checkpoint, recognise(checkpoint, asked), additions)


def _opened(checkpoint: Checkpoint, match: Match, additions: Additions) -> OpenedModel:
    """Return the model that a format builds of a checkpoint, with what was added to it."""
    path, role = checkpoint.path, match.variant.role
    refuse_hollow(path, match.tensors)
    if role == "image-text":
        return _zero_shot(checkpoint, match, additions)
    # What decides an answer is part of the identity: the file, and the head or its name.
    parts, name, source = [checkpoint.sha256], short_name(path), additions.after(path)
    if role == "classifier":
        additions.refuse_but(("classes",), str(path))
        network, num_classes = match.variant.build(match.tensors, match.num_classes), match.num_classes
    else:
        additions.refuse_but(("classes", "head" if role == "backbone" else "probe"), str(path))
        head, identity = _probe(checkpoint, additions) if role == "probed" else _head(match, path, additions)
        backbone = match.variant.build(match.tensors, 0)
        _refuse_other_width(head, backbone.embed_dim, match, additions.head or path)
        network, num_classes = Probed(backbone, head), head.num_classes
        parts.append(identity)
        name += f"+{short_name(additions.head)}" if additions.head else f"+{additions.probe}" * bool(additions.probe)
    # What the outputs stand for, and how images become the input.
    ids = class_ids_of(num_classes, additions.classes, str(path))
    classifier = Classifier(network, match.form.preprocessing, ids).eval()
    sha256 = parts[0] if len(parts) == 1 else sha256_bytes(canonical_json(parts))
    return OpenedModel(name, source, classifier, sha256, match.title, notes=_notes(checkpoint, match))


def _head(match: Match, path: Path, additions: Additions) -> tuple[Head, str]:
    """Return the head that was given for a backbone, and its hash."""
    if additions.head is None:
        raise InputError(
            f"{path}: {match.title} is a backbone, which tells no classes apart; give the file of its linear head "
            f"after a +: {path}+HEAD"
        )
    checkpoint = read_checkpoint(additions.head)
    return read_head(checkpoint), checkpoint.sha256


def _probe(checkpoint: Checkpoint, additions: Additions) -> tuple[Head, str]:
    """Return one of the heads beside a backbone, and its name."""
    tensors = opened_beside(checkpoint, PROBES).tensors
    refuse_hollow(checkpoint.path, tensors)
    heads: dict[str, Tensors] = {}
    for full, tensor in tensors.items():
        key, _, layer = full.removeprefix("classifiers_dict.").partition(".")
        heads.setdefault(key, {})[layer] = tensor
    wanted = additions.probe or (BENCHMARK_PROBE if len(heads) > 1 else next(iter(heads)))
    if wanted not in heads:
        raise InputError(
            f"{checkpoint.path}: has no head {wanted!r}; name one after a +: {', '.join(list(heads)[:12])}"
        )
    return head_of(heads[wanted], f"{checkpoint.path}: {wanted}"), wanted


def _refuse_other_width(head: Head, width: int, match: Match, where: Path) -> None:
    allowed = [width * inputs for inputs in match.variant.head_inputs]
    if head.weight.shape[1] not in allowed:
        expected = " or ".join(map(str, allowed))
        raise InputError(
            f"{where}: the head reads {head.weight.shape[1]} numbers, {match.title} gives {expected}; give its own head"
        )


def _zero_shot(checkpoint: Checkpoint, match: Match, additions: Additions) -> OpenedModel:
    """Return an image-text model as a classifier by texts: those that were given, or ImageNet's."""
    from synclones.models.tokenizer import tokenizer_for
    from synclones.models.zero_shot import ZeroShotClassifier, read_texts

    additions.refuse_but(("texts",), str(checkpoint.path))
    texts = imagenet_texts() if additions.texts is None else read_texts(additions.texts)
    network = match.variant.build(match.tensors, 0)
    tokenizer = tokenizer_for(len(match.tensors["positional_embedding"]))
    classifier = ZeroShotClassifier(network, match.form.preprocessing, texts, tokenizer).eval()
    sha256 = sha256_bytes(canonical_json([checkpoint.sha256, texts.sha256]))
    path = checkpoint.path
    return OpenedModel(
        short_name(path), additions.after(path), classifier, sha256, match.title, notes=_notes(checkpoint, match)
    )


def _notes(checkpoint: Checkpoint, match: Match) -> tuple[str, ...]:
    left_out = f"; left out: {', '.join(match.dropped)}" if match.dropped else ""
    return (f"{checkpoint.path}: read as {match.title} of {match.form.source}{left_out}",)


def short_name(path: Path) -> str:
    """Return folder and file of a path, without what the file's name ends with."""
    stem = path.name
    while Path(stem).suffix in (*PICKLED_SUFFIXES, ".safetensors"):
        stem = Path(stem).stem
    return f"{path.resolve().parent.name}/{stem}"


# ------------------------------------------------------------------ folders


def checkpoints_below(folder: Path) -> list[Path]:
    """Return the files of a folder and below that published weights end like, in order.

    Raises:
        InputError: there are very many.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in PICKLED_SUFFIXES and _is_torchs(path)]
    if len(files) > MAX_FILES:
        raise InputError(f"{FLAG} {folder}: holds {len(files)} files of weights; give one, or a folder of few")
    return files


def _is_torchs(path: Path) -> bool:
    """Return whether a file begins as those of torch, a zip file or an old pickle; no tar of images does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))


def open_tree(folder: Path, files: list[Path], additions: Additions) -> list[OpenedModel]:
    """Return every model of a folder of published checkpoints; a backbone and a head side by side are one.

    Backbones without a head are passed over, and named in a note.

    Raises:
        InputError: a file is of no known format, it is not clear which head belongs to which backbone, or nothing of
            it is a classifier.
    """
    additions.refuse_but(("classes",), str(folder))
    # One file after the other: what each holds decides what it is, and only what is used of it stays in memory.
    opened: list[OpenedModel] = []
    heads: dict[Path, list[Path]] = {}
    backbones: dict[Path, list[tuple[Checkpoint, Match]]] = {}
    for path in files:
        checkpoint = read_checkpoint(path)
        if is_head(checkpoint):
            heads.setdefault(path.parent, []).append(path)
            continue
        match = recognise(checkpoint)
        if match.variant.role == "backbone":
            # Its optimizer is not kept in memory while the others are read.
            kept = replace(checkpoint, tensors={}, beside={})
            backbones.setdefault(path.parent, []).append((kept, match))
        else:
            opened.append(_opened(checkpoint, match, additions))
    # Heads and backbones are joined by the folder they lie in, where that leaves no choice.
    for parent, names in heads.items():
        pair = backbones.pop(parent, [])
        if len(pair) != 1 or len(names) != 1:
            raise InputError(
                f"{FLAG} {parent}: holds {len(pair)} backbones and {len(names)} heads; say which belong together: "
                "BACKBONE+HEAD"
            )
        opened.append(_opened(*pair[0], replace(additions, head=names[0])))
    # What is left classifies nothing by itself; a folder of nothing else is a mistake.
    alone = [(checkpoint.path, match) for pairs in backbones.values() for checkpoint, match in pairs]
    if not opened:
        path, match = alone[0]
        _head(match, path, Additions())
    notes = tuple(f"{path}: {match.title} is a backbone without a head; passed over" for path, match in alone)
    opened.sort(key=lambda model: model.source)
    return [replace(opened[0], notes=(*opened[0].notes, *notes)), *opened[1:]]
