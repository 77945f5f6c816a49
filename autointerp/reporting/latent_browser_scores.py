"""Lines of explanations.jsonl with scores -> what a report's page says of each latent's explanations."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autointerp.records import EvaluationReport
from autointerp.reporting import numbers
from autointerp.reporting.latent_browser_packing import shown_text

__all__ = ["BrowserScores", "ShownMetric", "disagreement"]

_FIRST = ("explanation.detection_auroc", "explanation.fuzzing_auroc", "explanation.simulation_correlation")
"""Metrics that the list shows, where the run has them; what others it has can be sorted by."""
_LONGEST_EXPLANATION = 4000
_SOURCE = ("explainer", "explanation", "method", "judge")
_NO_JUDGE = "constant"
_KINDS = ("own", "borrowed", "empty")

Score = Mapping[str, Any]
ShownMetric = dict[str, Any]


class BrowserScores:
    """The explanations and scores of a run, in the page's form."""

    def __init__(self, report: EvaluationReport, explained: Iterable[Mapping[str, Any]]) -> None:
        """Sort them by latent.

        Args:
            report: names and bounds of metrics, and the order of explainers.
            explained: as from `explanations.with_scores`.
        """
        self._titles = {metric.name: metric.title for metric in report.definitions}
        self._definitions = {metric.name: metric for metric in report.definitions}
        order = list((report.explanations or {}).get("explainers", ()))
        self._order = {name: index for index, name in enumerate(order)}
        self._lines: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for line in explained:
            self._lines.setdefault((line["checkpoint"], line["latent"]), []).append(line)
        for lines in self._lines.values():
            lines.sort(key=lambda line: self.explainer_rank(line["explainer"]))
        self.kinds: list[list[Any]] = []
        """What entries of `explanations` name by number: metric, words of its slice, judge."""
        self._numbers: dict[tuple[str, str, str], int] = {}
        self.metrics: list[ShownMetric] = self._headline_metrics()
        """What `headline` gives a value for, in order: `key title chance`."""

    def _headline_metrics(self) -> list[ShownMetric]:
        found = {
            score["metric"]
            for lines in self._lines.values()
            for score in lines[0]["scores"]
            if score["explanation"] == "own" and "value" in score and _is_headline(score)
        }
        named = [name for name in _FIRST if name in found]
        named += [
            name
            for name in self._titles
            if name in found - set(_FIRST) and not name.endswith("_over_borrowed")
        ]
        return [
            {"key": name, "title": self._title(name), "chance": 0.5 if name.endswith("_auroc") else 0.0}
            | {key: value for key, value in self._bounds(name).items() if value is not None}
            for name in named
        ]

    def _bounds(self, name: str) -> dict[str, Any]:
        metric = self._definitions.get(name)
        if metric is None:
            return {}
        return {"low": metric.lowest, "high": metric.highest, "better": metric.better}

    def _title(self, name: str) -> str:
        return self._titles.get(name) or name.removeprefix("explanation.").replace("_", " ")

    def explainer_rank(self, explainer: str) -> int:
        """Place among the run's explainers; those that it does not name come last."""
        return self._order.get(explainer, len(self._order))

    def first(self, checkpoint: str, latent: int) -> str | None:
        """The first explanation that the latent has; None where it has none."""
        for line in self._lines.get((checkpoint, latent), ()):
            if line["status"] == "explained":
                return str(line["text"])
        return None

    def headline(self, checkpoint: str, latent: int) -> list[list[Any] | None]:
        """`[value, low, high, borrowed or null]` of each of `metrics`, of the latent's first explanation."""
        lines = self._lines.get((checkpoint, latent), ())
        line = next((line for line in lines if line["status"] == "explained"), None)
        if line is None:
            return []
        own: dict[str, Score] = {}
        borrowed: dict[tuple[str, str], Score] = {}
        for score in sorted(line["scores"], key=lambda score: len(score.get("slice", {}))):
            if "value" in score and _is_headline(score):
                if score["explanation"] == "own":
                    own.setdefault(score["metric"], score)
                elif score["explanation"] == "borrowed":
                    borrowed.setdefault((score["metric"], score["judge"]), score)
        return [_headline_entry(own.get(metric["key"]), borrowed) for metric in self.metrics]

    def explanations(self, checkpoint: str, latent: int, *, with_text: bool = True) -> list[dict[str, Any]]:
        """What each explainer said, and all its scores beside the nulls'.

        Returns:
            Of each explainer `by`, `text` or `why` there is none, and `scores`: `[kind, n, own, borrowed,
            empty]` with kind a place in `kinds`, the others `[value, low, high]` or null; where there is no
            own value, the reason stands in its place.
        """
        found = []
        for line in self._lines.get((checkpoint, latent), ()):
            entry: dict[str, Any] = {"by": shown_text(line["explainer"])}
            if line["status"] != "explained":
                entry["why"] = shown_text(line.get("cause") or line.get("reason") or line["status"])
            elif with_text:
                entry["text"] = shown_text(line["text"], _LONGEST_EXPLANATION)
            entry["scores"] = self._scores(line["scores"])
            found.append(entry)
        return found

    def _scores(self, scores: Sequence[Score]) -> list[list[Any]]:
        by_kind: dict[str, dict[tuple[str, str, str], Score]] = {kind: {} for kind in _KINDS}
        for score in scores:
            if score["judge"] != _NO_JUDGE:
                key = (score["metric"], _narrowing(score), score["judge"])
                by_kind[score["explanation"]].setdefault(key, score)
        entries = []
        for key, score in by_kind["own"].items():
            if "value" not in score and key[1]:
                continue  # a narrower slice without a number tells nothing that the headline does not
            nulls = [_interval(by_kind[kind].get(key)) for kind in _KINDS[1:]]
            own = _interval(score) or shown_text(score["reason"])
            entries.append([self._kind(key), score.get("n", 0), own, *nulls])
        return sorted(entries, key=lambda entry: self._reading_order(self.kinds[entry[0]]))

    def _reading_order(self, kind: Sequence[str]) -> tuple[int, str, str]:
        titles = [metric["title"] for metric in self.metrics]
        return titles.index(kind[0]) if kind[0] in titles else len(titles), kind[1], kind[2]

    def _kind(self, key: tuple[str, str, str]) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.kinds)
            metric, words, judge = key
            self.kinds.append([self._title(metric), words, shown_text(judge)])
        return self._numbers[key]


