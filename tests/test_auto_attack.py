"""AutoAttack as an extra: refused without its library, known by batch and version, and at least as strong as PGD."""

import logging
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from answered_sets import by_metric, of_model, value, with_logits
from test_evaluate import ONE_THREAD, _model
from torch import nn

import synclones.evaluate.methods.auto_attack as module
from synclones.base.errors import InputError
from synclones.evaluate.axes.adversarial import auto_attack_condition, fgsm_condition, measure, pgd_condition
from synclones.evaluate.methods.attacks import pgd
from synclones.evaluate.methods.auto_attack import auto_attack, refuse_few_classes
from synclones.evaluate.run import main
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.stored.results import read_cells
from synclones.lab.real_digits import draw_real_digits, write_real_digits

EPSILON = 8 / 255


class Stand:
    """Stands for the library's class: moves every image to the end of its box, and says what it was given."""

    given: list[tuple] = []

    def __init__(self, model, **settings):
        self.model, self.settings = model, settings
        self.apgd_targeted, self.fab = SimpleNamespace(n_target_classes=9), SimpleNamespace(n_target_classes=9)

    def run_standard_evaluation(self, pixels, labels, batch_size):
        aims = self.apgd_targeted.n_target_classes, self.fab.n_target_classes
        Stand.given.append((len(pixels), batch_size, aims, self.settings))
        assert self.model(pixels).dtype == torch.float32
        torch.manual_seed(self.settings["seed"])
        sys.settrace(None)
        for text in ("3 points with zero gradient", "4 points with zero gradient"):
            logging.getLogger("auto-attack").warning(text)
        return (pixels + self.settings["eps"]).clamp(0, 1), labels


@pytest.fixture
def stand(monkeypatch):
    library = ModuleType("pyautoattack")
    library.AutoAttack = Stand
    monkeypatch.setitem(sys.modules, "pyautoattack", library)
    monkeypatch.setattr(module, "library", lambda: "pyautoattack 9.9")
    monkeypatch.setattr("synclones.evaluate.axes.adversarial.library", lambda: "pyautoattack 9.9")
    monkeypatch.setattr("synclones.evaluate.inputs.library", lambda: "pyautoattack 9.9")
    monkeypatch.setattr(Stand, "given", [])
    monkeypatch.setattr(module._Warnings, "printed", set())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    return _model(root / "model"), write_real_digits(root / "digits", "test")


def test_without_its_library_it_is_refused_before_anything_is_written(world, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIBRARY", "no-such-library-of-attacks")
    flags = ("--model", str(world[0]), "--data", str(world[1]), "--out", str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"needs the library .* run: pip install 'synclones\[attacks\]', or leave it"):
        main([*flags, "--attacks", "fgsm", "autoattack"])
    assert not (tmp_path / "out").exists()


def test_models_of_few_classes_are_refused_by_name():
    models = [SimpleNamespace(name=f"m{n}", classifier=SimpleNamespace(class_ids="abcdef"[:n])) for n in (4, 3)]
    refuse_few_classes(models[:1])
    with pytest.raises(InputError, match="m3 has 3 classes, its targeted loss needs 4"):
        refuse_few_classes(models)


def test_numbers_are_filed_by_batch_size_and_version_beside_those_of_other_attacks(world, tmp_path, stand, capsys):
    flags = ("--model", str(world[0]), "--data", str(world[1]), "--out", str(tmp_path / "out"), *ONE_THREAD)
    flags = (*flags, "--attacks", "fgsm", "autoattack", "--epsilons-255", "8", "--resamples", "100", "--seed", "5")
    for size in ("64", "100"):
        main([*flags, "--batch-size", size])
    said = capsys.readouterr().err
    assert said.count("AutoAttack, pyautoattack: 3 points with zero gradient") == 1 and "4 points" not in said
    sizes = [n for n, *_ in Stand.given]
    assert sizes == [64] * 8 + [25] + [100] * 5 + [37] and all(n == size for n, size, *_ in Stand.given)
    settings = {"eps": EPSILON, "norm": "Linf", "seed": 5, "version": "standard", "device": torch.device("cpu")}
    assert all((aims, given) == ((9, 9), settings) for _, _, aims, given in Stand.given)
    cells = [cell for cell in read_cells(tmp_path / "out") if cell.metric == "accuracy_autoattack"]
    assert [cell.settings for cell in cells] == [
        {"attack": "autoattack", "epsilon_255": 8.0, "batch_size": size, "library": "pyautoattack 9.9"}
        for size in sorted([64, 100], key=[cell.settings["batch_size"] for cell in cells].index)
    ]
    assert len({cell.key for cell in cells}) == 2 and {cell.seed for cell in cells} == {5}
    assert "accuracy under AutoAttack 8/255" in (tmp_path / "out" / "table.md").read_text()
    assert "AutoAttack 8/255" in (tmp_path / "out" / "table.tex").read_text()


def test_torch_s_numbers_and_the_tracer_go_on_and_few_classes_are_all_targets(stand):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).requires_grad_(False)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    before = sys.gettrace()
    auto_attack(network, torch.rand(4, 3, 2, 2).clamp(0, 1), torch.zeros(4, dtype=torch.long), EPSILON, 7)
    torch.manual_seed(1)
    assert Stand.given[0][2] == (4, 4) and sys.gettrace() is before
    state = torch.get_rng_state()
    auto_attack(network, torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.long), EPSILON, 7)
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(torch.rand(3), expected)


