"""A run directory -> the explanations of one latent, with what its nulls reach."""

import json

import pytest

from autointerp.errors import RunStoreError
from autointerp.reporting.latent_explanations import explanations_of


def score(metric, value, *, judge="detection", slice=None, status="measured"):
    numbers = {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "ci_method": "m"}
    found = numbers if status == "measured" else {"reason": "no passages", "status": status}
    return {"metric": f"explanation.{metric}", "judge": judge} | ({"slice": slice} if slice else {}) | found


def write(run, explanations, scores):
    for name, rows in (("explanations.jsonl", explanations), ("scores.jsonl", scores)):
        run.joinpath(name).write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path):
    about = {"checkpoint": "c", "explainer": "highlighted"}
    explanations = [
        about | {"latent": 4, "status": "explained", "text": "fires on rain"},
        about | {"latent": 44, "status": "explained", "text": "another"},
        about | {"latent": 4, "checkpoint": "d", "status": "explained", "text": "of another dictionary"},
        about
        | {"latent": 4, "explainer": "contrastive", "status": "refused", "cause": "cut_off", "detail": ""},
    ]
    own = [
        score("simulation_correlation", 0.5, judge="structured"),
        score("detection_auroc", 0.9),
        score("detection_auroc", 0.5, judge="constant", slice={"judge": "constant"}),
        score("detection_auroc", 0.6, slice={"negatives": "hard"}),
        score("fuzzing_auroc", 0.0, status="undefined"),
    ]
    borrowed = [score("detection_auroc", 0.4, slice={"explanation": "borrowed"})]
    scores = [
        about | {"latent": 4, "explanation": "own", "scores": own},
        about | {"latent": 4, "explanation": "borrowed", "scores": borrowed},
        about | {"latent": 44, "explanation": "own", "scores": [score("detection_auroc", 0.1)]},
    ]
    write(tmp_path, explanations, scores)
    return tmp_path


def test_the_latents_own_and_no_other(run):
    first, second = explanations_of(run, checkpoint="c", latent=4)
    assert (first.text, first.refusal) == ("fires on rain", None)
    assert (second.explainer, second.text, second.refusal) == ("contrastive", None, "cut_off")
    assert second.scores == ()


def test_headline_scores_beside_the_borrowed_explanations(run):
    detection, simulation = explanations_of(run, checkpoint="c", latent=4)[0].scores
    assert (detection.title, detection.value, detection.borrowed) == ("detection AUROC", 0.9, 0.4)
    assert (simulation.judge, simulation.value, simulation.borrowed) == ("structured", 0.5, None)


def test_nothing_explained(tmp_path):
    assert explanations_of(tmp_path, checkpoint="c", latent=4) == ()


@pytest.mark.parametrize("damage", ['{"latent": 4, "checkpoint": "c"', '{"latent": 4, "checkpoint": "c"}'])
def test_damage_is_one_line(run, damage):
    with run.joinpath("scores.jsonl").open("a") as file:
        file.write(damage)
    with pytest.raises(RunStoreError, match=r"scores\.jsonl: cannot be read"):
        explanations_of(run, checkpoint="c", latent=4)
