"""The settings of ``synclones shards retrieve``.

In: flags or YAML. Out: `RetrieveConfig`, whose parts fit each other.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synclones.base.config import Count, check_ranges
from synclones.base.errors import InputError
from synclones.shards.similarity.near import MAX_DISTANCE


@dataclass(frozen=True, kw_only=True)
class RetrieveConfig:
    """Retrieve the images of a set that are nearest to classes, texts or example images, as an index without a copy."""

    folder: Path | None = field(default=None, kw_only=False)
    """The set: a dataset folder, tars, a folder of images, Parquet; none to list rows of --embeddings alone."""
    model: str
    """CLIP model: an open_clip folder, hub id, or architecture/tag; of --embeddings the one that made them."""
    out: Path | None = None
    """Folder for the index over the retrieved images; without it and --export, only embeddings are made."""
    export: Path | None = None
    """Parquet or CSV file for url, md5, score, class and key of the retrieved images."""
    classes: Path | None = None
    """CSV with class_id and name: what is sought, each name in every template."""
    templates: str = ""
    """File of sentences with {} for a name, or imagenet for CLIP's 80; "a photo of a {}." by default."""
    queries: Path | None = None
    """Texts by class: a prompt table, or a table with class_id and prompt; or a .txt, each line a class of its own."""
    examples: Path | None = None
    """Labelled set whose images are the queries, a class the mean of its images."""
    match: Literal["nearest", "substring", "words"] = "nearest"
    """Candidates: nearest by the model, or images whose caption contains the class's name, perhaps as whole words."""
    neighbours: Count = 100
    """How many nearest images of each class are candidates."""
    min_score: float = -1.0
    """Lowest cosine that counts, -1 to 1."""
    top_share: float = 1.0
    """Share of each class's candidates that stay, the best first, 0 to 1; 0.3 as in The Unmet Promise."""
    per_class: Count = 0
    """At most so many images of each class; 0 for all that stay."""
    against: Path | None = None
    """Test images whose near-duplicates are left out: a folder of them, a tar or a folder of tars, or a set of ours."""
    max_distance: int = 4
    """Of the 64 bits of two perceptual hashes, how many may differ between near-duplicates."""
    embeddings: Path | None = None
    """Folder of embeddings made elsewhere: LAION's or clip-retrieval's .npy and Parquet files, FAISS indexes."""
    column: str = ""
    """Name of the column that keeps the set's embeddings; made from the model's hash by default."""
    index: Literal["flat", "ivfpq", "given"] = "flat"
    """Compare all vectors; or search inverted lists (needs FAISS), ours or those that lie in --embeddings."""
    probes: Count = 32
    """Lists that are searched in an index."""
    refine: Count = 10
    """Of an index, how many times as many candidates are scored exactly."""
    split: str = ""
    """Which split of the set."""
    label_key: str = ""
    """Key or column of the set's labels, where it must be named to open it; the labels themselves do not matter."""
    caption_key: str = ""
    """Key or column of the set's captions."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            min_score=(-1, 1),
            top_share=(1e-9, 1),
            max_distance=(0, MAX_DISTANCE),
            neighbours=(1, 2**30),
            probes=(1, 2**30),
            refine=(1, 1000),
        )
        self._check_what_is_read()
        self._check_what_is_sought()

    def _check_what_is_read(self) -> None:
        if self.folder is None and self.embeddings is None:
            raise InputError("give the set to retrieve from, as in `synclones shards retrieve data/x`, or --embeddings")
        if self.folder is None:
            for flag, given in (("--out", self.out), ("--against", self.against)):
                if given is not None:
                    raise InputError(f"{flag}: needs the images; give the set that --embeddings is of, or --export")
            if self.export is None:
                raise InputError("--export: nothing was given; of embeddings alone a list is all that can be made")
        if self.index == "given" and self.embeddings is None:
            raise InputError("--index: given needs --embeddings, the folder in which the index lies")
        if self.export is not None and self.export.suffix.lower() not in (".parquet", ".csv"):
            raise InputError(f"--export: {self.export} was given, expected a name that ends in .parquet or .csv")

    def _check_what_is_sought(self) -> None:
        sought = [flag for flag in ("classes", "queries", "examples") if getattr(self, flag) is not None]
        if self.out is None and self.export is None:
            if sought:
                raise InputError(f"--{sought[0]}: nothing is written; give --out, --export or both")
            return
        if not sought or "examples" in sought[:-1] or sought == ["classes", "examples"]:
            raise InputError("--classes, --queries, --examples: give one of them, or a class list with --queries")
        if self.templates and sought != ["classes"]:
            raise InputError("--templates: has an effect with --classes alone; leave it out")
        if self.match != "nearest" and "classes" not in sought and not self._has_lines():
            raise InputError(f"--match: {self.match} needs names of classes; give --classes")
        if self.match != "nearest" and self.index != "flat":
            raise InputError(f"--index: {self.index} has no effect with --match {self.match}; leave it out")

    def _has_lines(self) -> bool:
        return self.queries is not None and self.queries.suffix.lower() == ".txt"
