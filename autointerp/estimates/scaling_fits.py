"""Results of several checkpoints -> how their quality scales with width and sparsity.

With n latents, k of them active (as measured: `reconstruction.l0`), L the normalised MSE and D the rise of
the loss, these laws are fitted to the checkpoints of one architecture on one site:

| law        | formula                                                                           | constants |
|------------|-----------------------------------------------------------------------------------|-----------|
| joint      | L = exp(alpha + beta_k ln k + beta_n ln n + gamma ln k ln n) + exp(zeta + eta ln k) | 6 |
| product    | L = exp(alpha) n^beta_n k^beta_k                                                  | 3         |
| power      | L = exp(alpha) n^beta_n, at one k                                                 | 2         |
| offset     | L = exp(alpha) n^beta_n + exp(zeta), at one k                                     | 3         |
| loss       | D = exp(alpha) L^beta, at one k                                                   | 2         |

joint, power and offset are the paper's (Gao et al. 2024, arXiv 2406.04093, section 3, on TopK), loss is its
section 4.1's; product is joint without interaction and irreducible term, for sweeps that are too small for
six constants. A law is undefined with fewer checkpoints than constants plus one, and where widths or
sparsities take too few values, or change together, so that its constants cannot be told apart.

Fit: least squares in ln L, each checkpoint as weighty as the next. Intervals: the checkpoints' logarithms are
drawn anew about the fitted law `DRAWS` times and fitted again. A draw's variance is each result's own (from
its interval) plus what scatters beyond it, S / chi^2(m - p) less the mean of the results' own variances,
where S is the residual sum of squares of m checkpoints and p constants; for a straight line and exact results
these are Student's intervals. So they hold both what the text's size leaves open and how far the checkpoints
lie from the law. Results of checkpoints on the same text vary together, which is not used: it makes the
intervals of exponents wide rather than narrow. The uncertainty of k is left out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from autointerp.estimates.sums_of_powers import SumOfPowers
from autointerp.records import CheckpointSummary, Estimate, Measured, MetricResult

__all__ = ["DRAWS", "LAWS", "Law", "Points", "fit_law", "joint_loss", "scaling_facts"]

DRAWS = 400
"""Enough for the 2.5 % tails of a constant to within a tenth of its interval."""
_SEED = 0
_SAME_SPARSITY = 1.05
"""Checkpoints whose L0 differ by less than this factor count as of one k."""
_L0, _MSE, _DELTA = "reconstruction.l0", "reconstruction.normalized_mse", "downstream.delta_ce_nats"


@dataclass(frozen=True)
class Law:
    """One formula: sums of exp(linear in logarithms), of one term or two."""

    name: str
    formula: str
    first: tuple[tuple[str, str], ...]
    """(constant, regressor) of the first term; regressors are products of `n`, `k` and `x`, `1` for none."""
    second: tuple[tuple[str, str], ...] = ()
    """The same of the term that does not fall with n."""
    least_widths: int = 1
    """Different n that are needed to tell the constants apart; of loss, different L."""
    least_sparsities: int = 1

    @property
    def constants(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(name for name, _ in (*self.first, *self.second))


LAWS: Mapping[str, Law] = {
    law.name: law
    for law in (
        Law(
            "joint",
            "L = exp(alpha + beta_k ln k + beta_n ln n + gamma ln k ln n) + exp(zeta + eta ln k)",
            (("alpha", "1"), ("beta_k", "k"), ("beta_n", "n"), ("gamma", "kn")),
            (("zeta", "1"), ("eta", "k")),
            least_widths=3,
            least_sparsities=2,
        ),
        Law(
            "product",
            "L = exp(alpha) n^beta_n k^beta_k",
            (("alpha", "1"), ("beta_k", "k"), ("beta_n", "n")),
            least_widths=2,
            least_sparsities=2,
        ),
        Law("power", "L = exp(alpha) n^beta_n", (("alpha", "1"), ("beta_n", "n")), least_widths=2),
        Law(
            "offset",
            "L = exp(alpha) n^beta_n + exp(zeta)",
            (("alpha", "1"), ("beta_n", "n")),
            (("zeta", "1"),),
            least_widths=3,
        ),
        Law("loss", "D = exp(alpha) L^beta", (("alpha", "1"), ("beta", "x")), least_widths=2),
    )
}
"""By name, in the order of the report."""


@dataclass(frozen=True, eq=False)
class Points:
    """Checkpoints that a law is fitted to."""

    names: tuple[str, ...]
    n: Float[np.ndarray, " point"]
    """Latents; of the law of losses, L."""
    k: Float[np.ndarray, " point"]
    """Active ones."""
    value: Float[np.ndarray, " point"]
    """L, or D: above 0."""
    log_error: Float[np.ndarray, " point"]
    """Standard error of ln(value), from the result's interval; 0 where it is exact."""


