"""The activation functions against brute force, ties and NaN included."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.checkpoints import topk_functions
from autointerp.checkpoints.activation_functions import Identity, JumpReLU, ReLU
from autointerp.checkpoints.topk_functions import TopK, largest_indices
from autointerp.errors import CheckpointError


def brute_force_largest(row, k):
    """Sort by (value descending, index ascending), keep k, in index order."""
    return sorted(sorted(range(len(row)), key=lambda index: (-row[index], index))[:k])


def dense_from(firing, shape):
    z = torch.zeros(shape)
    z[firing.tokens, firing.latents] = firing.values
    return z


small_rows = st.integers(1, 9).flatmap(
    lambda width: st.tuples(
        st.lists(
            st.lists(st.integers(-2, 2).map(float), min_size=width, max_size=width), min_size=0, max_size=4
        ),
        st.just(width),
        st.integers(1, width),
    )
)


@given(small_rows)
@settings(max_examples=150, deadline=None)
def test_topk_keeps_the_lowest_index_among_ties(case):
    rows, width, k = case
    pre = torch.tensor(rows).reshape(-1, width)
    expected = [brute_force_largest(row, k) for row in rows]
    assert largest_indices(pre, k).tolist() == expected


@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(0, 40), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_the_prefilter_for_wide_dictionaries_changes_nothing(seed, k, extra, levels):
    width = 8 * topk_functions._GROUP_SIZE * (k + 1) + extra
    pre = torch.from_numpy(np.random.default_rng(seed).integers(0, levels, (3, width))).float()
    assert topk_functions._pays_off(pre, k)
    assert largest_indices(pre, k).tolist() == [brute_force_largest(row, k) for row in pre.tolist()]


def test_the_prefilter_agrees_with_a_full_sort_on_continuous_values(draw):
    pre = draw(7, 1501)
    assert topk_functions._pays_off(pre, 5)
    by_sort = pre.sort(dim=1, descending=True, stable=True).indices[:, :5].sort(dim=1).values
    assert torch.equal(largest_indices(pre, 5), by_sort)


@pytest.mark.parametrize("k", [1, 4, 30])
@pytest.mark.parametrize("postact", ["relu", "identity"])
def test_topk_dense_is_the_brute_force_formula(draw, k, postact):
    pre = draw(11, 30)
    expected = np.zeros((11, 30), dtype=np.float32)
    for token, row in enumerate(pre.numpy()):
        for index in brute_force_largest(row.tolist(), k):
            expected[token, index] = max(row[index], 0) if postact == "relu" else row[index]
    np.testing.assert_array_equal(TopK(k, postact)(pre).numpy(), expected)


def test_relu_before_or_after_topk_gives_the_same_latents(draw):
    pre = draw(20, 30) - 1.5
    assert torch.equal(TopK(12)(pre), TopK(12)(pre.relu()))


def test_jumprelu_is_strict_and_never_negative():
    pre = torch.tensor([[-1.0, 0.5, 0.5, 2.0, -0.1]])
    threshold = torch.tensor([-2.0, 0.5, 0.4, 3.0, -1.0])
    assert JumpReLU(threshold)(pre).tolist() == [[0.0, 0.0, 0.5, 0.0, 0.0]]


@pytest.mark.parametrize("shape", [(0, 30), (1, 30), (13, 30)])
def test_what_fires_is_the_dense_result_without_its_zeros(draw, shape):
    pre = draw(*shape)
    for activation in (ReLU(), Identity(), TopK(4), TopK(4, "identity"), TopK(30), JumpReLU(draw(30).abs())):
        firing = activation.firing(pre)
        assert torch.equal(dense_from(firing, shape), activation(pre))
        assert (firing.values != 0).all()
        flat = firing.tokens * 30 + firing.latents
        assert (flat.diff() > 0).all()


def test_nan_stays_visible_in_every_activation():
    pre = torch.tensor([[1.0, float("nan"), -1.0]])
    for activation in (ReLU(), Identity(), TopK(2), JumpReLU(torch.zeros(3))):
        assert activation(pre).isnan().any()
        assert activation.firing(pre).values.isnan().any()


@pytest.mark.parametrize("k", [0, -1, True, 2.0, None])
def test_topk_refuses_a_k_that_is_no_positive_whole_number(k, unchecked_annotations):
    with pytest.raises(CheckpointError, match="whole k of at least 1"):
        TopK(k)


def test_topk_refuses_an_unknown_postact(unchecked_annotations):
    with pytest.raises(CheckpointError, match="postact"):
        TopK(3, "gelu")


def test_descriptions_name_the_setting():
    described = [
        a.describe() for a in (ReLU(), Identity(), TopK(32), TopK(3, "identity"), JumpReLU(torch.ones(2)))
    ]
    assert described == ["relu", "identity", "topk(k=32)", "topk(k=3, postact=identity)", "jumprelu"]


def test_thresholds_move_with_the_dictionary():
    moved = JumpReLU(torch.ones(2)).to(dtype=torch.float64)
    assert moved.threshold.dtype == torch.float64
    assert TopK(3).to(device="cpu", dtype=torch.float64) == TopK(3)
