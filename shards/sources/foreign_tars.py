"""Tars that another program wrote (img2dataset, webdataset, the Hub) as a collection that can be indexed.

In: tars of one folder. Out: a row per image: the label from ``cls`` or a key of ``json``, the caption from ``txt`` or a
key of ``json``. Samples without an image are passed over and counted.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from synclones.base.errors import InputError
from synclones.base.json_file import parse_json
from synclones.shards.sources.files import PassedOver
from synclones.shards.sources.listing import Part, Row, SourceFile, file_stamp, hashed, stamped
from synclones.shards.sources.tars import TarSample, read_samples, with_images
from synclones.shards.tar import BLOCK


@dataclass(frozen=True)
class TarCollection:
    """Tars of one folder, in the order of their names."""

    root: Path
    tars: list[Path]
    label_key: str | None = None
    caption_key: str | None = None

    kind: ClassVar[str] = "tars"
    keeps_index: ClassVar[bool] = True
    has_text_labels: ClassVar[bool] = False

    def sources(self) -> list[SourceFile]:
        """Return the tars."""
        return stamped(self.root, self.tars)

    def listing(self) -> str:
        """Return nothing: images are no files."""
        return ""

    def parts(self) -> Sequence[Part]:
        """Return a part per tar."""
        return [_Tar(self, tar, f"{number:05d}") for number, tar in enumerate(self.tars)]

    def class_names(self) -> tuple[str, ...]:
        """Return nothing: tars do not say what numbers mean."""
        return ()

    def rule(self) -> str:
        """Return where labels and captions come from."""
        label = f"json:{self.label_key}" if self.label_key else "cls"
        return f"{label} and {f'json:{self.caption_key}' if self.caption_key else 'txt'}"


@dataclass(frozen=True)
class _Tar:
    collection: TarCollection
    path: Path
    name: str

    def stamp(self) -> list[Any]:
        return file_stamp(self.collection.root, self.path)

    def files(self) -> list[SourceFile]:
        return [hashed(self.collection.root, self.path)]

    def rows(self, passed: PassedOver) -> Iterator[Row]:
        for sample in with_images(read_samples(self.path, passed=passed), passed):
            image = sample.image
            if not image:
                raise InputError(f"{self.path}: the image of sample {sample.key!r} is empty; repack the tar without it")
            stated = self._stated(sample)
            caption = str(stated.get(self.collection.caption_key) or "") if self.collection.caption_key else None
            yield Row(
                key=sample.key,
                file=b"",
                offset=sample.image_offset + BLOCK,
                size=len(image),
                crc32=zlib.crc32(image),
                label=self._label(sample, stated),
                caption=self._text(sample) if caption is None else caption,
            )

    def _stated(self, sample: TarSample) -> dict[str, Any]:
        """Return what the json of a sample says for the keys that were asked for."""
        keys = [key for key in (self.collection.label_key, self.collection.caption_key) if key]
        data = sample.members.get("json", b"")
        if not keys or not data:
            return {}
        where = f"{self.path}: the json of sample {sample.key!r}"
        try:
            value = parse_json(data, finite=False)  # scores that are no numbers are not our matter
        except ValueError as error:
            raise InputError(f"{where} cannot be read ({error}); repack the tar") from None
        if not isinstance(value, dict):
            raise InputError(f"{where} is no object; choose no key of it, or repack the tar")
        stated = {key: value.get(key) for key in keys}
        bad = next((key for key, item in stated.items() if not isinstance(item, str | int | None)), None)
        if bad is not None or any(isinstance(item, bool) for item in stated.values()):
            raise InputError(f"{where}: {stated} holds more than texts and whole numbers; choose another key")
        return stated

    def _label(self, sample: TarSample, stated: dict[str, Any]) -> int | str | None:
        if self.collection.label_key is None:
            return sample.label
        label: int | str | None = stated.get(self.collection.label_key)
        if isinstance(label, int) and label < 0:
            return None
        return None if label == "" else label

    def _text(self, sample: TarSample) -> str:
        try:
            return sample.members.get("txt", b"").decode().strip()
        except UnicodeDecodeError:
            raise InputError(f"{self.path}: the txt of sample {sample.key!r} is not UTF-8; repack the tar") from None
