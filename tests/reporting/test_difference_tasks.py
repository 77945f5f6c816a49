"""`compare`, task by task: against SciPy, and what is said of it."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from browser_visits import Visit, running_browser
from compared_runs import TASKS, write
from report_examples import HOSTILE
from scipy import stats

from autointerp.errors import RunStoreError
from autointerp.reporting.difference_document import difference_document
from autointerp.reporting.difference_files import differences_text
from autointerp.reporting.difference_tasks import task_lines, tasks_section
from autointerp.reporting.run_differences import compare_runs, differences_json

LOSSES = {f"set/task {n}": np.random.default_rng(n).normal(1, 0.3, 40) for n in range(6)}
SHIFTS = dict(zip(LOSSES, (0.5, -0.5, 0.0, 0.0, 0.0, 0.0), strict=True))
MINE = {
    name: values + SHIFTS[name] + np.random.default_rng([9, n]).normal(0, 0.2, 40)
    for n, (name, values) in enumerate(LOSSES.items())
}
EVIL = f"own/{HOSTILE}"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A lost the first task, won the second; the others differ by noise, and one is in A only."""
    folder = tmp_path_factory.mktemp("tasks")
    documents = {"sae": np.arange(9.0)}
    return compare_runs(
        write(folder / "a", documents, tasks={"sae": MINE | {EVIL: np.ones(40)}}),
        write(folder / "b", documents, tasks={"sae": LOSSES}),
    )


def of_task(found, name):
    return next(each for each in found.tasks if each.slice == {"task": name})


def test_each_task_is_paired_by_itself(found):
    """The mean of its examples' differences; random labels and other nulls of a task are no rows."""
    assert {each.slice["task"] for each in found.tasks} == {*LOSSES, EVIL}
    assert {each.metric for each in found.tasks} == {TASKS}
    for name, theirs in LOSSES.items():
        estimate, difference = of_task(found, name).outcome.estimate, MINE[name] - theirs
        oracle = stats.bootstrap((difference,), np.mean, n_resamples=4000, rng=1, method="BCa")
        assert estimate.method.startswith("paired")
        assert estimate.n == 40
        assert estimate.value == pytest.approx(difference.mean())
        assert estimate.low == pytest.approx(oracle.confidence_interval.low, abs=0.01)
        assert estimate.high == pytest.approx(oracle.confidence_interval.high, abs=0.01)


def test_p_values_are_adjusted_over_the_tasks_alone(found):
    known = [each for each in found.tasks if each.p_value is not None]
    assert len(known) == len(LOSSES)
    wanted = stats.false_discovery_control([each.p_value for each in known])
    assert [each.adjusted_p_value for each in known] == pytest.approx(list(wanted))


def test_a_task_of_one_run_alone_has_no_number_and_says_why(found):
    alone = of_task(found, EVIL).outcome
    assert (alone.status, alone.reason) == ("undefined", "B: sae: no observations")


def test_lines_tell_what_changed_worse_ones_first(found):
    counts, worse, better = task_lines(found)
    assert counts == "Probe tasks. Of 7 differences: 1 worse, 1 better, 4 cannot tell, 1 without a number."
    assert worse.startswith("worse: sae, set/task 0, probe.loss_nats: +0.5")
    assert better.startswith("better: sae, set/task 1, probe.loss_nats: −0.")
    markdown = differences_text(found, suffix=".md")
    assert "set/task 0" in markdown


def test_json_has_every_task_with_both_numbers(found):
    rows = differences_json(found)["tasks"]
    assert [row["slice"]["task"] for row in rows] == [each.slice["task"] for each in found.tasks]
    assert {row["finding"] for row in rows} == {"worse", "better", "cannot tell", "undefined"}


@pytest.mark.parametrize("damaged", ["{", "[1]", "3"])
def test_a_slice_that_is_none_is_refused_in_one_line(tmp_path, damaged):
    runs = [write(tmp_path / name, {"sae": np.arange(9.0)}, tasks={"sae": LOSSES}) for name in "ab"]
    file = runs[0] / "observations" / "all.parquet"
    rows = pl.read_parquet(file)
    at_a_task = pl.col("slice") != "{}"
    rows.with_columns(slice=pl.when(at_a_task).then(pl.lit(damaged)).otherwise("slice")).write_parquet(file)
    with pytest.raises(RunStoreError, match="holds a slice that is none"):
        compare_runs(*runs)


def test_without_tasks_nothing_is_said(found):
    none = dataclasses.replace(found, tasks=())
    assert task_lines(none) == []
    assert tasks_section(none) == ()


def test_the_page_shows_them_and_runs_nothing_foreign(found, tmp_path):
    section = next(each for each in difference_document(found).sections if each.name == "tasks")
    assert [part.title for part in section.parts[:3]] == ["Of A’s checkpoints", "Worse", "Better"]
    page = tmp_path / "d.html"
    page.write_text(differences_text(found, suffix=".html"), encoding="utf-8")
    with running_browser() as browser, Visit(browser, page) as visit:
        rows = visit.page.locator("#table-task-differences tbody tr")
        assert rows.count() == len(LOSSES) + 1
        assert visit.page.locator("#tasks img, #tasks script").count() == 0
        assert visit.incidents == []
