"""Every metric of an autoencoder: what it means, in reading order, and the families that observe them."""

from collections.abc import Iterable

from autointerp.metrics.ablation_observations import ABLATION_METRICS
from autointerp.metrics.downstream_loss import DOWNSTREAM
from autointerp.metrics.explanation_metrics import METRICS as EXPLANATION_METRICS
from autointerp.metrics.n2g import METRICS as GRAPH_METRICS
from autointerp.metrics.probe_loss import PROBE_METRICS
from autointerp.metrics.reconstruction import RECONSTRUCTION
from autointerp.metrics.refinement import REFINEMENT_METRICS
from autointerp.records import MetricDefinition
from autointerp.sampling.readings import MetricFamily

__all__ = ["FAMILIES", "METRICS", "definition", "definitions", "families"]

FAMILIES: dict[str, MetricFamily] = {"reconstruction": RECONSTRUCTION, "downstream": DOWNSTREAM}
"""By the name that a suite uses: the first word of its metrics."""

_GAO = "Gao et al. 2024 (arXiv 2406.04093)"

METRICS: tuple[MetricDefinition, ...] = (
    MetricDefinition(
        name="reconstruction.normalized_mse",
        title="Normalised MSE",
        meaning="Squared reconstruction error over that of always answering the mean activation, each token "
        "first centred over its components and scaled to unit norm (the error is divided by the "
        "token's own norm; its part along the all-ones vector counts). Mean from the calibration "
        f"split; positions >= 1. 0 is perfect, 1 is no better than the mean. {_GAO}, sections 2.1 and "
        "A.6.",
        unit="ratio",
        better="lower",
        functional="ratio",
        sampled="document",
        lowest=0.0,
    ),
    MetricDefinition(
        name="reconstruction.normalized_mse_raw",
        title="Normalised MSE, raw",
        meaning="The same ratio on activations as they are, where tokens of large norm decide: squared error "
        "over the squared distance to the calibration mean.",
        unit="ratio",
        better="lower",
        functional="ratio",
        sampled="document",
        lowest=0.0,
        in_summary=False,
    ),
    MetricDefinition(
        name="reconstruction.explained_variance",
        title="Explained variance",
        meaning="1 minus the raw normalised MSE, about the calibration mean (not the mean of the evaluated "
        "tokens). 1 is perfect, 0 is no better than the mean, negative is worse.",
        unit="fraction",
        better="higher",
        functional="one_minus_ratio",
        sampled="document",
        highest=1.0,
    ),
    MetricDefinition(
        name="reconstruction.cosine",
        title="Cosine",
        meaning="Mean over tokens of the cosine between activation and reconstruction, both raw. A "
        "reconstruction of zeros counts as 0.",
        unit="cosine",
        better="higher",
        functional="ratio",
        sampled="document",
        lowest=-1.0,
        highest=1.0,
        in_summary=False,
    ),
    MetricDefinition(
        name="reconstruction.l0",
        title="L0",
        meaning="Mean number of active latents per token, at positions >= 1.",
        unit="latents per token",
        better="neither",
        functional="ratio",
        sampled="document",
        lowest=0.0,
    ),
    MetricDefinition(
        name="reconstruction.dead_fraction",
        title="Not seen firing",
        meaning="Fraction of latents that fired on no scored token of this run (position 0 included). The "
        "paper calls a latent dead after 10 million tokens without firing (section 2.4); on fewer "
        "tokens more latents are unseen. A latent unseen in D documents fires in fewer than 3/D of "
        "all documents (95 %).",
        unit="fraction",
        better="lower",
        functional="unseen_fraction",
        sampled="latent",
        lowest=0.0,
        highest=1.0,
    ),
    MetricDefinition(
        name="reconstruction.mean_density_of_densest",
        title="Density of the densest",
        meaning="Mean share of tokens on which the d_model densest latents fire (all scored tokens, position "
        "0 included). Between L0 / latents (all alike) and L0 / d_model (none but these fire): towards the "
        "latter the dictionary is a dense basis. The choice of latents is taken as given by the interval. "
        f"{_GAO}, Fig. 20.",
        unit="fraction",
        better="neither",
        functional="ratio",
        sampled="document",
        lowest=0.0,
        highest=1.0,
        in_summary=False,
    ),
    MetricDefinition(
        name="reconstruction.relative_bias",
        title="Relative bias",
        meaning="E|x^|^2 / E[x . x^]: the factor by which reconstructions would have to be divided to fit "
        "best. 1 is unbiased, below 1 is shrinkage. Raw space. Rajamanoharan et al. 2024 (arXiv "
        "2404.16014).",
        unit="ratio",
        better="neither",
        functional="ratio",
        sampled="document",
        in_summary=False,
    ),
    MetricDefinition(
        name="reconstruction.norm_ratio",
        title="Norm ratio",
        meaning="E|x^| / E|x|: length of reconstructions over length of activations. Below 1 even without "
        "shrinkage, since a reconstruction lacks the error's part of the norm. Raw space.",
        unit="ratio",
        better="neither",
        functional="ratio",
        sampled="document",
        lowest=0.0,
        in_summary=False,
    ),
    MetricDefinition(
        name="downstream.clean_ce_nats",
        title="Subject's loss",
        meaning="Mean cross entropy of the subject itself on the same predictions, nothing substituted.",
        unit="nats",
        better="neither",
        functional="ratio",
        sampled="document",
        lowest=0.0,
        in_summary=False,
    ),
    MetricDefinition(
        name="downstream.delta_ce_nats",
        title="Delta CE",
        meaning="Rise of the subject's cross entropy when the site is replaced by its reconstruction at all "
        f"tokens, per prediction at positions >= 1. 0 is perfect. {_GAO}, section 4.1.",
        unit="nats",
        better="lower",
        functional="ratio",
        sampled="document",
    ),
    MetricDefinition(
        name="downstream.kl_nats",
        title="KL",
        meaning="Mean KL(clean || substituted) of the subject's predictions over the whole vocabulary. 0 is "
        f"perfect. {_GAO}, section 4.1.",
        unit="nats",
        better="lower",
        functional="ratio",
        sampled="document",
        lowest=0.0,
    ),
    MetricDefinition(
        name="downstream.compute_equivalent_fraction",
        title="Compute equivalent",
        meaning="Share of the subject's training compute that would give a model as good as the subject with "
        "the reconstruction put in, read off a curve L(C) = e + a C^-b fitted to its family. 1 is "
        f"perfect. The idea is the paper's ({_GAO}, section 4.1), the derivation is ours.",
        unit="fraction",
        better="higher",
        functional="compute_equivalent_fraction",
        sampled="document",
        lowest=0.0,
        highest=1.0,
    ),
    MetricDefinition(
        name="downstream.fraction_recovered_zero",
        title="Loss recovered, zeros",
        meaning="(CE with zeros at the site - CE substituted) / (CE with zeros - clean CE). Others report it;"
        " the paper (section 4.1) finds it too lenient: zeros destroy so much that poor "
        "reconstructions score near 1.",
        unit="fraction",
        better="higher",
        functional="ratio",
        sampled="document",
        in_summary=False,
    ),
    MetricDefinition(
        name="downstream.fraction_recovered_mean",
        title="Loss recovered, mean",
        meaning="The same against the calibration mean put in at every token: a less destructive baseline, "
        "still lenient.",
        unit="fraction",
        better="higher",
        functional="ratio",
        sampled="document",
        in_summary=False,
    ),
    *PROBE_METRICS,
    *GRAPH_METRICS,
    *ABLATION_METRICS,
    *REFINEMENT_METRICS,
    *EXPLANATION_METRICS,
)
"""All metrics, in the order of the report."""


def definition(name: str) -> MetricDefinition:
    """One metric by name.

    Raises:
        KeyError: there is none of this name.
    """
    return {metric.name: metric for metric in METRICS}[name]


def definitions(family_names: Iterable[str]) -> tuple[MetricDefinition, ...]:
    """The metrics of some families, in the order of the report."""
    wanted = frozenset(family_names)
    return tuple(metric for metric in METRICS if metric.name.partition(".")[0] in wanted)


def families(family_names: Iterable[str]) -> tuple[MetricFamily, ...]:
    """The families of these names, in the catalogue's order."""
    wanted = frozenset(family_names)
    return tuple(family for name, family in FAMILIES.items() if name in wanted)
