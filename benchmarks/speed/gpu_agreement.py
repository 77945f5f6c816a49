"""The part `agreement` of `gpu.py`: the embedded demo on both devices, number by number, firing by firing."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plain_sampling
import polars as pl
from gpu_session import Session

from autointerp.config import Suite, load_suite
from autointerp.evaluation.inputs import (
    Measurable,
    loaded_subject,
    opened_checkpoints,
    opened_corpus,
    placed_all,
    with_demo_curve,
)
from autointerp.evaluation.sampling import sample_latents
from autointerp.evaluation.statistics import report_of
from autointerp.evaluation.steps import measure
from autointerp.evaluation.work import Clock, Work
from autointerp.progress import SILENT
from autointerp.records import EvaluationReport, Measured
from autointerp.run_store import RunStore
from autointerp.sampling.spill import firing_key

SUITE = Path(__file__).resolve().parents[1] / "suites" / "demo.toml"


@dataclass(frozen=True)
class Side:
    """One run of the demo's suite."""

    report: EvaluationReport
    firings: dict[str, plain_sampling.Triples]
    """By dictionary."""
    widths: dict[str, int]
    failures: list[str]
    seconds: float


def one_run(suite: Suite, folder: Path) -> Side:
    """The steps of `autointerp evaluate` but for the HTML report."""
    begun = time.perf_counter()
    entries = opened_checkpoints(suite)
    corpus, subject = opened_corpus(suite.corpus), loaded_subject(suite.subject)
    entries = placed_all(entries, subject, suite)
    with RunStore.open(folder, suite_toml="", identity={}) as store:
        work = Work(suite, subject, corpus, store, Clock(store), SILENT)
        findings = measure(work, entries)
        coverage = sample_latents(work, findings.measurables, findings.cost, findings.without_firings)
        report = report_of(work, findings, coverage)
        seconds = time.perf_counter() - begun
        whole = [
            entry for entry in findings.measurables if entry.summary.name not in findings.without_firings
        ]
        firings = {
            entry.summary.name: kept(store, findings.cost.chunk_names, entry, suite) for entry in whole
        }
    failures = [
        f"{result.checkpoint}, {result.metric}: {result.outcome.reason}" for result in report.failures
    ]
    failures += [f"{name}: {reason}" for name, (_, reason) in findings.without_firings.items()]
    widths = {entry.summary.name: entry.checkpoint.sae.latent_count for entry in whole}
    return Side(report, firings, widths, failures, seconds)


def kept(store: RunStore, chunks: Sequence[str], entry: Measurable, suite: Suite) -> plain_sampling.Triples:
    """Every firing of a dictionary, with one number for chunk, context and position."""
    frames = [
        store.read(firing_key(entry.summary.name, chunk)).with_columns(
            token=(number * 2**20 + pl.col("row").cast(pl.Int64)) * suite.corpus.context_length
            + pl.col("position")
        )
        for number, chunk in enumerate(chunks)
    ]
    frame = pl.concat(frames).sort("token", "latent")
    return {column: frame[column].to_numpy() for column in ("token", "latent", "value")}


def values(report: EvaluationReport) -> dict[tuple[str, str], float]:
    """Every headline number."""
    return {
        (result.checkpoint, result.metric): result.outcome.estimate.value
        for result in report.results
        if isinstance(result.outcome, Measured) and not result.slice
    }


def agreement(session: Session) -> None:
    """The demo's checkpoints and null: CPU, GPU, and the dictionaries in bfloat16 on the GPU."""
    options = session.options
    runs = {
        "cpu": ("cpu", "float32"),
        options.device: (options.device, "float32"),
        f"{options.device}, dictionaries in bfloat16": (options.device, "bfloat16"),
    }
    sides: dict[str, Side] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (device, dtype)) in enumerate(runs.items()):
            suite = demo_suite(options.demo_tokens, device, dtype)
            sides[name] = one_run(suite, Path(folder) / str(number))
            session.say(f"{name}: {sides[name].seconds:.1f} s for {options.demo_tokens:,} tokens")
            for failure in sides[name].failures:
                session.say(f"- FAILED on {name}: {failure}")
    reference = sides.pop("cpu") if len(sides) == len(runs) else sides[options.device]
    rows = [against(name, side, reference) for name, side in sides.items()]
    session.found["agreement"] = [
        row | {"seconds": side.seconds, "failures": side.failures, "cpu_seconds": reference.seconds}
        for row, side in zip(rows, sides.values(), strict=True)
    ]
    for row in rows:
        session.say(difference_table(row))


def demo_suite(token_count: int, device: str, dtype: str) -> Suite:
    """The embedded suite over less text."""
    suite = with_demo_curve(load_suite(SUITE))
    corpus = {"evaluation_tokens": token_count, "calibration_tokens": max(2048, token_count // 6)}
    updates = {
        "corpus": suite.corpus.model_copy(update=corpus),
        "subject": suite.subject.model_copy(update={"device": device}),
        "dictionary_dtype": dtype,
        # Intervals are not compared.
        "estimates": suite.estimates.model_copy(update={"resamples": 100}),
    }
    return suite.model_copy(update=updates)


def against(name: str, side: Side, reference: Side) -> dict[str, Any]:
    """By dictionary, how far its numbers and its firings are from the reference's."""
    mine, other = values(side.report), values(reference.report)
    apart: dict[str, dict[str, float]] = {}
    for checkpoint, metric in sorted(mine.keys() & other.keys()):
        scale = max(abs(other[checkpoint, metric]), 1e-12)
        difference = abs(mine[checkpoint, metric] - other[checkpoint, metric]) / scale
        apart.setdefault(checkpoint, {})[metric] = difference
    firings = {
        entry: plain_sampling.differences(side.firings[entry], reference.firings[entry], side.widths[entry])
        for entry in side.firings.keys() & reference.firings.keys()
    }
    return {
        "side": name,
        "relative_differences": apart,
        "firings": firings,
        "on_one_side_only": sorted(f"{a}, {b}" for a, b in mine.keys() ^ other.keys()),
    }


def difference_table(row: dict[str, Any]) -> str:
    """Markdown: the metric that is farthest off, and the firings."""
    lines = [
        f"{row['side']} against cpu",
        "",
        "| dictionary | numbers | largest relative difference | of | next | firings | on one side only "
        "| largest difference of an activation |",
        "| :--- | ---: | ---: | :--- | :--- | ---: | ---: | ---: |",
    ]
    for checkpoint in sorted(row["relative_differences"].keys() | row["firings"].keys()):
        apart = row["relative_differences"].get(checkpoint, {})
        first, second, *_ = [*sorted(apart.items(), key=lambda item: -item[1]), ("", 0.0), ("", 0.0)]
        cells = [checkpoint, f"{len(apart)}", f"{first[1]:.1e}", first[0], f"{second[1]:.1e} {second[0]}"]
        if gap := row["firings"].get(checkpoint):
            cells += [f"{gap['firings']:,.0f}", f"{gap['only_one_side']:.1e}", f"{gap['largest']:.1e}"]
        else:
            cells += ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\nMeasured on one side only: {text}" for text in row["on_one_side_only"]]
    return "\n".join(lines)
