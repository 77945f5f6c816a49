"""The report's section on probes: every loss beside its baselines, every task with its flags."""

from dataclasses import replace

import pytest

from autointerp.metrics.probe_loss import PROBE_METRICS
from autointerp.records import Estimate, Measured, MetricResult, Skipped, Undefined
from autointerp.reporting.html_file import report_html
from autointerp.reporting.json_file import read_report, report_json
from autointerp.reporting.parts import Callout, Table
from autointerp.reporting.probes import probe_sections

HOSTILE = "<script>alert(1)</script>\u202e"
BASELINES = {
    "channels": 0.629,
    "random_directions": 0.598,
    "random_labels": 0.715,
    "chance": 0.693,
    "all_channels": 0.515,
    "all_channels_tuned": 0.401,
}


def task(name, **settings):
    return {
        "name": name,
        "question": f"Is it {name}?",
        "label_rule": "a rule",
        "source": "somewhere",
        "licence": "PSF-2.0",
        "split_rule": "by document",
        "pooling": "marked",
        "single_token_auroc": 0.61,
        "is_lexical": False,
        "choices": [],
        "unverified": [],
        "notes": [],
        "revision": "",
        "status": "probed",
        "train_count": 600,
        "test_count": 400,
        **settings,
    }


TASKS = [
    task("gao61/sciq", status="skipped", reason="the package `datasets` is not installed"),
    task("stdlib/in_docstring"),
    task("stdlib/private_name", is_lexical=True, single_token_auroc=None),
    task(HOSTILE, licence=HOSTILE, unverified=[HOSTILE], notes=[HOSTILE], label_rule=HOSTILE),
]


def measured(value):
    return Measured(Estimate(value, value - 0.01, value + 0.01, 0.95, "bootstrap", 400, "example"))


def results(name):
    yield MetricResult(name, "probe.loss_nats", {}, measured(0.422))
    for baseline, value in BASELINES.items():
        yield MetricResult(name, "probe.loss_nats", {"baseline": baseline}, measured(value))
    yield MetricResult(name, "probe.loss_nats", {"k": 2}, measured(0.396))
    yield MetricResult(name, "probe.loss_nats", {"k": 128}, Undefined("k = 128, and there are 64 latents"))
    yield MetricResult(name, "probe.auroc", {}, measured(0.841))
    yield MetricResult(name, "probe.accuracy", {}, measured(0.789))
    yield MetricResult(name, "probe.known_feature_f1", {}, measured(0.747))
    yield MetricResult(name, "probe.known_feature_f1", {"baseline": "always_yes"}, measured(0.667))
    for place, known in enumerate(TASKS[1:]):
        slice_ = {"task": known["name"]}
        yield MetricResult(name, "probe.loss_nats", slice_, measured(0.4 + place / 100))
        yield MetricResult(name, "probe.known_feature_f1", slice_, measured(0.7 + place / 100))
    for metric in ("probe.loss_nats", "probe.known_feature_f1"):
        skipped = Skipped("the package `datasets` is not installed")
        yield MetricResult(name, metric, {"task": "gao61/sciq"}, skipped)


def found():
    spread = {"min": 0.05, "lower_quartile": 0.3, "median": 0.45, "upper_quartile": 0.56, "max": 0.74}
    names = [known["name"] for known in TASKS[1:]]
    chosen = {"latent": 846, "direction": -1, "train_loss_nats": 0.3987}
    features = {name: {"latent": 404, "threshold": 3.06, "train_f1": 0.76} for name in names}
    features["stdlib/private_name"] = {"latent": None, "threshold": 0.0, "train_f1": 0.0}
    return {
        "kinds": {"own": {"loss_nats_by_task": {}, "loss_nats_spread": spread}},
        "chosen": dict.fromkeys(names, chosen),
        "known_features": features,
    }


@pytest.fixture
def probed(realistic):
    first = realistic.checkpoints[0]
    facts = {
        "values": "pre_activations",
        "inverse_penalty": 1.0,
        "sparse_counts": [2, 128],
        "text_count": 1000,
        "tasks": TASKS,
        "checkpoints": {first.name: found()},
    }
    return replace(
        realistic,
        definitions=(*realistic.definitions, *PROBE_METRICS),
        results=(*realistic.results, *results(first.name)),
        studies={"probe": facts},
    )


