"""Which candidates a class gets, and which captions name a class: the rules of a retrieval, in their order."""

import numpy as np
import pytest

from synclones.shards.similarity.neighbours import Pairs
from synclones.shards.similarity.retrieve import Choice, choose, named_in_captions


def pairs(*rows: tuple[int, int, float]) -> Pairs:
    query, position, score = zip(*rows, strict=True)
    return Pairs(np.array(query), np.array(position), np.array(score, float))


def chosen(candidates: Pairs, near=(), **choice) -> tuple[list[tuple[int, int]], dict[str, int]]:
    result, counts = choose(candidates, np.array(near, np.int64), Choice(**choice))
    return list(zip(result.query.tolist(), result.position.tolist(), strict=True)), counts


def test_an_image_of_two_classes_goes_to_the_one_with_the_higher_score_then_to_the_first():
    candidates = pairs((0, 5, 0.3), (1, 5, 0.4), (2, 5, 0.1), (0, 9, 0.2), (2, 9, 0.2))
    kept, counts = chosen(candidates)
    assert kept == [(0, 9), (1, 5)]
    assert counts["better_in_another_class"] == 3 and counts["candidates"] == 5 and counts["chosen"] == 2


def test_a_class_that_loses_an_image_takes_its_next_one():
    candidates = pairs((0, 1, 0.5), (0, 2, 0.4), (0, 3, 0.3), (1, 1, 0.9))
    assert chosen(candidates, per_class=2)[0] == [(0, 2), (0, 3), (1, 1)]


@pytest.mark.parametrize("size, share, expected", [(10, 0.3, 3), (15, 0.3, 5), (1, 0.3, 0), (2, 0.3, 1), (7, 1.0, 7)])
def test_the_best_share_of_a_class_is_rounded_to_whole_images(size, share, expected):
    candidates = pairs(*((0, n, 1 - n / 100) for n in range(size)), (1, 99, 0.0))
    kept, _ = chosen(candidates, top_share=share)
    assert [position for query, position in kept if query == 0] == list(range(expected))


def test_shares_are_of_what_is_left_of_a_class():
    candidates = pairs(*((0, n, 0.5 - n / 100) for n in range(10)))
    kept, counts = chosen(candidates, near=[0, 1], min_score=0.42, top_share=0.5)
    # 0.5, ..., 0.42 stay; of these nine two are near a test image; half of seven is four.
    assert kept == [(0, n) for n in (2, 3, 4, 5)]
    assert counts == {
        "candidates": 10,
        "below_min_score": 1,
        "near_test": 2,
        "better_in_another_class": 0,
        "beyond_top_share": 3,
        "chosen": 4,
    }


def test_equal_scores_stand_in_the_order_of_the_set_whatever_the_order_of_candidates():
    candidates = pairs((0, 7, 0.5), (0, 2, 0.5), (0, 4, 0.5))
    assert chosen(candidates, per_class=2)[0] == [(0, 2), (0, 4)]


def test_nothing_is_chosen_out_of_nothing():
    kept, counts = chosen(pairs((0, 1, 0.1)), min_score=0.5)
    assert kept == [] and counts["chosen"] == 0


CAPTIONS = ["A Great-White_Shark jumps", "sharks!", "the category of CAT", "", "a great  white shark (photo)"]


@pytest.mark.parametrize(
    "whole_words, expected",
    [
        (False, [(0, 0), (0, 4), (1, 2)]),
        (True, [(0, 0), (0, 4), (1, 2)]),
    ],
)
def test_captions_name_a_class_whatever_case_and_separators(whole_words, expected):
    which, positions = named_in_captions([(0, CAPTIONS)], ["great white shark", "cat"], whole_words=whole_words)
    assert sorted(zip(which.tolist(), positions.tolist(), strict=True)) == expected


def test_a_name_inside_a_word_counts_as_a_substring_alone():
    parts = [(0, ["a category"]), (1, ["a cat."]), (2, ["cats"])]
    assert named_in_captions(parts, ["cat"], whole_words=False)[1].tolist() == [0, 1, 2]
    assert named_in_captions(parts, ["cat"], whole_words=True)[1].tolist() == [1]
