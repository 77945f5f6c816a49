"""Observations -> estimates with intervals, paired differences, control of the false discovery rate."""

from autointerp.estimates.comparisons import compare_all, compare_paired
from autointerp.estimates.estimation import estimate, estimate_all
from autointerp.estimates.functionals import FUNCTIONALS

__all__ = ["FUNCTIONALS", "compare_all", "compare_paired", "estimate", "estimate_all"]
