"""A run's explanations for the tests: facts, results, costs, and the lines of its two files."""

import dataclasses
import json

from autointerp.metrics.explanation_metrics import METRICS
from autointerp.records import Estimate, Failed, Measured, MetricResult, Undefined

OWN, NULL = "topk-2k-k16", "random-8k-k32"
MODELS = [
    {
        "role": "judge", "model": "gpt-x", "answered_by": "gpt-x-2026", "fingerprint": "fp_1",
        "endpoint": "https://llm.example/v1", "temperature": 0.0, "seed": 0, "calls": 4,
    }
]  # fmt: skip
SPENT = {
    "rows": [
        {"model": "gpt-x", "role": "judge", "metric": "explanation.detection_auroc", "calls": 40,
         "from_cache_calls": 3, "prompt_tokens": 12000, "cached_tokens": 8000, "completion_tokens": 900,
         "usd": 0.25},
        {"model": "mine", "role": "explainer", "metric": "explaining.highlighted", "calls": 8,
         "from_cache_calls": 0, "prompt_tokens": 900, "cached_tokens": None, "completion_tokens": 99,
         "usd": None},
    ],
    "estimate": {"calls": 50, "tokens_low": 11000, "tokens_high": 21000},
    "per_million_latents": {"prompt_tokens": 5_000_000, "completion_tokens": 70_000, "usd": 1234.4},
}  # fmt: skip


def measured(value, *, n=30):
    return Measured(Estimate(value, value - 0.01, value + 0.01, 0.95, "BCa", n, "latent"))


def result(metric, outcome, checkpoint=OWN, **setting):
    return MetricResult(checkpoint, f"explanation.{metric}", setting, outcome)


RESULTS = [
    result("detection_auroc", measured(0.91)),
    result("detection_auroc", measured(0.52), explanation="borrowed"),
    result("detection_auroc", measured(0.501), explanation="empty"),
    result("detection_auroc", measured(0.83), negatives="hard"),
    result("detection_auroc", measured(0.777), quantile=0),
    result("detection_auroc", measured(0.5), judge="constant"),
    result("detection_auroc", measured(0.88), explainer="token_statistics", judge="token_table"),
    result("detection_over_borrowed", measured(0.39)),
    result("refusal_fraction", measured(0.2)),
    result("refusal_fraction", measured(0.06), method="detection"),
    result("refusal_fraction", measured(0.03), explainer="token_statistics", method="token_table"),
    result("refusal_fraction", measured(0.04), explainer="token_statistics", method="detection"),
    result("simulation_correlation", Undefined("every prediction is constant")),
    result("fuzzing_auroc", Failed("out of memory")),
    result("detection_auroc", measured(0.55), NULL),
]


def explained_report(report, *, models=MODELS, spent=SPENT, results=RESULTS):
    """The realistic report of a run that also explained."""
    facts = {"explainers": ["highlighted", "token_statistics"], "methods": ["detection"], "models": models}
    return dataclasses.replace(
        report,
        explanations=facts,
        definitions=(*report.definitions, *METRICS),
        results=(*report.results, *results),
        cost={**report.cost, "llm": spent},
    )


def score(metric, value, *, judge="detection", **more):
    found = {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "ci_method": "Wilson", "n": 20}
    return {"metric": f"explanation.{metric}", "judge": judge} | found | more


def lines(checkpoint=OWN, latents=range(3), *, text="fires on numbers"):
    """(rows of explanations.jsonl, rows of scores.jsonl)."""
    explanations, scores = [], []
    for latent in latents:
        about = {"checkpoint": checkpoint, "latent": latent}
        own = about | {"explainer": "highlighted"}
        explanations.append(own | {"status": "explained", "text": f"{text} {latent}", "details": {}})
        explanations.append(
            about
            | {
                "explainer": "token_statistics",
                "status": "refused",
                "cause": "cut_off",
                "detail": "at its limit",
            }
        )
        best = [
            score("detection_auroc", 0.1, slice={"negatives": "hard"}),
            score("detection_auroc", 0.5, judge="constant", slice={"judge": "constant"}),
            score("detection_auroc", 0.8 + latent / 100, slice={"judge": "detection"}),
            {"metric": "explanation.simulation_correlation", "judge": "structured", "status": "undefined",
             "reason": "constant prediction"},
        ]  # fmt: skip
        scores.append(own | {"explanation": "own", "scores": best})
        scores.append(own | {"explanation": "borrowed", "scores": [score("detection_auroc", 0.6)]})
    return explanations, scores


def write_lines(run, explanations, scores):
    for name, rows in (("explanations.jsonl", explanations), ("scores.jsonl", scores)):
        (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
