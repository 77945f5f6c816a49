"""SAEBench's `*_eval_results.json` -> its numbers. -1 is what it writes for NaN, null what was not run.

Which of them may be set beside ours is read off its source (version 0.6.0).
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from autointerp.reporting.imported.result import ImportedResult

__all__ = ["is_saebench", "saebench_results"]

_TEXT = "measured on another text, other contexts and without an interval"
_OURS = {
    "ce_loss_with_sae": ("", "a loss, not its rise: subtract ce_loss_without_sae"),
    "ce_loss_score": ("downstream.fraction_recovered_zero", _TEXT),
    "kl_div_with_sae": ("downstream.kl_nats", _TEXT),
    "explained_variance_legacy": ("", "a mean of ratios per token; ours is a ratio of sums"),
    "explained_variance": ("", "wrong up to 0.6.0 (their issue 76); published are the legacy ones"),
    "mse": ("", "divided by the number of tokens in a batch: it depends on the batch size"),
    "cossim": ("reconstruction.cosine", _TEXT),
    "l2_ratio": ("reconstruction.norm_ratio", _TEXT),
    "relative_reconstruction_bias": ("reconstruction.relative_bias", _TEXT),
    "l0": ("reconstruction.l0", _TEXT),
    "autointerp_score": ("", "accuracy on 14 examples, 10 of them silent: never saying yes has .714"),
}  # fmt: skip
_LARGEST = sys.float_info.max
_UNKNOWN = "no metric of ours measures this"
_SPARSE_PROBE = "accuracy on their tasks; our k-sparse probes tell the loss, and on other tasks"


def is_saebench(content: Any) -> bool:
    """Whether this is such a file, an old one that wraps everything in one key included."""
    return _inner(content) is not None


def saebench_results(content: Any) -> Iterator[ImportedResult]:
    """Every number of the file's summary (`eval_result_metrics`), in its order."""
    inner = _inner(content)
    if inner is None:
        return
    kind = str(inner.get("eval_type_id") or "")
    name = "/".join(str(inner[key]) for key in ("sae_lens_release_id", "sae_lens_id") if inner.get(key))
    for category, metrics in inner["eval_result_metrics"].items():
        if isinstance(metrics, Mapping):
            for metric, value in metrics.items():
                yield _result(f"SAEBench {kind}".strip(), name or "?", f"{category}.{metric}", metric, value)


def _inner(content: Any) -> Mapping[str, Any] | None:
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get("eval_result_metrics"), Mapping):
        return content
    wrapped = next(iter(content.values())) if len(content) == 1 else None
    if isinstance(wrapped, Mapping) and isinstance(wrapped.get("eval_result_metrics"), Mapping):
        return wrapped
    return None


def _result(source: str, name: str, metric: str, short: str, value: Any) -> ImportedResult:
    ours, caution = _OURS.get(short, ("", _SPARSE_PROBE if short.endswith("test_accuracy") else _UNKNOWN))
    reason = ""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        value, reason = None, "not run" if value is None else "no number"
    elif value == -1:
        value, reason = None, "-1, which is how SAEBench writes NaN"
    return ImportedResult(
        source, name, metric, None if value is None else float(value), reason, ours=ours, caution=caution
    )


def _is_finite(value: float) -> bool:
    """JSON's integers know no end; a float does."""
    return -_LARGEST <= value <= _LARGEST
