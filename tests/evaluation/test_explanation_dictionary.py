"""One dictionary's latents: what is asked of whom, which nulls cost something, and what a failure stops."""

import asyncio
import json
import re

import polars as pl
import pytest
from explaining_a_dictionary import OracleModel, asked_texts, models, planted_cases, suite_of

from autointerp.errors import BudgetReachedError
from autointerp.evaluation.explanations.dictionary import ExplainedDictionary
from autointerp.evaluation.explanations.plan import plan_of
from autointerp.explanation_records import Refusal
from autointerp.scoring.score import Score
from autointerp.scoring.views import CONSTANT_JUDGE

LATENTS = range(5)


@pytest.fixture(scope="module")
def cases():
    return planted_cases(LATENTS)


def dictionary(cases, players, explanations=None, *, nulls=LATENTS, advance=lambda _: None):
    given = {"judged_examples": 4, "explain_examples": 8, "methods": ["token_table", "detection"]}
    suite = suite_of(given | (explanations or {}), {"model": "m"} if players else None)
    return ExplainedDictionary(
        suite, plan_of(suite), cases, players, running=None, null_latents=frozenset(nulls), advance=advance
    )


def run(*arguments, **options):
    return asyncio.run(dictionary(*arguments, **options).run("sae"))


@pytest.fixture(scope="module")
def part(cases):
    return run(cases, models(), nulls=[1, 2])


def test_every_latent_has_a_line_for_each_explainer(part):
    assert [(row["latent"], row["explainer"]) for row in part.rows] == [
        (latent, explainer) for latent in LATENTS for explainer in ("highlighted", "token_statistics")
    ]
    assert {row["status"] for row in part.rows} == {"explained"}
    assert part.rows[0]["text"] == 'The word "harbour"'


def test_an_llm_judges_nulls_of_the_null_latents_alone(part):
    by_llm = part.predictions.filter(explainer="highlighted")
    for kind in ("borrowed", "empty"):
        assert set(by_llm.filter(explanation=kind)["latent"]) == {1, 2}
    assert set(by_llm.filter(explanation="own")["latent"]) == set(LATENTS)


def test_nulls_that_cost_nothing_are_tested_for_all(part):
    free = part.predictions.filter(explainer="token_statistics")
    for kind in ("own", "borrowed", "empty"):
        assert set(free.filter(explanation=kind)["latent"]) == set(LATENTS)
    assert set(free["method"]) == {"token_table", "detection", "fuzzing"}


def test_the_constant_judge_stands_beside_every_question(part):
    constant = part.predictions.filter(judge=CONSTANT_JUDGE)
    assert set(constant["latent"]) == set(LATENTS)
    scores = [
        score for score in part.scores if score.judge == CONSTANT_JUDGE and score.metric.endswith("auroc")
    ]
    assert scores
    assert {score.outcome.value for score in scores if isinstance(score.outcome, Score)} == {0.5}


def test_llm_judges_make_the_headline(part):
    headline = [s for s in part.scores if s.metric == "explanation.detection_auroc" and not s.slice]
    assert {(score.explainer, score.judge) for score in headline} == {("highlighted", "detection")}
    assert {score.outcome.value for score in headline} == {1.0}


def test_an_explanation_is_lent_to_another_latent_with_another_text(cases):
    players = models()
    run(cases, players)
    own = {f'Explanation: The word "{word}"' for word in ("harbour", "quickly", "seven", "garden")}
    asked = [request.messages[-1].text for request in players["judge"].requests]
    by_text = {text: [each for each in asked if each.startswith(f"{text}\n")] for text in own}
    assert all(len(questions) == 2 * 2 for questions in by_text.values()), "its own and one other's, two each"
    assert sum(each.startswith("Explanation: (no explanation)\n") for each in asked) == 2 * len(LATENTS)


def test_without_a_model_nobody_is_asked_and_all_is_scored(cases):
    part = run(cases, {}, {"methods": None})
    assert {row["explainer"] for row in part.rows} == {"token_statistics"}
    found = {s.metric for s in part.scores if isinstance(s.outcome, Score) and not s.slice}
    assert {"explanation.detection_auroc", "explanation.simulation_correlation"} <= found


def test_the_order_of_the_latents_is_of_no_account(cases, part):
    other = run(dict(reversed(cases.items())), models(), nulls=[2, 1])
    columns = ["latent", "explainer", "explanation", "method", "judge", "passage", "sampler"]
    assert part.predictions.sort(columns).equals(other.predictions.sort(columns))


