"""Every study, in the order in which a run does them."""

from autointerp.evaluation.studies.refining import REFINING
from autointerp.evaluation.studies.study import Study

__all__ = ["STUDIES"]

STUDIES: tuple[Study, ...] = (REFINING,)
