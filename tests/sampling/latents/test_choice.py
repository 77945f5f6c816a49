"""Which latents are sampled, what they stand for, and what scores of them can speak for."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import chisquare

from autointerp.sampling.latents.choice import (
    Choice,
    choose,
    coverage_row,
    followed_latents,
    in_random_order,
    judged,
)

TOKENS = 100_000


def totals(fired: np.ndarray, documents: np.ndarray | None = None) -> pl.DataFrame:
    count = len(fired)
    documents = np.full((count, 3), 9) if documents is None else documents
    documents = np.where(fired[:, None] > 0, documents, 0)
    return pl.DataFrame(
        {
            "latent": np.arange(count, dtype=np.uint32),
            "tokens_fired": fired.astype(np.uint64),
            "mass": fired * 2.0,
            "explain_documents": documents[:, 0].astype(np.uint32),
            "validate_documents": documents[:, 1].astype(np.uint32),
            "score_documents": documents[:, 2].astype(np.uint32),
        }
    )


def chosen(fired: np.ndarray, choice: Choice, seed: int = 0) -> pl.DataFrame:
    return choose(judged(totals(fired), choice, token_count=TOKENS), choice, seed=seed)


def test_each_live_latent_is_as_likely_to_be_sampled() -> None:
    fired = np.where(np.arange(40) % 4 == 0, 0, 7)
    counts = np.zeros(40)
    for seed in range(1000):
        counts[chosen(fired, Choice(count=6), seed)["latent"].to_numpy()] += 1
    assert not counts[fired == 0].any()
    # Without replacement the counts vary less than a multinomial's, so the test is the stricter for it.
    assert chisquare(counts[fired > 0]).pvalue > 1e-4
    assert chisquare(counts[fired > 0]).pvalue < 1 - 1e-6


@pytest.mark.parametrize("latents", ["random", "stratified"])
def test_weighted_sums_over_the_sample_are_unbiased(latents: str) -> None:
    generator = np.random.default_rng(1)
    fired = np.where(generator.random(300) < 0.2, 0, 10 ** generator.uniform(0, 4.5, 300)).astype(int)
    score = np.sqrt(fired) + generator.random(300)
    truth = score[fired > 0].sum()
    found = []
    for seed in range(400):
        some = chosen(fired, Choice(latents=latents, count=40), seed)
        assert some.height == 40
        found.append((some["sampling_weight"].to_numpy() * score[some["latent"].to_numpy()]).sum())
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(len(found)))


def test_weights_add_up_to_the_live_latents_of_each_stratum() -> None:
    generator = np.random.default_rng(2)
    fired = np.concatenate([np.full(50, 5), np.full(3, 500), np.full(20, 20_000), np.zeros(9)]).astype(int)
    fired = generator.permutation(fired)
    some = chosen(fired, Choice(latents="stratified", count=21))
    by_stratum = (
        some.group_by("stratum").agg(pl.len(), pl.col("sampling_weight").sum()).sort("sampling_weight")
    )
    assert by_stratum["len"].to_list() == [3, 9, 9]  # of the middle decade there are only three
    assert by_stratum["sampling_weight"].to_list() == pytest.approx([3, 20, 50])


def test_with_fewer_latents_than_decades_somebody_still_stands_for_each() -> None:
    fired = np.repeat([3, 30, 300, 3000, 30_000], 20)
    for seed in range(5):
        some = chosen(fired, Choice(latents="stratified", count=3), seed)
        assert some.height == 3
        assert some["sampling_weight"].sum() == pytest.approx(100)


def test_all_and_a_list() -> None:
    fired = np.array([3, 0, 4, 5])
    every = chosen(fired, Choice(latents="all"))
    assert every["latent"].to_list() == [0, 2, 3] and every["sampling_weight"].to_list() == [1, 1, 1]
    named = chosen(fired, Choice(latents=(3, 1, 3)))
    assert named["latent"].to_list() == [1, 3]
    assert named["sampling_weight"].to_list() == [None, None]
    assert chosen(fired, Choice(latents=(2, 4)))["latent"].to_list() == [2]


def test_fewer_live_latents_than_wanted_are_all_sampled() -> None:
    some = chosen(np.array([0, 1, 0, 2]), Choice(count=10))
    assert some["latent"].to_list() == [1, 3] and some["sampling_weight"].to_list() == [1, 1]
    assert chosen(np.zeros(4, dtype=int), Choice(count=10)).is_empty()


def test_a_larger_sample_holds_the_smaller_one() -> None:
    fired = np.ones(500, dtype=int)
    small, large = (set(chosen(fired, Choice(count=count))["latent"]) for count in (20, 100))
    assert small < large


def test_latents_in_too_few_documents_are_undefined_with_a_reason() -> None:
    documents = np.array([[9, 9, 9], [9, 1, 9], [0, 9, 9], [2, 2, 2]])
    found = judged(totals(np.array([5, 5, 5, 0]), documents), Choice(least_documents=2), token_count=TOKENS)
    assert found["status"].to_list() == ["live", "undefined", "undefined", "dead"]
    assert "explain 9, validate 1, score 9; needed: 2" in found["reason"][1]
    assert found["reason"].to_list()[::3] == ["", ""]


def test_coverage_is_shares_of_latents_and_of_activation() -> None:
    documents = np.array([[9, 9, 9], [9, 1, 9], [9, 9, 9], [0, 0, 0]])
    fired = np.array([30_000, 100, 900, 0])
    choice = Choice(count=2, ultra_dense=0.2)
    latents = judged(totals(fired, documents), choice, token_count=TOKENS)
    row = coverage_row(latents, choose(latents, choice, seed=0))
    assert row["latent_count"] == 4 and row["live_count"] == 3 and row["scorable_count"] == 2
    assert row["ultra_dense_count"] == 1
    assert row["scorable_fraction"] == 0.5
    assert row["scorable_mass_fraction"] == pytest.approx(30_900 / 31_000)
    assert row["sampled_count"] == 2 and 1 <= row["sampled_scorable_count"] <= 2


def test_coverage_of_a_dictionary_in_which_nothing_fires_has_no_share_of_activation() -> None:
    latents = judged(totals(np.zeros(5, dtype=int)), Choice(), token_count=TOKENS)
    row = coverage_row(latents, choose(latents, Choice(), seed=0))
    assert row["scorable_mass_fraction"] is None and row["scorable_fraction"] == 0


def test_latents_followed_before_the_pass_are_those_that_will_be_sampled() -> None:
    followed = followed_latents(Choice(count=200), 5000, seed=3)
    assert len(followed) == 400 and (np.diff(followed) > 0).all()
    assert set(followed) == set(in_random_order(5000, seed=3)[:400])
    some = chosen(np.ones(5000, dtype=int), Choice(count=200), seed=3)
    assert set(some["latent"]) <= set(followed)
    assert followed_latents(Choice(latents=(7, 9999)), 100, seed=0).tolist() == [7]
    assert len(followed_latents(Choice(latents="all"), 10**5, seed=0)) == 4096
    assert len(followed_latents(Choice(count=3), 64, seed=0)) == 64