def joint_loss(n: float, k: float, constants: Mapping[str, float]) -> float:
    """L(n, k) of the joint law, constants by name."""
    log_n, log_k = math.log(n), math.log(k)
    exponent = constants["alpha"] + constants["beta_k"] * log_k + constants["beta_n"] * log_n
    irreducible = math.exp(constants["zeta"] + constants["eta"] * log_k)
    return math.exp(exponent + constants["gamma"] * log_k * log_n) + irreducible


def fit_law(law: Law, points: Points, *, level: float = 0.95, seed: int = _SEED) -> dict[str, Any]:
    """A law's constants with intervals, and what it says of each checkpoint.

    Returns: JSON-able; `status` is measured or undefined. Measured: `constants` (name, value, low, high),
        `points` (checkpoint, measured, fitted, residual = ln(measured / fitted)), `residual_deviation` (the
        root of S / (m - p)), `level`. Undefined: `reason`.
    """
    about = {"law": law.name, "formula": law.formula, "constant_names": list(law.constants)}
    reason = _too_few(law, points)
    if reason:
        return {**about, "status": "undefined", "reason": reason}
    model = SumOfPowers.of(_design(law.first, points), _design(law.second, points))
    log_value = np.log(points.value)
    constants = model.fit(log_value)
    fitted = model.predict(constants)
    residual = log_value - fitted
    spare = len(residual) - len(constants)
    generator = np.random.default_rng(seed)
    draws = _redrawn(fitted, residual, points.log_error, spare, generator)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(model.refit(draws, constants), tails, axis=0)
    return {
        **about,
        "status": "measured",
        "level": level,
        "constants": [
            {"name": name, "value": value, "low": min(bottom, value), "high": max(top, value)}
            for name, value, bottom, top in zip(
                law.constants, constants.tolist(), low.tolist(), high.tolist(), strict=True
            )
        ],
        "points": [
            {"checkpoint": name, "measured": value, "fitted": math.exp(line), "residual": rest}
            for name, value, line, rest in zip(
                points.names, points.value.tolist(), fitted.tolist(), residual.tolist(), strict=True
            )
        ],
        "residual_deviation": math.sqrt(float(residual @ residual) / spare),
    }


def _too_few(law: Law, points: Points) -> str:
    """Why a law cannot be fitted to these checkpoints; empty where it can."""
    needed = len(law.constants) + 1
    if len(points.names) < needed:
        return (
            f"{len(law.constants)} constants need at least {needed} checkpoints, there "
            f"{'is' if len(points.names) == 1 else 'are'} {len(points.names)}"
        )
    for values, least, words in (
        (points.n, law.least_widths, "errors" if law.name == "loss" else "widths"),
        (points.k, law.least_sparsities, "sparsities"),
    ):
        found = len(_levels(values))
        if found < least:
            return f"the constants need {least} different {words}, there are {found}"
    if law.least_sparsities > 1 and _change_together(points):
        return "widths and sparsities change together: what each of them does cannot be told apart"
    return ""


def _change_together(points: Points) -> bool:
    """Whether k is a power of n times a constant, but for what counts as one k."""
    log_n, log_k = np.log(points.n), np.log(points.k)
    line = np.stack([np.ones_like(log_n), log_n], axis=1)
    rest = log_k - line @ np.linalg.lstsq(line, log_k)[0]
    return bool(np.abs(rest).max() < math.log(_SAME_SPARSITY))


def _design(terms: Sequence[tuple[str, str]], points: Points) -> Float[np.ndarray, "point term"]:
    log_n, log_k = np.log(points.n), np.log(points.k)
    columns = {"1": np.ones_like(log_n), "n": log_n, "x": log_n, "k": log_k, "kn": log_k * log_n}
    return (
        np.stack([columns[regressor] for _, regressor in terms], axis=1) if terms else log_n[:, None][:, :0]
    )


def _redrawn(
    fitted: Float[np.ndarray, " point"],
    residual: Float[np.ndarray, " point"],
    log_error: Float[np.ndarray, " point"],
    spare: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "draw point"]:
    """Logarithms as they might have been measured; see the module's docstring."""
    own = log_error**2
    scatter = float(residual @ residual) / generator.chisquare(spare, size=(DRAWS, 1))
    variance = own + np.maximum(scatter - own.mean(), 0.0)
    return fitted + np.sqrt(variance) * generator.standard_normal((DRAWS, len(fitted)))


