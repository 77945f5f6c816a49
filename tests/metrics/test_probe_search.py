"""The best latent of many, and what it is set against, by brute force and by simulation."""

import numpy as np
import pytest
import torch

from autointerp.metrics import probe_search
from autointerp.metrics.probe_baselines import chance_logits, shuffled_labels
from autointerp.metrics.probe_newton import fit_probes, standardised
from autointerp.metrics.probe_search import ProbedTask, best_penalty, fit_chosen, search

EVERY = torch.arange(60)


class Values:
    """Values that are all there."""

    def __init__(self, values: torch.Tensor) -> None:
        self.latent_count, self.item_count = values.shape
        self.device, self._values = values.device, values
        self.largest_block = 0

    def of(self, latents: torch.Tensor) -> torch.Tensor:
        self.largest_block = max(self.largest_block, len(latents))
        return self._values[latents]


def made_up(latent_count: int = 60, item_count: int = 240) -> tuple[Values, list[ProbedTask]]:
    """Latent 41 solves the first task; the second one has nothing to find."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((latent_count, item_count))
    first = rng.random(item_count) < 0.5
    values[41] = np.where(first, 3.0, -3.0) + 0.1 * rng.standard_normal(item_count)
    values[7] = first + 0.8 * rng.standard_normal(item_count)
    is_test = np.arange(item_count) % 3 == 0
    items = np.arange(item_count)
    second = rng.random(160) < 0.5
    some = rng.choice(item_count, 160, replace=False)
    tasks = [
        ProbedTask("a/solved", items, first, is_test),
        ProbedTask("a/nothing", some, second, rng.random(160) < 0.4),
    ]
    return Values(torch.tensor(values, dtype=torch.float32)), tasks


def test_finds_what_looking_at_every_latent_finds() -> None:
    values, tasks = made_up()
    found = search(values, tasks, [[task.label] for task in tasks], keep=5)[60]
    for task, state in zip(tasks, found, strict=True):
        known = standardised(values.of(EVERY)[:, torch.from_numpy(task.item[~task.is_test])])
        (probes,) = fit_probes(known, [torch.from_numpy(task.label[~task.is_test])])
        assert state.best == [int(probes.loss.argmin())]
        assert state.best_loss[0] == pytest.approx(float(probes.loss.min()), abs=1e-6)
        order = torch.argsort(probes.mean_difference.abs(), descending=True)
        assert state.separating.tolist() == order[:5].tolist()
    assert found[0].best == [41]
    assert found[0].best_loss[0] < 0.03  # all of it the penalty


def test_a_planted_latent_solves_its_task_on_test() -> None:
    values, (task, _) = made_up()
    probe = fit_chosen(values.of(torch.tensor([41])), [41], task)
    label = task.label[task.is_test]
    assert np.logaddexp(0, np.where(label, -probe.test_logits, probe.test_logits)).mean() < 0.03
    assert probe.weight[0] > 0 and probe.latents == (41,)


def test_blocks_and_company_of_tasks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values, tasks = made_up()
    labels = [[task.label, ~task.label] for task in tasks]
    at_once = search(values, tasks, labels, keep=9)[60]
    monkeypatch.setattr(probe_search, "_ROOM", {"cpu": 240 * 7})
    monkeypatch.setattr(probe_search, "_FEWEST_ROWS", 1)
    values.largest_block = 0
    in_blocks = search(values, tasks, labels, keep=9, counts=[1, 20, 60])
    assert values.largest_block == 7
    for one, other in zip(at_once, in_blocks[60], strict=True):
        assert one.best == other.best
        assert one.best_loss == pytest.approx(other.best_loss, abs=1e-6)
        assert one.separating.tolist() == other.separating.tolist()
    assert in_blocks[1][0].best == [0, 0]
    few = search(Values(values.of(EVERY[:20])), tasks[1:], labels[1:])[20]
    assert few[0].best == in_blocks[20][1].best
    assert in_blocks[20][1].best_loss[0] >= in_blocks[60][1].best_loss[0]


def test_test_examples_have_no_say() -> None:
    values, tasks = made_up()
    turned = [task.relabelled(np.where(task.is_test, ~task.label, task.label)) for task in tasks]
    one = search(values, tasks, [[task.label] for task in tasks])[60]
    other = search(values, turned, [[task.label] for task in turned])[60]
    assert [state.best for state in one] == [state.best for state in other]
    assert [state.best_loss for state in one] == [state.best_loss for state in other]


def test_refuses_more_latents_than_there_are() -> None:
    values, tasks = made_up()
    with pytest.raises(ValueError, match="61 latents asked for, there are 60"):
        search(values, tasks, [[task.label] for task in tasks], counts=[61])


def test_labels_at_random_fall_within_the_null_of_a_minimum_over_many() -> None:
    """The best of n on train has a test loss above the coin's; how far above is simulated, not guessed."""
    rng = np.random.default_rng(4)
    count, train, test = 400, 120, 400

    def best_of_many(draw: np.random.Generator) -> tuple[float, float]:
        values = Values(torch.tensor(draw.standard_normal((count, train + test)), dtype=torch.float32))
        label = draw.permutation(np.arange(train + test) % 2 == 0)
        task = ProbedTask("a/b", np.arange(train + test), label, np.arange(train + test) >= train)
        (state,) = search(values, [task], [[task.label]])[count]
        probe = fit_chosen(values.of(torch.tensor(state.best)), state.best, task)
        told = label[task.is_test]
        return state.best_loss[0], float(
            np.logaddexp(0, np.where(told, -probe.test_logits, probe.test_logits)).mean()
        )

    null = np.array([best_of_many(draw) for draw in rng.spawn(40)])
    assert (null[:, 0] < np.log(2)).all()  # the minimum on train is below the coin, always
    assert null[:, 1].mean() > np.log(2) + 0.01  # and above it where it is told
    values, _ = made_up(count, train + test)
    label = np.arange(train + test) % 2 == 0
    task = ProbedTask("a/b", np.arange(train + test), label, np.arange(train + test) >= train)
    shuffled = task.relabelled(shuffled_labels(task, [str(i) for i in range(train + test)], seed=0))
    (state,) = search(values, [task], [[shuffled.label]])[count]
    probe = fit_chosen(values.of(torch.tensor(state.best)), state.best, shuffled)
    told = shuffled.label[task.is_test]
    loss = np.logaddexp(0, np.where(told, -probe.test_logits, probe.test_logits)).mean()
    assert null[:, 1].min() - 0.01 <= loss <= null[:, 1].max() + 0.01


