"""What a dataset says of itself to hubs and catalogues: a Hugging Face data card and a Croissant description.

In: facts as plain values. Out: ``README.md`` with the front matter that points readers at the tars (without it Hugging
Face reads the Parquet sidecars), and ``croissant.json`` (JSON-LD, Croissant 1.1 with the responsible-AI terms).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from synclones.base.files import write_atomic
from synclones.base.json_file import pretty_json


def write_card(folder: Path, title: str, text: str, num_samples: int, split: str) -> None:
    """Write ``README.md``: front matter, a title, and Markdown ``text``."""
    bounds = [(10**power, name) for power, name in ((3, "n<1K"), (4, "1K<n<10K"), (5, "10K<n<100K"), (6, "100K<n<1M"))]
    size = next(
        (name for bound, name in bounds if num_samples < bound), "1M<n<10M" if num_samples < 10**7 else "10M<n<100M"
    )
    front = {
        "tags": ["synthetic", "webdataset"],
        "annotations_creators": ["machine-generated"],
        "task_categories": ["image-classification"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": f"{split}-*.tar"}]}],
    }
    card = f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {title}\n\n{text.strip()}\n"
    write_atomic(folder / "README.md", card.encode())


def write_croissant(folder: Path, name: str, description: str, hashes: Mapping[str, str], made_by: str) -> None:
    """Write ``croissant.json`` listing every tar with its sha256. ``hashes``: file name -> sha256."""
    # One object per tar: sidecars and indexes follow from them.
    files: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": tar,
            "name": tar,
            "contentUrl": tar,
            "encodingFormat": "application/x-tar",
            "sha256": digest,
        }
        for tar, digest in hashes.items()
        if tar.endswith(".tar")
    ]
    # The responsible-AI terms say that the images are synthetic, so that nobody takes them for photographs.
    record = {
        "@context": {
            "@vocab": "https://schema.org/",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "rai": "http://mlcommons.org/croissant/RAI/",
            "conformsTo": "http://purl.org/dc/terms/conformsTo",
        },
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": name,
        "description": description,
        "rai:hasSyntheticData": True,
        "rai:dataCollection": made_by,
        "distribution": files,
    }
    write_atomic(folder / "croissant.json", pretty_json(record))
