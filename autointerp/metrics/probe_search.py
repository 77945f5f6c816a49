"""The best single latent of many for each task, found on train examples, a block of latents at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.metrics.probe_newton import Standardised, fit_joint_probe, fit_probes, standardised
from autointerp.metrics.probe_pooling import PooledValues
from autointerp.metrics.probe_threads import in_threads
from autointerp.sampling.samplers.hashing import text_hash

__all__ = ["PENALTIES", "FittedProbe", "Found", "ProbedTask", "best_penalty", "fit_chosen", "search"]

_ROOM = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Values of one block, (latent, item)."""
_FEWEST_ROWS, _MOST_ROWS = 32, 4096
"""Latents of one block: fewer waste time on short operations, more gain none."""
PENALTIES = (1.0, 0.1, 0.01)
"""C among which `best_penalty` chooses."""
_FOLDS = 2


@dataclass(frozen=True, eq=False)
class ProbedTask:
    """Examples of one task, as columns of the items that they are."""

    name: str
    item: Int[np.ndarray, " probe_example"]
    label: Bool[np.ndarray, " probe_example"]
    is_test: Bool[np.ndarray, " probe_example"]

    def relabelled(self, label: Bool[np.ndarray, " probe_example"]) -> "ProbedTask":
        """The same examples with other labels."""
        return replace(self, label=label)

    def on(self, items: Int[np.ndarray, " item"]) -> "ProbedTask":
        """The same examples as columns of `items`, which are sorted and hold them all."""
        return replace(self, item=np.searchsorted(items, self.item))

    def train(self) -> "ProbedTask":
        """The train examples alone."""
        keep = ~self.is_test
        return ProbedTask(self.name, self.item[keep], self.label[keep], self.is_test[keep])


