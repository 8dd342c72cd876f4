"""Inverted lists: most of the nearest, scored exactly, in files that any process may write."""

import sys

import numpy as np
import pytest
from test_neighbours import Given

from synclones.base.errors import InputError
from synclones.shards.similarity import inverted
from synclones.shards.similarity.inverted import InvertedIndex, build_inverted, nearest_of_index, settings_for
from synclones.shards.similarity.neighbours import nearest
from synclones.shards.similarity.vectors import units


def clustered(rows: int, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around 300 centres, and queries near some of them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(300, width))
    stored = centres[rng.integers(0, 300, rows)] + 0.5 * rng.normal(size=(rows, width))
    return stored.astype(np.float32), (centres[:50] + 0.5 * rng.normal(size=(50, width))).astype(np.float32)


def test_inverted_lists_have_a_recall_of_nine_tenths_and_exact_scores(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(inverted, "_TRAINING_ROWS_PER_LIST", 40)
    monkeypatch.setattr(inverted, "cores", lambda: 1)
    stored, queries = clustered(10_000)
    given, sought = Given([stored[:3000], stored[3000:]]), units(queries)
    settings = inverted.InvertedSettings(**vars(settings_for(given)) | {"rows_per_file": 4000})
    assert (settings.lists, settings.bytes_per_vector) == (256, 4)
    paths = build_inverted(given, tmp_path / "index", settings)
    assert [path.name for path in paths] == [f"part-{n:05d}.faiss" for n in range(3)]
    near = nearest_of_index(InvertedIndex(paths, probes=16), given, sought, 10, refine=10)
    exact = nearest(given, sought, 10)
    scores = {(q, p): s for q, p, s in zip(exact.query, exact.position, exact.score, strict=True)}
    hits = [(q, p) for q, p in zip(near.query, near.position, strict=True) if (q, p) in scores]
    assert len(hits) / len(exact) >= 0.9
    assert all(
        score == scores[q, p]
        for q, p, score in zip(near.query, near.position, near.score, strict=True)
        if (q, p) in scores
    )
    # A missing file is written again with the same bytes; an index of other vectors is refused.
    before = paths[1].read_bytes()
    paths[1].unlink()
    assert build_inverted(given, tmp_path / "index", settings)[1].read_bytes() == before
    other = inverted.InvertedSettings(**vars(settings) | {"vectors_sha256": "other"})
    with pytest.raises(InputError, match="index of other vectors"):
        build_inverted(given, tmp_path / "index", other)


def test_without_faiss_the_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "faiss", None)
    stored, _ = clustered(10_000)
    given = Given([stored])
    with pytest.raises(InputError, match=r"pip install 'synclones\[retrieve\]', or use --index flat"):
        build_inverted(given, tmp_path / "index", settings_for(given))
    assert not (tmp_path / "index").exists()
