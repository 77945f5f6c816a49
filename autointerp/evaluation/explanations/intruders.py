"""Intruder questions: four passages marked where the latent fires, one marked where it is silent."""

from collections.abc import Sequence

from autointerp.evaluation.explanations.judging import Tested
from autointerp.evaluation.explanations.questions import Question, wrong_marks
from autointerp.explanation_records import Refusal
from autointerp.scoring.predictions import ScoredPassage
from autointerp.simulating.intruder import IntruderJudge, intruder_trial

__all__ = ["intruders"]

_FIRING = 4


async def intruders(
    tested: Tested,
    judge: IntruderJudge,
    fuzzing: Sequence[Question],
    detection: Sequence[Question],
    *,
    trials: int,
    seed: int,
) -> list[ScoredPassage]:
    """One row a question; its value is 1 where the judge found the intruder.

    Args:
        tested: the latent; its explanation is not shown.
        judge: who is asked.
        fuzzing: of these the rightly marked passages are the firing ones, each in at most one question.
        detection: of these the random silent ones are the intruders.
        trials: questions, at most.
        seed: of the marks.
    """
    firing = [question for question in fuzzing if question.fires]
    silent = [question for question in detection if question.example.sampler == "silent"]
    count = min(trials, len(firing) // _FIRING, len(silent))
    if count == 0:
        return [tested.row("intruder", judge.name, None, status="undefined", cause="too few passages")]
    made = []
    for place in range(count):
        shown = [question.passage for question in firing[place::count][:_FIRING]]
        example = silent[place].example
        marks = [passage.marked for passage in shown]
        odd = example.passage(marked=wrong_marks(example, marks, seed=seed))
        made.append(intruder_trial(f"{tested.case.evidence.id}/{place}", shown, odd))
    answers = await judge.find([trial for trial, _ in made])
    rows = []
    for (trial, truth), question, answer in zip(made, silent, answers, strict=False):
        about = {"passage": trial.id, "document": question.example.document, "sampler": "intruder"}
        if isinstance(answer, Refusal):
            rows.append(
                tested.row("intruder", judge.name, None, **about, status="refused", cause=answer.cause)
            )
        else:
            chosen = max(range(len(answer.probabilities)), key=answer.probabilities.__getitem__)
            rows.append(tested.row("intruder", judge.name, None, **about, value=float(chosen == truth)))
    return rows
