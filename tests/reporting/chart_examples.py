"""Reports for the tests of charts: every headline metric, probed tasks, ranges of strength, an LLM's cost."""

import dataclasses

from report_examples import HOSTILE
from test_probe_section import task

from autointerp.records import CheckpointSummary, Estimate, Failed, Measured, MetricDefinition, MetricResult
from autointerp.reporting.trade_offs import TRADE_OFFS

FAMILY = "planted"
TASKS = ("attribute", "docstring", "async", f"odd{HOSTILE}\u202e", "lexical_one")
CHANCES = dict(zip([f"{FAMILY}/{name}" for name in TASKS], (0.69, 0.5, 0.69, 0.6, 0.69), strict=True))


def layer_of(spec, name):
    """A layer by its name, and the rows that it draws; (None, []) where there is none."""
    for layer in spec["layer"]:
        if layer.get("name") == name:
            return layer, spec["datasets"][layer["data"]["name"]]
    return None, []


def measured(value: float, half: float = 0.01) -> Measured:
    return Measured(Estimate(value, value - half, value + half, 0.95, "BCa", 40, "latent"))


def definition(name: str, better: str = "higher", unit: str = "AUROC") -> MetricDefinition:
    return MetricDefinition(name, name, "Made up.", unit, better, "ratio", "latent")


def defined(report, *names: str):
    """Definitions of the report, with made-up ones of metrics that it lacks."""
    known = {found.name for found in report.definitions}
    return (*report.definitions, *(definition(name) for name in names if name not in known))


def with_headlines(report):
    """The report with a number of every metric that is drawn against sparsity, falling or rising in it."""
    known = {found.name for found in report.definitions}
    new = [trade_off.metric for trade_off in TRADE_OFFS if trade_off.metric not in known]
    lower = ("probe.loss_nats", "ablation.sparsity")
    results = [
        MetricResult(checkpoint.name, metric, {}, measured(0.4 + 0.03 * place))
        for metric in new
        for place, checkpoint in enumerate(report.checkpoints)
    ]
    return dataclasses.replace(
        report,
        definitions=(
            *report.definitions,
            *(definition(metric, "lower" if metric in lower else "higher") for metric in new),
        ),
        results=(*report.results, *results),
    )


def with_widths(report, widths=(512, 2048, 8192), ks=(8, 32)):
    """Of one architecture, every width at every k; L = n^-0.2 k^-0.3."""
    base = report.checkpoints[0]
    checkpoints: list[CheckpointSummary] = []
    results = []
    for n in widths:
        for k in ks:
            name = f"{n}-{k}"
            checkpoints.append(
                dataclasses.replace(base, name=name, latent_count=n, architecture=f"topk(k={k})")
            )
            results.append(MetricResult(name, "reconstruction.l0", {}, measured(float(k), 0.0)))
            value = n**-0.2 * k**-0.3
            results.append(MetricResult(name, "reconstruction.normalized_mse", {}, measured(value)))
    return dataclasses.replace(report, checkpoints=tuple(checkpoints), results=tuple(results))


def with_probes(report):
    """Probed tasks of one family: one failed on the first checkpoint, one is missing on the second."""
    order = [checkpoint.name for checkpoint in report.checkpoints]
    results = [
        MetricResult(name, "probe.loss_nats", {"task": known}, measured(chance * (0.3 + 0.1 * row), 0.02))
        for name in order
        for row, (known, chance) in enumerate(CHANCES.items())
    ]
    results[0] = dataclasses.replace(results[0], outcome=Failed(f"no memory{HOSTILE}\u202e"))
    missing = (order[1], f"{FAMILY}/docstring")
    results = [r for r in results if (r.checkpoint, r.slice["task"]) != missing]
    tasks = [task(name, is_lexical=name.endswith("lexical_one")) for name in CHANCES]
    tasks.append(task(f"{FAMILY}/left_out", status="skipped", reason="few"))
    kinds = {"chance": {"loss_nats_by_task": CHANCES}}
    facts = {
        "values": "pre_activations",
        "inverse_penalty": 1.0,
        "sparse_counts": [2],
        "text_count": 1000,
        "tasks": tasks,
        "checkpoints": {order[0]: {"kinds": kinds}},
    }
    return dataclasses.replace(
        report,
        definitions=defined(report, "probe.loss_nats"),
        results=(*report.results, *results),
        studies={**report.studies, "probe": facts},
    )


def with_quantiles(report):
    """Detection in three ranges of strength, and of another explainer, which is not drawn."""
    results = [
        MetricResult(
            checkpoint.name,
            "explanation.detection_auroc",
            {"quantile": stratum, **further},
            measured(0.6 + 0.1 * stratum - (0.3 if further else 0.0)),
        )
        for checkpoint in report.checkpoints
        for stratum in (0, 1, 2)
        for further in ({}, {"explainer": "other"})
    ]
    return dataclasses.replace(
        report,
        definitions=defined(report, "explanation.detection_auroc"),
        results=(*report.results, *results),
    )


def cost_row(metric: str, tokens: int, usd: float | None) -> dict:
    row = {"model": "m", "role": "judge", "metric": metric, "prompt_tokens": tokens, "completion_tokens": 0}
    return row if usd is None else {**row, "usd": usd}


def with_cost(report, *, usd: bool = True):
    """Two explainers and two tests that asked an LLM about ten latents; simulation asked none."""
    amounts = {
        "explaining.cheap": 1_000,
        "explaining.dear": 9_000,
        "explanation.detection_auroc": 4_000,
        "explanation.fuzzing_auroc": 8_000,
    }
    rows = [cost_row(metric, tokens, tokens / 1e6 if usd else None) for metric, tokens in amounts.items()]
    needed = sum(amounts.values())
    names = [checkpoint.name for checkpoint in report.checkpoints][:2]
    results = [
        MetricResult(name, f"explanation.{test}_over_borrowed", settings, measured(0.2 + 0.01 * place))
        for test in ("detection", "fuzzing", "simulation")
        for place, settings in enumerate(({}, {"explainer": "dear"}))
        for name in names
    ]
    llm = {
        "rows": rows,
        "needed": {"prompt_tokens": needed},
        "per_million_latents": {
            "latents": 1_000_000,
            "prompt_tokens": needed * 100_000,
            "completion_tokens": 0,
        },
    }
    return dataclasses.replace(
        report,
        definitions=defined(report, *(result.metric for result in results[::4])),
        results=(*report.results, *results),
        explanations={"explainers": ["cheap", "dear"], "models": [{"role": "judge"}]},
        cost={**report.cost, "llm": llm},
    )
