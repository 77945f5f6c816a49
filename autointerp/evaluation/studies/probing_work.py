"""One dictionary, or one site, and a block of tasks -> logits of probes on the test examples, as a shard."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.evaluation.studies.probing_examples import TaskBlock
from autointerp.metrics.probe_activations import PooledActivations, best_detector
from autointerp.metrics.probe_baselines import chance_logits, shuffled_labels
from autointerp.metrics.probe_pooling import (
    ChannelBank,
    DictionaryBank,
    DirectionBank,
    Items,
    PooledInputs,
    PooledValues,
)
from autointerp.metrics.probe_search import FittedProbe, Found, ProbedTask, best_penalty, fit_chosen, search
from autointerp.metrics.probe_threads import in_threads
from autointerp.sections.probes import ProbeSection

__all__ = ["FACTS", "LOGITS", "Shard", "probe_dictionary", "probe_site"]

LOGITS: dict[str, Any] = {
    "kind": pl.String,
    "task": pl.String,
    "example": pl.Int64,
    "label": pl.Boolean,
    "logit": pl.Float64,
}
"""A row for each kind of probe and test example; `label` is what the probe was fitted and is judged on."""
FACTS: dict[str, Any] = {"kind": pl.String, "task": pl.String, "fact": pl.String}
"""A row for each probe; `fact` is JSON."""


@dataclass(frozen=True, eq=False)
class Shard:
    """What was found, in the two forms that are kept."""

    logits: pl.DataFrame
    facts: pl.DataFrame


class _Notes:
    """Collects probes."""

    def __init__(self) -> None:
        self._logits: list[pl.DataFrame] = []
        self._facts: list[dict[str, str]] = []

    def add(self, kind: str, task: ProbedTask, logits: np.ndarray, **fact: Any) -> None:
        """One probe on one task's test examples."""
        columns = {
            "kind": [kind] * len(logits),
            "task": [task.name] * len(logits),
            "example": np.flatnonzero(task.is_test),
            "label": task.label[task.is_test],
            "logit": np.asarray(logits, dtype=np.float64),
        }
        self._logits.append(pl.DataFrame(columns, schema=LOGITS))
        self._facts.append({"kind": kind, "task": task.name, "fact": json.dumps(fact)})

    def fitted(self, kind: str, task: ProbedTask, probe: FittedProbe) -> None:
        """One probe that was fitted."""
        weight = float(probe.weight[0])
        fact: dict[str, Any] = {"train_loss_nats": round(probe.train_loss, 9)}
        if len(probe.latents) == 1:
            fact |= {"latent": probe.latents[0], "direction": 1 if weight > 0 else -1 if weight < 0 else 0}
        self.add(kind, task, probe.test_logits, **fact)

    def shard(self) -> Shard:
        """All of them."""
        logits = pl.concat(self._logits) if self._logits else pl.DataFrame(schema=LOGITS)
        return Shard(logits, pl.DataFrame(self._facts, schema=FACTS))


Pool = Callable[[np.ndarray], PooledValues]
"""Values of all latents on some items (numbers, sorted)."""


def probe_dictionary(
    sae: SparseAutoencoder,
    x: Float[Tensor, "token d_model"],
    block: TaskBlock,
    section: ProbeSection,
    *,
    seed: int,
) -> Shard:
    """Kinds `own`, `random_labels`, `k=1`, ..., `known_feature` of every task.

    Args:
        sae: the dictionary.
        x: the block's token vectors at the site that it reads.
        block: the tasks.
        section: how they are probed.
        seed: of random labels.
    """
    notes = _Notes()
    activations = PooledActivations.encoded(sae, x, block.table.items)
    for task in block.tasks:
        detector = best_detector(activations, task)
        notes.add(
            "known_feature",
            task,
            np.where(detector.says_yes, 1.0, -1.0),
            latent=detector.latent,
            threshold=detector.threshold,
            train_f1=detector.train_f1,
        )
    pool: Pool = activations.only
    if section.values == "pre_activations":
        pool = _pool(DictionaryBank(sae), x, block.table.items)
    wanted = [k for k in section.sparse_counts if k <= sae.latent_count]
    keep = max(wanted, default=0)
    labels = [
        [task.label, *_other_labels(task, groups, seed)]
        for task, groups in zip(block.tasks, block.groups, strict=True)
    ]
    found = _searched(pool, block.tasks, labels, [sae.latent_count], keep=keep, section=section)

    def told(number: int) -> list[_Fitted]:
        state, mine = found[sae.latent_count][number], _task_values(pool, block.tasks[number])
        return list(_chosen(mine, labels[number], state, wanted, section))

    for of_task in in_threads(told, range(len(block.tasks)), device=sae.device):
        for kind, task, probe in of_task:
            notes.fitted(kind, task, probe)
    return notes.shard()


def _other_labels(task: ProbedTask, groups: Sequence[str], seed: int) -> list[np.ndarray]:
    """Labels at random, unless few groups leave one side of the split with one label."""
    label = shuffled_labels(task, groups, seed=seed)
    has_both = all(0 < label[side].sum() < side.sum() for side in (task.is_test, ~task.is_test))
    return [label] if has_both else []


_Fitted = tuple[str, ProbedTask, FittedProbe]


