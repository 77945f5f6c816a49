"""Evaluates sparse autoencoders trained on language models; importing it costs nothing."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "EvaluationReport": "autointerp.records",
    "SparseAutoencoder": "autointerp.checkpoints.sparse_autoencoder",
    "SubjectModel": "autointerp.subject.subject_model",
    "Suite": "autointerp.config",
    "evaluate": "autointerp.evaluation",
    "evaluate_autoencoders": "autointerp.evaluation",
    "load_checkpoint": "autointerp.checkpoints.load",
    "load_suite": "autointerp.config",
}

__all__ = [
    "EvaluationReport",
    "SparseAutoencoder",
    "SubjectModel",
    "Suite",
    "evaluate",
    "evaluate_autoencoders",
    "load_checkpoint",
    "load_suite",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autointerp' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
