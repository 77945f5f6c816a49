"""Probe loss and known features: what they mean, and each test example's share of them.

For a task t with labels y, and latents i with pre-activations z_i,

    probe loss(t) = min over i, w, b of  -E[ y log s(w z_i + b) + (1 - y) log(1 - s(w z_i + b)) ]

with s the sigmoid. Gao et al. 2024 (arXiv 2406.04093), section 4.2; printed there without the sign. The
paper says neither how texts are pooled nor whether anything is held out. Here the latent and its probe are
chosen on train examples and told on test ones, which is stricter: a minimum over thousands of latents fits
noise.
"""

import numpy as np
from jaxtyping import Bool, Float

from autointerp.records import MetricDefinition

__all__ = ["ACCURACY", "AUROC", "KNOWN_FEATURE_F1", "PROBE_LOSS", "PROBE_METRICS", "f1_terms", "losses"]

PROBE_LOSS = "probe.loss_nats"
AUROC = "probe.auroc"
ACCURACY = "probe.accuracy"
KNOWN_FEATURE_F1 = "probe.known_feature_f1"
_GAO = "Gao et al. 2024 (arXiv 2406.04093), section 4.2"
_CONDITIONAL = (
    "Mean over the tasks that are not lexical; the interval is over test examples (whole documents), given "
    "the tasks and the chosen latents."
)

PROBE_METRICS: tuple[MetricDefinition, ...] = (
    MetricDefinition(
        name=PROBE_LOSS,
        title="Probe loss",
        meaning="Cross entropy, on test examples, of the best logistic probe on a single latent's "
        "pre-activation; the latent and the probe are chosen on train examples. ln 2 is a coin. "
        f"{_CONDITIONAL} Beside it at other slices: probes on k latents, on the site's channels, on as many "
        f"random directions, with labels at random. {_GAO}.",
        unit="nats",
        better="lower",
        functional="mean_of_group_ratios",
        sampled="example",
        lowest=0.0,
    ),
    MetricDefinition(
        name=AUROC,
        title="Probe AUROC",
        meaning="Area under the ROC curve of the same probes on the same test examples, within each task: "
        f"how often a positive example ranks above a negative one. 0.5 is a coin. {_CONDITIONAL}",
        unit="AUROC",
        better="higher",
        functional="mean_of_group_aurocs",
        sampled="example",
        lowest=0.0,
        highest=1.0,
        in_summary=False,
    ),
    MetricDefinition(
        name=ACCURACY,
        title="Probe accuracy",
        meaning="Share of test examples on whose right side the same probes come down. " + _CONDITIONAL,
        unit="fraction",
        better="higher",
        functional="mean_of_group_ratios",
        sampled="example",
        lowest=0.0,
        highest=1.0,
        in_summary=False,
    ),
    MetricDefinition(
        name=KNOWN_FEATURE_F1,
        title="Known features",
        meaning="F1 = 2 TP / (2 TP + FP + FN), on test examples, of the one latent that says yes by firing "
        "above a threshold; latent and threshold are chosen on train examples. Unlike a probe it cannot use "
        f"what does not fire. {_CONDITIONAL} Always saying yes stands beside it.",
        unit="F1",
        better="higher",
        functional="mean_of_group_ratios",
        sampled="example",
        lowest=0.0,
        highest=1.0,
    ),
)
"""Of the family `probe`, in the order of the report."""


def losses(
    logit: Float[np.ndarray, " probe_example"], label: Bool[np.ndarray, " probe_example"]
) -> Float[np.ndarray, " probe_example"]:
    """Cross entropy of each example, nats: log(1 + exp(-logit)) where true, else log(1 + exp(logit))."""
    return np.logaddexp(0.0, np.where(label, -logit, logit))


def f1_terms(
    says_yes: Bool[np.ndarray, " probe_example"], label: Bool[np.ndarray, " probe_example"]
) -> Float[np.ndarray, "2 probe_example"]:
    """Each example's share of F1's numerator, 2 TP, and of its denominator, 2 TP + FP + FN."""
    true = 2.0 * (says_yes & label)
    return np.stack([true, true + (says_yes != label)])
