"""Token statistics against planted latents and against brute force over all text."""

import asyncio
import json

import numpy as np
import pytest
from explaining_doubles import PlantedText, evidence_of, example, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.explaining.token_counts import counted
from autointerp.explaining.token_patterns import best_patterns
from autointerp.explaining.token_statistics import TokenStatistics
from autointerp.explaining.token_table_data import TokenTable
from autointerp.explaining.token_table_lookup import expected_activations, firing_probabilities
from autointerp.explanation_records import Refusal

WORDS = [" a", " b", " c", "d", "e", ".", ",", "\n", " self", "(", "def", "7", "12", " The", "the"]
WEIGHTS = [8, 8, 8, 4, 4, 2, 2, 2, 1, 2, 1, 1, 1, 1, 1]


def planted(rule, **options):
    return PlantedText(WORDS, rule, weights=WEIGHTS, **options)


def explained(evidence):
    return asyncio.run(TokenStatistics().explain(evidence))


def table_of(evidence):
    return TokenTable.from_json(json.loads(json.dumps(explained(evidence).data)))


def on(token):
    return lambda tokens, place: 3.0 * (tokens[place] == token)


def after(first, token, size=3.0):
    return lambda tokens, place: size * (place > 0 and tokens[place - 1] == first and tokens[place] == token)


def correlation(text, table, *, seed=9):
    fresh = np.random.default_rng(seed).permutation(len(text.contexts))[:200]
    truth = np.concatenate([text.activations[row] for row in fresh])
    predicted = np.concatenate(expected_activations(table, [text.contexts[row] for row in fresh]))
    return np.corrcoef(truth, predicted)[0, 1]


def test_a_latent_of_one_token_is_found_and_said():
    text = planted(on(" self"))
    found = explained(text.evidence())
    assert found.text == "Fires on `self` (100 %); on nearly all of these"
    assert correlation(text, TokenTable.from_json(found.data)) > 0.99


def test_b_after_a_is_found_and_said():
    text = planted(after(" a", " b"))
    evidence = text.evidence(same_token=30)
    found = explained(evidence)
    assert found.text.startswith("Fires on `b` after `a` (100 %)"), found.text
    assert found.text.endswith("on nearly all of these")
    table = TokenTable.from_json(found.data)
    yes, no = (values[1] for values in firing_probabilities(table, [[" a", " b"], [" c", " b"]]))
    assert yes > 0.8 and no < 0.1
    assert correlation(text, table) > 0.9


def test_two_tokens_before_are_read():
    text = planted(
        lambda tokens, place: 2.0 * (place > 1 and tokens[place - 2 : place + 1] == (" a", " b", " c"))
    )
    table = table_of(text.evidence(same_token=30))
    likely, rare = firing_probabilities(table, [[" a", " b", " c"], [" c", " b", " c"]])
    assert likely[2] > 3 * rare[2]


def test_whatever_follows_a_token_is_said():
    text = planted(lambda tokens, place: 1.0 * (place > 0 and tokens[place - 1] == "("))
    assert explained(text.evidence()).text.startswith("Fires on what follows `(` (100 %)")


def test_classes_are_said_where_no_token_stands_out():
    words = [str(number) for number in range(300)] + [" x", " y", " z"] * 200
    text = PlantedText(words, lambda tokens, place: 1.0 * tokens[place].isdigit() * (place % 3 == 0))
    found = explained(text.evidence())
    assert found.text.startswith("Fires on numbers such as "), found.text


def test_line_breaks_and_odd_tokens_are_readable():
    text = PlantedText(
        ["\n", "\n    ", "\ufffd", "`", "é", " x", " y"] * 5, lambda t, p: 1.0 * (t[p][0] == "\n")
    )
    assert "line breaks" in explained(text.evidence()).text
    odd = PlantedText(
        [*[" x", " y", " z"] * 20, "\u202e«`\t"], lambda tokens, place: 1.0 * ("`" in tokens[place])
    )
    said = explained(odd.evidence()).text
    assert said.startswith('Fires on "\ufffd‹`" (100 %)') and len(said.splitlines()) == 1


