"""Reconstruction metrics against loops over tokens, in float64, with dense latents."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.metrics.reconstruction import (
    RECONSTRUCTION,
    dead_observations,
    latent_densities,
    reconstruction_terms,
)
from autointerp.records import OBSERVATION_SCHEMA
from autointerp.sampling.latent_firing import FIRING_SCHEMA
from autointerp.sampling.readings import BatchReconstruction, SiteMeans, SiteReading, TokenTable
from autointerp.testing.planted_autoencoder import planted_autoencoder

D_MODEL, TOKENS = 12, 40


def batch_of(x: torch.Tensor, sae: SparseAutoencoder, means: SiteMeans | None = None) -> BatchReconstruction:
    """A batch whose tokens all belong to one document, at positions 0, 1, 2, ..."""
    if means is None:
        means = SiteMeans(torch.full((x.shape[1],), 0.3).to(x), torch.linspace(-0.1, 0.1, x.shape[1]).to(x))
    places = torch.arange(len(x))
    table = TokenTable(
        places,
        torch.zeros_like(places),
        places,
        torch.ones(len(x), dtype=torch.bool),
        torch.zeros_like(places),
    )
    x_hat, latents = sae.reconstruct_sparse(x)
    return BatchReconstruction("it", table, SiteReading("site", x, means), x_hat, latents, None)


@pytest.fixture
def x() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(TOKENS, D_MODEL, generator=generator, dtype=torch.float64) + 0.5


@pytest.fixture(params=["none", "layer_norm"])
def sae(request: pytest.FixtureRequest) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(2)
    planted = planted_autoencoder(
        D_MODEL, 30, k=4, generator=generator, normalization=request.param, noise=0.05
    )
    return planted.to(dtype=torch.float64)


def looped(x: np.ndarray, x_hat: np.ndarray, z: np.ndarray, raw: np.ndarray, unit: np.ndarray) -> dict:
    """(numerator, denominator) of each metric, token by token, from the formulas."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for token, answer, latents in zip(x, x_hat, z, strict=True):
        centred = token - sum(token) / len(token)
        norm = np.sqrt(sum(centred**2))
        to_unit = (answer - sum(token) / len(token)) / norm
        terms = {
            "normalized_mse": (sum((to_unit - centred / norm) ** 2), sum((centred / norm - unit) ** 2)),
            "normalized_mse_raw": (sum((answer - token) ** 2), sum((token - raw) ** 2)),
            "explained_variance": (sum((answer - token) ** 2), sum((token - raw) ** 2)),
            "cosine": (token @ answer / np.sqrt((token @ token) * (answer @ answer)), 1.0),
            "l0": (float(np.count_nonzero(latents)), 1.0),
            "relative_bias": (answer @ answer, token @ answer),
            "norm_ratio": (np.sqrt(answer @ answer), np.sqrt(token @ token)),
        }
        for name, pair in terms.items():
            rows.setdefault(f"reconstruction.{name}", []).append(pair)
    return {name: np.array(pairs) for name, pairs in rows.items()}


def test_every_term_equals_a_loop_over_tokens(x: torch.Tensor, sae: SparseAutoencoder) -> None:
    batch = batch_of(x, sae)
    expected = looped(
        x.numpy(),
        sae.reconstruct(x).numpy(),
        sae.encode(x).numpy(),
        batch.reading.means.raw.numpy(),
        batch.reading.means.unit.numpy(),
    )
    terms = reconstruction_terms(batch)
    assert terms.keys() == expected.keys()
    for name, (numerator, denominator) in terms.items():
        np.testing.assert_allclose(
            numerator.numpy(), expected[name][:, 0], rtol=1e-10, atol=1e-12, err_msg=name
        )
        if denominator is not None:
            np.testing.assert_allclose(denominator.numpy(), expected[name][:, 1], rtol=1e-10, err_msg=name)