@dataclass(eq=False)
class Found:
    """What one pass over all latents has found of one task so far."""

    best: list[int] = field(default_factory=list)
    """For each vector of labels the latent of least loss, the first of several; -1 before any was seen."""
    best_loss: list[float] = field(default_factory=list)
    """Its loss on train, nats."""
    separating: Int[Tensor, " kept"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """Latents whose class means differ most, in their own standard deviations on train; most first."""
    difference: Float[Tensor, " kept"] = field(default_factory=lambda: torch.zeros(0))
    """Absolute difference of their class means."""


def search(
    values: PooledValues,
    tasks: Sequence[ProbedTask],
    labels: Sequence[Sequence[Bool[np.ndarray, " _"]]],
    *,
    counts: Sequence[int] = (),
    keep: int = 0,
    inverse_penalty: float = 1.0,
) -> dict[int, list[Found]]:
    """For each task the latent whose probe has the least loss on train.

    All latents' probes are fitted and forgotten block by block. Memory: the items' vectors, and some 64 MB
    (on a GPU 2 GB) whatever the number of latents; the time is linear in it.

    Args:
        values: of the latents on the items.
        tasks: whose train examples are used.
        labels: for each task one or several vectors of labels over all of its examples; the first is also
            used for `Found.separating`.
        counts: numbers n for which the best among the first n latents is wanted; default: all latents.
        keep: how many separating latents.
        inverse_penalty: as in `fit_probes`.

    Returns:
        By n, what was found of each task.

    Raises:
        ValueError: train examples have one class only, or a value is not finite.
    """
    ends = sorted(set(counts or [values.latent_count]))
    found = [Found([-1] * len(of_task), [np.inf] * len(of_task)) for of_task in labels]
    columns = [torch.from_numpy(task.item[~task.is_test]) for task in tasks]
    targets = [
        [torch.from_numpy(label[~task.is_test]) for label in of_task]
        for task, of_task in zip(tasks, labels, strict=True)
    ]
    snapshots: dict[int, list[Found]] = {}
    for block in _blocks(values, ends):
        part = values.of(block)
        part = part.to(torch.promote_types(part.dtype, torch.float32))

        def compete(number: int, part: Tensor = part, block: Tensor = block) -> None:
            known = standardised(part.index_select(1, columns[number].to(part.device)))
            _take(found[number], block, known, targets[number], keep=keep, inverse_penalty=inverse_penalty)

        in_threads(compete, range(len(tasks)), device=part.device)
        if int(block[-1]) + 1 in ends:
            snapshots[int(block[-1]) + 1] = [_copy(state) for state in found]
    return snapshots


def _blocks(values: PooledValues, ends: Sequence[int]) -> Iterator[Int[Tensor, " latent"]]:
    """Numbers of latents, as many at a time as there is room for, no block across one of `ends`."""
    first = 0
    for end in ends:
        if not first < end <= values.latent_count:
            raise ValueError(f"{end} latents asked for, there are {values.latent_count}")
        room = _ROOM.get(values.device.type, _ROOM["cpu"])
        rows = min(max(_FEWEST_ROWS, room // max(1, values.item_count)), _MOST_ROWS)
        for start in range(first, end, rows):
            yield torch.arange(start, min(start + rows, end))
        first = end


def _take(
    state: Found,
    block: Tensor,
    known: Standardised,
    targets: Sequence[Tensor],
    *,
    keep: int,
    inverse_penalty: float,
) -> None:
    """Let a block of latents compete."""
    probes = fit_probes(known, targets, inverse_penalty=inverse_penalty)
    for number, fits in enumerate(probes):
        least = int(torch.argmin(fits.loss))
        if float(fits.loss[least]) < state.best_loss[number]:
            state.best_loss[number], state.best[number] = float(fits.loss[least]), int(block[least])
    if keep:
        difference = torch.cat([state.difference, probes[0].mean_difference.abs().float().cpu()])
        latents = torch.cat([state.separating, block])
        order = torch.argsort(difference, descending=True, stable=True)[:keep]
        state.difference, state.separating = difference[order], latents[order]


def _copy(state: Found) -> Found:
    return Found(list(state.best), list(state.best_loss), state.separating, state.difference)


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe on chosen latents, fitted on train and told on test."""

    latents: tuple[int, ...]
    weight: Float[Tensor, " latent"]
    train_loss: float
    """Mean cross entropy on train, nats."""
    test_logits: Float[np.ndarray, " probe_example"]
    """Of the test examples, in order."""


def fit_chosen(
    values: Float[Tensor, "latent item"],
    latents: Sequence[int],
    task: ProbedTask,
    *,
    inverse_penalty: float = 1.0,
) -> FittedProbe:
    """The probe on chosen latents together, in float64.

    Args:
        values: of these latents, in this order, on all items.
        latents: their numbers.
        task: its train examples are fitted, its test examples told.
        inverse_penalty: as in `fit_probes`.
    """
    chosen = values.double().cpu()
    train = chosen[:, torch.from_numpy(task.item[~task.is_test])]
    test = chosen[:, torch.from_numpy(task.item[task.is_test])]
    known = standardised(train)
    label = torch.from_numpy(task.label[~task.is_test])
    probe = fit_joint_probe(known, label, inverse_penalty=inverse_penalty)
    sign = 1.0 - 2.0 * label.double()
    loss = torch.nn.functional.softplus(sign * probe.logits(known.z)).mean()
    told = probe.logits((test - known.mean[:, None]) / known.std[:, None])
    return FittedProbe(tuple(latents), probe.weight, float(loss), told.numpy())


def best_penalty(values: Float[Tensor, "latent item"], task: ProbedTask, groups: Sequence[str]) -> float:
    """The C of `PENALTIES` whose joint probe has the least loss in cross-validation within train.

    Two folds; all examples of a group are in one, by the hash of its name. The largest C of equals, and where
    a fold leaves one label only.
    """
    train = task.train()
    chosen = values.double().cpu()[:, torch.from_numpy(train.item)]
    fold = np.array([text_hash(group) % _FOLDS for group in np.array(groups, dtype=object)[~task.is_test]])
    total = np.zeros(len(PENALTIES))
    for held_out in range(_FOLDS):
        split = ProbedTask(train.name, np.arange(len(fold)), train.label, fold == held_out)
        kept = split.label[~split.is_test]
        if kept.all() or not kept.any():
            return PENALTIES[0]
        for number, inverse_penalty in enumerate(PENALTIES):
            probe = fit_chosen(chosen, range(len(chosen)), split, inverse_penalty=inverse_penalty)
            sign = 1.0 - 2.0 * split.label[split.is_test]
            total[number] += np.logaddexp(0.0, sign * probe.test_logits).sum()
    return PENALTIES[int(total.argmin())]