@pytest.mark.parametrize("seed", range(5))
def test_probabilities_are_those_of_ordinary_text(seed):
    """Firings are over-represented among examples a hundredfold; the table's probabilities are not."""
    noise = np.random.default_rng(seed)

    def rule(tokens, place):
        chance = {" self": 0.9, ".": 0.5, " b": 0.05}.get(tokens[place], 0.0)
        return 2.0 * (noise.random() < chance)

    text = planted(rule, contexts=3000, seed=seed)
    table = table_of(text.evidence(each=200, seed=seed))
    assert table.prior.probability == pytest.approx(text.density, rel=1e-5)
    for token in (" self", ".", " b", " c"):
        truth = text.probability(lambda tokens, place, token=token: tokens[place] == token)
        found = table.tokens[token].probability if token in table.tokens else table.prior.probability
        assert found == pytest.approx(truth, abs=0.12), token


def test_weights_are_unbiased_for_all_firings_and_places():
    """Over many draws the mean of the estimates is the truth: the oracle counts all of the text."""
    text = planted(
        lambda t, p: 1.0 * (t[p] == "." or (t[p] == " b" and p > 0 and t[p - 1] == " c")), contexts=300
    )
    places = sum(len(tokens) for tokens in text.contexts)
    firings = {
        token: sum(
            value != 0 and tokens[place] == token
            for tokens, values in zip(text.contexts, text.activations, strict=True)
            for place, value in enumerate(values)
        )
        for token in (".", " b")
    }
    drawn = [counted(text.evidence(each=20, seed=seed)) for seed in range(60)]
    for token, truth in firings.items():
        estimates = [counts.tokens.fired[(token,)] for counts in drawn]
        error = np.std(estimates) / np.sqrt(len(estimates))
        assert abs(np.mean(estimates) - truth) < 4 * error
    assert all(counts.fired == pytest.approx(sum(firings.values())) for counts in drawn)
    assert all(counts.fired + counts.silent == pytest.approx(places) for counts in drawn)


def test_without_silent_examples_and_without_weights_it_still_explains():
    rows = [example(["x", " self", "."], [0, 1.0 + n, 0], sampler="top", name=str(n)) for n in range(5)]
    found = explained(evidence_of(*rows, density=0.001))
    assert "`self`" in found.text
    everywhere = explained(evidence_of(example(["x", "y"], [1, 1]), density=1.0))
    assert not isinstance(everywhere, Refusal)
    assert everywhere.text.startswith("Fires on many tokens that have little in common")


def test_no_firing_is_a_refusal():
    assert explained(evidence_of()).cause == "no_explanation"
    assert explained(evidence_of(example(["a"], [0], sampler="silent"))).cause == "no_explanation"


def test_the_sign_does_not_matter():
    up, down = planted(after(" a", " b", 3.0)), planted(after(" a", " b", -3.0))
    assert explained(up.evidence()).data == explained(down.evidence()).data


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), mix=st.integers(0, 10**6))
def test_the_order_of_examples_does_not_matter(seed, mix):
    evidence = PlantedText(
        WORDS, lambda t, p: 1.0 * (len(t[p]) > 2 and (p + len(t[0])) % 2), contexts=40, seed=seed
    ).evidence(each=8, same_token=4)
    first, other = explained(evidence), explained(shuffled(evidence, mix))
    assert first.text == other.text
    assert first.data == other.data


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.lists(st.text(max_size=4), min_size=1, max_size=12),
    fires=st.lists(st.booleans(), min_size=12, max_size=12),
    density=st.sampled_from([0.0, 1e-6, 0.3, 1.0]),
)
def test_any_tokens_give_one_short_line_or_a_refusal(tokens, fires, density):
    activations = [2.0 * flag for flag in fires[: len(tokens)]]
    evidence = evidence_of(
        example(tokens, activations, focus=0),
        example(tokens, activations, sampler="uniform", focus=0),
        example(tokens[::-1], [0.0] * len(tokens), sampler="silent"),
        density=density,
    )
    found = explained(evidence)
    if not any(activations):
        assert isinstance(found, Refusal)
        return
    assert 0 < len(found.text) <= 160 and len(found.text.splitlines()) == 1
    (values,) = expected_activations(TokenTable.from_json(json.loads(json.dumps(found.data))), [tokens])
    assert np.isfinite(values).all() and (values >= 0).all() and (values <= 2.0 + 1e-9).all()
    assert all(0 <= pattern.share <= 1 + 1e-9 for pattern in best_patterns(counted(evidence)))
