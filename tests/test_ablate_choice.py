"""Scores and policies of practice: what a score says of answers that are known, and which candidates a policy takes."""

from dataclasses import replace

import numpy as np
import pytest

from synclones.ablate.answers import Answers
from synclones.ablate.choice import choose, mean_by_prompt, number_taken
from synclones.ablate.policy import POLICIES, SCORES, Policy, load_policy, load_score, policy_names
from synclones.base.errors import InputError

SURE, TORN, LOST = [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]
LABELS = np.array([0, 0, 0])


def answers(first, second=None, teacher=None, labels=LABELS):
    learners = tuple(np.array(rows) for rows in (first, second) if rows is not None)
    return Answers(learners, labels, None if teacher is None else np.array(teacher))


def test_scores_of_known_answers():
    one = answers([SURE, TORN, LOST])
    assert np.allclose(load_score("entropy").score(one), [0, np.log(2), np.log(3)])
    assert np.allclose(load_score("margin").score(one), [0, 1, 1])
    two = answers([SURE, SURE, TORN], [SURE, [0.0, 1.0, 0.0], TORN])
    assert np.allclose(load_score("disagreement").score(two), [0, np.log(2), 0])
    taught = answers(None, teacher=[SURE, TORN, [0.0, 1.0, 0.0]])
    hard = load_score("difficulty").score(taught)
    assert np.allclose(hard[:2], [0, np.log(2)]) and 700 < hard[2] < 709
    assert load_score("uniform").score(one).tolist() == [0, 0, 0]


def test_every_file_is_one_score_or_policy():
    for path in SCORES.glob("*.py"):
        assert load_score(path.stem).name == path.stem
    assert {"entropy", "margin", "disagreement", "difficulty", "random", "at-once", "same-compute"} <= {*policy_names()}
    loops = [load_policy(name) for name in policy_names()]
    assert {policy.score for policy in loops} == {path.stem for path in SCORES.glob("*.py")}
    assert all((POLICIES / f"{name}.yaml").read_text().startswith("# ") for name in policy_names())


def take(policy, scores, labels=None, n=4, classes=2, seed=0):
    labels = np.arange(len(scores)) % 2 if labels is None else labels
    return choose(policy, np.array(scores, float), np.arange(len(scores)), labels, classes, n, seed).tolist()


def test_the_highest_scores_are_taken_of_each_class_or_of_all():
    scores = [9, 1, 8, 2, 7, 3, 6, 4]  # the even ones, of class 0, are the highest
    assert take(Policy(quota="none"), scores) == [0, 2, 4, 6]
    assert take(Policy(quota="class"), scores) == [0, 2, 5, 7]
    assert take(Policy(quota="class"), scores, n=3) == [0, 2, 7], "what does not divide goes to the first classes"
    assert take(Policy(quota="none", skip=0.25), scores, n=2) == [4, 6]
    assert take(Policy(quota="class", skip=0.25), scores, n=2) == [2, 5]


def test_equal_scores_are_taken_by_chance_and_the_same_seed_takes_the_same():
    zeros = np.zeros(1000)
    first, again, other = (take(Policy(quota="none"), zeros, n=500, seed=seed) for seed in (1, 1, 2))
    assert first == again and 200 < len({*first} & {*other}) < 300
    # The rest of a larger set does not decide who is ahead of whom.
    assert set(take(Policy(quota="none"), zeros[:500], n=500, seed=1)) == set(range(500))


def test_with_a_temperature_candidates_are_drawn_with_weights_of_their_scores():
    scores = np.log([1.0, 3.0])[np.arange(8_000) % 2]  # of two candidates one has three times the weight
    labels = np.arange(8_000) // 2  # each pair is a class: one of two is drawn
    policy = Policy(temperature=1.0)
    drawn = choose(policy, scores, np.arange(8_000), labels, 4_000, 4_000, 5)
    assert abs((drawn % 2).mean() - 0.75) < 0.03  # four standard errors
    hot = choose(replace(policy, temperature=1e5), scores, np.arange(8_000), labels, 4_000, 4_000, 5)
    assert abs((hot % 2).mean() - 0.5) < 0.035
    # Skipped are those of the highest scores, not the luckiest.
    ranks = np.arange(100.0)
    soft = Policy(temperature=1e5, skip=0.5, quota="none")
    assert max(choose(soft, ranks, np.arange(100), np.zeros(100, int), 1, 30, 0)) < 50


def test_a_prompt_counts_by_the_mean_of_its_images():
    prompts, labels = ["a", "b", "a", "a"], np.array([0, 0, 0, 1])
    assert mean_by_prompt(np.array([1.0, 2.0, 3.0, 9.0]), prompts, labels).tolist() == [2, 2, 2, 9]


def test_how_many_are_taken():
    assert [number_taken(Policy(share=share), 200) for share in (0.25, 1.0, 0.001, 0.29)] == [50, 200, 1, 58]


def test_a_class_with_too_few_candidates_is_named():
    with pytest.raises(InputError, match="class 1 has 1 candidates, 2 are to be taken; draw more"):
        take(Policy(), [1, 2, 3, 4], labels=np.array([0, 0, 0, 1]))
    with pytest.raises(InputError, match="there are 4 candidates, of which 2 are skipped, 3 are to be taken"):
        take(Policy(quota="none", skip=0.5), [1, 2, 3, 4], n=3)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("scor: entropy", "p.yaml:1: 'scor' is unknown.*score"),
        ("score: entropi", "score 'entropi' is unknown.*entropy"),
        ("score: entropy\nshare: 0", "p.yaml:2: share: 0.* was given, expected above 0 and at most 1"),
        ("share: 0.8\nskip: 0.3", "share and skip are together 1.1"),
        ("temperature: -1", "temperature: -1.* expected 0 and more"),
        ("keep: both", "p.yaml:1: keep: got 'both', expected 'images', 'prompts'"),
        ("share: many", "share: got 'many', expected a number"),
        ("draw: at once", "like: POLICY says which loop"),
        ("draw: at once\nlike: random\nshare: 0.5", "p.yaml:3: share is of a loop"),
        ("like: random", "like: POLICY says which loop"),
        ("draw: at once\nlike: at-once", "'at-once' is no loop"),
    ],
)
def test_a_policy_that_none_can_follow_is_refused_by_line(tmp_path, text, expected):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(InputError, match=expected):
        load_policy(str(tmp_path / "p.yaml"))


def test_an_unknown_policy_names_the_near_one():
    with pytest.raises(InputError, match="'entropi' is unknown; did you mean 'entropy'"):
        load_policy("entropi")
