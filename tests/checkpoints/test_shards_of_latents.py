"""Every activation function against brute force, and the same from shards of latents as from all at once.

Values are small whole numbers, so that ties are everywhere and sums are exact: equality is to the bit.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.checkpoints import sharded_products
from autointerp.checkpoints.activation_functions import Gated, Identity, JumpReLU, ReLU
from autointerp.checkpoints.matching_pursuit import MatchingPursuit
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.topk_functions import AbsTopK, GroupMax, TopK
from autointerp.errors import CheckpointError

WIDTH = 24


def whole_numbers(generator, *shape, low=-3, high=4):
    return torch.randint(low, high, shape, generator=generator).float()


def best(ranks, k):
    """Brute force: the indices of the k largest, the first ones among equals."""
    return sorted(range(len(ranks)), key=lambda index: (-ranks[index], index))[:k]


def keep(row, indices):
    return [value if index in set(indices) else 0.0 for index, value in enumerate(row)]


def groups(row, k):
    size = len(row) // k
    chosen = [start + best(row[start : start + size], 1)[0] for start in range(0, len(row), size)]
    return [max(value, 0.0) for value in keep(row, chosen)]


THRESHOLD = torch.arange(WIDTH).remainder(4).float() - 1
WEIGHT = torch.arange(WIDTH).remainder(3).float() + 0.5
GATE = torch.arange(WIDTH).remainder(5).float() - 2
ALL = [
    (ReLU(), lambda row: [max(p, 0.0) for p in row]),
    (Identity(), list),
    (
        JumpReLU(THRESHOLD),
        lambda row: [max(p, 0.0) * (p > t) for p, t in zip(row, THRESHOLD.tolist(), strict=True)],
    ),
    (
        Gated(GATE, WEIGHT, GATE.flip(0)),
        lambda row: [
            (p + g > 0) * max(p * m + b, 0.0)
            for p, g, m, b in zip(row, GATE.tolist(), WEIGHT.tolist(), GATE.flip(0).tolist(), strict=True)
        ],
    ),
    (TopK(5), lambda row: [max(p, 0.0) for p in keep(row, best(row, 5))]),
    (TopK(5, "identity"), lambda row: keep(row, best(row, 5))),
    (
        TopK(5, weight=WEIGHT),
        lambda row: [
            max(p, 0.0)
            for p in keep(row, best([p * w for p, w in zip(row, WEIGHT.tolist(), strict=True)], 5))
        ],
    ),
    (AbsTopK(5), lambda row: keep(row, best([abs(p) for p in row], 5))),
    (GroupMax(6, WIDTH), lambda row: groups(row, 6)),
    (GroupMax(1, WIDTH), lambda row: groups(row, 1)),
    (GroupMax(WIDTH, WIDTH), lambda row: groups(row, WIDTH)),
]
IDS = [activation.describe() for activation, _ in ALL]
shards_of_latents = st.lists(st.integers(1, 9), min_size=1, max_size=WIDTH)


def in_shards(activation, pre, sizes):
    seen, first = None, 0
    while first < pre.shape[1]:
        size = sizes[first % len(sizes)]
        seen = activation.take(seen, pre[:, first : first + size], first)
        first += size
    return activation.fire(seen)


@pytest.mark.parametrize(("activation", "brute_force"), ALL, ids=IDS)
@given(seed=st.integers(0, 2**31), sizes=shards_of_latents, lift=st.sampled_from([-10, 0, 10]))
@settings(max_examples=40, deadline=None)
def test_dense_sparse_and_sharded_are_the_formula(activation, brute_force, seed, sizes, lift):
    """Lifted by -10 every pre-activation is negative, by 10 every one is positive."""
    pre = whole_numbers(torch.Generator().manual_seed(seed), 4, WIDTH) + lift
    expected = torch.tensor([brute_force(row) for row in pre.tolist()])
    assert torch.equal(activation(pre), expected)
    whole, sharded = activation.firing(pre), in_shards(activation, pre, sizes)
    for found in (whole, sharded):
        tokens, latents = torch.nonzero(expected, as_tuple=True)
        assert torch.equal(found.tokens, tokens) and torch.equal(found.latents, latents)
        assert torch.equal(found.values, expected[tokens, latents])


@pytest.mark.parametrize(("activation", "brute_force"), ALL, ids=IDS)
def test_no_tokens_are_no_latents(activation, brute_force):
    assert activation(torch.zeros(0, WIDTH)).shape == (0, WIDTH)
    assert in_shards(activation, torch.zeros(0, WIDTH), [7]).values.numel() == 0


def dictionary(activation, *, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return SparseAutoencoder(
        encoder_weight=whole_numbers(generator, WIDTH, 6).to(dtype),
        encoder_bias=whole_numbers(generator, WIDTH),
        decoder_weight=whole_numbers(generator, WIDTH, 5).to(dtype),
        decoder_bias=whole_numbers(generator, 5),
        pre_bias=whole_numbers(generator, 6),
        activation=activation,
        latent_scale=whole_numbers(generator, WIDTH, low=0, high=2) + 1,
        skip_weight=whole_numbers(generator, 5, 6).to(dtype),
    )


@pytest.mark.parametrize(("activation", "_brute_force"), ALL, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bytes_at_a_time", [100, 500, 3000])
def test_a_dictionary_in_shards_equals_the_whole_to_the_bit(
    activation, _brute_force, dtype, bytes_at_a_time, monkeypatch
):
    """Small whole numbers are exact in bfloat16 too, so weights brought over piece by piece are the same."""
    x = whole_numbers(torch.Generator().manual_seed(1), 11, 6)
    streamed = replace(dictionary(activation, dtype=dtype), is_streamed=True)
    whole = dictionary(activation)
    expected_hat, expected = whole.reconstruct(x), whole.encode(x)
    for limit in ("_SHARD_BYTES", "_LARGEST_BLOCK_BYTES", "_BLOCK_BYTES"):
        monkeypatch.setattr(sharded_products, limit, bytes_at_a_time)
    monkeypatch.setattr(sharded_products, "_EFFICIENT_BLOCK", 512)
    x_hat, latents = streamed.reconstruct_sparse(x)
    assert torch.equal(latents.dense(), expected)
    torch.testing.assert_close(x_hat, expected_hat, atol=1e-5, rtol=1e-6)
    assert streamed.reconstruct_sparse(x[:0])[0].shape == (0, 5)


@pytest.mark.parametrize("postact", ["relu", "identity"])
def test_ties_across_shards_keep_the_lowest_latents(postact):
    found = in_shards(TopK(3, postact), torch.ones(1, WIDTH), [4])
    assert found.latents.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "make", [TopK, AbsTopK, lambda k: GroupMax(k, k)], ids=["topk", "abstopk", "groupmax"]
)
def test_more_than_all_latents_cannot_be_kept(make):
    with pytest.raises(CheckpointError):
        dictionary(make(WIDTH + 1))


def test_groups_must_be_equal():
    with pytest.raises(CheckpointError, match="cannot deal 24 latents into 5 groups"):
        GroupMax(5, WIDTH)


def test_what_looks_at_all_latents_is_given_all_latents(monkeypatch):
    directions = torch.randn(WIDTH, 6, generator=torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(directions, dim=1)
    sae = SparseAutoencoder(
        encoder_weight=directions,
        encoder_bias=torch.zeros(WIDTH),
        decoder_weight=directions,
        decoder_bias=torch.zeros(6),
        pre_bias=None,
        activation=MatchingPursuit(directions, residual_threshold=1e-3, max_iterations=3),
    )
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    whole = sae.encode(x)
    monkeypatch.setattr(sharded_products, "_SHARD_BYTES", 100)
    monkeypatch.setattr(sharded_products, "_LARGEST_BLOCK_BYTES", 100)
    monkeypatch.setattr(sharded_products, "_BLOCK_BYTES", 100)
    np.testing.assert_allclose(sae.encode_sparse(x).dense(), whole, atol=1e-5)
