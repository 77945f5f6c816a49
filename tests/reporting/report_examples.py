"""Reports for the tests: one that looks like a real run, one whose every name attacks the page."""

import dataclasses
import math

import numpy as np
import polars as pl

from autointerp.records import (
    CheckpointSummary,
    Comparison,
    Estimate,
    EvaluationReport,
    Failed,
    Measured,
    MetricDefinition,
    MetricResult,
    Outcome,
    Skipped,
    Undefined,
    observation_frame,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}"

DEFINITIONS = (
    MetricDefinition(
        "reconstruction.l0",
        "L0",
        "Mean number of latents that are not zero on a token.",
        "latents per token",
        "neither",
        "ratio",
        "document",
        0.0,
    ),
    MetricDefinition(
        "reconstruction.normalized_mse",
        "Normalised MSE",
        "Squared error of the reconstruction over that of always predicting the mean activation of the "
        "calibration documents. 0 is perfect, 1 no better than the mean. Gao et al. 2024, section 2.1.",
        "fraction",
        "lower",
        "ratio",
        "document",
        0.0,
    ),
    MetricDefinition(
        "reconstruction.dead_fraction",
        "Dead latents",
        "Share of latents that fired on no evaluation token.",
        "fraction",
        "lower",
        "unseen_fraction",
        "latent",
        0.0,
        1.0,
    ),
    MetricDefinition(
        "downstream.delta_ce_nats",
        "ΔCE",
        "Cross-entropy of the subject with the reconstruction spliced in, minus its own.",
        "nats",
        "lower",
        "ratio",
        "document",
    ),
    MetricDefinition(
        "downstream.kl_nats",
        "KL",
        "Divergence of the subject's next-token distribution with the reconstruction from its own.",
        "nats",
        "lower",
        "ratio",
        "document",
        0.0,
    ),
    MetricDefinition(
        "downstream.compute_equivalent_fraction",
        "Compute equivalent",
        "Share of the subject's training compute at which a model of its family has the spliced loss.",
        "fraction",
        "higher",
        "compute_equivalent_fraction",
        "document",
        0.0,
        1.0,
        parameters={"compute_flops": [1e15, 1e16], "loss_nats": [3.1, 2.4]},
    ),
)

_PLAN = (  # name, architecture, width, L0, normalised MSE, dead fraction, delta CE
    ("topk-2k-k16", "topk(k=16)", 2048, 16.0, 0.221, 0.004, 0.291),
    ("topk-2k-k32", "topk(k=32)", 2048, 32.0, 0.152, 0.002, 0.174),
    ("topk-8k-k16", "topk(k=16)", 8192, 16.0, 0.163, 0.061, 0.203),
    ("topk-8k-k32", "topk(k=32)", 8192, 32.0, 0.104, 0.043, 0.098),
    ("topk-8k-k64", "topk(k=64)", 8192, 64.0, 0.061, 0.038, 0.049),
    ("relu-8k", "relu", 8192, 58.3, 0.118, 0.121, 0.121),
    ("jumprelu-8k", "jumprelu", 8192, 41.7, 0.102, 0.019, 0.0965),
    ("random-8k-k32", "topk(k=32)", 8192, 32.0, 0.812, 0.0, 2.31),
)
_POSITIONS = {"0": 0.35, "1-3": 1.3, "4-15": 1.08, "16-63": 0.97}


def _estimate(value: float, relative: float, *, sampled: str = "document", method: str = "BCa") -> Measured:
    half = abs(value) * relative
    estimate = Estimate(
        value, value - half, value + 1.08 * half, 0.95, f"{method}, 2000 resamples", 412, sampled
    )
    return Measured(estimate)


def _results() -> list[MetricResult]:
    results = []
    for name, _, width, l0, mse, dead, delta in _PLAN:
        results += [
            MetricResult(name, "reconstruction.l0", {}, _estimate(l0, 0.0 if l0 == round(l0) else 0.02)),
            MetricResult(name, "reconstruction.normalized_mse", {}, _estimate(mse, 0.035)),
            MetricResult(name, "reconstruction.dead_fraction", {}, _dead(dead, width)),
            MetricResult(name, "downstream.delta_ce_nats", {}, _estimate(delta, 0.06)),
            MetricResult(name, "downstream.kl_nats", {}, _kl(name, delta)),
            MetricResult(name, "downstream.compute_equivalent_fraction", {}, _compute(name, delta)),
        ]
        results += [
            MetricResult(
                name, "reconstruction.normalized_mse", {"position": place}, _estimate(mse * factor, 0.05)
            )
            for place, factor in _POSITIONS.items()
        ]
    results.append(
        MetricResult("relu-8k", "downstream.kl_nats", {"position": "0"}, Skipped("asked for without it"))
    )
    return results


def _dead(fraction: float, width: int) -> Measured:
    low, high = max(fraction - 0.004, 0.0), fraction + 0.005
    return Measured(Estimate(fraction, low, high, 0.95, "jackknife over documents", width, "latent"))


def _kl(name: str, delta: float) -> Outcome:
    if name == "jumprelu-8k":
        return Failed("RuntimeError: logits of document 3fa9c1d2e0b7a455 are not finite at position 17")
    return _estimate(delta * 0.93, 0.05)


