"""Nearest neighbours: the votes are those of the formula written out."""

import numpy as np
import pytest
import torch

from synclones.train.measures import knn
from synclones.train.measures.knn import knn_classes


def _written_out(queries, bank, labels, classes, neighbours, temperature):
    """Wu et al. 2018, section 3.4: every neighbour adds exp(cosine / temperature) to its class."""
    answers = []
    for query in queries.astype(np.float64):
        cosines = bank.astype(np.float64) @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)[:neighbours]
        votes = [np.exp(cosines[nearest] / temperature)[labels[nearest] == c].sum() for c in range(classes)]
        answers.append(int(np.argmax(votes)))
    return answers


@pytest.mark.parametrize(("neighbours", "temperature"), [(1, 0.07), (20, 0.07), (20, 10.0), (200, 0.002)])
def test_classes_are_those_of_the_formula(monkeypatch, neighbours, temperature):
    monkeypatch.setattr(knn, "QUERIES_AT_ONCE", 7)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 5, 300)
    means = draw.normal(size=(5, 16))
    bank, queries = means[labels] + 2 * draw.normal(size=(300, 16)), 3 * draw.normal(size=(50, 16))
    given = (torch.from_numpy(queries).float(), torch.from_numpy(bank).float(), torch.from_numpy(labels))
    ours = knn_classes(*given, 5, neighbours, temperature).tolist()
    assert ours == _written_out(queries, bank, labels, 5, neighbours, temperature)
    assert len(set(ours)) > 2


def test_a_near_neighbour_outvotes_two_farther_ones_at_a_low_temperature_alone():
    bank = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.1]])
    labels, query = torch.tensor([1, 0, 0]), torch.tensor([[5.0, 0.0]])
    assert knn_classes(query, bank, labels, 2, 3, 0.07).tolist() == [1]
    assert knn_classes(query, bank, labels, 2, 3, 10.0).tolist() == [0]


def test_more_neighbours_than_images_are_an_error():
    with pytest.raises(ValueError, match="3 neighbours of 2"):
        knn_classes(torch.ones(1, 2), torch.ones(2, 2), torch.zeros(2, dtype=torch.int64), 1, 3, 0.07)
