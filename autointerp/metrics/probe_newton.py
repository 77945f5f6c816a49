"""Logistic probes by Newton's method: one latent each, all latents at once; or some latents together.

Both minimise, over n examples with labels y in {0, 1},

    mean_j log(1 + exp(-(2 y_j - 1)(w . z_j + b)))  +  |w|^2 / (2 C n)

with z standardised on these very examples (mean 0, population standard deviation 1) and b not penalised. That
is scikit-learn's `LogisticRegression(C=C)`. Without the penalty, separable examples have no minimum. C = 1
over 500 examples costs a latent that separates them perfectly about 0.01 nats.

Newton's step d is halved until it lowers the objective by a quarter of what its length promises, yet never
below what surely descends. With delta the largest change of any example's logit along d, the curvature grows
along the way by at most exp(delta) (Bach 2010, Electronic Journal of Statistics 4, on self-concordance of the
logistic loss), so that the step t d changes the objective by at most

    D (-t + (exp(t delta) - t delta - 1) / delta^2),        D = gradient . H^-1 gradient

which is negative at t = 1 for delta <= 1.79, and lowest at t = log(1 + delta) / delta. So every step
descends, near the minimum steps are whole and nothing is tried, and the method converges from anywhere. It
stops after a whole step, of delta <= 1.79, at which D / 2, what that step gains, was at most 1e-9 nats.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["JointProbe", "Probes", "Standardised", "fit_joint_probe", "fit_probes", "standardised"]

_GAIN = 1e-9
"""Nats that the last step may gain."""
_WHOLE_STEP = 1.79
"""Root of exp(delta) - delta - 1 = delta^2, rounded down: whole steps descend up to there."""
_MOST_ROUNDS = 1000
"""Never met: three do for almost all latents, some tens for values with outliers and hardly a penalty."""
_BOLDEST_START = 4.0
"""Largest factor by which the first guess, Fisher's discriminant, exceeds the first Newton step from w = 0:
it grows without bound where classes are far apart, where a saturated sigmoid has no curvature to step by."""
_LARGEST_LOGIT = 80.0
"""Beyond it on the wrong side an example's loss counts as 80 nats: exp overflows in float32 at 88."""
_CHUNK = {"cpu": 1 << 16, "cuda": 1 << 24}
"""Values at a time: what a core's cache holds, with four arrays of the size beside it."""


@dataclass(frozen=True, eq=False)
class Standardised:
    """Values of latents on some examples, brought to mean 0 and standard deviation 1."""

    z: Float[Tensor, "latent probe_example"]
    """0 for a constant latent."""
    mean: Float[Tensor, " latent"]
    std: Float[Tensor, " latent"]
    """1 for a constant latent, so that values of other examples can be treated alike."""


@dataclass(frozen=True, eq=False)
class Probes:
    """A probe for every latent: P(y = 1) = sigmoid(weight * z + bias), z standardised as in the fit."""

    weight: Float[Tensor, " latent"]
    bias: Float[Tensor, " latent"]
    loss: Float[Tensor, " latent"]
    """Mean cross entropy on the examples of the fit, nats, without the penalty."""
    mean_difference: Float[Tensor, " latent"]
    """Mean of z where y = 1, less that where y = 0; 0 for a constant latent."""


def standardised(values: Float[Tensor, "latent probe_example"]) -> Standardised:
    """The values in units of their own standard deviation; `values` is left as it is.

    A latent is constant where its values differ by no more than rounding: |value - mean| at most 16 machine
    epsilons of the mean, root mean square. Its probe is the intercept alone.

    Raises:
        ValueError: there are no examples, or a value is not finite.
    """
    if values.shape[1] == 0:
        raise ValueError("there are no examples to standardise on")
    mean = values.mean(dim=1)
    z = values - mean[:, None]
    mean_square = _row_dot(z, z) / values.shape[1]
    if not bool(torch.isfinite(mean_square).all()):
        raise ValueError("a latent's values on the examples are not finite")
    std = mean_square.sqrt()
    is_constant = std <= 16 * torch.finfo(values.dtype).eps * mean.abs()
    std = torch.where(is_constant, 1.0, std)
    z *= torch.where(is_constant, 0.0, 1.0 / std)[:, None]
    return Standardised(z, mean, std)


