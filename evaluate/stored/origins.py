"""What is known of every model of a folder of results: where it is from, what it was trained on, when it was evaluated.

In: evaluated models. Out: `Origin`s, kept in the folder's manifest, so that a report tells of earlier models, too.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import MANIFEST_FILE, find_parent, read_manifest
from synclones.evaluate.answers.predictions import EvaluatedModel
from synclones.evaluate.checks.training_data import trained_on_generated
from synclones.models.load import find_model

KEPT = "models"
"""What a manifest calls them."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model is from; empty is what no file says."""

    source: str
    format: str = ""
    weights_sha256: str
    evaluated: str
    """Date of its first evaluation here, UTC."""
    synthetic: bool = False
    """Whether it is known to be trained on images of `synclones generate` alone."""
    run: str = ""
    """Folder of its training."""
    data: tuple[str, ...] = ()
    """Folders of the images that it was trained on, as the run's manifest has them."""
    recipe: str = ""
    architecture: str = ""
    images_seen: int | None = None
    seed: int | None = None


_ORIGINS = TypeAdapter(dict[str, Origin])


def origins_in(out: Path) -> dict[str, Origin]:
    """Return what the manifest of a folder of results says, by `Cell.model_identity`; earlier versions say nothing."""
    if not (out / MANIFEST_FILE).is_file():
        return {}
    try:
        known: dict[str, Origin] = _ORIGINS.validate_python(read_manifest(out).get(KEPT, {}))
    except (InputError, ValidationError):
        return {}
    return known


def with_models(known: Mapping[str, Origin], models: Mapping[str, EvaluatedModel]) -> dict[str, Origin]:
    """Return the origins with those of models (by identity); the date of an earlier evaluation stays."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    own = {
        identity: origin_of(model, known[identity].evaluated if identity in known else today)
        for identity, model in models.items()
    }
    return dict(sorted((dict(known) | own).items()))


def origin_of(model: EvaluatedModel, evaluated: str) -> Origin:
    """Return what the files beside a model say of it."""
    stated: dict[str, Any] = {
        "source": model.source or model.name,
        "format": model.format,
        "weights_sha256": model.weights_sha256,
    }
    if model.folder is None:
        return Origin(**stated, evaluated=evaluated)
    synthetic = trained_on_generated(model.folder)
    return Origin(**stated, evaluated=evaluated, synthetic=synthetic, **_training(model.folder))


def _training(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a run says of the training; nothing where there is none."""
    try:
        export = find_model(folder)
        run = export.parent if export.name == "export" else export
        record = read_manifest(run)
    except (InputError, VerificationError, OSError):
        return {}
    config, samples = record.get("config"), record.get("counts", {}).get("samples")
    texts = {
        name: config[name]
        for name in ("recipe", "architecture")
        if isinstance(config, dict) and isinstance(config.get(name), str)
    }
    seed = config.get("seed") if isinstance(config, dict) else None
    return {
        "run": str(run),
        "data": tuple(parent["path"] for parent in record.get("parents", []) if parent["name"] == "data"),
        "images_seen": samples if type(samples) is int else None,
        "seed": seed if type(seed) is int else None,
        **texts,
    }


def to_json(origins: Mapping[str, Origin]) -> dict[str, Any]:
    """Return them as a manifest holds them."""
    return {identity: asdict(origin) for identity, origin in origins.items()}


def paths_of_data(origin: Origin, out: Path) -> dict[str, str]:
    """Return folder of training images as it was named -> its path from ``out``; those that are not here are left out.

    A set that has a contact sheet is named by that.
    """
    run = find_parent(out, origin.run) if origin.run else None
    known = {}
    for path in origin.data if run is not None else ():
        assert run is not None
        folder = find_parent(run, path)
        if folder is not None:
            sheet = folder / "preview.html"
            known[path] = os.path.relpath(sheet if sheet.is_file() else folder, out)
    return known
