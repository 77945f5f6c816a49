"""A suite -> an EvaluationReport: the steps called in order. The only folder that sees them all.

inputs      open and check what is named            steps       calibrate, add nulls, one pass over the text
statistics  observations -> estimates, comparisons  run         the run directory: resume, files, in memory
"""

from autointerp.evaluation.run import default_run_directory, evaluate, evaluate_autoencoders

__all__ = ["default_run_directory", "evaluate", "evaluate_autoencoders"]
