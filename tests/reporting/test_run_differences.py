"""`compare`: two runs' observations side by side, against SciPy and by its laws."""

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.errors import RunStoreError
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
from autointerp.reporting.run_differences import (
    compare_runs,
    detectable,
    differences_json,
    differences_markdown,
    differences_table,
)

PAIRED, SCORE = "downstream.delta_ce_nats", "explanation.detection_auroc"


def definition(name, **other):
    kind = "independent" if name == SCORE else "units"
    settings = {"unit": "nats", "better": "lower", "functional": "ratio", "sampled": "document"} | other
    return MetricDefinition(name=name, title=name, meaning="m", pairing=kind, **settings)


def summary(name):
    return CheckpointSummary(name, name, "0" * 8, "openai", "relu", 4, 2, "a", "checkpoint", "none")


def write(folder, numbers, *, explanations=None, scores=None, subject="s"):
    """A run whose checkpoints have these numbers, one a document (and one a latent for scores)."""
    frames = []
    for name, values in numbers.items():
        units = [f"d{place}" for place in range(len(values))]
        frames.append(
            observation_frame(checkpoint=name, metric=PAIRED, unit=units, cluster=units, numerator=values)
        )
    for name, values in (scores or {}).items():
        units = [f"{folder.name}-{name}-{place}" for place in range(len(values))]
        frames.append(
            observation_frame(checkpoint=name, metric=SCORE, unit=units, cluster=units, numerator=values)
        )
    (folder / "observations").mkdir(parents=True)
    pl.concat(frames).write_parquet(folder / "observations" / "all.parquet")
    first = next(iter(numbers))
    report = EvaluationReport(
        suite={"name": "n", "seed": 0, "estimates": {"level": 0.95}},
        subject={"sha256": subject},
        corpus={"fingerprint": "c"},
        checkpoints=tuple(summary(name) for name in numbers),
        definitions=(definition(PAIRED), definition(SCORE)),
        results=(MetricResult(first, PAIRED, {}, Measured(Estimate(1, 0, 2, 0.95, "m", 3, "document"))),),
        comparisons=(),
        cost={},
        provenance={},
        explanations=explanations or {},
    )
    (folder / "report.json").write_text(report_json(report))
    return folder


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
