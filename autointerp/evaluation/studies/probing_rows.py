"""Logits of test examples -> observations of probe metrics, and what the report says beside them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from autointerp.evaluation.studies.probing_work import Shard
from autointerp.metrics.probe_loss import ACCURACY, AUROC, KNOWN_FEATURE_F1, PROBE_LOSS, f1_terms, losses
from autointerp.records import OBSERVATION_SCHEMA, observation_frame, slice_key

__all__ = ["checkpoint_facts", "checkpoint_observations", "lacking_observations"]

_BASELINES = (
    "chance",
    "channels",
    "random_directions",
    "random_labels",
    "all_channels",
    "all_channels_tuned",
)
_ALL_LEXICAL = "every task that was probed is lexical: one token tells too much"


def _slice(kind: str) -> dict[str, Any]:
    if kind in _BASELINES:
        return {"baseline": kind}
    return {"k": int(kind.removeprefix("k="))} if kind.startswith("k=") else {}


def checkpoint_observations(
    checkpoint: str, logits: pl.DataFrame, examples: pl.DataFrame, *, latent_count: int, counts: Sequence[int]
) -> pl.DataFrame:
    """All rows of one dictionary.

    The headline slice and those of k and of baselines hold the test examples of tasks that are not lexical; a
    slice `{"task": ...}` those of any one task. AUROC and accuracy are told at the headline slice.

    Args:
        checkpoint: its name.
        logits: its own and its site's, as in `probing_work.LOGITS`; of random directions those as many as it
            has.
        examples: from `probing_examples.example_table`.
        latent_count: of the dictionary.
        counts: the k that were asked for.
    """
    rows = logits.join(examples, on=["task", "example"], how="left", maintain_order="left")
    logit, label = rows["logit"].to_numpy(), rows["label"].to_numpy()
    terms = f1_terms(logit > 0, label)
    rows = rows.with_columns(
        loss=losses(logit, label),
        right=((logit > 0) == label).astype(np.float64),
        hit=pl.Series(terms[0]),
        counted=pl.Series(terms[1]),
    )
    counted = rows.filter(~pl.col("is_lexical"))
    found = []
    for kind in rows["kind"].unique(maintain_order=True).to_list():
        headline = counted.filter(pl.col("kind") == kind)
        if kind == "known_feature":
            found += _f1_rows(checkpoint, headline, rows.filter(pl.col("kind") == kind))
        else:
            found.append(_rows(checkpoint, PROBE_LOSS, headline, "loss", _slice(kind)))
    own = rows.filter(pl.col("kind") == "own")
    headline = counted.filter(pl.col("kind") == "own")
    found += [
        _by_task(_rows(checkpoint, PROBE_LOSS, own, "loss", {})),
        _rows(checkpoint, AUROC, headline, "logit", {}),
        _rows(checkpoint, ACCURACY, headline, "right", {}),
    ]
    if not headline.height:
        metrics = (PROBE_LOSS, AUROC, ACCURACY, KNOWN_FEATURE_F1)
        found += [_lacking(checkpoint, metric, {}, "undefined", _ALL_LEXICAL) for metric in metrics]
    for k in counts:
        if k > latent_count:
            reason = f"k = {k}, and the dictionary has {latent_count} latents"
            found.append(_lacking(checkpoint, PROBE_LOSS, {"k": k}, "undefined", reason))
    return pl.concat(found)


def _f1_rows(checkpoint: str, headline: pl.DataFrame, every: pl.DataFrame) -> list[pl.DataFrame]:
    found = [
        _rows(checkpoint, KNOWN_FEATURE_F1, headline, "hit", {}, "counted"),
        _by_task(_rows(checkpoint, KNOWN_FEATURE_F1, every, "hit", {}, "counted")),
    ]
    terms = f1_terms(np.ones(headline.height, dtype=bool), headline["label"].to_numpy())
    yes = headline.with_columns(hit=pl.Series(terms[0]), counted=pl.Series(terms[1]))
    found.append(_rows(checkpoint, KNOWN_FEATURE_F1, yes, "hit", {"baseline": "always_yes"}, "counted"))
    return found


def _rows(
    checkpoint: str,
    metric: str,
    rows: pl.DataFrame,
    column: str,
    settings: Mapping[str, Any],
    denominator: str | None = None,
) -> pl.DataFrame:
    if not rows.height:
        return pl.DataFrame(schema=OBSERVATION_SCHEMA)
    return observation_frame(
        checkpoint=checkpoint,
        metric=metric,
        slice=dict(settings),
        unit=rows["unit"],
        group=rows["task"],
        cluster=rows["cluster"],
        numerator=rows[column],
        denominator=1.0 if denominator is None else rows[denominator],
        label=rows["label"].cast(pl.Float64) if metric == AUROC else None,
    )


def _by_task(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows, each at its task's slice."""
    names = rows["group"].unique(maintain_order=True).to_list()
    keys = {name: slice_key({"task": name}) for name in names}
    return rows.with_columns(slice=pl.col("group").replace_strict(keys, return_dtype=pl.String))