def _measured(shares, attacks):
    """Measure a model that is right about these numbers of 1,000 images under each attack."""
    labels = np.zeros(1000, np.int64)
    shown = {c: np.stack([np.arange(1000) < n, np.arange(1000) >= n], 1) for c, n in shares.items()}
    item = with_logits("reference", np.eye(2)[labels], labels, more=shown)
    config = EvaluateConfig(attacks=attacks, epsilons_255=(8.0,), pgd_steps=3)
    return by_metric(measure(of_model(item), config))


@pytest.mark.parametrize(("many", "expected"), [(300, False), (304, False), (305, True)])
def test_many_steps_that_leave_more_than_one_step_are_noted(stand, many, expected):
    one = {fgsm_condition(8.0): 300}
    shares = one | {pgd_condition(8.0, 3, 0): many, auto_attack_condition(8.0, 64, 0): many}
    found = _measured(shares, ("fgsm", "pgd", "autoattack"))
    for name, words in (("accuracy_pgd", "PGD-3"), ("accuracy_autoattack", "AutoAttack")):
        (item,) = found[name]
        assert value(item) == many / 1000 and bool(item.notes) is expected
        assert not expected or item.notes[0] == (
            f"accuracy under {words} 8/255 is 30.5 %, under one step of that strength (FGSM) 30.0 %: the model hides "
            "its gradients, or the attack is broken"
        )
    assert not found["accuracy_fgsm"][0].notes
    assert not _measured({pgd_condition(8.0, 3, 0): 900}, ("pgd",))["accuracy_pgd"][0].notes, "nothing to compare with"


def test_the_note_is_told_on_stderr_and_stands_in_the_number_s_file(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("synclones.evaluate.axes.adversarial.CHANCE", -1.0)
    flags = ("--model", str(world[0]), "--data", str(world[1]), "--out", str(tmp_path / "out"), *ONE_THREAD)
    main([*flags, "--attacks", "fgsm", "pgd", "--epsilons-255", "8", "--pgd-steps", "2", "--resamples", "100"])
    cells = {cell.metric: cell for cell in read_cells(tmp_path / "out")}
    (note,) = cells["accuracy_pgd"].notes
    lines = [line for line in capsys.readouterr().err.splitlines() if "hides its gradients" in line]
    assert lines == [f"model: {note}"] and not cells["accuracy_fgsm"].notes


# ------------------------------------------------------------------ the library itself


@pytest.fixture(scope="module")
def trained():
    """A small convolutional network, trained for seconds, and 16 of the lab's test digits."""
    pixels, labels = _digits("classifier-train")
    torch.manual_seed(0)
    sizes = {"stride": 2, "padding": 1}
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, **sizes), nn.ReLU(), nn.Conv2d(16, 32, 3, **sizes), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 8 * 8, 10)),
    )
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for step in range(150):
        some = torch.arange(step * 64, (step + 1) * 64) % len(labels)
        loss = nn.functional.cross_entropy(network(pixels[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels, labels = (x[:16] for x in _digits("test"))
    return network.eval().requires_grad_(False), pixels, labels


def _digits(split):
    images, labels = draw_real_digits(split, 0)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(np.asarray(labels, np.int64))


def test_the_library_s_attack_leaves_no_more_than_pgd(trained):
    pytest.importorskip("pyautoattack", reason="the extra attacks is not installed: pip install 'synclones[attacks]'")
    network, pixels, labels = trained
    epsilon = 16 / 255

    def right(images):
        return (network(images).argmax(1) == labels).double().mean().item()

    sizes = {"epsilon": epsilon, "steps": 20, "step": epsilon / 4, "seed": 0}
    under_pgd = right(pgd(network, pixels, labels, np.arange(len(labels)), **sizes))
    attacked = auto_attack(network, pixels, labels, epsilon, 0)
    assert 0 < under_pgd < right(pixels) and right(attacked) <= under_pgd + 0.005
    assert attacked.min() >= 0 and attacked.max() <= 1 and (attacked - pixels).abs().max() <= epsilon + 1e-6
    wrong = network(pixels).argmax(1) != labels
    assert torch.equal(attacked[wrong], pixels[wrong])
    assert torch.equal(auto_attack(network, pixels, labels, epsilon, 0), attacked), "the seed decides all that is drawn"