def passages(split, cases):
    """Texts of a split, as they would stand in a prompt."""
    sides = {
        case.evidence.latent: case.evidence.examples if split == "explain" else getattr(case, split).examples
        for case in cases.values()
    }
    return {"".join(each.tokens) for side in sides.values() for rows in side.values() for each in rows}


def bare(text):
    return re.sub("[«»]", "", text)


@pytest.mark.parametrize("best_of", [1, 3])
def test_candidates_are_chosen_on_the_validate_split_and_made_from_the_explain_split(cases, best_of):
    said = iter(range(10_000))
    players = models(explainer=lambda request: f'Explanation: The word "seven" or "number{next(said)}"')
    asyncio.run(
        all_explained(dictionary(cases, players, {"best_of": best_of, "explainers": ["highlighted"]}))
    )
    explaining, judging = (bare(asked_texts(players[role])) for role in ("explainer", "judge"))
    assert any(text in explaining for text in passages("explain", cases))
    for split in ("validate", "score"):
        assert not [text for text in passages(split, cases) if text in explaining], split
    for split in ("explain", "score"):
        assert not [text for text in passages(split, cases) if text in judging], split
    assert bool([text for text in passages("validate", cases) if text in judging]) == (best_of > 1)


async def all_explained(explained):
    """Only the first half of the work: explaining, with whatever chooses among candidates."""

    async def nothing(*_):
        return []

    explained._tested = nothing
    return await explained.ask()


def test_the_best_candidate_is_kept(cases):
    words = iter(["nothing", "seven", "bread"] * 5)
    players = models(explainer=lambda request: f'Explanation: The word "{next(words)}"')
    part = run({3: cases[3]}, players, {"best_of": 3, "explainers": ["highlighted"]})
    (row,) = part.rows
    assert row["text"] == 'The word "seven"'
    nothing, right, wrong = (each["score"] for each in row["details"]["candidates"])
    assert (nothing, right) == (0.5, 1.0)
    assert wrong < 0.75, "bread may stand in one of the passages"


def test_testing_never_shows_what_explained_or_chose(cases):
    players = models()
    run(cases, players, {"best_of": 2, "explainers": ["highlighted"]})
    scored = [text for text in passages("score", cases) if text in bare(asked_texts(players["judge"]))]
    assert scored
    assert not [text for text in scored if text in bare(asked_texts(players["explainer"]))]


def test_where_nothing_explains_every_question_is_refused(cases):
    players = models(explainer=lambda request: Refusal("content_filter", "declined"))
    part = run(cases, players, {"explainers": ["highlighted"]})
    assert {(row["status"], row["cause"]) for row in part.rows} == {("refused", "content_filter")}
    own = part.predictions.filter(pl.col("judge") != CONSTANT_JUDGE)
    assert set(own.select("status", "cause").unique().iter_rows()) == {("refused", "no_explanation")}
    assert set(own["explanation"]) == {"own"}, "there is nothing to lend"
    assert players["judge"].requests == []
    refusals = [s for s in part.scores if s.metric == "explanation.refusal_fraction" and not s.slice]
    assert {score.outcome.value for score in refusals} == {1.0}


def test_a_failure_comes_out_and_nothing_is_asked_after_it(cases):
    players = models()
    judge = players["judge"] = OracleModel("judge", answer=lambda request: fail(judge))
    with pytest.raises(BudgetReachedError, match="used up"):
        run(cases, players)
    assert judge.answered == 3
    begun = len(judge.requests)
    assert begun < 2 * 3 * 3 * len(LATENTS)


def fail(judge):
    if judge.answered == 3:
        raise BudgetReachedError("used up")


def test_tasks_of_a_failure_are_stopped_not_left_behind(cases):
    players = models(explainer=lambda request: fail(players["explainer"]))

    async def work():
        with pytest.raises(BudgetReachedError):
            await dictionary(cases, players).run("sae")
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(work()) == []


def test_progress_hears_of_each_latent_twice(cases):
    heard = []
    run(cases, models(), advance=heard.append)
    assert sum(heard) == 2 * len(LATENTS)


def test_no_latents_give_no_rows():
    part = run({}, models())
    assert (part.rows, part.scores, part.predictions.height) == ([], [], 0)


def test_lines_are_json(part):
    assert json.loads(json.dumps(part.rows, allow_nan=False)) is not None