def fit_probes(
    values: Standardised,
    labels: Sequence[Bool[Tensor, " probe_example"]],
    *,
    inverse_penalty: float = 1.0,
) -> list[Probes]:
    """For every vector of labels the probe of every latent; formula and method in the module's docstring.

    Time: on one core some 10 ns for each latent, example and vector of labels in float32. Memory: the values,
    and 1 MB (on a GPU 256 MB).

    Args:
        values: from `standardised`; float32 gives losses to about 1e-6, float64 to 1e-9.
        labels: vectors, each with both classes.
        inverse_penalty: C, positive.

    Raises:
        ValueError: a vector of labels has one class only.
        ArithmeticError: a latent did not converge, which no finite values can bring about in float64.
    """
    scratch = _Scratch(values.z)
    return [_fit(values.z, _Target.of(label, values.z, inverse_penalty), scratch) for label in labels]


@dataclass(frozen=True, eq=False)
class _Target:
    """What all latents' fits to one vector of labels share."""

    sign: Float[Tensor, " probe_example"]
    """1 where y = 1, else -1."""
    share: float
    """Of examples with y = 1."""
    ridge: float
    """1 / (C n)."""

    @property
    def variance(self) -> float:
        """Of y."""
        return self.share * (1.0 - self.share)

    @classmethod
    def of(cls, label: Tensor, z: Tensor, inverse_penalty: float) -> "_Target":
        share = float(label.double().mean()) if len(label) else 0.0
        if not 0.0 < share < 1.0:
            raise ValueError("a probe needs examples of both classes")
        sign = 2.0 * label.to(device=z.device, dtype=z.dtype) - 1.0
        return cls(sign, share, 1.0 / (inverse_penalty * len(label)))


def _fit(z: Float[Tensor, "latent probe_example"], target: _Target, scratch: "_Scratch") -> Probes:
    """Newton's method on all latents at once; those that are done are left out of the next round."""
    covariance = (torch.mv(z, target.sign) / (2 * z.shape[1])).double()
    walk = _Walk(*_first_guess(covariance, target.share))
    loss = torch.zeros_like(covariance)
    peak = torch.maximum(z.amax(dim=1), -z.amin(dim=1)).double()
    active = torch.arange(len(z), device=z.device)
    for _ in range(_MOST_ROUNDS):
        if not len(active):
            found = (walk.weight, walk.bias, loss.clamp_min(0.0), covariance / target.variance)
            return Probes(*(column.to(z.dtype) for column in found))
        point = _Point.at(scratch, active, (walk.weight[active], walk.bias[active]), target)
        step = point.step(target.ridge)
        loss[active] = point.loss_after(step)
        active = active[~walk.go_on(active, point, step, peak[active], target.ridge)]
    raise ArithmeticError("a latent's probe did not converge")


class _Walk:
    """Where every latent is, where it came from, and by what step."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """Begin there: the first point is accepted whatever it is like."""
        self.weight, self.bias = weight, bias
        nothing, one = torch.zeros_like(weight), torch.ones_like(weight)
        self._from = torch.stack([weight, bias])
        self._step = torch.stack([nothing, nothing])
        self._length, self._surely = one, one.clone()
        self._decrement, self._objective = nothing, nothing.clone()

    def go_on(
        self, active: Tensor, point: "_Point", step: "_Step", peak: Tensor, ridge: float
    ) -> Bool[Tensor, " active"]:
        """Move on from the points just looked at, or go half back where one is too high; who is done."""
        objective = point.loss + ridge * point.weight**2 / 2
        length, surely = self._length[active], self._surely[active]
        enough = self._objective[active] - length * self._decrement[active] / 4
        is_fine = (length <= surely) | (objective <= enough)
        fine, back = active[is_fine], active[~is_fine]
        delta = (step.weight.abs() * peak + step.bias.abs())[is_fine]
        is_whole = delta <= _WHOLE_STEP
        self._from[:, fine] = torch.stack([self.weight[fine], self.bias[fine]])
        self._step[:, fine] = torch.stack([step.weight, step.bias])[:, is_fine]
        self._decrement[fine], self._objective[fine] = step.decrement[is_fine], objective[is_fine]
        self._surely[fine] = torch.where(is_whole, 1.0, torch.log1p(delta) / delta.clamp_min(_WHOLE_STEP))
        self._length[fine] = 1.0
        self._length[back] = torch.maximum(self._length[back] / 2, self._surely[back])
        trial = self._from[:, active] - self._length[active] * self._step[:, active]
        self.weight[active], self.bias[active] = trial[0], trial[1]
        is_done = torch.zeros_like(is_fine)
        is_done[is_fine] = is_whole & (step.decrement[is_fine] <= 2 * _GAIN)
        return is_done


def _first_guess(covariance: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Fisher's discriminant: the optimum for two normal classes of equal variance, without a penalty."""
    variance = share * (1.0 - share)
    within = (1.0 - covariance**2 / variance).clamp_min(1.0 / _BOLDEST_START)  # z has variance 1 in all
    weight = covariance / variance / within
    middle = covariance * (1.0 / share - 1.0 / (1.0 - share)) / 2.0
    return weight, math.log(share / (1.0 - share)) - weight * middle


