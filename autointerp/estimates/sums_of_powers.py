"""Least squares in logarithms for y = exp(A a) + exp(B b): power laws, with or without a second term."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["SumOfPowers"]

_STEPS = 300
_SHARES = (0.02, 0.1, 0.3, 0.6, 0.85, 0.97)
"""Of the smallest value, which the second term may have at the start."""
_SLOPES = (-0.3, 0.0, 0.3)
_LEAST_SHARE = 1e-6
"""Of the smallest value: a second term below it is as good as none, and its logarithm may fall for ever."""


@dataclass(frozen=True, eq=False)
class SumOfPowers:
    """ln y = ln(exp(A a) + exp(B b)) at some points; B without columns stands for no second term.

    Inside, the columns of either are made orthonormal, so that constants hardly depend on one another; what
    goes in and out belongs to the columns as given. The first column of A, and of B, is all ones.
    """

    first: Float[np.ndarray, "point term"]
    second: Float[np.ndarray, "point other"]
    first_back: Float[np.ndarray, "term term"]
    """Constants of the orthonormal columns -> of the columns as given."""
    second_back: Float[np.ndarray, "other other"]

    @classmethod
    def of(
        cls, first: Float[np.ndarray, "point term"], second: Float[np.ndarray, "point other"]
    ) -> "SumOfPowers":
        """From the columns A and B."""
        (one, one_back), (other, other_back) = _orthonormal(first), _orthonormal(second)
        return cls(one, other, one_back, other_back)

    def fit(self, log_value: Float[np.ndarray, " point"]) -> Float[np.ndarray, " constant"]:
        """The constants a, then b, of least squares in ln y; of several starts the best."""
        if not self.second.shape[1]:
            return self._back(np.linalg.lstsq(self.first, log_value, rcond=None)[0][None])[0]
        starts = self._starts(log_value)
        targets = np.broadcast_to(log_value, (len(starts), len(log_value)))
        found, error = self._descend(starts, targets)
        return self._back(found[[int(np.argmin(error))]])[0]

    def refit(
        self, log_values: Float[np.ndarray, "draw point"], constants: Float[np.ndarray, " constant"]
    ) -> Float[np.ndarray, "draw constant"]:
        """The constants of each row, from those of the data that the rows are drawn about."""
        if not self.second.shape[1]:
            return self._back(np.linalg.lstsq(self.first, log_values.T, rcond=None)[0].T)
        start = np.broadcast_to(self._there(constants), (len(log_values), len(constants)))
        return self._back(self._descend(start, log_values)[0])

    def predict(self, constants: Float[np.ndarray, " constant"]) -> Float[np.ndarray, " point"]:
        """The logarithm of y at each point."""
        return self._model(self._there(constants)[None])[0]

    def _split(self, inner: Float[np.ndarray, "draw constant"]) -> tuple[np.ndarray, np.ndarray]:
        terms = self.first.shape[1]
        return inner[:, :terms], inner[:, terms:]

    def _back(self, inner: Float[np.ndarray, "draw constant"]) -> Float[np.ndarray, "draw constant"]:
        one, other = self._split(inner)
        return np.concatenate([one @ self.first_back.T, other @ self.second_back.T], axis=1)

    def _there(self, constants: Float[np.ndarray, " constant"]) -> Float[np.ndarray, " constant"]:
        one, other = self._split(constants[None])
        return np.concatenate(
            [np.linalg.solve(self.first_back, one[0]), np.linalg.solve(self.second_back, other[0])]
        )

    def _model(self, inner: Float[np.ndarray, "draw constant"]) -> Float[np.ndarray, "draw point"]:
        one, other = self._split(inner)
        if not other.shape[1]:
            return one @ self.first.T
        return np.logaddexp(one @ self.first.T, other @ self.second.T)

    def _starts(self, log_value: Float[np.ndarray, " point"]) -> Float[np.ndarray, "draw constant"]:
        """A second term of some share of the smallest value and some slope, and a line through the rest."""
        starts = []
        slopes = _SLOPES if self.second.shape[1] > 1 else (0.0,)
        for share in _SHARES:
            for slope in slopes:
                given = np.full(self.second.shape[1], slope)
                given[0] = 0.0
                shape = np.linalg.solve(self.second_back, given)
                shape[0] = 0.0
                shape[0] = (np.min(log_value - self.second @ shape) + np.log(share)) / self.second[0, 0]
                left = np.log(np.exp(log_value) - np.exp(self.second @ shape))
                starts.append(np.concatenate([np.linalg.lstsq(self.first, left, rcond=None)[0], shape]))
        return np.array(starts)

    def _descend(
        self, start: Float[np.ndarray, "draw constant"], target: Float[np.ndarray, "draw point"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Levenberg and Marquardt's steps for all rows at once; the constants, and half the squared error."""
        inner = start.copy()
        damping = np.full(len(inner), 1e-3)
        residual = self._model(inner) - target
        error = (residual**2).sum(axis=1)
        floor = np.log(_LEAST_SHARE) + target.min(axis=1)
        for _ in range(_STEPS):
            slope = self._jacobian(inner)
            gradient = np.einsum("dpc,dp->dc", slope, residual)
            curvature = np.einsum("dpc,dpe->dce", slope, slope)
            scale = np.einsum("dcc->dc", curvature) + 1e-12
            damped = curvature + damping[:, None, None] * np.einsum(
                "dc,ce->dce", scale, np.eye(inner.shape[1])
            )
            tried = self._floored(inner - np.linalg.solve(damped, gradient[:, :, None])[:, :, 0], floor)
            other = self._model(tried) - target
            tried_error = (other**2).sum(axis=1)
            is_better = tried_error < error
            gained = np.where(is_better, error - tried_error, 0.0)
            inner = np.where(is_better[:, None], tried, inner)
            residual = np.where(is_better[:, None], other, residual)
            damping = np.where(is_better, np.maximum(damping / 5, 1e-12), np.minimum(damping * 4, 1e12))
            settled = (gained <= 1e-13 * error) & (is_better | (damping >= 1e12))
            error = np.minimum(error, np.where(np.isfinite(tried_error), tried_error, np.inf))
            if settled.all():
                break
        return inner, error

    def _floored(
        self, inner: Float[np.ndarray, "draw constant"], floor: Float[np.ndarray, " draw"]
    ) -> Float[np.ndarray, "draw constant"]:
        """The same, the second term kept where it can still be told from none."""
        level = self.first.shape[1]
        inner = inner.copy()
        inner[:, level] = np.maximum(inner[:, level], floor / self.second[0, 0])
        return inner

    def _jacobian(
        self, inner: Float[np.ndarray, "draw constant"]
    ) -> Float[np.ndarray, "draw point constant"]:
        one, other = self._split(inner)
        share = 1 / (1 + np.exp(np.clip(other @ self.second.T - one @ self.first.T, -700, 700)))
        return np.concatenate([share[:, :, None] * self.first, (1 - share)[:, :, None] * self.second], axis=2)


def _orthonormal(columns: Float[np.ndarray, "point term"]) -> tuple[np.ndarray, np.ndarray]:
    """Q of columns = Q R, its first column above zero, and the inverse of R."""
    if not columns.shape[1]:
        return columns, np.zeros((0, 0))
    q, r = np.linalg.qr(columns)
    sign = np.where(np.diag(r) < 0, -1.0, 1.0)
    return q * sign, np.linalg.inv(r * sign[:, None])