def _chosen(
    task_values: tuple[PooledValues, ProbedTask],
    labels: Sequence[np.ndarray],
    state: Found,
    wanted: Sequence[int],
    section: ProbeSection,
) -> Iterator[_Fitted]:
    """Fit again, in float64, what was chosen on one task, and tell it on test."""
    values, task = task_values
    separating = state.separating.tolist()
    chosen = {"own": state.best[:1]} | {f"k={k}": separating[:k] for k in wanted}
    if len(labels) > 1:
        chosen["random_labels"] = state.best[1:]
    latents = sorted({latent for some in chosen.values() for latent in some})
    rows = {latent: row for row, latent in enumerate(latents)}
    known = values.of(torch.tensor(latents))
    for kind, some in chosen.items():
        mine = task.relabelled(labels[1]) if kind == "random_labels" else task
        part = known[[rows[latent] for latent in some]]
        yield kind, mine, fit_chosen(part, some, mine, inverse_penalty=section.inverse_penalty)


def _pool(bank: Any, x: Tensor, items: Items) -> Pool:
    return lambda chosen: PooledInputs(bank, x, items.only(chosen))


def _task_values(pool: Pool, task: ProbedTask) -> tuple[PooledValues, ProbedTask]:
    """Values on one task's items alone."""
    items = np.unique(task.item)
    return pool(items), task.on(items)


def _searched(
    pool: Pool,
    tasks: Sequence[ProbedTask],
    labels: Sequence[Sequence[np.ndarray]],
    counts: Sequence[int],
    *,
    keep: int = 0,
    section: ProbeSection,
) -> Mapping[int, list[Found]]:
    """`search` on the items of train examples only."""
    items = np.unique(np.concatenate([task.item[~task.is_test] for task in tasks]))
    train = [task.train().on(items) for task in tasks]
    targets = [
        [label[~task.is_test] for label in of_task] for task, of_task in zip(tasks, labels, strict=True)
    ]
    return search(
        pool(items), train, targets, counts=counts, keep=keep, inverse_penalty=section.inverse_penalty
    )


def probe_site(
    x: Float[Tensor, "token d_model"],
    block: TaskBlock,
    section: ProbeSection,
    *,
    site: str,
    latent_counts: Sequence[int],
    seed: int,
    device: torch.device,
) -> Shard:
    """What needs no dictionary: `chance`, `channels`, `all_channels`, `random_directions@n` for each n.

    With few examples for many channels the penalty decides what all of them together reach. So the ceiling
    stands there twice: with the penalty of all other probes, and, `all_channels_tuned`, with one that is
    chosen on train.
    Random directions are read of activations whose channels are standardised on the task's own train texts;
    the first n of them are the same for all n.
    """
    notes = _Notes()
    bank = ChannelBank(x.shape[1], device=device)
    pool = _pool(bank, x, block.table.items)
    labels = [[task.label] for task in block.tasks]
    found = _searched(pool, block.tasks, labels, [bank.latent_count], section=section)[bank.latent_count]
    draw = {"count": max(latent_counts), "seed": seed, "site": site, "device": device}

    def told(number: int) -> list[_Fitted]:
        task, groups, state = block.tasks[number], block.groups[number], found[number]
        channels = _channel_probes(_task_values(pool, task), groups, state.best, section)
        rows = torch.from_numpy(np.concatenate(list(_train_rows(task, block.table.items))))
        directions = _pool(DirectionBank(x[rows], **draw), x, block.table.items)
        return [*channels, *_direction_probes(directions, task, latent_counts, section)]

    for task, of_task in zip(
        block.tasks, in_threads(told, range(len(block.tasks)), device=device), strict=True
    ):
        notes.add("chance", task, chance_logits(task))
        for kind, mine, probe in of_task:
            notes.fitted(kind, mine, probe)
    return notes.shard()


def _channel_probes(
    task_values: tuple[PooledValues, ProbedTask],
    groups: Sequence[str],
    best: list[int],
    section: ProbeSection,
) -> Iterator[_Fitted]:
    """The best channel, all of them, and all of them with another penalty."""
    values, task = task_values
    everything = list(range(values.latent_count))
    known = values.of(torch.tensor(everything))
    for kind, some, inverse_penalty in (
        ("channels", best, section.inverse_penalty),
        ("all_channels", everything, section.inverse_penalty),
        ("all_channels_tuned", everything, best_penalty(known, task, groups)),
    ):
        yield kind, task, fit_chosen(known[some], some, task, inverse_penalty=inverse_penalty)


def _direction_probes(
    pool: Pool, task: ProbedTask, latent_counts: Sequence[int], section: ProbeSection
) -> Iterator[_Fitted]:
    """The best among the first n random directions, for each n."""
    snapshots = _searched(pool, [task], [[task.label]], latent_counts, section=section)
    values, mine = _task_values(pool, task)
    for count, (state,) in snapshots.items():
        known = values.of(torch.tensor(state.best))
        probe = fit_chosen(known, state.best, mine, inverse_penalty=section.inverse_penalty)
        yield f"random_directions@{count}", mine, probe


def _train_rows(task: ProbedTask, items: Items) -> Iterator[np.ndarray]:
    """Rows of the token vectors that train examples are made of."""
    for item in np.unique(task.item[~task.is_test]).tolist():
        yield np.arange(items.start[item], items.stop[item])