def _lacking(
    checkpoint: str, metric: str, settings: Mapping[str, Any], status: str, reason: str
) -> pl.DataFrame:
    return observation_frame(
        checkpoint=checkpoint,
        metric=metric,
        slice=dict(settings),
        unit="all",
        numerator=None,
        status=status,
        reason=reason,
    )


def lacking_observations(
    checkpoint: str, reasons: Mapping[str, tuple[str, str]], *, has_tasks: bool
) -> pl.DataFrame:
    """A row for each task without a number; at the headline slice, too, if no task is left.

    Args:
        checkpoint: the dictionary's name.
        reasons: by task, (status, reason).
        has_tasks: whether any task was probed.
    """
    metrics = (PROBE_LOSS, KNOWN_FEATURE_F1)
    found = [
        _lacking(checkpoint, metric, {"task": task}, status, reason)
        for task, (status, reason) in reasons.items()
        for metric in metrics
    ]
    if not has_tasks:
        why = "; ".join(dict.fromkeys(reason for _, reason in reasons.values())) or "there are no tasks"
        found += [
            _lacking(checkpoint, metric, {}, "undefined", f"no task could be probed: {why}")
            for metric in (*metrics, AUROC, ACCURACY)
        ]
    return pl.concat(found) if found else pl.DataFrame(schema=OBSERVATION_SCHEMA)


def checkpoint_facts(shard: Shard, lexical: Mapping[str, bool]) -> dict[str, Any]:
    """What is told of a dictionary without intervals, JSON-able.

    Keys: `kinds`: by kind of probe its test loss by task, and over tasks that are not lexical the means of
    loss, AUROC and accuracy and the quartiles of the loss; `chosen`: by task the latent of the kind `own`,
    its direction and its loss on train; `known_features`: by task latent, threshold, and F1 on train and
    test.
    """
    facts: dict[str, Any] = {"kinds": {}, "chosen": {}, "known_features": {}}
    by_key = {
        (row["kind"], row["task"]): json.loads(row["fact"]) for row in shard.facts.iter_rows(named=True)
    }
    for (kind,), rows in shard.logits.group_by(["kind"], maintain_order=True):
        if kind == "known_feature":
            facts["known_features"] = _features(rows, by_key)
        else:
            facts["kinds"][kind] = _kind_facts(rows, lexical)
    for (kind, task), fact in by_key.items():
        if kind == "own":
            facts["chosen"][task] = fact
    return facts


def _kind_facts(rows: pl.DataFrame, lexical: Mapping[str, bool]) -> dict[str, Any]:
    told: dict[str, float] = {}
    aurocs, accuracies, counted = [], [], []
    for (task,), part in rows.group_by(["task"], maintain_order=True):
        logit, label = part["logit"].to_numpy(), part["label"].to_numpy()
        told[str(task)] = round(float(losses(logit, label).mean()), 6)
        if not lexical[str(task)]:
            counted.append(told[str(task)])
            aurocs.append(_auroc(logit, label))
            accuracies.append(float(((logit > 0) == label).mean()))
    facts: dict[str, Any] = {"loss_nats_by_task": told}
    if counted:
        names = ("min", "lower_quartile", "median", "upper_quartile", "max")
        spread = np.quantile(counted, [0, 0.25, 0.5, 0.75, 1]).round(6).tolist()
        facts |= {
            "loss_nats_mean": round(float(np.mean(counted)), 6),
            "auroc_mean": round(float(np.mean(aurocs)), 6),
            "accuracy_mean": round(float(np.mean(accuracies)), 6),
            "loss_nats_spread": dict(zip(names, spread, strict=True)),
        }
    return facts


def _auroc(logit: np.ndarray, label: np.ndarray) -> float:
    """Share of pairs in order, equal ones half."""
    values, rank = np.unique(logit, return_inverse=True)
    negative = np.bincount(rank[~label], minlength=len(values))
    below = np.cumsum(negative) - negative / 2
    return float(below[rank[label]].sum() / (label.sum() * (~label).sum()))


def _features(rows: pl.DataFrame, by_key: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for (task,), part in rows.group_by(["task"], maintain_order=True):
        says_yes, label = part["logit"].to_numpy() > 0, part["label"].to_numpy()
        true = int((says_yes & label).sum())
        fact = by_key["known_feature", str(task)]
        fact["test_f1"] = round(2 * true / int(says_yes.sum() + label.sum()), 6)
        fact["precision"] = round(true / int(says_yes.sum()), 6) if says_yes.any() else None
        fact["recall"] = round(true / int(label.sum()), 6)
        found[str(task)] = fact
    return found