class _Scratch:
    """The sums over examples that Newton's method needs, a chunk of latents at a time.

    With y coded as -1 and 1 and u the logit times y, all of them are made of e^-u and of 1 - sigma(u) =
    e^-u sigma(u), in which nothing cancels where the classes are well apart.
    """

    def __init__(self, z: Float[Tensor, "latent probe_example"]) -> None:
        """Room for one chunk: what a core's cache holds."""
        room = _CHUNK.get(z.device.type, _CHUNK["cpu"])
        self.z = z
        self._rows = min(max(1, room // max(1, z.shape[1])), max(1, len(z)))
        self._buffers = z.new_empty(4, self._rows, z.shape[1])

    def sums(
        self, active: Int[Tensor, " active"], weight: Tensor, bias: Tensor, sign: Tensor
    ) -> Float[Tensor, "sum active"]:
        """Of log(1 + e^-u), r y, r y z, s, s z and s z^2, with r = 1 - sigma(u) and s = r (1 - r)."""
        found = self.z.new_empty(6, len(active))
        place = torch.stack([weight, bias]).to(self.z.dtype)
        for first in range(0, len(active), self._rows):
            chunk = slice(first, first + self._rows)
            self._add(active[chunk], place[:, chunk], found[:, chunk], sign)
        return found.double()

    def _add(self, active: Tensor, place: Tensor, found: Tensor, sign: Tensor) -> None:
        z, odds, whole, other = self._buffers[:, : len(active)]
        torch.index_select(self.z, 0, active, out=z)
        z.mul_(sign)
        logit = torch.mul(z, place[0][:, None], out=odds).add_(torch.mul(place[1][:, None], sign, out=other))
        odds = logit.clamp_(min=-_LARGEST_LOGIT).neg_().exp_()
        torch.add(odds, 1.0, out=whole)
        torch.sum(torch.log(whole, out=other), dim=1, out=found[0])
        right = whole.reciprocal_()
        wrong = odds.mul_(right)
        torch.mv(wrong, sign, out=found[1])
        torch.sum(torch.mul(wrong, z, out=other), dim=1, out=found[2])
        spread = wrong.mul_(right)
        torch.sum(spread, dim=1, out=found[3])
        torch.mv(spread.mul_(z), sign, out=found[4])
        torch.sum(spread.mul_(z), dim=1, out=found[5])


@dataclass(frozen=True, eq=False)
class _Step:
    """Newton's step; to be subtracted."""

    weight: Float[Tensor, " latent"]
    bias: Float[Tensor, " latent"]
    decrement: Float[Tensor, " latent"]
    """Gradient . H^-1 gradient."""


@dataclass(frozen=True, eq=False)
class _Point:
    """Loss, gradient and curvature of some latents' probes at one point, all without the penalty."""

    weight: Float[Tensor, " latent"]
    loss: Float[Tensor, " latent"]
    by_weight: Float[Tensor, " latent"]
    by_bias: Float[Tensor, " latent"]
    curvature: tuple[Tensor, Tensor, Tensor]
    """Second derivatives: bias bias, bias weight, weight weight."""

    @classmethod
    def at(cls, scratch: _Scratch, active: Tensor, place: tuple[Tensor, Tensor], target: _Target) -> "_Point":
        """At weights and biases."""
        weight, bias = place
        sums = scratch.sums(active, weight, bias, target.sign) / scratch.z.shape[1]
        return cls(weight, sums[0], -sums[2], -sums[1], (sums[3], sums[4], sums[5]))

    def step(self, ridge: float) -> _Step:
        """Newton's step for the penalised objective."""
        bias_bias, bias_weight, weight_weight = self.curvature
        bias_bias = bias_bias.clamp_min(1e-12)  # all saturated: no curvature is left that could be inverted
        by_weight = self.by_weight + ridge * self.weight
        # the difference is never below 0 but for rounding; the penalty keeps the whole positive
        determinant = (bias_bias * weight_weight - bias_weight**2).clamp_min(0.0) + ridge * bias_bias
        weight = (bias_bias * by_weight - bias_weight * self.by_bias) / determinant
        bias = ((weight_weight + ridge) * self.by_bias - bias_weight * by_weight) / determinant
        return _Step(weight, bias, (by_weight * weight + self.by_bias * bias).clamp_min(0.0))

    def loss_after(self, step: _Step) -> Float[Tensor, " latent"]:
        """The loss after a whole, small step, to second order."""
        bias_bias, bias_weight, weight_weight = self.curvature
        change = -self.by_weight * step.weight - self.by_bias * step.bias
        change += bias_bias * step.bias**2 / 2 + bias_weight * step.bias * step.weight
        return self.loss + change + weight_weight * step.weight**2 / 2


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Row-wise dot products; several times as fast as a batched matrix product."""
    return torch.linalg.vecdot(a, b)


@dataclass(frozen=True, eq=False)
class JointProbe:
    """One probe on several latents: P(y = 1) = sigmoid(weight . z + bias)."""

    weight: Float[Tensor, " latent"]
    bias: float

    def logits(self, z: Float[Tensor, "latent probe_example"]) -> Float[Tensor, " probe_example"]:
        """Log-odds of y = 1; z standardised as in the fit."""
        return self.weight @ z + self.bias


def fit_joint_probe(
    values: Standardised, label: Bool[Tensor, " probe_example"], *, inverse_penalty: float = 1.0
) -> JointProbe:
    """The probe on all the given latents together; formula in the module's docstring, always in float64.

    Time: n k^2 multiplications a step for k latents and n examples, some ten steps; with more latents than
    examples n^2 k, since the weights then lie in the span of the examples, in which the fit is made.

    Raises:
        ValueError: the labels have one class only.
        ArithmeticError: it did not converge.
    """
    x = values.z.double().T  # example, latent
    basis = None
    if x.shape[1] > x.shape[0]:
        basis, mixing = torch.linalg.qr(x.T)  # x^T = basis mixing; |basis v| = |v|
        x = mixing.T
    target = _Target.of(label, x.T, inverse_penalty)
    found = _joint_newton(torch.cat([x, x.new_ones(len(x), 1)], dim=1), target)
    weight = found[:-1] if basis is None else basis @ found[:-1]
    return JointProbe(weight, float(found[-1]))


def _joint_newton(x: Float[Tensor, "probe_example column"], target: _Target) -> Float[Tensor, " column"]:
    """Weights of the columns, of which the last is the constant."""
    n = len(x)
    ridge = x.new_full((x.shape[1],), target.ridge)
    ridge[-1] = 0.0
    y = (target.sign + 1.0) / 2.0
    weight = x.new_zeros(x.shape[1])
    weight[-1] = math.log(target.share / (1.0 - target.share))

    def objective(logit: Tensor, at: Tensor) -> float:
        return float(torch.nn.functional.softplus(-target.sign * logit).mean() + (ridge * at**2).sum() / 2)

    logit = x @ weight
    now = objective(logit, weight)
    for _ in range(_MOST_ROUNDS):
        probability = torch.sigmoid(logit)
        gradient = x.T @ (probability - y) / n + ridge * weight
        spread = (probability * (1.0 - probability)).clamp_min(1e-12)
        hessian = (x.T * spread) @ x / n + torch.diag(ridge)
        step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(hessian)).squeeze(1)
        decrement, change = float(gradient @ step), x @ step
        delta = float(change.abs().max())
        is_last = decrement <= 2 * _GAIN and delta <= _WHOLE_STEP
        surely = 1.0 if delta <= _WHOLE_STEP else math.log1p(delta) / delta
        length = 1.0
        while length > surely:  # a longer step than the one that descends for sure, where it descends enough
            if objective(logit - length * change, weight - length * step) <= now - length * decrement / 4:
                break
            length = max(length / 2, surely)
        weight, logit = weight - length * step, logit - length * change
        if is_last:
            return weight
        now = objective(logit, weight)
    raise ArithmeticError("a joint probe did not converge")
