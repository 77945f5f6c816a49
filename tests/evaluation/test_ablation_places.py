"""Which tokens are ablated: eligible ones alone, uniformly, whatever the chunks."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from autointerp.evaluation.studies.ablation_places import PlaceGroup, draw_places, groups
from autointerp.sampling.context_table import ContextTable
from autointerp.testing.token_chunks import random_chunk, random_documents

DOCUMENTS = random_documents([3, 14, 15, 16, 29, 40, 61, 90], vocabulary_size=300)
HORIZON = 6


def chunks(*, context_length=16, rows=4, split=1):
    """The documents in as many chunks as asked for."""
    names = list(DOCUMENTS)
    parts = np.array_split(np.array(names), split)
    return [
        random_chunk(
            {name: DOCUMENTS[str(name)] for name in part},
            context_length=context_length,
            rows_per_batch=rows,
            index=index,
        )
        for index, part in enumerate(parts)
    ]


def drawn(samples, seed=0, horizon=HORIZON, **given):
    return draw_places(chunks(**given), samples=samples, horizon=horizon, seed=seed)


def eligible():
    """(context, position) of every token with enough behind it, by a plain loop."""
    found = []
    for chunk in chunks():
        for row in ContextTable.of(chunk).frame.iter_rows(named=True):
            found += [
                (row["context"], position)
                for position in range(1, len(row["tokens"]))
                if len(row["tokens"]) - position >= HORIZON
            ]
    return found


def test_all_eligible_tokens_can_be_drawn_and_no_other():
    found = drawn(10_000)
    assert Counter((place.context, place.position) for place in found.places) == Counter(eligible())
    assert found.eligible_count == len(eligible())
    assert found.scored_count == sum(map(len, DOCUMENTS.values()))


def test_a_place_knows_its_tokens_to_the_last_one_that_is_followed():
    by_context = {
        row["context"]: (row["tokens"], row["document"])
        for chunk in chunks()
        for row in ContextTable.of(chunk).frame.iter_rows(named=True)
    }
    for place in drawn(60).places:
        tokens, document = by_context[place.context]
        assert place.tokens.tolist() == tokens[: place.position + HORIZON]
        assert place.document == document
        assert place.unit == f"{place.context:016x}/{place.position}"


@pytest.mark.parametrize("given", [{"rows": 1}, {"split": 3}, {"rows": 100, "split": 8}])
def test_the_sample_does_not_depend_on_chunks_or_batches(given):
    assert [p.unit for p in drawn(40, **given).places] == [p.unit for p in drawn(40).places]


def test_a_smaller_sample_is_the_beginning_of_a_larger_one_and_another_seed_another():
    units = [place.unit for place in drawn(50).places]
    assert [place.unit for place in drawn(20).places] == units[:20]
    assert [place.unit for place in drawn(20, seed=1).places] != units[:20]


def test_every_eligible_token_is_drawn_as_often():
    counts = Counter(place.unit for seed in range(400) for place in drawn(20, seed=seed).places)
    observed = [counts[f"{context:016x}/{position}"] for context, position in eligible()]
    # Without replacement counts vary less than independent ones, so the test errs on the safe side.
    assert chisquare(observed).pvalue > 1e-3
    assert sum(observed) == 400 * 20


def test_the_same_text_twice_is_one_text():
    twice = [*chunks(), *chunks()]
    again = draw_places(twice, samples=40, horizon=HORIZON, seed=0)
    assert [p.unit for p in again.places] == [p.unit for p in drawn(40).places]


def test_contexts_shorter_than_the_horizon_give_none():
    found = drawn(40, horizon=17)
    assert found.places == ()
    assert found.eligible_count == 0


def test_groups_hold_every_place_once_and_contexts_of_like_length():
    places = drawn(150).places
    found = groups(places)
    assert sorted(p.unit for group in found for p in group.places) == sorted(p.unit for p in places)
    for group in found:
        assert group.mask.numel() <= 2048
        for place, context, position in zip(group.places, group.context, group.position, strict=True):
            row = group.tokens[context][group.mask[context]].numpy()
            assert int(position) == place.position
            np.testing.assert_array_equal(row[: len(place.tokens)], place.tokens)
        assert len(group.contexts) == len({place.context for place in group.places})


def test_a_long_context_is_a_group_of_its_own(monkeypatch):
    monkeypatch.setattr("autointerp.evaluation.studies.ablation_places._GROUP_TOKENS", 1)
    found = groups(drawn(30).places)
    assert all(len(group.contexts) == 1 for group in found)


@pytest.fixture(scope="module")
def group():
    return PlaceGroup(drawn(150).places)


def test_choices_are_uniform_and_the_same_every_time(group):
    counts = np.full(len(group.places), 5)
    found = np.concatenate([group.choices(counts, seed=seed, what="x") for seed in range(40)])
    assert chisquare(np.bincount(found, minlength=5)).pvalue > 1e-3
    np.testing.assert_array_equal(
        group.choices(counts, seed=3, what="x"), group.choices(counts, seed=3, what="x")
    )
    assert (group.choices(counts, seed=3, what="x") != group.choices(counts, seed=3, what="y")).any()


def test_directions_are_of_unit_length_and_point_anywhere(group):
    found = torch.cat([group.directions(8, seed=seed) for seed in range(10)])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))
    # A coordinate of a direction uniform in 8 dimensions: its square is Beta(1/2, 7/2).
    assert kstest(found[:, 2].square().numpy(), "beta", args=(0.5, 3.5)).pvalue > 1e-3
    assert float(found.mean(dim=0).abs().max()) < 0.05