def _compute(name: str, delta: float) -> Outcome:
    if name == "random-8k-k32":
        return Undefined("the spliced loss 5.41 lies outside the fitted curve (2.41 to 4.90 nats)")
    return _estimate(math.exp(-3.1 * delta), 0.08)


def _comparisons() -> list[Comparison]:
    values = {
        row[0]: {"reconstruction.normalized_mse": row[4], "downstream.delta_ce_nats": row[6]} for row in _PLAN
    }
    names = [row[0] for row in _PLAN]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = []
    for metric in ("reconstruction.normalized_mse", "downstream.delta_ce_nats"):
        for one, other in pairs:
            difference = values[one][metric] - values[other][metric]
            half = 0.018 * (values[one][metric] + values[other][metric]) / 2
            p = 0.4 if abs(difference) < half else 0.0004
            outcome = Measured(
                Estimate(
                    difference, difference - half, difference + half, 0.95, "paired BCa", 412, "document"
                )
            )
            found.append(Comparison(one, other, metric, {}, outcome, p, min(1.0, p * 1.6)))
    undefined = Undefined("the reference has no value")
    found.append(
        Comparison("relu-8k", "random-8k-k32", "downstream.compute_equivalent_fraction", {}, undefined)
    )
    return found


def _checkpoint(name: str, architecture: str, width: int) -> CheckpointSummary:
    is_null = name.startswith("random")
    return CheckpointSummary(
        name=name,
        path=f"checkpoints/{name}.safetensors",
        sha256=(name.encode().hex() * 8)[:64],
        format="saelens" if "relu" in name else "sparsify",
        architecture=architecture,
        latent_count=width,
        d_model=192,
        site="blocks.3.hook_resid_post",
        role="null" if is_null else "checkpoint",
        normalization="layer_norm" if name.startswith("topk") else "none",
        notes=("random unit directions with the shape of topk-8k-k32; scale fitted on calibration tokens",)
        if is_null
        else (),
    )


def realistic_report() -> EvaluationReport:
    """Seven checkpoints and a null; one failure, one undefined, one skipped result."""
    return EvaluationReport(
        suite={"name": "demo", "seed": 0, "metrics": ["reconstruction", "downstream"], "context_length": 64},
        subject={
            "name": "tiny-python-subject",
            "sha256": "ab" * 32,
            "d_model": 192,
            "parameter_count": 5_400_000,
        },
        corpus={"kind": "stdlib", "documents": 412, "token_count": 131072, "fingerprint_sha256": "cd" * 32},
        checkpoints=tuple(_checkpoint(*row[:3]) for row in _PLAN),
        definitions=DEFINITIONS,
        results=tuple(_results()),
        comparisons=tuple(_comparisons()),
        cost={
            "seconds": {"load": 1.24, "clean pass": 21.8, "substituted passes": 64.2, "estimates": 1.9},
            "token_count": 131072,
            "peak_memory_bytes": 1_413_000_000,
        },
        provenance={
            "command": ["autointerp", "demo", "--out", "reports/demo"],
            "date": "2026-11-22",
            "seed": 0,
        },
    )


def density_observations(report: EvaluationReport) -> pl.DataFrame:
    """Firing counts of every latent, log-normal, with the report's share of dead ones."""
    generator = np.random.default_rng(0)
    frames = []
    for checkpoint in report.checkpoints:
        count = checkpoint.latent_count
        fired = np.minimum(np.round(131072 * 10 ** generator.normal(-2.6, 0.6, count)), 131072)
        frames.append(
            observation_frame(
                checkpoint=checkpoint.name,
                metric="reconstruction.latent_density",
                unit=[str(index) for index in range(count)],
                numerator=fired.tolist(),
                denominator=131072.0,
            )
        )
    return pl.concat(frames)


def hostile_report() -> EvaluationReport:
    """The realistic report with an attack in every text that comes from outside."""
    report = realistic_report()
    renamed = {c.name: f"{c.name}{HOSTILE}" for c in report.checkpoints}
    return dataclasses.replace(
        report,
        suite={**report.suite, "name": f"suite{HOSTILE}", HOSTILE: HOSTILE},
        subject={"name": HOSTILE},
        corpus={"kind": HOSTILE, "documents": [HOSTILE]},
        checkpoints=tuple(
            dataclasses.replace(c, name=renamed[c.name], path=HOSTILE, notes=(HOSTILE,), site=HOSTILE)
            for c in report.checkpoints
        ),
        definitions=tuple(
            dataclasses.replace(d, title=f"{d.title}{HOSTILE}", meaning=HOSTILE) for d in report.definitions
        ),
        results=tuple(
            dataclasses.replace(
                r,
                checkpoint=renamed[r.checkpoint],
                outcome=Failed(HOSTILE) if isinstance(r.outcome, Failed) else r.outcome,
            )
            for r in report.results
        ),
        comparisons=tuple(
            dataclasses.replace(c, checkpoint=renamed[c.checkpoint], reference=renamed[c.reference])
            for c in report.comparisons
        ),
        provenance={"command": HOSTILE},
    )
