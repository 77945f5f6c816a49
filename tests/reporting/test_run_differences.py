"""`compare`: two runs' observations side by side, against SciPy and by its laws."""

import json

import numpy as np
import polars as pl
import pytest
from compared_runs import PAIRED, SCORE, TASKS, write
from scipy import stats
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.errors import RunStoreError
from autointerp.records import Estimate, Measured
from autointerp.reporting.run_differences import (
    compare_runs,
    detectable,
    differences_json,
    differences_markdown,
    differences_table,
)


@pytest.fixture
def runs(tmp_path):
    generator = np.random.default_rng(0)
    common = generator.normal(1, 0.5, 60)
    mine = write(
        tmp_path / "a", {"sae": common + 0.1 + generator.normal(0, 0.1, 60)}, scores={"sae": np.ones(30)}
    )
    theirs = write(tmp_path / "b", {"sae": common}, scores={"sae": generator.normal(0.5, 0.1, 40)})
    return mine, theirs, common


def test_documents_are_paired_as_scipy_pairs_them(runs):
    mine, theirs, common = runs
    [found] = [each for each in compare_runs(mine, theirs).comparisons if each.metric == PAIRED]
    ours = pl.read_parquet(mine / "observations" / "all.parquet").filter(pl.col("metric") == PAIRED)
    difference = ours["numerator"].to_numpy() - common
    oracle = stats.bootstrap((difference,), np.mean, n_resamples=4000, rng=1, method="BCa")
    estimate = found.outcome.estimate
    assert estimate.value == pytest.approx(difference.mean())
    assert estimate.low == pytest.approx(oracle.confidence_interval.low, abs=0.006)
    assert estimate.high == pytest.approx(oracle.confidence_interval.high, abs=0.006)
    assert found.adjusted_p_value < 0.01


def test_latents_of_two_runs_are_independent_samples(runs):
    [found] = [each for each in compare_runs(*runs[:2]).comparisons if each.metric == SCORE]
    assert "independent samples of 30 and 40" in found.outcome.estimate.method


def test_tasks_are_paired_on_those_that_both_runs_have(tmp_path):
    """The mean over common tasks of the difference of losses, whatever a task of one run alone says."""
    generator = np.random.default_rng(1)
    losses = {f"task {n}": generator.normal(1, 0.3, 12) for n in range(6)}
    mine = {name: values + 0.2 for name, values in losses.items()}
    runs = [
        write(tmp_path / "a", {"sae": np.arange(9.0)}, tasks={"sae": mine | {"own": np.full(12, 50.0)}}),
        write(tmp_path / "b", {"sae": np.arange(9.0)}, tasks={"sae": losses}),
    ]
    [found] = [each for each in compare_runs(*runs).comparisons if each.metric == TASKS]
    assert found.outcome.estimate.value == pytest.approx(0.2)
    assert found.outcome.estimate.method.startswith("paired")
    assert "72 units common to both (of 84 and 72)" in found.outcome.estimate.method


def test_the_same_numbers_are_equal_not_untold(tmp_path):
    runs = [write(tmp_path / name, {"sae": np.arange(9.0)}) for name in ("a", "b")]
    assert [row["finding"] for row in differences_json(compare_runs(*runs))["differences"]] == ["equal"]


def test_checkpoints_of_one_run_alone_are_named(tmp_path):
    mine = write(tmp_path / "a", {"sae": np.arange(9.0), "new": np.arange(9.0)})
    theirs = write(tmp_path / "b", {"sae": np.arange(9.0), "old": np.arange(9.0)})
    content = differences_json(compare_runs(mine, theirs))
    assert (content["only_in_a"], content["only_in_b"]) == (["new"], ["old"])
    assert "B only: old" in differences_markdown(compare_runs(mine, theirs))


