"""Small finished runs to compare: a report and its observations, without a subject or a checkpoint."""

import polars as pl

from autointerp.records import (
    CheckpointSummary,
    Estimate,
    EvaluationReport,
    Measured,
    MetricDefinition,
    MetricResult,
    observation_frame,
)
from autointerp.reporting.json_file import report_json

PAIRED, SCORE, TASKS = "downstream.delta_ce_nats", "explanation.detection_auroc", "probe.loss_nats"


def definition(name, **other):
    kind = "independent" if name == SCORE else "units"
    settings = {"unit": "nats", "better": "lower", "functional": "ratio", "sampled": "document"} | other
    return MetricDefinition(name=name, title=name, meaning="m", pairing=kind, **settings)


def summary(name):
    return CheckpointSummary(name, name, "0" * 8, "openai", "relu", 4, 2, "a", "checkpoint", "none")


def write(folder, numbers, *, explanations=None, scores=None, tasks=None, subject="s", name="n"):
    """A run whose checkpoints have these numbers, one a document (and one a latent for scores)."""
    frames = []
    for checkpoint, values in numbers.items():
        units = [f"d{place}" for place in range(len(values))]
        frames.append(
            observation_frame(
                checkpoint=checkpoint, metric=PAIRED, unit=units, cluster=units, numerator=values
            )
        )
    for checkpoint, values in (scores or {}).items():
        units = [f"{folder.name}-{checkpoint}-{place}" for place in range(len(values))]
        frames.append(
            observation_frame(
                checkpoint=checkpoint, metric=SCORE, unit=units, cluster=units, numerator=values
            )
        )
    for checkpoint, losses in (tasks or {}).items():
        for task, values in losses.items():
            units = [f"{task} {place}" for place in range(len(values))]
            shared = {"checkpoint": checkpoint, "metric": TASKS, "unit": units, "cluster": units}
            frames.append(observation_frame(**shared, group=task, numerator=values))
            # A task's nulls have a further key.
            slices = ({"task": task}, {"task": task, "null": "random_labels"})
            frames += [observation_frame(**shared, slice=each, numerator=values) for each in slices]
    (folder / "observations").mkdir(parents=True)
    pl.concat(frames).write_parquet(folder / "observations" / "all.parquet")
    first = next(iter(numbers))
    report = EvaluationReport(
        suite={"name": name, "seed": 0, "estimates": {"level": 0.95}},
        subject={"sha256": subject},
        corpus={"fingerprint": "c"},
        checkpoints=tuple(summary(checkpoint) for checkpoint in numbers),
        definitions=(
            definition(PAIRED),
            definition(SCORE),
            definition(TASKS, functional="mean_of_group_ratios", sampled="example"),
        ),
        results=(MetricResult(first, PAIRED, {}, Measured(Estimate(1, 0, 2, 0.95, "m", 3, "document"))),),
        comparisons=(),
        cost={},
        provenance={},
        explanations=explanations or {},
    )
    (folder / "report.json").write_text(report_json(report))
    return folder