def test_the_papers_number_is_the_dictionarys_own_error_when_it_normalises_its_input(x: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    sae = planted_autoencoder(D_MODEL, 30, k=4, generator=generator).to(dtype=torch.float64)
    own, _ = sae.normalization.apply(x)
    own_error = ((sae.decode(sae.encode(x)) - own) ** 2).sum(1) / (
        D_MODEL - 1
    )  # its vectors have norm sqrt(d-1)
    term = reconstruction_terms(batch_of(x, sae))["reconstruction.normalized_mse"]
    torch.testing.assert_close(
        term.numerator, own_error, rtol=1e-4, atol=1e-6
    )  # eps = 1e-5 beside a std of 3


def test_relative_bias_is_the_factor_that_fits_best(x: torch.Tensor, sae: SparseAutoencoder) -> None:
    numerator, denominator = reconstruction_terms(batch_of(x, sae))["reconstruction.relative_bias"]
    assert denominator is not None
    bias = float(numerator.sum() / denominator.sum())
    x_hat = sae.reconstruct(x)
    factors = np.linspace(bias * 0.9, bias * 1.1, 2001)
    errors = [float(((x - x_hat / factor) ** 2).sum()) for factor in factors]
    assert factors[int(np.argmin(errors))] == pytest.approx(bias, abs=factors[1] - factors[0])


def test_a_token_without_direction_is_left_out_of_the_normalised_error(
    x: torch.Tensor, sae: SparseAutoencoder
) -> None:
    x = x.float()
    x[0] = 0.1  # whose mean over twelve is not 0.1 in float32
    sae = sae.to(dtype=torch.float32)
    term = reconstruction_terms(batch_of(x, sae))["reconstruction.normalized_mse"]
    assert term.numerator[0] == 0
    assert term.denominator is not None and term.denominator[0] == 0
    assert bool((term.denominator[1:] > 0).all())


def test_an_all_zero_token_is_left_out_of_cosine_and_an_all_zero_answer_counts_as_zero() -> None:
    x = torch.zeros(2, D_MODEL)
    x[1] = torch.arange(D_MODEL)
    silent = planted_autoencoder(
        D_MODEL, 30, k=4, generator=torch.Generator().manual_seed(0), normalization="none"
    )
    off = SparseAutoencoder(
        silent.encoder_weight,
        silent.encoder_bias - 1e6,
        silent.decoder_weight,
        silent.decoder_bias,
        None,
        silent.activation,
    )
    term = reconstruction_terms(batch_of(x, off))["reconstruction.cosine"]
    assert term.numerator.tolist() == [0, 0]
    assert term.denominator is not None and term.denominator.tolist() == [0, 1]


def test_cosine_never_passes_one(x: torch.Tensor) -> None:
    from autointerp.testing.planted_autoencoder import perfect_autoencoder

    term = reconstruction_terms(batch_of(x.float(), perfect_autoencoder(D_MODEL)))["reconstruction.cosine"]
    assert float(term.numerator.max()) <= 1.0


def test_only_wanted_metrics_are_observed_and_the_dead_fraction_is_not_among_them(
    x: torch.Tensor, sae: SparseAutoencoder
) -> None:
    state = RECONSTRUCTION.start(
        "it", ["a"], frozenset({"reconstruction.l0", "reconstruction.dead_fraction"})
    )
    state.update(batch_of(x, sae))
    assert state.observations()["metric"].unique().to_list() == ["reconstruction.l0"]


def test_the_headline_leaves_position_zero_out_and_the_slices_cover_all_positions(
    x: torch.Tensor, sae: SparseAutoencoder
) -> None:
    state = RECONSTRUCTION.start("it", ["a"], frozenset({"reconstruction.normalized_mse"}))
    batch = batch_of(x, sae)
    state.update(batch)
    found = {row["slice"]: row["numerator"] for row in state.observations().iter_rows(named=True)}
    errors = reconstruction_terms(batch)["reconstruction.normalized_mse"].numerator
    expected = {
        "{}": errors[1:].sum(),
        '{"position":"0"}': errors[0],
        '{"position":"1-3"}': errors[1:4].sum(),
        '{"position":"4-15"}': errors[4:16].sum(),
        '{"position":"16-63"}': errors[16:].sum(),
    }
    assert found == pytest.approx({key: float(value) for key, value in expected.items()})


def test_position_zero_measures_a_token_that_was_put_in_with_the_document_that_follows_it(
    sae: SparseAutoencoder, x: torch.Tensor
) -> None:
    """Three contexts: BOS and text of b; BOS, EOS and text of a; text of a from the start."""
    places = torch.arange(9)
    document = torch.tensor([-1, 1, 1, -1, -1, 0, 0, 0, 0])
    position = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    whole = batch_of(x[:9], sae)
    batch = replace(
        whole, tokens=TokenTable(places, document, position, document >= 0, torch.zeros_like(places))
    )
    metrics = frozenset({"reconstruction.normalized_mse", "reconstruction.l0"})
    state = RECONSTRUCTION.start("it", ["a", "b"], metrics)
    state.update(batch)
    rows = state.observations()
    errors = reconstruction_terms(whole)["reconstruction.normalized_mse"].numerator
    zero = rows.filter(pl.col("slice") == '{"position":"0"}')
    assert dict(zero.select("unit", "numerator").iter_rows()) == pytest.approx(
        {"a": float(errors[3] + errors[6]), "b": float(errors[0])}
    )
    assert zero["metric"].unique().to_list() == ["reconstruction.normalized_mse"]
    headline = rows.filter((pl.col("slice") == "{}") & (pl.col("metric") == "reconstruction.normalized_mse"))
    assert dict(headline.select("unit", "numerator").iter_rows()) == pytest.approx(
        {"a": float(errors[[5, 7, 8]].sum()), "b": float(errors[1:3].sum())}
    )
    counts = rows.filter(pl.col("metric") == "reconstruction.l0")
    assert dict(counts.select("unit", "denominator").iter_rows()) == {"a": 3.0, "b": 2.0}


FIRING = pl.DataFrame(
    {
        "checkpoint": ["a", "a", "b"],
        "latent": [0, 2, 1],
        "tokens_fired": [5, 1, 10],
        "documents_fired": [3, 1, 2],
        "only_document": ["", "doc-2", ""],
    },
    schema=FIRING_SCHEMA,
)
DOCUMENTS = pl.DataFrame({"document": ["doc-1", "doc-2", "doc-3", "doc-4"], "token_count": [10, 5, 4, 1]})


def test_dead_observations_have_a_row_for_every_latent_also_those_that_never_fired() -> None:
    rows = dead_observations(FIRING, DOCUMENTS, {"a": 4, "b": 2})
    assert dict(rows.schema) == OBSERVATION_SCHEMA
    first = rows.filter(pl.col("checkpoint") == "a")
    assert first["unit"].to_list() == ["0", "1", "2", "3"]
    assert first["numerator"].to_list() == [3, 0, 1, 0]
    assert first["denominator"].to_list() == [4, 4, 4, 4]
    assert first["cluster"].to_list() == ["", "", "doc-2", ""]
    assert rows.filter(pl.col("checkpoint") == "b")["numerator"].to_list() == [0, 2]


def test_dead_observations_of_no_documents_are_no_rows() -> None:
    assert dead_observations(FIRING.clear(), DOCUMENTS.clear(), {"a": 4}).height == 0


def test_densities_are_fractions_of_all_scored_tokens() -> None:
    table = latent_densities(FIRING, DOCUMENTS, {"a": 4, "b": 2})
    assert table["density"].to_list() == [0.25, 0.0, 0.05, 0.0, 0.0, 0.5]
    assert latent_densities(FIRING.clear(), DOCUMENTS.clear(), {"a": 4}).height == 0
