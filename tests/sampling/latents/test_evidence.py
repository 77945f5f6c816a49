"""Tables of a run -> examples for explaining and for testing, kept apart."""

import polars as pl
import pytest

from autointerp.sampling.latents.evidence import ContextTexts, LatentExamples, latent_id
from autointerp.sampling.latents.tables import TABLES

SHA = "ab" * 32


def frame(name, rows):
    kinds = TABLES[name]
    return pl.DataFrame([{key: row.get(key) for key in kinds} for row in rows], schema=kinds)


def example(
    sampler, split, context, focus, *, fired=(), activations=(), stratum=0, rank=0, latent=3, weight=1.0
):
    return {
        "checkpoint": "c", "latent": latent, "sampler": sampler, "split": split, "stratum": stratum,
        "rank": rank,
        "context": context, "focus": focus, "value": None, "begin": 1, "end": 9, "fired": list(fired),
        "activations": list(activations), "population": 5, "weight": weight,
    }  # fmt: skip


@pytest.fixture
def tables():
    contexts = [
        {"context": c, "document": f"d{c}", "cluster": f"k{c}", "split": split, "start": 0, "first_scored": 1,
         "unscored": [4] if c == 11 else [], "tokens": [0, 1, 2, 3, 9, 4, 5, 6, 7]}
        for c, split in ((10, "explain"), (11, "score"), (12, "validate"))
    ]  # fmt: skip
    latents = [
        {"checkpoint": "c", "latent": latent, "status": status, "reason": reason, "is_sampled": True,
         "sampling_weight": 2.5, "density": 0.01, "tokens_fired": 50}
        for latent, status, reason in ((3, "live", ""), (5, "undefined", "too rare"), (6, "dead", ""))
    ]  # fmt: skip
    promoted = [
        {"checkpoint": "c", "latent": 3, "sign": sign, "rank": rank, "token": token, "logit": logit}
        for sign, rank, token, logit in (
            ("promoted", 1, 2, 0.5),
            ("promoted", 0, 1, 0.9),
            ("demoted", 0, 3, -1.0),
        )
    ]
    examples = [
        example("top", "explain", 10, 5, fired=[5, 6], activations=[2.0, 0.5]),
        example("silent", "explain", 10, 2),
        example("quantiles", "score", 11, 8, fired=[8], activations=[7.0], stratum=2, weight=3.0),
        example("silent", "score", 11, 1),
        example("quantiles", "validate", 12, 1, fired=[1], activations=[1.0]),
    ]
    texts = [{"token": token, "text": f"t{token}"} for token in range(10)]
    return {
        "latents": frame("latents", latents),
        "examples": frame("examples", examples),
        "contexts": frame("contexts", contexts),
        "promoted": frame("promoted", promoted),
        "vocabulary": frame("vocabulary", texts),
    }


def read(tables, passage_tokens=4):
    contexts = ContextTexts(tables)
    return LatentExamples(
        tables, contexts, checkpoint="c", sha256=SHA, passage_tokens=passage_tokens, explain_fraction=0.4
    )


def test_splits_are_kept_apart(tables):
    (case,) = read(tables).cases()
    sides = {
        "explain": case.evidence.examples,
        "validate": case.validate.examples,
        "score": case.score.examples,
    }
    for split, samplers in sides.items():
        assert samplers, split
        assert {e.split for rows in samplers.values() for e in rows} == {split}


def test_the_scale_is_of_what_the_explainer_sees(tables):
    (case,) = read(tables).cases()
    assert case.evidence.maximum == 2.0, "7.0 is on the score split"


def test_an_example_is_cut_around_its_focus(tables):
    (case,) = read(tables).cases()
    (top,) = case.evidence.examples["top"]
    assert top.tokens == ("t3", "t9", "t4", "t5")
    assert top.activations == (0.0, 0.0, 2.0, 0.5)
    assert top.tokens[top.focus] == "t4"
    assert top.token_ids == (3, 9, 4, 5)