def tables(report):
    (section,) = probe_sections(report)
    return {part.name: part for part in section.parts if isinstance(part, Table)}


def row(table, name):
    (found,) = [row for row in table.rows if row.cells[0].text == name]
    return dict(zip([column.title for column in table.columns], found.cells, strict=True))


def test_every_loss_stands_beside_its_baselines(probed) -> None:
    first, second, *_ = probed.checkpoints
    cells = row(tables(probed)["probes"], first.name)
    texts = {title: cell.text for title, cell in cells.items()}
    assert texts == {
        "Checkpoint": first.name,
        "Loss": "0.422",
        "AUROC": "0.841",
        "Accuracy": "0.789",
        "Channels": "0.629",
        "Random directions": "0.598",
        "Random labels": "0.715",
        "Chance": "0.693",
        "Over tasks": "0.05 … 0.74",
    }
    assert cells["Loss"].detail == "[0.412, 0.432]"
    together = row(tables(probed)["probes-k"], first.name)
    assert [together[title].text for title in ("k = 2", "All channels", "All channels, tuned")] == [
        "0.396",
        "0.515",
        "0.401",
    ]
    assert together["k = 128"].kind == "missing" and "64 latents" in together["k = 128"].hint
    assert row(tables(probed)["known-features-mean"], first.name)["Always yes"].text == "0.667"
    assert row(tables(probed)["probes"], second.name)["Loss"].kind == "missing"


def test_nulls_are_greyed(probed) -> None:
    nulls = {checkpoint.name for checkpoint in probed.checkpoints if checkpoint.role == "null"}
    table = tables(probed)["probes"]
    assert {row.cells[0].text for row in table.rows if row.is_null} == nulls != set()


def test_every_task_names_its_latent_its_licence_and_its_flags(probed) -> None:
    first = probed.checkpoints[0].name
    losses, features, described = (
        tables(probed)[name] for name in ("probe-losses", "known-features", "probe-tasks")
    )
    cell = row(losses, "stdlib/in_docstring")[first]
    assert (cell.text, cell.sort) == ("0.400", 0.4)
    assert "latent 846" in cell.detail and "yes where low" in cell.hint and "0.3987" in cell.hint
    assert "latent 404" in row(features, "stdlib/in_docstring")[first].detail
    assert row(features, "stdlib/private_name")[first].detail == "no latent fires"
    skipped = row(losses, "gao61/sciq")
    assert skipped[first].kind == "missing" and "datasets" in skipped[first].hint
    assert [badge.text for badge in skipped["Task"].badges] == ["skipped"]
    lexical = row(described, "stdlib/private_name")
    assert [badge.text for badge in lexical["Task"].badges] == ["lexical"]
    assert lexical["One token"].kind == "missing"
    told = row(described, "stdlib/in_docstring")
    assert (told["Licence"].text, told["One token"].text) == ("PSF-2.0", "0.61")
    assert told["Examples"].detail == "600 train, 400 test"
    other = [row for row in described.rows if "script" in row.cells[0].text]
    assert [badge.text for badge in other[0].cells[0].badges] == ["unverified"]


def test_tasks_that_were_not_probed_are_said_with_their_reason(probed) -> None:
    (section,) = probe_sections(probed)
    (callout,) = [part for part in section.parts if isinstance(part, Callout)]
    (line,) = callout.lines
    assert line.startswith("1 of 4: gao61/sciq.")
    for name in ("probe-losses", "probe-tasks"):
        last = tables(probed)[name].rows[-1].cells[0]
        assert (last.text, last.detail) == ("gao61/sciq", "the package `datasets` is not installed")
    assert "3 yes-or-no tasks" in section.lead and "over the 2 tasks" in section.lead


def test_texts_of_tasks_are_escaped_and_the_file_can_be_read_again(probed, tmp_path) -> None:
    path = tmp_path / "report.json"
    path.write_text(report_json(probed), encoding="utf-8")
    again = read_report(path)
    assert probe_sections(again) == probe_sections(probed)
    (section,) = probe_sections(probed)
    assert "\u202e" not in repr(section)
    assert "<script>alert(1)" not in report_html(again)


def test_without_probes_there_is_no_section(realistic) -> None:
    assert probe_sections(realistic) == ()
