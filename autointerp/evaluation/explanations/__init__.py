"""Sampled latents -> explanations -> predictions -> scores, with an LLM or without.

plan       which explainers and tests, who is asked      questions  which passages test a latent, how marked
tools      explainers, simulators and judges, made       judging    explanations -> predictions
step       all of it, for every dictionary of a run      files      explanations.jsonl, scores.jsonl
"""

from autointerp.evaluation.explanations.plan import same_explanations
from autointerp.evaluation.explanations.step import Explained, explain_latents

__all__ = ["Explained", "explain_latents", "same_explanations"]
