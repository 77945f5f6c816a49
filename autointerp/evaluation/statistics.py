"""Observations -> the EvaluationReport: estimates, paired comparisons, facts about the run."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from autointerp.config import Suite
from autointerp.estimates import compare_all, estimate_all
from autointerp.estimates.scaling_fits import scaling_facts
from autointerp.evaluation.explanations import Explained
from autointerp.evaluation.explanations.plan import publishable_llm
from autointerp.evaluation.inputs import Measurable, context_options
from autointerp.evaluation.steps import Findings
from autointerp.evaluation.studies import Studied
from autointerp.evaluation.work import Work
from autointerp.metrics.catalogue import definitions
from autointerp.metrics.compute_equivalent import clean_loss, with_curve
from autointerp.provenance import provenance
from autointerp.records import EvaluationReport, LatentCoverage, MetricDefinition, MetricResult
from autointerp.sampling.activation_pass import CLEAN_LOSS, SUBJECT, PassCost, read_tokens
from autointerp.sampling.contexts import describe_contexts
from autointerp.subject.subject_model import SubjectModel

__all__ = ["report_of"]


def report_of(
    work: Work,
    findings: Findings,
    coverage: pl.DataFrame | None = None,
    explained: Explained | None = None,
    studied: Mapping[str, Studied] | None = None,
) -> EvaluationReport:
    """Estimates of every metric of every dictionary, paired comparisons, and what the run was.

    Args:
        work: the run.
        findings: what its pass over the text found.
        coverage: `tables.COVERAGE`, where latents were sampled.
        explained: where they were explained.
        studied: by family, what the studies found; their observations are among the findings'.
    """
    suite, observations = work.suite, findings.observations
    names = [entry.summary.name for entry in findings.measurables]
    metrics = _definitions(suite, observations)
    metrics += _of_explanations(explained)
    of_subject = [metric for metric in metrics if metric.name == CLEAN_LOSS]
    of_dictionaries = [metric for metric in metrics if metric.name != CLEAN_LOSS]
    options = {"level": suite.estimates.level, "resamples": suite.estimates.resamples, "seed": suite.seed}
    with work.clock.step("estimates"):
        results = [
            *estimate_all(observations, of_subject, checkpoints=[SUBJECT], **options),
            *estimate_all(observations, of_dictionaries, checkpoints=names, **options),
        ]
        comparisons = compare_all(observations, of_dictionaries, _pairs(findings.measurables), **options)
    return EvaluationReport(
        suite=_publishable(suite),
        subject=work.subject.describe(),
        corpus=_corpus_facts(work, findings),
        checkpoints=tuple(entry.summary for entry in findings.measurables),
        definitions=tuple(metrics),
        results=tuple(results),
        comparisons=tuple(comparisons),
        cost=_cost(work, findings.cost) | ({"llm": explained.cost} if explained and explained.cost else {}),
        provenance={
            **provenance(seed=suite.seed, accelerator=_accelerator(work.subject)),
            "thread_count": torch.get_num_threads(),
        },
        explanations=explained.facts if explained else {},
        studies={family: found.facts for family, found in (studied or {}).items()}
        | _scaling(results, findings),
        coverage=() if coverage is None else tuple(LatentCoverage(**row) for row in coverage.to_dicts()),
    )


def _scaling(results: Sequence[MetricResult], findings: Findings) -> dict[str, Any]:
    """How quality scales, where checkpoints differ in width and sparsity: it is of the results alone."""
    facts = scaling_facts(results, [entry.summary for entry in findings.measurables])
    return {"scaling": facts} if facts else {}


def _of_explanations(explained: Explained | None) -> list[MetricDefinition]:
    """Those of the methods that the run used; what was not asked for is not missing."""
    if explained is None:
        return []
    found = set(explained.observations["metric"].unique())
    return [metric for metric in definitions(["explanation"]) if metric.name in found]


def _publishable(suite: Suite) -> dict[str, Any]:
    """The suite without folders of this machine: reports are published, the run's suite.toml is not."""
    content = publishable_llm(suite.model_dump(mode="json", exclude_none=True))
    for section in (content["corpus"], *content["checkpoints"]):
        if Path(section.get("path", "")).is_absolute():
            section["path"] = Path(section["path"]).name
    if Path(content["subject"]["model"]).is_absolute():
        content["subject"]["model"] = Path(content["subject"]["model"]).name
    tasks = content["probes"]["tasks"]
    content["probes"]["tasks"] = [Path(task).name if Path(task).is_absolute() else task for task in tasks]
    return content


def _cost(work: Work, cost: PassCost) -> dict[str, Any]:
    return {
        "seconds": dict(work.clock.seconds),
        "seconds_within_the_pass": {step: round(seconds, 3) for step, seconds in cost.seconds.items()},
        "evaluated_token_count": cost.token_count,
        "resumed_chunk_count": cost.resumed_chunk_count,
        "chunk_count": cost.chunk_count,
        "peak_memory_bytes": _peak_memory_bytes(),
    }


def _definitions(suite: Suite, observations: pl.DataFrame) -> list[MetricDefinition]:
    points = [(point.flops, point.loss_nats) for point in suite.metrics.compute_curve]
    tolerance = suite.metrics.compute_curve_tolerance_nats
    loss = clean_loss(observations)
    return [
        with_curve(metric, points, clean_ce_nats=loss, tolerance_nats=tolerance)
        if metric.functional == "compute_equivalent_fraction"
        else metric
        for metric in definitions(suite.metrics.families)
    ]


def _pairs(measurables: Sequence[Measurable]) -> list[tuple[str, str]]:
    """Every two dictionaries of one site: the later minus the earlier, and all minus the nulls."""
    nulls_first = sorted(measurables, key=lambda entry: entry.summary.role != "null")
    return [
        (later.summary.name, earlier.summary.name)
        for index, later in enumerate(nulls_first)
        for earlier in nulls_first[:index]
        if later.summary.site == earlier.summary.site
    ]


def _corpus_facts(work: Work, findings: Findings) -> dict[str, Any]:
    describe = getattr(work.corpus, "describe", dict)
    documents = read_tokens(work.store, findings.cost.chunk_names)
    return {
        **describe(),
        "contexts": describe_contexts(context_options(work.suite.corpus), work.subject.tokenizer),
        "evaluated_document_count": documents.height,
        "evaluated_text_token_count": int(documents["token_count"].sum()),
        "calibration_token_count": {site: found.token_count for site, found in findings.calibration.items()},
    }


def _accelerator(subject: SubjectModel) -> str | None:
    return torch.cuda.get_device_name(subject.device) if subject.device.type == "cuda" else None


def _peak_memory_bytes() -> int | None:
    """Of this process so far; Linux counts in KiB, macOS in bytes, Windows not at all."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