def disagreement(entries: Sequence[Sequence[Any] | None], metrics: Sequence[ShownMetric]) -> float | None:
    """How far the scorers are apart: the largest of their scores less the smallest, 0 chance and 1 perfect.

    AUROC enters as 2 AUROC - 1, correlation as it is. 0 where all agree; None of fewer than two.
    """
    found = [
        entry[0] if metric["key"] == _FIRST[2] else 2 * entry[0] - 1
        for entry, metric in zip(entries, metrics, strict=False)
        if entry is not None and metric["key"] in _FIRST
    ]
    return max(found) - min(found) if len(found) > 1 else None


def _is_headline(score: Score) -> bool:
    """Whether it is of all passages, by whoever judged them."""
    return score["judge"] not in ("", _NO_JUDGE) and not _narrowing(score)


def _narrowing(score: Score) -> str:
    """In words, which passages alone it is of; empty where it is of all."""
    settings = score.get("slice", {})
    rest = {key: value for key, value in settings.items() if key not in _SOURCE}
    if not score["judge"] and "method" in settings:  # of refusals, which are nobody's judgement
        rest["method"] = settings["method"]
    return shown_text(numbers.slice_words(rest)) if rest else ""


def _headline_entry(own: Score | None, borrowed: Mapping[tuple[str, str], Score]) -> list[Any] | None:
    interval = _interval(own)
    if own is None or interval is None:
        return None
    other = _interval(borrowed.get((own["metric"], own["judge"])))
    return [*interval, other[0] if other else None]


def _interval(score: Score | None) -> list[float] | None:
    if score is None or "value" not in score:
        return None
    return [round(score[name], 3) for name in ("value", "ci_low", "ci_high")]