def test_shuffled_labels_keep_sides_and_groups() -> None:
    rng = np.random.default_rng(0)
    is_test = np.arange(600) >= 360
    pure = [f"p{i // 4}" for i in range(200)] + [f"m{i // 5}" for i in range(200, 360)]
    groups = pure + [f"t{i // 6}" for i in range(360, 600)]
    label = rng.random(600) < 0.5
    label[:200] = np.repeat(rng.random(50) < 0.5, 4)
    label[200:360] = np.arange(160) % 2 == 0
    task = ProbedTask("a/b", np.arange(600), label, is_test)
    found = shuffled_labels(task, groups, seed=0)
    assert np.array_equal(found, shuffled_labels(task, groups, seed=0))
    assert not np.array_equal(found, shuffled_labels(task, groups, seed=1))
    assert (found != label).mean() > 0.3
    for part in (slice(0, 200), slice(200, 360), slice(0, 360), slice(360, 600)):
        assert found[part].sum() == pytest.approx(label[part].sum(), abs=12 if part.start == 360 else 0)
    for first in range(0, 200, 4):
        assert len(set(found[first : first + 4].tolist())) == 1


def test_chance_knows_the_share_of_train_alone() -> None:
    label = np.array([True] * 3 + [False] * 1 + [False] * 4)
    task = ProbedTask("a/b", np.arange(8), label, np.arange(8) >= 4)
    assert np.allclose(chance_logits(task), [np.log(3)] * 4)


def test_the_penalty_is_chosen_by_groups_on_train_alone() -> None:
    rng = np.random.default_rng(1)
    count, width = 150, 60
    label = rng.random(count) < 0.5
    values = rng.standard_normal((width, count))
    groups = [str(i // 3) for i in range(count)]
    is_test = np.arange(count) >= 120
    task = ProbedTask("a/b", np.arange(count), label, is_test)
    noise = torch.tensor(values)
    assert best_penalty(noise, task, groups) == min(probe_search.PENALTIES)  # nothing to learn: shrink
    values[3] = np.where(label, 5.0, -5.0) + rng.standard_normal(count)
    clear = torch.tensor(values[:4])
    assert best_penalty(clear, task, groups) == max(probe_search.PENALTIES)
    turned = task.relabelled(np.where(is_test, ~label, label))
    assert best_penalty(clear, turned, groups) == best_penalty(clear, task, groups)
    assert best_penalty(clear, task, ["one"] * count) == probe_search.PENALTIES[0]