def scaling_facts(
    results: Iterable[MetricResult], checkpoints: Sequence[CheckpointSummary]
) -> dict[str, Any]:
    """The laws of every architecture and site of which a run has several widths or sparsities.

    Returns: JSON-able, `{"groups": [...]}`; empty where nothing spans anything. A group has `site`,
        `architecture`, `fits` (as from `fit_law`, with `k` where all are of one k) and `left_out`
        (checkpoint, reason).
    """
    found = {
        (result.checkpoint, result.metric): result.outcome.estimate
        for result in results
        if not result.slice and isinstance(result.outcome, Measured)
    }
    members: dict[tuple[str, str], list[CheckpointSummary]] = {}
    for checkpoint in checkpoints:
        if checkpoint.role == "checkpoint":
            key = (checkpoint.site, checkpoint.architecture.partition("(")[0])
            members.setdefault(key, []).append(checkpoint)
    groups = [_group(site, family, group, found) for (site, family), group in members.items()]
    groups = [group for group in groups if group]
    return {"groups": groups, "draws": DRAWS} if groups else {}


def _group(
    site: str,
    family: str,
    checkpoints: Sequence[CheckpointSummary],
    found: Mapping[tuple[str, str], Estimate],
) -> dict[str, Any]:
    """One architecture on one site; empty where its checkpoints do not differ in width and sparsity."""
    points, left_out = _points(checkpoints, found, _MSE)
    if len(points.names) < 2 or (len(_levels(points.n)) < 2 and len(_levels(points.k)) < 2):
        return {}
    level = found[points.names[0], _MSE].level
    fits = [fit_law(LAWS[name], points, level=level) for name in ("joint", "product")]
    for k in _levels(points.k):
        same = (points.k >= k) & (points.k < _SAME_SPARSITY * k)
        at_k = _only(points, same)
        if len(_levels(at_k.n)) > 1:
            fits += [{**fit_law(LAWS[name], at_k, level=level), "k": k} for name in ("power", "offset")]
            fits += _fits_of_losses(at_k, checkpoints, found, k, level)
    return {
        "site": site,
        "architecture": family,
        "checkpoints": [
            {"name": name, "n": n, "k": k}
            for name, n, k in zip(points.names, points.n.tolist(), points.k.tolist(), strict=True)
        ],
        "fits": fits,
        "left_out": [{"checkpoint": name, "reason": reason} for name, reason in left_out],
    }


def _fits_of_losses(
    at_k: Points,
    checkpoints: Sequence[CheckpointSummary],
    found: Mapping[tuple[str, str], Estimate],
    k: float,
    level: float,
) -> list[dict[str, Any]]:
    """The loss against the error, of checkpoints of one k; none where the loss was not measured."""
    chosen = [c for c in checkpoints if c.name in at_k.names and (c.name, _DELTA) in found]
    losses, _ = _points(chosen, found, _DELTA)
    if not losses.names:
        return []
    error = dict(zip(at_k.names, at_k.value.tolist(), strict=True))
    against = np.array([error[name] for name in losses.names])
    points = Points(losses.names, against, losses.k, losses.value, losses.log_error)
    return [{**fit_law(LAWS["loss"], points, level=level), "k": k}]


def _points(
    checkpoints: Sequence[CheckpointSummary], found: Mapping[tuple[str, str], Estimate], metric: str
) -> tuple[Points, list[tuple[str, str]]]:
    """Checkpoints with a value above 0, and those without, with the reason."""
    kept: list[tuple[CheckpointSummary, Estimate, Estimate]] = []
    left_out = []
    for checkpoint in checkpoints:
        value, sparsity = found.get((checkpoint.name, metric)), found.get((checkpoint.name, _L0))
        if value is None or sparsity is None:
            left_out.append((checkpoint.name, f"without a number for {metric if value is None else _L0}"))
        elif value.value <= 0 or sparsity.value <= 0:
            left_out.append((checkpoint.name, "a value of 0 or less has no logarithm"))
        else:
            kept.append((checkpoint, sparsity, value))
    points = Points(
        tuple(checkpoint.name for checkpoint, _, _ in kept),
        np.array([float(checkpoint.latent_count) for checkpoint, _, _ in kept]),
        np.array([sparsity.value for _, sparsity, _ in kept]),
        np.array([value.value for _, _, value in kept]),
        np.array([_log_error(value) for _, _, value in kept]),
    )
    return points, left_out


def _log_error(estimate: Estimate) -> float:
    """Standard error of the logarithm, as a normal distribution's with this interval would have."""
    half = float(ndtri((1 + estimate.level) / 2))
    return (estimate.high - estimate.low) / (2 * half * estimate.value)


def _levels(values: Float[np.ndarray, " point"]) -> list[float]:
    """The different values, rising: each is the least of those within 5 % above it."""
    levels: list[float] = []
    for value in np.sort(values).tolist():
        if not levels or value >= _SAME_SPARSITY * levels[-1]:
            levels.append(value)
    return levels


def _only(points: Points, kept: np.ndarray) -> Points:
    names = tuple(name for name, is_kept in zip(points.names, kept.tolist(), strict=True) if is_kept)
    return Points(names, points.n[kept], points.k[kept], points.value[kept], points.log_error[kept])
