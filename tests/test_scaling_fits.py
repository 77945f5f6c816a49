"""Scaling laws: the paper's numbers, known constants found again, SciPy as a second opinion, and refusals."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.stats import linregress, t

from autointerp.estimates.scaling_fits import LAWS, Points, fit_law, joint_loss, scaling_facts
from autointerp.estimates.sums_of_powers import SumOfPowers
from autointerp.records import CheckpointSummary, Estimate, Measured, MetricResult, Undefined

PAPER = {
    "alpha": -0.50,
    "beta_k": 0.26,
    "beta_n": -0.017,
    "gamma": -0.042,
    "zeta": -1.32,
    "eta": -0.085,
}
WIDTHS, SPARSITIES = (2048, 8192, 32768, 131072, 524288), (8, 16, 32, 64, 128)
L0, MSE, DELTA = "reconstruction.l0", "reconstruction.normalized_mse", "downstream.delta_ce_nats"


def grid(widths=WIDTHS, sparsities=SPARSITIES):
    n, k = (np.array(axis, dtype=float).ravel() for axis in np.meshgrid(widths, sparsities))
    return n, k


def points(value, n, k, error=0.0) -> Points:
    names = tuple(f"{int(a)}-{int(b)}" for a, b in zip(n, k, strict=True))
    return Points(names, n, k, np.asarray(value), np.full(len(n), error))


def constants(fit) -> dict[str, float]:
    assert fit["status"] == "measured", fit
    return {constant["name"]: constant["value"] for constant in fit["constants"]}


def covered(fit, name: str, truth: float) -> bool:
    [constant] = [constant for constant in fit["constants"] if constant["name"] == name]
    return constant["low"] <= truth <= constant["high"]


@pytest.mark.parametrize(("n", "k", "loss"), [(32768, 128, 0.393), (2**24, 256, 0.207)])
def test_the_papers_constants_give_the_papers_losses(n: int, k: int, loss: float) -> None:
    assert joint_loss(n, k, PAPER) == pytest.approx(loss, abs=5e-4)


def test_exact_losses_give_their_constants_back() -> None:
    n, k = grid()
    fit = fit_law(LAWS["joint"], points([joint_loss(a, b, PAPER) for a, b in zip(n, k, strict=True)], n, k))
    assert constants(fit) == pytest.approx(PAPER, abs=1e-5)
    assert fit["residual_deviation"] < 1e-8
    for constant in fit["constants"]:
        assert constant["high"] - constant["low"] < 1e-4


def test_noisy_losses_give_intervals_that_hold_the_constants() -> None:
    n, k = grid()
    exact = np.array([joint_loss(a, b, PAPER) for a, b in zip(n, k, strict=True)])
    hits = 0
    for seed in range(6):
        noise = np.random.default_rng(seed).standard_normal(len(n))
        fit = fit_law(LAWS["joint"], points(exact * np.exp(0.004 * noise), n, k, 0.003), seed=seed)
        hits += sum(covered(fit, name, truth) for name, truth in PAPER.items())
    assert hits >= 30  # of 36, where 34 are expected


def test_the_joint_law_fits_as_well_as_scipy_from_the_true_constants() -> None:
    n, k = grid()
    exact = np.array([joint_loss(a, b, PAPER) for a, b in zip(n, k, strict=True)])
    value = exact * np.exp(0.01 * np.random.default_rng(3).standard_normal(len(n)))

    def residuals(c):
        return [
            math.log(joint_loss(a, b, dict(zip(PAPER, c, strict=True)))) for a, b in zip(n, k, strict=True)
        ] - np.log(value)

    best = least_squares(residuals, list(PAPER.values()), xtol=1e-12, ftol=1e-12)
    fit = fit_law(LAWS["joint"], points(value, n, k))
    ours = np.sum(np.square([point["residual"] for point in fit["points"]]))
    assert ours <= 2 * best.cost * (1 + 1e-6)


def test_a_power_law_is_a_line_in_logarithms_with_students_interval() -> None:
    n = np.array(WIDTHS, dtype=float)
    value = 2.0 * n**-0.3 * np.exp(0.03 * np.random.default_rng(0).standard_normal(5))
    fit = fit_law(LAWS["power"], points(value, n, np.full(5, 32.0)))
    line = linregress(np.log(n), np.log(value))
    found = constants(fit)
    assert found["beta_n"] == pytest.approx(line.slope)
    assert found["alpha"] == pytest.approx(line.intercept)
    half = line.stderr * t.ppf(0.975, 3)
    [slope] = [constant for constant in fit["constants"] if constant["name"] == "beta_n"]
    assert slope["high"] - line.slope == pytest.approx(half, rel=0.25)
    assert line.slope - slope["low"] == pytest.approx(half, rel=0.25)


def test_the_results_own_uncertainty_counts_where_points_lie_on_the_law() -> None:
    n = np.array(WIDTHS, dtype=float)
    fits = [
        fit_law(LAWS["power"], points(2.0 * n**-0.3, n, np.full(5, 32.0), error)) for error in (0.0, 0.05)
    ]
    widths = [fit["constants"][1]["high"] - fit["constants"][1]["low"] for fit in fits]
    design = np.log(n) - np.log(n).mean()
    expected = 2 * 1.96 * 0.05 / math.sqrt(design @ design)
    assert widths[0] < 1e-9
    assert widths[1] == pytest.approx(expected, rel=0.2)


def test_a_floor_is_found_where_there_is_one() -> None:
    n = np.array([2.0**power for power in range(8, 22, 2)])
    truth = 3.0 * n**-0.5 + 0.05
    fit = fit_law(LAWS["offset"], points(truth, n, np.full(len(n), 32.0)))
    found = constants(fit)
    assert found["beta_n"] == pytest.approx(-0.5, abs=1e-5)
    assert math.exp(found["zeta"]) == pytest.approx(0.05, rel=1e-5)
    assert math.exp(found["alpha"]) == pytest.approx(3.0, rel=1e-4)


def test_where_there_is_no_floor_what_is_found_is_next_to_nothing() -> None:
    n = np.array([2.0**power for power in range(8, 22, 2)])
    fit = fit_law(LAWS["offset"], points(3.0 * n**-0.5, n, np.full(len(n), 32.0)))
    found = constants(fit)
    assert found["beta_n"] == pytest.approx(-0.5, abs=1e-3)
    assert math.exp(found["zeta"]) < 0.01 * 3.0 * n[-1] ** -0.5
    assert all(math.isfinite(constant[end]) for constant in fit["constants"] for end in ("low", "high"))


def test_a_product_needs_four_and_finds_its_exponents() -> None:
    n, k = grid((1024, 4096), (8, 32))
    fit = fit_law(LAWS["product"], points(1.5 * n**-0.1 * k**-0.4, n, k))
    assert constants(fit) == pytest.approx({"alpha": math.log(1.5), "beta_k": -0.4, "beta_n": -0.1})


@pytest.mark.parametrize(
    ("law", "widths", "sparsities", "reason"),
    [
        ("joint", (1024, 4096), (8, 16, 32), "6 constants need at least 7 checkpoints, there are 6"),
        ("joint", (1024, 4096), (8, 16, 32, 64), "3 different widths, there are 2"),
        ("joint", (1, 2, 4, 8, 16, 32, 64, 128), (8,), "2 different sparsities, there are 1"),
        ("product", (1024,), (8, 16, 32, 64), "2 different widths, there are 1"),
        ("product", (1024, 4096, 8192), (8,), "3 constants need at least 4 checkpoints, there are 3"),
        ("power", (1024,), (8,), "2 constants need at least 3 checkpoints, there is 1"),
        ("offset", (1024, 4096, 8192), (8,), "3 constants need at least 4 checkpoints, there are 3"),
    ],
)
def test_too_few_checkpoints_or_values_are_undefined_with_the_reason(law, widths, sparsities, reason) -> None:
    n, k = grid(widths, sparsities)
    fit = fit_law(LAWS[law], points(0.5 * n**-0.1, n, k))
    assert fit["status"] == "undefined"
    assert reason in fit["reason"]
    assert "constants" not in fit and "points" not in fit


def test_the_order_of_checkpoints_does_not_matter() -> None:
    n, k = grid()
    value = np.array([joint_loss(a, b, PAPER) for a, b in zip(n, k, strict=True)])
    value *= np.exp(0.01 * np.random.default_rng(1).standard_normal(len(n)))
    order = np.random.default_rng(2).permutation(len(n))
    one = fit_law(LAWS["joint"], points(value, n, k))
    other = fit_law(LAWS["joint"], points(value[order], n[order], k[order]))
    assert constants(other) == pytest.approx(constants(one), rel=1e-4, abs=1e-4)


def test_inner_and_outer_constants_are_two_ways_to_say_the_same() -> None:
    n, k = grid()
    log_n, log_k = np.log(n), np.log(k)
    first = np.stack([np.ones_like(n), log_k, log_n, log_k * log_n], axis=1)
    second = np.stack([np.ones_like(n), log_k], axis=1)
    predicted = SumOfPowers.of(first, second).predict(np.array(list(PAPER.values())))
    expected = [math.log(joint_loss(a, b, PAPER)) for a, b in zip(n, k, strict=True)]
    np.testing.assert_allclose(predicted, expected, rtol=1e-12)


def summary(name, n, architecture="topk(k=8)", site="blocks.4.hook_resid_post", role="checkpoint"):
    return CheckpointSummary(name, name, "0" * 64, "openai", architecture, n, 128, site, role, "layer_norm")


def measured(name: str, metric: str, value: float, slice_=None, half: float = 0.01) -> MetricResult:
    estimate = Estimate(value, value * (1 - half), value * (1 + half), 0.95, "BCa", 100, "document")
    return MetricResult(name, metric, slice_ or {}, Measured(estimate))


def sweep(widths, sparsities, **about):
    """Checkpoints on the product law, with their results."""
    checkpoints, results = [], []
    for n in widths:
        for k in sparsities:
            name = f"{about.get('site', '')}{n}-{k}"
            checkpoints.append(summary(name, n, f"topk(k={k})", **about))
            loss = 2.0 * n**-0.2 * k**-0.3
            results += [
                measured(name, L0, float(k), half=0.0),
                measured(name, MSE, loss),
                measured(name, MSE, 9.0, {"position": "0"}),
                measured(name, DELTA, 0.5 * loss**1.5),
            ]
    return checkpoints, results


def fits_of(facts, law: str):
    return [fit for group in facts["groups"] for fit in group["fits"] if fit["law"] == law]


def test_a_small_sweep_has_what_can_be_fitted_and_reasons_for_the_rest() -> None:
    checkpoints, results = sweep((1024, 4096), (8, 32))
    facts = scaling_facts(results, checkpoints)
    [joint], [product] = fits_of(facts, "joint"), fits_of(facts, "product")
    assert joint["status"] == "undefined" and "7 checkpoints" in joint["reason"]
    assert constants(product) == pytest.approx({"alpha": math.log(2), "beta_k": -0.3, "beta_n": -0.2})
    assert [fit["k"] for fit in fits_of(facts, "power")] == [8.0, 32.0]
    assert {fit["status"] for fit in fits_of(facts, "power")} == {"undefined"}
    assert json.loads(json.dumps(facts)) == facts


def test_a_wide_sweep_has_every_law() -> None:
    checkpoints, results = sweep((512, 1024, 2048, 4096), (8, 32))
    facts = scaling_facts(results, checkpoints)
    for fit in fits_of(facts, "power"):
        assert constants(fit)["beta_n"] == pytest.approx(-0.2)
    for fit in fits_of(facts, "loss"):
        assert constants(fit)["beta"] == pytest.approx(1.5)
        assert constants(fit)["alpha"] == pytest.approx(math.log(0.5))
    assert {fit["status"] for fit in fits_of(facts, "joint")} == {"measured"}
    [group] = facts["groups"]
    assert len(group["checkpoints"]) == 8 and group["left_out"] == []


def test_architectures_and_sites_are_fitted_apart_and_nulls_not_at_all() -> None:
    checkpoints, results = sweep((1024, 4096), (8, 32))
    others, more = sweep((1024, 2048), (8, 32), site="blocks.2.hook_resid_post")
    null = summary("null", 1024, role="null")
    relu = summary("relu", 1024, "relu")
    facts = scaling_facts(
        [*results, *more, measured("null", MSE, 0.9), measured("null", L0, 8.0), measured("relu", MSE, 0.2)],
        [*checkpoints, *others, null, relu],
    )
    assert [(group["site"], group["architecture"]) for group in facts["groups"]] == [
        ("blocks.4.hook_resid_post", "topk"),
        ("blocks.2.hook_resid_post", "topk"),
    ]
    names = {member["name"] for group in facts["groups"] for member in group["checkpoints"]}
    assert not names & {"null", "relu"}


def test_sparsities_that_are_nearly_the_same_count_as_one() -> None:
    checkpoints, results = [], []
    for n, k in ((512, 30.0), (1024, 31.0), (4096, 30.5)):
        checkpoints.append(summary(str(n), n, "relu"))
        results += [measured(str(n), L0, k), measured(str(n), MSE, n**-0.25)]
    facts = scaling_facts(results, checkpoints)
    [power] = fits_of(facts, "power")
    assert constants(power)["beta_n"] == pytest.approx(-0.25)
    assert fits_of(facts, "loss") == []


def test_a_checkpoint_without_a_number_or_logarithm_is_left_out_with_the_reason() -> None:
    checkpoints, results = sweep((512, 1024, 2048, 4096), (8,))
    checkpoints += [summary("lost", 8192), summary("zero", 256)]
    results += [MetricResult("lost", MSE, {}, Undefined("no text")), measured("lost", L0, 8.0)]
    results += [
        MetricResult("zero", MSE, {}, Measured(Estimate(0.0, 0.0, 0.0, 0.95, "BCa", 9, "document"))),
        measured("zero", L0, 8.0),
    ]
    [group] = scaling_facts(results, checkpoints)["groups"]
    left = {entry["checkpoint"]: entry["reason"] for entry in group["left_out"]}
    assert MSE in left["lost"] and "logarithm" in left["zero"]
    assert len(group["checkpoints"]) == 4


@pytest.mark.parametrize(
    "checkpoints", [[], [summary("one", 1024)], [summary("a", 1024), summary("b", 1024)]]
)
def test_without_a_span_there_is_nothing_to_say(checkpoints) -> None:
    results = [measured(c.name, metric, 8.0) for c in checkpoints for metric in (L0, MSE)]
    assert scaling_facts(results, checkpoints) == {}


@pytest.mark.parametrize(("jitter", "status"), [(1.0, "undefined"), (1.02, "undefined"), (1.5, "measured")])
def test_widths_and_sparsities_that_change_together_cannot_be_told_apart(jitter: float, status: str) -> None:
    """n / k is the same for all; of ReLU about the same, which is no more."""
    n = np.array([1024.0, 2048.0, 4096.0, 8192.0, 16384.0])
    k = n / 128 * np.array([1.0, jitter, 1.0, jitter, 1.0])
    points = Points(tuple("abcde"), n, k, 2 * n**-0.2 * k**-0.1, np.full(5, 0.01))
    found = fit_law(LAWS["product"], points)
    assert found["status"] == status
    if status == "undefined":
        assert "change together" in found["reason"]
    else:
        told = {constant["name"]: constant["value"] for constant in found["constants"]}
        assert told["beta_n"] == pytest.approx(-0.2) and told["beta_k"] == pytest.approx(-0.1)
