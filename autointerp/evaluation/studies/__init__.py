"""Measures with steps of their own, after the pass over the text: one module for each family."""

from autointerp.evaluation.studies.catalogue import STUDIES
from autointerp.evaluation.studies.study import Studied, Study, run_studies

__all__ = ["STUDIES", "Studied", "Study", "run_studies"]
