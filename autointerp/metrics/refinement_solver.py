"""Least squares with frozen supports, many small problems at once: values >= 0 that fit a target best.

Of a token with unit directions d_1 .. d_m (rows of D) and a target w, the values u >= 0 (or of any sign) that
make f(u) = 1/2 |D^T u - w|^2 least. With G = D D^T its gradient is G u - D w.

Every round goes three gradient steps of length 1 / L, each cut off at zero, with L >= the largest eigenvalue
of G (the largest sum of a row of |G|, or |D|_1 |D|_inf where G is not made); this finds which values are
zero. Then the problem of the values that are not is solved, by Cholesky's factors of G, or by conjugate
gradients where directions all but depend on one another. Where a value would fall below zero on the way to
the solution, the way ends there, or at the solution with its negative values set to zero, whichever is
better, and those that are now zero stay so for the rest of the round (the inner loop of Lawson and Hanson
1974, for several values at once). No round raises f (but by rounding, and then it is the last), so no set of
zeros comes back and the rounds come to an end. A token is done when no gradient that could still be followed
is larger than the tolerance; it then takes no part in the rounds that follow, so that its result does not
depend on which others are solved beside it.

Where directions depend on one another (more of them than dimensions, for one) several u are best, and the
one that is reached depends on where the values began.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Problems", "Solution", "solve"]

_GRADIENT_STEPS = 3
_ROUNDING = 64
"""Machine epsilons of f that its sums may be off by."""
_INNER_SHARE = 0.1
"""Of the tolerance, to which the values that are not zero are solved: their end must pass a round's test."""


@dataclass(frozen=True, eq=False)
class Problems:
    """Problems of equal size, in float64."""

    directions: Float[Tensor, "token slot d_out"] | None
    """D; None where `gram` stands for it."""
    gram: Float[Tensor, "token slot slot"] | None
    """G; None where it would be larger than D."""
    product: Float[Tensor, "token slot"]
    """D w."""
    step: Float[Tensor, " token"]
    """1 / L."""
    is_signed: bool
    """Whether values may be negative."""
    rank: int
    """Of G at most: after as many steps conjugate gradients are at their end, but for rounding."""

    @classmethod
    def of(
        cls,
        directions: Float[Tensor, "token slot d_out"],
        target: Float[Tensor, "token d_out"],
        *,
        is_signed: bool,
    ) -> "Problems":
        """Problems with these rows (a row of zeros stands for no direction) and targets."""
        product = torch.einsum("tsd,td->ts", directions, target)
        rank = min(directions.shape[1:])
        if directions.shape[1] <= directions.shape[2]:
            gram = directions @ directions.mT
            bound = gram.abs().sum(dim=2).amax(dim=1)
            return cls(None, gram, product, _inverse(bound), is_signed, rank)
        size = directions.abs()
        bound = size.sum(dim=2).amax(dim=1) * size.sum(dim=1).amax(dim=1)
        return cls(directions, None, product, _inverse(bound), is_signed, rank)

    def only(self, tokens: Int[Tensor, " kept"]) -> "Problems":
        """Those of some tokens."""
        return Problems(
            None if self.directions is None else self.directions[tokens],
            None if self.gram is None else self.gram[tokens],
            self.product[tokens],
            self.step[tokens],
            self.is_signed,
            self.rank,
        )

    def curved(self, u: Float[Tensor, "token slot"]) -> Float[Tensor, "token slot"]:
        """`G u`."""
        column = u.unsqueeze(2)
        if self.gram is not None:
            return (self.gram @ column).squeeze(2)
        assert self.directions is not None
        return (self.directions @ (self.directions.mT @ column)).squeeze(2)

    def gradient(self, u: Float[Tensor, "token slot"]) -> Float[Tensor, "token slot"]:
        """`G u - D w`."""
        return self.curved(u) - self.product

    def objective(self, u: Float[Tensor, "token slot"]) -> Float[Tensor, " token"]:
        """`1/2 u G u - u D w`, f less its constant."""
        return torch.linalg.vecdot(u, 0.5 * self.curved(u) - self.product)

    def feasible(self, u: Float[Tensor, "token slot"]) -> Float[Tensor, "token slot"]:
        """The nearest values that are allowed."""
        return u if self.is_signed else u.clamp_min(0.0)

    def slope(self, u: Float[Tensor, "token slot"]) -> Float[Tensor, " token"]:
        """The largest gradient that can still be followed; 0 at the best values."""
        gradient = self.gradient(u)
        followed = gradient if self.is_signed else torch.where(u > 0, gradient, gradient.clamp_max(0.0))
        return followed.abs().amax(dim=1)


@dataclass(frozen=True, eq=False)
class Solution:
    """The best values found."""

    values: Float[Tensor, "token slot"]
    is_solved: Bool[Tensor, " token"]
    """Whether they are best, to the tolerance."""
    has_moved: Bool[Tensor, " token"]
    """False where the values given were best already: these are returned as they are."""


def solve(
    problems: Problems,
    start: Float[Tensor, "token slot"],
    tolerance: Float[Tensor, " token"],
    *,
    rounds: int,
) -> Solution:
    """Values that fit best, from values that are allowed.

    Args:
        problems: what is solved.
        start: where to begin; f is nowhere larger at the end.
        tolerance: of each token, the largest gradient that counts as none.
        rounds: at most.
    """
    values = start.clone()
    moving = problems.slope(values) > tolerance
    has_moved = moving.clone()
    for _ in range(rounds):
        open_tokens = moving.nonzero().squeeze(1)
        if not open_tokens.numel():
            break
        part = problems.only(open_tokens)
        better = _round(part, values[open_tokens], tolerance[open_tokens])
        values[open_tokens] = better
        moving[open_tokens] = part.slope(better) > tolerance[open_tokens]
    return Solution(values, ~moving, has_moved)


