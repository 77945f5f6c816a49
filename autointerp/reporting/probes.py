"""EvaluationReport -> the section on probes: what single latents tell of known questions, beside nulls."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autointerp.records import EvaluationReport, Outcome
from autointerp.reporting import numbers
from autointerp.reporting.parts import Badge, Callout, Cell, Column, Part, Row, Section, Table
from autointerp.reporting.probe_heatmap import probe_heatmap
from autointerp.reporting.summary import measure_cell, summary_rows_order
from autointerp.reporting.token_text import visible

__all__ = ["probe_sections"]

_LOSS, _AUROC, _ACCURACY = "probe.loss_nats", "probe.auroc", "probe.accuracy"
_KNOWN = "probe.known_feature_f1"
_NAMED = 5
_FROM = 12
"""Rows of a table from which on it can be filtered."""
_SINGLE = (
    (Column("Loss", unit="nats", better="lower", is_numeric=True, hint="of the best latent"), _LOSS, {}),
    (Column("AUROC", better="higher", is_numeric=True, hint="of the same probes"), _AUROC, {}),
    (Column("Accuracy", better="higher", is_numeric=True, hint="of the same probes"), _ACCURACY, {}),
    (
        Column("Channels", unit="nats", is_numeric=True, hint="loss of the best of the site's own channels"),
        _LOSS,
        {"baseline": "channels"},
    ),
    (
        Column(
            "Random directions",
            unit="nats",
            is_numeric=True,
            hint="loss of the best of as many random directions as there are latents",
        ),
        _LOSS,
        {"baseline": "random_directions"},
    ),
    (
        Column(
            "Random labels",
            unit="nats",
            is_numeric=True,
            hint="null: the best latent for shuffled labels; above the coin, being chosen on other text",
        ),
        _LOSS,
        {"baseline": "random_labels"},
    ),
    (
        Column("Chance", unit="nats", is_numeric=True, hint="a probe that sees nothing"),
        _LOSS,
        {"baseline": "chance"},
    ),
)
_Wanted = tuple[Column, str, Mapping[str, Any]]


def probe_sections(report: EvaluationReport) -> tuple[Section, ...]:
    """The section, or none where nothing was probed."""
    facts = report.studies.get("probe")
    if not facts:
        return ()
    outcomes = {
        (result.checkpoint, result.metric, _key(result.slice)): result.outcome for result in report.results
    }
    parts: list[Part] = [
        _checkpoints_table("probes", "The best single latent of each task", _SINGLE, report, outcomes, facts),
        _checkpoints_table("probes-k", "Several latents together", _together(facts), report, outcomes),
        _features_table(report, outcomes),
    ]
    parts += _callouts(facts)
    heatmap = probe_heatmap(report)
    parts += [
        *([] if heatmap is None else [heatmap]),
        _by_task("probe-losses", "Probe loss of each task, nats", _LOSS, report, outcomes, facts),
        _by_task("known-features", "F1 of each task's best single latent", _KNOWN, report, outcomes, facts),
        _tasks_table(facts),
    ]
    return (
        Section(
            name="probes",
            title="Does a latent know the answer?",
            lead=_lead(facts),
            parts=tuple(parts),
        ),
    )


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted(settings.items()))


def _lead(facts: Mapping[str, Any]) -> str:
    tasks = facts["tasks"]
    probed = [task for task in tasks if task["status"] == "probed"]
    lexical = sum(bool(task["is_lexical"]) for task in probed)
    values = "activation" if facts["values"] == "activations" else "pre-activation"
    return (
        f"{len(probed)} yes-or-no tasks with known answers. For each, the latent whose {values} answers best "
        "by a logistic probe is chosen on train text and told on test text; a document lies on one side. "
        f"Means are over the {len(probed) - lexical} tasks that no single token answers (the "
        f"other {lexical} are marked lexical); intervals are over test documents, given the tasks and the "
        "chosen latents, so they say nothing of other tasks. The more candidates, the better the best of "
        "them: compare with as many random directions. All probes have the same penalty, "
        f"C = {numbers.plain(facts['inverse_penalty'])} on standardised values."
    )


def _together(facts: Mapping[str, Any]) -> tuple[_Wanted, ...]:
    """Columns of k-sparse probes, and of all channels as the ceiling."""
    sparse = tuple(
        (
            Column(
                f"k = {k}",
                unit="nats",
                better="lower",
                is_numeric=True,
                hint="loss of a probe on the latents whose class means differ most on train",
            ),
            _LOSS,
            {"k": k},
        )
        for k in facts["sparse_counts"]
    )
    ceiling = (
        (
            Column(
                "All channels",
                unit="nats",
                is_numeric=True,
                hint="loss of a probe on the whole site, with the penalty of all other probes",
            ),
            _LOSS,
            {"baseline": "all_channels"},
        ),
        (
            Column(
                "All channels, tuned",
                unit="nats",
                is_numeric=True,
                hint="the same with a penalty chosen by cross-validation on train: the ceiling",
            ),
            _LOSS,
            {"baseline": "all_channels_tuned"},
        ),
    )
    return (*sparse, *ceiling)


_Outcomes = Mapping[tuple[str, str, str], Outcome]


def _checkpoints_table(
    name: str,
    caption: str,
    wanted: Sequence[_Wanted],
    report: EvaluationReport,
    outcomes: _Outcomes,
    facts: Mapping[str, Any] | None = None,
) -> Table:
    """A row each checkpoint; with `facts` also the spread over tasks."""
    columns = [Column("Checkpoint"), *(column for column, _, _ in wanted)]
    if facts is not None:
        columns.append(Column("Over tasks", hint="smallest, quartiles, largest loss of a task"))
    rows = []
    for checkpoint in summary_rows_order(report):
        cells = [Cell(checkpoint.name, sort=checkpoint.name)]
        cells += [
            measure_cell(outcomes.get((checkpoint.name, metric, _key(settings))))
            for _, metric, settings in wanted
        ]
        if facts is not None:
            cells.append(_spread_cell(facts["checkpoints"].get(checkpoint.name)))
        rows.append(Row(tuple(cells), is_null=checkpoint.role == "null"))
    return Table(name, caption, tuple(columns), tuple(rows), is_filterable=len(rows) > _FROM)


def _spread_cell(found: Mapping[str, Any] | None) -> Cell:
    spread = ((found or {}).get("kinds", {}).get("own") or {}).get("loss_nats_spread")
    if spread is None:
        return Cell("—", kind="missing", hint="no task that counts was probed")
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    low, *quartiles, high = (numbers.fixed(spread[name], 2) for name in names)
    return Cell(f"{low} … {high}", sort=spread["median"], detail=f"quartiles {', '.join(quartiles)}")


def _features_table(report: EvaluationReport, outcomes: _Outcomes) -> Table:
    wanted: tuple[_Wanted, ...] = (
        (
            Column(
                "F1",
                better="higher",
                is_numeric=True,
                hint="of the one latent that says yes by firing above a threshold",
            ),
            _KNOWN,
            {},
        ),
        (
            Column("Always yes", is_numeric=True, hint="F1 of saying yes to everything"),
            _KNOWN,
            {"baseline": "always_yes"},
        ),
    )
    return _checkpoints_table("known-features-mean", "Known features recovered", wanted, report, outcomes)


def _callouts(facts: Mapping[str, Any]) -> list[Part]:
    """How many tasks were left out; each one's reason stands in the table of tasks."""
    missing = [task for task in facts["tasks"] if task["status"] != "probed"]
    if not missing:
        return []
    names = ", ".join(visible(str(task["name"])) for task in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    line = f"{len(missing)} of {len(facts['tasks'])}: {names}{more}. The tables of tasks say why."
    return [Callout("Tasks that were not probed", (line,), "neutral")]


def _by_task(
    name: str,
    caption: str,
    metric: str,
    report: EvaluationReport,
    outcomes: _Outcomes,
    facts: Mapping[str, Any],
) -> Table:
    """Tasks by checkpoints, each value with the latent that has it."""
    order = summary_rows_order(report)
    better = "lower" if metric == _LOSS else "higher"
    columns = (
        Column("Task"),
        *(Column(checkpoint.name, better=better, is_numeric=True) for checkpoint in order),
    )
    rows = []
    for task in _probed_first(facts):
        slice_ = _key({"task": task["name"]})
        cells = [_name_cell(task)]
        for checkpoint in order:
            cell = measure_cell(outcomes.get((checkpoint.name, metric, slice_)))
            found = facts["checkpoints"].get(checkpoint.name, {})
            cells.append(_with_latent(cell, found, metric, task["name"]))
        rows.append(Row(tuple(cells)))
    return Table(name, caption, columns, tuple(rows), is_filterable=len(rows) > _FROM)


def _probed_first(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All tasks, those without a number last."""
    return sorted(facts["tasks"], key=lambda task: task["status"] != "probed")


def _with_latent(cell: Cell, found: Mapping[str, Any], metric: str, task: str) -> Cell:
    if cell.kind != "number":
        return cell
    chosen = found.get("chosen" if metric == _LOSS else "known_features", {}).get(task)
    if chosen is None:
        return cell
    if chosen.get("latent") is None:
        return replace(cell, detail="no latent fires", hint="on any positive example of train")
    words = f"latent {chosen['latent']}"
    if metric == _LOSS:
        sign = {1: "yes where high", -1: "yes where low"}.get(chosen.get("direction"), "no direction")
        hint = f"{sign}; train loss {numbers.plain(chosen['train_loss_nats'])} nats; {cell.hint}"
    else:
        above, train = numbers.plain(chosen["threshold"]), numbers.plain(chosen["train_f1"])
        hint = f"above {above}; train F1 {train}; {cell.hint}"
    return replace(cell, detail=f"{cell.detail} {words}", hint=hint)


def _name_cell(task: Mapping[str, Any]) -> Cell:
    badges = []
    if task["is_lexical"]:
        badges.append(Badge("lexical", "neutral", "one token answers it (AUROC above .8): not in the means"))
    if task["unverified"]:
        words = visible("; ".join(map(str, task["unverified"])))
        badges.append(Badge("unverified", "bad", f"not read in a source: {words}"))
    if task["status"] != "probed":
        badges.append(Badge(task["status"], "neutral", visible(str(task["reason"]))))
    name = visible(str(task["name"]))
    detail = task["question"] if task["status"] == "probed" else task["reason"]
    return Cell(name, sort=name, detail=visible(str(detail)), badges=tuple(badges))


def _tasks_table(facts: Mapping[str, Any]) -> Table:
    """What the tasks are and where they come from."""
    columns = (
        Column("Task"),
        Column("Label"),
        Column("Examples", is_numeric=True, hint="train and test"),
        Column("Read at", hint="what of a text stands for an example"),
        Column(
            "One token", is_numeric=True, hint="AUROC of the best that one token's identity can do on test"
        ),
        Column("Source"),
        Column("Licence"),
    )
    rows = tuple(Row(_task_cells(task)) for task in _probed_first(facts))
    return Table("probe-tasks", "The tasks", columns, rows, is_filterable=len(rows) > _FROM)


def _task_cells(task: Mapping[str, Any]) -> tuple[Cell, ...]:
    told = [*task["choices"], *task.get("notes", ())]
    counts = Cell("—", kind="missing", hint="there are no examples")
    if "train_count" in task:
        total = task["train_count"] + task["test_count"]
        halves = f"{numbers.count(task['train_count'])} train, {numbers.count(task['test_count'])} test"
        counts = Cell(numbers.count(total), sort=total, kind="number", detail=halves)
    auroc = task.get("single_token_auroc")  # a report that was read back has no nulls
    known = Cell("—", kind="missing", hint="not measured")
    if auroc is not None:
        known = Cell(numbers.fixed(auroc, 2), sort=auroc, kind="number")
    revision = visible(str(task.get("revision") or ""))
    return (
        _name_cell(task),
        Cell(visible(str(task["label_rule"])), hint=visible("; ".join(map(str, told)))),
        counts,
        Cell(str(task["pooling"]), sort=str(task["pooling"])),
        known,
        Cell(visible(str(task["source"])), detail=revision, hint=visible(str(task["split_rule"]))),
        Cell(visible(str(task["licence"])), sort=visible(str(task["licence"]))),
    )
