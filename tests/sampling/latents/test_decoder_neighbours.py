from dataclasses import replace
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.load import placed, read_checkpoint, write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.sampling.latents import decoder_neighbours as module
from autointerp.sampling.latents.decoder_neighbours import (
    DECODER_NEIGHBOURS_SCHEMA,
    decoder_directions,
    nearest_latents,
)


def dictionary(decoder, **more):
    count, width = decoder.shape
    parts = {
        "encoder_weight": torch.zeros_like(decoder),
        "encoder_bias": torch.zeros(count),
        "decoder_bias": torch.zeros(width),
        "pre_bias": None,
    }
    return SparseAutoencoder(decoder_weight=decoder, activation=ReLU(), **parts | more)


def random_decoder(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def brute_force(decoder, latents, count):
    """From decoders of whole numbers: ranked by the cosine's square with its sign, as an exact fraction."""
    rows = []
    vectors = [[int(value) for value in row] for row in decoder.tolist()]
    for latent in latents:
        ranked = []
        for other, vector in enumerate(vectors):
            dot = sum(a * b for a, b in zip(vectors[latent], vector, strict=True))
            norms = sum(a * a for a in vectors[latent]) * sum(b * b for b in vector)
            if norms and other != latent:
                ranked.append((-Fraction(dot * abs(dot), norms), other, dot / norms**0.5))
        rows += [
            (latent, rank, other, value) for rank, (_, other, value) in enumerate(sorted(ranked)[:count])
        ]
    return pl.DataFrame(rows, schema=DECODER_NEIGHBOURS_SCHEMA, orient="row")


def assert_same(found, expected):
    assert found.schema == DECODER_NEIGHBOURS_SCHEMA
    assert found.drop("value").equals(expected.drop("value"))
    np.testing.assert_allclose(found["value"], expected["value"], atol=1e-7)


@given(
    rows=st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=14),
    count=st.integers(1, 16),
    block_bytes=st.sampled_from([1, 60, 100, 200, 10_000]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_neighbours_are_exact_and_ties_go_to_the_lowest(rows, count, block_bytes, dtype, data):
    """Few small whole numbers: duplicates, parallel rows, zeros and ties are everywhere."""
    decoder = torch.tensor(rows, dtype=dtype)
    latents = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    found = nearest_latents(dictionary(decoder), latents, count=count, block_bytes=block_bytes)
    assert_same(found, brute_force(decoder, latents, count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_larger_dictionary_against_all_its_cosines(dtype):
    decoder = random_decoder(3000, 20).to(dtype)
    latents = [2999, 0, 7, 1234]
    unit = decoder.double() / decoder.double().norm(dim=1, keepdim=True)
    cosines = (unit[latents] @ unit.T).numpy()
    cosines[np.arange(4), latents] = -2
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :10]
    found = nearest_latents(dictionary(decoder), latents)
    assert (found["other"].to_numpy().reshape(4, 10) == expected).all()
    values = np.take_along_axis(cosines, expected, axis=1)
    np.testing.assert_allclose(found["value"].to_numpy().reshape(4, 10), values, atol=1e-7)
    assert (found["latent"].to_numpy().reshape(4, 10) == np.array(latents)[:, None]).all()
    assert (found["rank"].to_numpy().reshape(4, 10) == np.arange(10)).all()


@pytest.mark.parametrize("block_bytes", [8 * 37 * 7, 8 * 37 * 11, 8 * 37 * 64, 2**26])
def test_equal_directions_tie_wherever_they_lie(block_bytes):
    """Of odd width and in odd places, where sums in float32 would differ in the last bit."""
    decoder = random_decoder(301, 37)
    copies = [3, 64, 65, 129, 300]
    decoder[copies] = decoder[3] * torch.tensor([1.0, 4.0, 0.5, 8.0, 1.0])[:, None]  # without rounding
    found = nearest_latents(dictionary(decoder), range(301), count=6, block_bytes=block_bytes)
    assert found.equals(nearest_latents(dictionary(decoder), range(301), count=6))
    for latent in copies:
        others = found.filter(latent=latent, value=1.0)["other"].to_list()
        assert others == [other for other in copies if other != latent]
    near = found.filter(pl.col("other").is_in(copies), ~pl.col("latent").is_in(copies))
    assert near["latent"].n_unique() > 5  # so that copies are neighbours of others too
    for _, rows in near.group_by("latent"):
        assert rows["value"].n_unique() == 1
        assert rows["other"].to_list() == copies[: rows.height]


def test_rows_follow_the_latents_as_given_and_none_gives_none():
    sae = dictionary(random_decoder(20, 4))
    whole = nearest_latents(sae, range(20), count=3)
    some = nearest_latents(sae, [5, 2, 19], count=3)
    assert some.equals(pl.concat([whole.filter(latent=latent) for latent in (5, 2, 19)]))
    assert nearest_latents(sae, []).equals(whole.clear())
    assert nearest_latents(dictionary(random_decoder(1, 4)), [0]).is_empty()


def test_neither_scales_nor_lengths_make_a_difference():
    decoder = random_decoder(20, 4)
    expected = nearest_latents(dictionary(decoder), range(20))
    scale = torch.arange(1, 21).float()
    scaled = dictionary(decoder * 2.0 ** (scale % 5)[:, None], latent_scale=scale)
    assert nearest_latents(scaled, range(20)).equals(expected)


def test_what_is_not_finite_is_no_direction():
    decoder = random_decoder(6, 4)
    whole = nearest_latents(dictionary(decoder[[0, 3, 4]]), range(3))
    decoder[1, 2], decoder[2, 0], decoder[5] = torch.inf, torch.nan, 0.0
    found = nearest_latents(dictionary(decoder), range(6), block_bytes=64)
    names = {0: 0, 1: 3, 2: 4}
    back = [pl.col(column).replace_strict(names, return_dtype=pl.UInt32) for column in ("latent", "other")]
    assert found.equals(whole.with_columns(back))


def test_of_a_transcoder_the_outputs_are_compared():
    decoder = random_decoder(20, 4)
    transcoder = dictionary(decoder, encoder_weight=random_decoder(20, 7, seed=1))
    assert transcoder.is_transcoder
    assert nearest_latents(transcoder, range(20)).equals(nearest_latents(dictionary(decoder), range(20)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dictionary_in_a_file_is_the_same(dtype, tmp_path):
    decoder = random_decoder(200, 6).to(dtype)
    held = dictionary(decoder, pre_bias=torch.zeros(6))
    expected = nearest_latents(held, [7, 199], count=5)
    streamed = replace(held, is_streamed=True)
    assert nearest_latents(streamed, [7, 199], count=5, block_bytes=1000).equals(expected)
    write_checkpoint(held, tmp_path / "sae", format="saelens", dtype=dtype)
    loaded = placed(read_checkpoint(tmp_path / "sae").sae, device="cpu", dtype=torch.float32, room=0)
    assert loaded.is_streamed
    assert nearest_latents(loaded, [7, 199], count=5).equals(expected)


def test_directions_are_what_a_unit_of_activation_adds():
    scale = torch.arange(1, 21).float()
    sae = dictionary(random_decoder(20, 4), latent_scale=scale)
    found = decoder_directions(sae, [3, 19, 3])
    z = torch.zeros(3, 20)
    z[torch.arange(3), [3, 19, 3]] = 1.0
    torch.testing.assert_close(found, sae.decode(z))
    half = replace(sae, decoder_weight=sae.decoder_weight.half(), latent_scale=None)
    assert torch.equal(decoder_directions(half, [3]), half.decoder_weight[3:4].float())
    assert decoder_directions(sae, []).shape == (0, 4)


def test_directions_are_in_the_sites_space_where_one_factor_leads_there():
    sae = dictionary(
        random_decoder(20, 4), normalization=InputNormalization("scale", scale=2.0, output_scale=8.0)
    )
    torch.testing.assert_close(decoder_directions(sae, [3]), sae.decoder_weight[3:4] / 8)


@pytest.mark.parametrize("latents", [[20], [-1], [3, 21]])
def test_what_cannot_be_done_is_said(latents):
    sae = dictionary(random_decoder(20, 4))
    with pytest.raises(ValueError, match="there is no latent"):
        nearest_latents(sae, latents)
    with pytest.raises(ValueError, match="there is no latent"):
        decoder_directions(sae, latents)
    with pytest.raises(ValueError, match="count is 0"):
        nearest_latents(sae, [1], count=0)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_candidates_do_not_depend_on_how_float32_products_are_computed(precision, monkeypatch):
    """Where float32 may stand for less, the bound on the error is wider; the neighbours are the same."""
    sae = dictionary(random_decoder(400, 24))
    expected = nearest_latents(sae, range(400), count=7)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    assert nearest_latents(sae, range(400), count=7, block_bytes=4 * 64**2).equals(expected)


@pytest.mark.parametrize("chosen", [range(700), range(100, 650)])
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_candidates_from_products_in_bfloat16_give_the_same_neighbours(chosen, spread, monkeypatch):
    """Blocks of 256, partial ones at the end, copies, directions that bfloat16 cannot tell apart."""
    decoder = random_decoder(1, 64) + spread * random_decoder(700, 64, seed=1)
    decoder[[5, 300, 600]] = decoder[2].clone()
    sae = dictionary(decoder)
    monkeypatch.setattr(module, "_has_bfloat16", lambda _device: False)
    expected = nearest_latents(sae, chosen, count=7, block_bytes=4 * 256**2)
    monkeypatch.setattr(module, "_has_bfloat16", lambda _device: True)
    monkeypatch.setattr(module, "_LEAST_LOWERED", 500)
    lowered = []
    refine = module._Search._refine
    monkeypatch.setattr(module._Search, "_refine", lambda self: lowered.append(refine(self)))
    assert nearest_latents(sae, chosen, count=7, block_bytes=4 * 256**2).equals(expected)
    assert lowered


@pytest.mark.parametrize("block_bytes", [4 * 16**2, 4 * 50**2, 2**22])
def test_directions_that_are_all_nearly_equal_are_told_apart(block_bytes, monkeypatch):
    """Closer than float32 can tell, so that everything is a candidate, and lists are cut on the way."""
    monkeypatch.setattr(module, "_LEAST_LIMIT", 50)
    generator = torch.Generator().manual_seed(0)
    decoder = 1 + 1e-4 * torch.randn(150, 9, generator=generator, dtype=torch.float64)
    decoder[40:60] = decoder[3]
    unit = decoder / decoder.norm(dim=1, keepdim=True)
    cosines = (unit[:, None] * unit[None]).sum(dim=2).float().fill_diagonal_(-2)
    expected = cosines.sort(dim=1, descending=True, stable=True).indices[:, :6]
    found = nearest_latents(dictionary(decoder), range(150), count=6, block_bytes=block_bytes)
    assert found["other"].to_list() == expected.flatten().tolist()