def test_what_is_no_text_is_left_out_and_ends_of_a_context_are_kept(tables):
    (case,) = read(tables).cases()
    (active,) = case.score.of("quantiles")
    assert active.tokens == ("t4", "t5", "t6", "t7")
    assert active.activations == (0.0, 0.0, 0.0, 7.0)
    (whole,) = read(tables, 99).cases().__next__().score.of("quantiles")
    assert whole.tokens == ("t1", "t2", "t3", "t4", "t5", "t6", "t7"), "token 9 at position 4 is no text"
    assert whole.weight == 3.0
    assert whole.document == "k11"
    assert whole.stratum == 2


def test_lengths_do_not_tell_active_from_silent(tables):
    (case,) = read(tables).cases()
    assert {len(e.tokens) for rows in case.score.examples.values() for e in rows} == {4}


def test_an_example_fires_where_an_activation_is_not_zero(tables):
    (case,) = read(tables).cases()
    assert [e.fires for e in case.score.of("quantiles", "silent")] == [True, False]


def test_identity_and_weight_and_what_it_promotes(tables):
    (case,) = read(tables).cases()
    assert case.evidence.id == latent_id(SHA, 3) == f"{SHA[:16]}:3"
    assert case.sampling_weight == 2.5
    assert [text for text, _ in case.evidence.promoted] == ["t1", "t2"]
    assert case.evidence.demoted == (("t3", -1.0),)


def test_latents_that_cannot_be_scored_are_told_with_their_reason(tables):
    found = read(tables)
    assert found.undefined == [(5, 2.5, "too rare")]
    assert found.live == [3]
    assert [case.evidence.latent for case in found.cases([5])] == []


def test_another_checkpoint_has_none(tables):
    found = LatentExamples(
        tables, ContextTexts(tables), checkpoint="other", sha256=SHA, passage_tokens=4, explain_fraction=0.4
    )
    assert (found.live, found.undefined, list(found.cases())) == ([], [], [])


def long_tables(tables, *, split, sampler, count=300, length=40):
    """One latent that fires in the middle of many long contexts."""
    numbers = [(number + 1) * 0x9E3779B97F4A7C15 % 2**64 for number in range(count)]
    contexts = pl.DataFrame(
        [
            (number, f"d{number}", f"k{number}", split, 0, 1, [], [0, *[1 + i % 7 for i in range(length)]])
            for number in numbers
        ],
        schema=tables["contexts"].schema,
        orient="row",
    )
    row = tables["examples"].filter(sampler="top").row(0, named=True)
    rows = [
        row | {
            "split": split, "sampler": sampler, "context": number, "focus": 20, "begin": 1,
            "end": length + 1, "fired": [20], "activations": [2.0],
        }
        for number in numbers
    ]  # fmt: skip
    examples = pl.DataFrame(rows, schema=tables["examples"].schema)
    return tables | {"contexts": contexts, "examples": examples}


def test_the_focus_of_a_uniform_example_that_tests_an_explanation_stands_anywhere(tables):
    (case,) = read(long_tables(tables, split="score", sampler="uniform"), 8).cases()
    places = [e.focus for e in case.score.of("uniform")]
    counts = [places.count(place) for place in range(8)]
    assert sum(counts) == 300
    assert min(counts) > 15, "37 each would be equal"
    assert all(e.activations[e.focus] == 2.0 and len(e.tokens) == 8 for e in case.score.of("uniform"))


@pytest.mark.parametrize(("split", "sampler"), [("explain", "uniform"), ("score", "quantiles")])
def test_the_focus_of_others_stands_in_the_middle(tables, split, sampler):
    (case,) = read(long_tables(tables, split=split, sampler=sampler), 8).cases()
    found = case.evidence.examples[sampler] if split == "explain" else case.score.of(sampler)
    assert {e.focus for e in found} == {4}


def test_an_explainer_knows_how_often_it_fires_on_the_explain_split_alone(tables):
    (case,) = read(tables).cases()
    assert case.evidence.density == pytest.approx(0.01), "nothing drawn there tells: as in the whole text"
    drawn = example("uniform", "explain", 10, 5, fired=[5], activations=[2.0]) | {"population": 10}
    elsewhere = example("uniform", "score", 11, 8, fired=[8], activations=[7.0]) | {"population": 40}
    tables["examples"] = pl.concat([tables["examples"], frame("examples", [drawn, elsewhere])])
    (case,) = read(tables).cases()
    # 5,000 tokens of text, 2,000 of them on the explain split, on 10 of which it fires
    assert case.evidence.density == pytest.approx(10 / 2000)
