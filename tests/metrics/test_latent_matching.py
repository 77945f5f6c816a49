"""Latents of two dictionaries matched by direction, against brute force and by construction."""

import numpy as np
import pytest
import torch

from autointerp.metrics import latent_matching
from autointerp.metrics.latent_matching import followers_of, match_latents, nearest_in


def directions(count, width=24, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", [1, 1000, 2**26])
def test_the_nearest_is_brute_forces(monkeypatch, block):
    monkeypatch.setattr(latent_matching, "_BLOCK_BYTES", block)
    one, other = directions(17), directions(23, seed=1)
    cosines = torch.nn.functional.cosine_similarity(one[:, None], other[None], dim=2).numpy()
    found = nearest_in(one, other)
    np.testing.assert_array_equal(found.index, cosines.argmax(axis=1))
    np.testing.assert_allclose(found.cosine, cosines.max(axis=1), atol=1e-6)


def test_a_permuted_rescaled_copy_is_matched_whole():
    one, order = directions(40), torch.randperm(40, generator=torch.Generator().manual_seed(3))
    found = match_latents(one, one[order] * torch.linspace(0.1, 9, 40)[:, None])
    assert found.matched_fraction == 1.0
    np.testing.assert_array_equal(order[found.pairs[:, 1]], found.pairs[:, 0])
    assert not len(found.lost) and not len(found.gained) and not found.split and not found.merged


def test_turned_round_lost_is_gained_and_split_is_merged():
    one = directions(30)
    other = torch.cat([one[:20], one[:5] + 0.01 * directions(5, seed=4), directions(10, seed=5)])
    there, back = match_latents(one, other), match_latents(other, one)
    np.testing.assert_array_equal(np.sort(there.pairs[:, ::-1], axis=0), np.sort(back.pairs, axis=0))
    np.testing.assert_array_equal(there.lost, back.gained)
    np.testing.assert_array_equal(there.gained, back.lost)
    assert there.split == back.merged
    assert there.merged == back.split


def test_a_split_latent_is_found():
    one = torch.eye(4, 8)
    noise = 0.3 * torch.eye(4, 8).roll(4, dims=1)
    found = match_latents(one, torch.cat([one[1:], one[:1] + noise[:1], one[:1] - noise[:1]]))
    assert found.split == {0: [3, 4]}
    assert len(found.pairs) == 4, "one of the two halves is its match, the smaller index of equals"


def test_antipodal_and_random_directions_do_not_match():
    one = directions(50, width=192)
    assert match_latents(one, -one).matched_fraction == 0.0
    assert match_latents(one, directions(4000, width=192, seed=7)).matched_fraction == 0.0


def test_matching_is_one_to_one():
    found = match_latents(directions(200, width=3), directions(150, width=3, seed=8), least=0.5)
    assert len(set(found.pairs[:, 0])) == len(set(found.pairs[:, 1])) == len(found.pairs) > 0


def test_a_direction_of_zero_length_is_nobodys_match():
    one = directions(5)
    one[2] = 0
    found = match_latents(one, one)
    assert 2 in found.lost and 2 in found.gained and len(found.pairs) == 4


def test_a_direction_of_zero_length_is_no_nearer_than_an_opposite_one():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0], [-1.0, 0.1], [-1.0, 0.0]])
    found = nearest_in(one, other)
    assert found.index.tolist() == [1]
    assert found.cosine[0] == pytest.approx(-1 / 1.01**0.5)
    assert nearest_in(one, torch.zeros(2, 2)).cosine.tolist() == [0.0]


def test_nothing_to_match_with_is_refused():
    with pytest.raises(ValueError, match="no directions"):
        match_latents(directions(3), directions(0))


@pytest.mark.parametrize("block", [1, 2**26])
def test_followers_of_some_are_what_matching_all_with_all_finds(monkeypatch, block):
    monkeypatch.setattr(latent_matching, "_BLOCK_BYTES", block)
    one = torch.cat([directions(20, width=3), torch.zeros(1, 3)])
    other = torch.cat([torch.zeros(1, 3), directions(60, width=3, seed=1)])
    whole = match_latents(one, other, least=0.8)
    chosen = np.arange(0, 21, 2)
    found = dict(zip(chosen.tolist(), followers_of(chosen, one, other, least=0.8), strict=True))
    assert {latent: own for latent, own in found.items() if len(own) > 1} == {
        latent: own for latent, own in whole.split.items() if latent % 2 == 0
    }
    there = nearest_in(one[chosen], other)
    mutual = [
        [latent, near] for latent, near in zip(chosen, there.index, strict=True) if near in found[latent]
    ]
    assert mutual == [pair for pair in whole.pairs.tolist() if pair[0] % 2 == 0]
    assert len(mutual) > 3
    assert followers_of(chosen[:0], one, other) == []


@pytest.mark.parametrize("block_bytes", [1, 700, 10_000])
def test_blocks_do_not_matter(monkeypatch, block_bytes):
    generator = torch.Generator().manual_seed(4)
    one, other = torch.randn(37, 8, generator=generator), torch.randn(53, 8, generator=generator)
    other[:20] = one[:20] + 0.1 * other[:20]
    other[30], one[3] = 0.0, 0.0
    chosen = np.arange(0, 37, 3)
    whole = nearest_in(one, other), followers_of(chosen, one, other, least=0.7)
    unit = torch.nn.functional.normalize(other, dim=1)
    cosine = torch.nn.functional.normalize(one, dim=1) @ unit.T
    cosine[:, 30] = -torch.inf
    assert whole[0].index.tolist() == cosine.argmax(dim=1).tolist()
    monkeypatch.setattr(latent_matching, "_BLOCK_BYTES", block_bytes)
    blocks = nearest_in(one, other), followers_of(chosen, one, other, least=0.7)
    assert blocks[0].index.tolist() == whole[0].index.tolist()
    np.testing.assert_allclose(blocks[0].cosine, whole[0].cosine, atol=1e-6)
    assert blocks[1] == whole[1]
    assert sum(map(len, whole[1])) > 5