def test_json_has_both_runs_their_numbers_and_the_correction(runs):
    content = differences_json(compare_runs(*runs[:2]))
    assert (content["level"], content["adjustment"]) == (0.95, "Benjamini-Hochberg")
    assert content["a"]["checkpoints"][0]["sha256"] == "0" * 8
    paired = next(row for row in content["differences"] if row["metric"] == PAIRED)
    assert paired["a"]["value"] == paired["b"]["value"] == 1
    assert paired["minimum_detectable_difference"] > 0
    score = next(row for row in content["differences"] if row["metric"] == SCORE)
    assert "a" not in score, "its run says nothing of it"


def test_turned_round_it_is_the_negative(runs):
    there, back = compare_runs(runs[0], runs[1]), compare_runs(runs[1], runs[0])
    for one, other in zip(there.comparisons, back.comparisons, strict=True):
        assert one.outcome.estimate.value == pytest.approx(-other.outcome.estimate.value)


def test_the_detectable_difference_is_found_four_times_in_five():
    """By its definition: (z + z_power) standard errors away, a z test rejects with 80 % probability."""
    from autointerp.records import Comparison

    half = stats.norm.ppf(0.975) * 0.3
    found = Comparison("a", "b", "m", {}, Measured(Estimate(0, -half, half, 0.95, "m", 9, "document")))
    power = stats.norm.sf(stats.norm.ppf(0.975) - detectable(found) / 0.3)
    assert power == pytest.approx(0.8, abs=1e-3)


def test_scores_of_different_judges_are_left_out_unless_told(tmp_path):
    runs = [
        write(
            tmp_path / name,
            {"sae": np.arange(9.0)},
            scores={"sae": np.arange(9.0)},
            explanations={"models": [{"model": name}]},
        )
        for name in ("a", "b")
    ]
    kept = compare_runs(*runs)
    assert {each.metric for each in kept.comparisons} == {PAIRED}
    assert any("other judges" in note for note in kept.notes)
    told = compare_runs(*runs, allow_other_judge=True)
    assert {each.metric for each in told.comparisons} == {PAIRED, SCORE}


def test_what_is_not_alike_is_said(tmp_path):
    runs = [write(tmp_path / name, {"sae": np.arange(9.0)}, subject=name) for name in ("a", "b")]
    assert "the two runs have another subject" in compare_runs(*runs).notes


def test_one_checkpoint_each_needs_no_common_name(tmp_path):
    runs = [write(tmp_path / name, {name: np.arange(9.0)}) for name in ("a", "b")]
    assert compare_runs(*runs).comparisons
    two = write(tmp_path / "two", {"x": np.arange(9.0), "y": np.arange(9.0)})
    with pytest.raises(RunStoreError, match="no checkpoint of the same name"):
        compare_runs(runs[0], two)


def test_a_run_without_observations_is_refused(tmp_path):
    runs = [write(tmp_path / name, {"sae": np.arange(9.0)}) for name in ("a", "b")]
    (runs[1] / "observations" / "all.parquet").unlink()
    with pytest.raises(RunStoreError, match="no observations"):
        compare_runs(*runs)


def test_it_is_shown_in_three_ways(runs):
    found = compare_runs(*runs[:2])
    assert len(differences_table(found).rows) == 2
    content = json.loads(json.dumps(differences_json(found), allow_nan=False))
    assert [row["finding"] for row in content["differences"]] == ["worse", "worse"]
    assert differences_markdown(found).count("\n| sae") == 2
    for form in ("table", "json", "md"):
        done = CliRunner().invoke(app, ["compare", *map(str, runs[:2]), "--format", form])
        assert done.exit_code == 0, done.output
        assert "worse" in done.output


def test_observations_of_another_shape_are_refused_in_one_line(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, {"sae": np.linspace(0, 1, 20)})
    file = tmp_path / "b" / "observations" / "all.parquet"
    pl.read_parquet(file).drop("cluster").write_parquet(file)
    with pytest.raises(RunStoreError, match="no observations of this version"):
        compare_runs(tmp_path / "a", tmp_path / "b")
