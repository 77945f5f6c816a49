"""Explanations and judges that should fail: what a score is worth is how far it is above theirs."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import polars as pl

from autointerp.explanation_records import Explanation
from autointerp.scoring.predictions import PREDICTIONS
from autointerp.scoring.views import CONSTANT_JUDGE

__all__ = ["borrowed", "constant_judge", "empty"]

_SIMULATED = ("simulation", "token_table", "graph")
_JUDGED = (*_SIMULATED, "detection", "fuzzing", "embedding", "surprisal", "steering")


def borrowed(explanations: Iterable[Explanation], seed: int) -> list[Explanation]:
    """Every latent with the explanation of another latent of the same checkpoint and explainer.

    Who lends to whom depends on the seed, the names and which texts are equal, never on order. Each one is
    lent once, and to a latent with another text wherever that is possible; a latent that is explained alone
    gets none. `details` says whose it was; `explainer` is `borrowed`.
    """
    groups: dict[tuple[str, str], dict[int, Explanation]] = defaultdict(dict)
    for explanation in explanations:
        groups[explanation.checkpoint, explanation.explainer][explanation.latent] = explanation
    found = []
    for place in sorted(groups):
        own = _mixed(list(groups[place].values()), seed)
        if len(own) < 2:
            continue
        # equal texts stand together, so a step as long as the longest such row leaves every one of them
        step = max(Counter(explanation.text for explanation in own).values())
        step = step if step < len(own) else 1
        lenders = [*own[step:], *own[:step]]
        found += [_lent(lender, to) for to, lender in zip(own, lenders, strict=True)]
    return sorted(found, key=lambda explanation: (explanation.checkpoint, explanation.latent))


def _mixed(explanations: Sequence[Explanation], seed: int) -> list[Explanation]:
    """Shuffled by hashes of the latents, with equal texts side by side.

    Not of the texts: a digit that another processor rounds otherwise would change who lends to whom.
    """
    places = {
        each.latent: _hash(f"{seed}\n{each.checkpoint}\n{each.explainer}\n{each.latent}")
        for each in explanations
    }
    first: dict[str, str] = {}
    for each in explanations:
        first[each.text] = min(first.get(each.text, "~"), places[each.latent])  # "~" is after all digits
    return sorted(explanations, key=lambda each: (first[each.text], places[each.latent]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _lent(lender: Explanation, to: Explanation) -> Explanation:
    details = {"lent_by_latent": lender.latent, "explainer": lender.explainer}
    return replace(lender, latent=to.latent, explainer="borrowed", details=details)


def empty(explanations: Iterable[Explanation]) -> list[Explanation]:
    """Every latent with an explanation that says nothing; what a judge knows without one."""
    return [
        Explanation(
            checkpoint=explanation.checkpoint,
            latent=explanation.latent,
            explainer="empty",
            text="",
            details={"explainer": explanation.explainer},
        )
        for explanation in explanations
    ]


def constant_judge(predictions: pl.DataFrame) -> pl.DataFrame:
    """The same questions about own explanations, as a judge answers who always says no, surely.

    One row for each question that any judge was asked, refused ones included: AUROC and balanced accuracy
    must come out at 0.5 exactly, whatever the mixture of passages is. Methods in which no judge is asked
    about a passage (intruder, generation) have no rows.
    """
    asked = predictions.filter(
        pl.col("method").is_in(_JUDGED)
        & (pl.col("explanation") == "own")
        & pl.col("status").is_in(["measured", "refused"])
        & (pl.col("passage") != "")
    )
    question = ["checkpoint", "latent", "explainer", "method", "passage", "fires", "sampler", "stratum"]
    once = asked.sort("judge").unique(question, keep="first", maintain_order=True)
    is_simulated = pl.col("method").is_in(_SIMULATED)
    zeros = pl.col("truth").list.eval(pl.element() * 0.0)
    return once.with_columns(
        judge=pl.lit(CONSTANT_JUDGE),
        value=pl.when(~is_simulated).then(0.0),
        is_probability=~is_simulated,
        predicted=pl.when(is_simulated).then(zeros),
        calibrated=pl.lit(None, dtype=PREDICTIONS["calibrated"]),
        status=pl.lit("measured"),
        cause=pl.lit(""),
    ).select(list(PREDICTIONS))