def _round(
    problems: Problems, u: Float[Tensor, "token slot"], tolerance: Float[Tensor, " token"]
) -> Float[Tensor, "token slot"]:
    begun = u
    for _ in range(_GRADIENT_STEPS):
        u = problems.feasible(u - problems.step.unsqueeze(1) * problems.gradient(u))
    found = _best_of_face(problems, u, tolerance)
    at_end = (problems.slope(found) <= tolerance) & _is_level(problems, begun, found)
    return torch.where(at_end.unsqueeze(1), found, _better(problems, begun, found))


def _is_level(
    problems: Problems, one: Float[Tensor, "token slot"], other: Float[Tensor, "token slot"]
) -> Bool[Tensor, " token"]:
    """Where f differs by no more than its own rounding, which hides gradients up to the root of that."""
    before, after = problems.objective(one), problems.objective(other)
    return (after - before).abs() <= _ROUNDING * torch.finfo(one.dtype).eps * before.abs()


def _best_of_face(
    problems: Problems, u: Float[Tensor, "token slot"], tolerance: Float[Tensor, " token"]
) -> Float[Tensor, "token slot"]:
    """The best values that keep the zeros of u, or more zeros where a value would leave."""
    tokens = torch.arange(len(u), device=u.device)
    for _ in range(u.shape[1]):
        part, begun = problems.only(tokens), u[tokens]
        free = torch.ones_like(begun, dtype=torch.bool) if problems.is_signed else begun > 0
        change = _to_best_of_free(part, begun, free, _INNER_SHARE * tolerance[tokens])
        if problems.is_signed:
            return u + change
        leaving = torch.where(change < 0, begun / (-change).clamp_min(_tiny(u)), torch.inf)
        share = leaving.amin(dim=1, keepdim=True)
        edge = torch.where(leaving <= share, 0.0, part.feasible(begun + share.clamp_max(1.0) * change))
        inside = share.squeeze(1) > 1.0
        at_edge = _better(part, edge, part.feasible(begun + change))
        u = u.index_put((tokens,), torch.where(inside.unsqueeze(1), begun + change, at_edge))
        tokens = tokens[~inside]
        if not tokens.numel():
            break
    return u


def _better(
    problems: Problems, one: Float[Tensor, "token slot"], other: Float[Tensor, "token slot"]
) -> Float[Tensor, "token slot"]:
    """Of two feasible values of each token those of smaller f; on ties the first."""
    is_lower = problems.objective(other) < problems.objective(one)
    return torch.where(is_lower.unsqueeze(1), other, one)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


def _to_best_of_free(
    problems: Problems,
    u: Float[Tensor, "token slot"],
    free: Bool[Tensor, "token slot"],
    tolerance: Float[Tensor, " token"],
) -> Float[Tensor, "token slot"]:
    """What to add to the free values so that they are best, the others left as they are."""
    if problems.gram is None:
        return _conjugate_gradients(problems, u, free, tolerance)
    residual = torch.where(free, -problems.gradient(u), 0.0)
    both = free.unsqueeze(1) & free.unsqueeze(2)
    matrix = torch.where(both, problems.gram, 0.0) + torch.diag_embed((~free).to(u))
    factor, is_singular = torch.linalg.cholesky_ex(matrix)
    change = torch.cholesky_solve(residual.unsqueeze(2), factor).squeeze(2)
    left = torch.where(free, problems.gradient(u + change), 0.0).abs().amax(dim=1)
    hard = ((is_singular > 0) | ~(left <= tolerance)).nonzero().squeeze(1)
    if not hard.numel():
        return change
    slow = _conjugate_gradients(problems.only(hard), u[hard], free[hard], tolerance[hard])
    return change.index_copy(0, hard, slow)


def _conjugate_gradients(
    problems: Problems,
    u: Float[Tensor, "token slot"],
    free: Bool[Tensor, "token slot"],
    tolerance: Float[Tensor, " token"],
) -> Float[Tensor, "token slot"]:
    """The same where directions all but depend on one another, or where G is not made."""
    change = torch.zeros_like(u)
    residual = torch.where(free, -problems.gradient(u), 0.0)
    direction, squared = residual, torch.linalg.vecdot(residual, residual)
    for _ in range(problems.rank):
        going = residual.abs().amax(dim=1) > tolerance
        if not bool(going.any()):
            break
        curved = torch.where(free, problems.curved(direction), 0.0)
        curvature = torch.linalg.vecdot(direction, curved)
        going &= curvature > 0
        length = torch.where(going, squared / torch.where(going, curvature, 1.0), 0.0).unsqueeze(1)
        change = change + length * direction
        residual = residual - length * curved
        before, squared = squared, torch.linalg.vecdot(residual, residual)
        turn = torch.where(going & (before > 0), squared / torch.where(before > 0, before, 1.0), 0.0)
        direction = torch.where(going.unsqueeze(1), residual + turn.unsqueeze(1) * direction, direction)
    return change


def _inverse(bound: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
    """1 / L; 0 for a token without directions."""
    return torch.where(bound > 0, 1.0 / torch.where(bound > 0, bound, 1.0), 0.0)
