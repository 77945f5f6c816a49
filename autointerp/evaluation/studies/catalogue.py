"""Every study, in the order in which a run does them."""

from autointerp.evaluation.studies.ablation import ABLATION
from autointerp.evaluation.studies.graphs import GRAPHS_STUDY
from autointerp.evaluation.studies.probing import PROBES
from autointerp.evaluation.studies.refining import REFINING
from autointerp.evaluation.studies.study import Study

__all__ = ["STUDIES"]

STUDIES: tuple[Study, ...] = (PROBES, GRAPHS_STUDY, ABLATION, REFINING)
