"""Two finished runs -> the latents of their checkpoints matched with one another, for a release note."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from autointerp.config import load_suite
from autointerp.errors import BadInputError, RunStoreError
from autointerp.evaluation.co_firing import co_firing, read_firings
from autointerp.evaluation.inputs import Measurable, opened_checkpoints
from autointerp.metrics.latent_matching import LatentMatching, match_latents
from autointerp.progress import SILENT, Progress
from autointerp.records import EvaluationReport
from autointerp.reporting.json_file import read_report
from autointerp.sampling.latents.decoder_neighbours import decoder_directions
from autointerp.sampling.latents.tables import LEAST_MATCH_COSINE

__all__ = ["MatchedRuns", "match_runs", "matching_json", "matching_lines"]

_SHOWN = 200


@dataclass(frozen=True, eq=False)
class MatchedRuns:
    """One checkpoint of a run against one of another."""

    checkpoint: str
    reference: str
    status: str
    """`measured`, or `skipped` with its reason."""
    reason: str = ""
    matching: LatentMatching | None = None
    reference_latents: Sequence[int] = ()
    """What the matching's reference indices stand for: latents that fire in the reference's run."""
    other_latents: Sequence[int] = ()
    co_firing: Sequence[float | None] = ()
    """Of each matched pair: tokens on which both fire, over those on which either does (Jaccard), on the
    contexts that both runs have; None where neither fires there. Empty where the runs share no text."""


def match_runs(
    run: Path, reference: Path, pairs: Sequence[tuple[str, str]], *, progress: Progress = SILENT
) -> list[MatchedRuns]:
    """The latents of `run`'s checkpoints matched with those of `reference`'s, for each pair of names.

    Checkpoints are found by the paths in both runs' suite.toml and their sha256; one that is not there, or
    is another file now, is skipped with that reason.

    Raises:
        BadInputError: a directory holds no finished run, or a damaged one.
    """
    sides = [_Side(folder, progress) for folder in (run, reference)]
    if len({str(side.report.subject.get("sha256")) for side in sides}) > 1:
        return [MatchedRuns(*pair, "skipped", "the runs are of different subjects") for pair in pairs]
    found = []
    for mine, theirs in pairs:
        try:
            entries = [side.entry(name) for side, name in zip(sides, (mine, theirs), strict=True)]
        except BadInputError as error:
            found.append(MatchedRuns(mine, theirs, "skipped", str(error)))
            continue
        if entries[0].summary.site != entries[1].summary.site or (
            entries[0].checkpoint.sae.d_out != entries[1].checkpoint.sae.d_out
        ):
            found.append(MatchedRuns(mine, theirs, "skipped", "they are of different sites"))
            continue
        try:
            found.append(_matched(sides, (mine, theirs), entries))
        except pl.exceptions.PolarsError as error:
            raise RunStoreError(
                f"a table of firings cannot be read ({type(error).__name__})", where=f"{run} or {reference}"
            ) from None
    return found


def _matched(sides: Sequence["_Side"], names: tuple[str, str], entries: Sequence[Measurable]) -> MatchedRuns:
    live = [side.live(name, entry) for side, name, entry in zip(sides, names, entries, strict=True)]
    if not all(live):
        return MatchedRuns(*names, "skipped", "no latent of one of them fires")
    other, reference = (
        decoder_directions(entry.checkpoint.sae, own) for entry, own in zip(entries, live, strict=True)
    )
    matching = match_latents(reference, other.to(reference.device), least=LEAST_MATCH_COSINE)
    shares = _co_firing(sides, names, live, matching)
    return MatchedRuns(*names, "measured", "", matching, live[1], live[0], shares)


class _Side:
    """One run: its checkpoints, opened once, and its firings."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder = folder
        self.report: EvaluationReport = read_report(folder / "report.json")
        self._progress = progress
        self._opened: dict[str, Measurable] | BadInputError | None = None

    def entry(self, name: str) -> Measurable:
        """A checkpoint of the run, the very file that was evaluated.

        Raises:
            BadInputError: it is not there, or is another one now.
        """
        if self._opened is None:
            try:
                opened = opened_checkpoints(load_suite(self.folder / "suite.toml"), progress=self._progress)
                self._opened = {each.summary.name: each for each in opened}
            except BadInputError as error:
                self._opened = error
        if isinstance(self._opened, BadInputError):
            raise self._opened
        said = {each.name: each for each in self.report.checkpoints}
        if name not in self._opened or name not in said:
            raise BadInputError("is no checkpoint of the run's suite", where=name)
        if self._opened[name].summary.sha256 != said[name].sha256:
            raise BadInputError("its file is another one than was evaluated (sha256)", where=name)
        return self._opened[name]

    def live(self, name: str, entry: Measurable) -> list[int]:
        """Latents that fire in the run's text; all, where that is not known."""
        file = self.folder / "latents" / "firing.parquet"
        if not file.is_file():
            return list(range(entry.summary.latent_count))
        firing = pl.read_parquet(file).filter(pl.col("checkpoint") == name)
        return sorted(firing.filter(pl.col("tokens_fired") > 0)["latent"].to_list())

    def contexts(self) -> pl.Series:
        """Ids of all contexts of the run."""
        files = sorted((self.folder / "chunks").glob("contexts~*.parquet"))
        found = [pl.read_parquet(file, columns=["context"])["context"] for file in files]
        return pl.concat(found).unique() if found else pl.Series("context", [], dtype=pl.UInt64)


def _co_firing(
    sides: Sequence[_Side],
    names: tuple[str, str],
    live: Sequence[Sequence[int]],
    matching: LatentMatching,
) -> list[float | None]:
    chosen = [[live[0][j] for j in matching.pairs[:, 1]], [live[1][i] for i in matching.pairs[:, 0]]]
    common = sides[0].contexts().implode()
    shared = sides[1].contexts().is_in(common).sum()
    fired = [
        read_firings(side.folder, name, own) for side, name, own in zip(sides, names, chosen, strict=True)
    ]
    if not shared or any(each is None for each in fired):
        return []
    both_contexts = pl.concat([side.contexts() for side in sides])
    both_contexts = both_contexts.filter(both_contexts.is_duplicated()).unique().implode()
    kept = [frame.filter(pl.col("context").is_in(both_contexts)) for frame in fired if frame is not None]
    return co_firing(kept[0], kept[1], list(zip(*chosen, strict=True)))


def matching_json(found: Sequence[MatchedRuns]) -> list[dict[str, Any]]:
    """The same as plain values; of lists of latents the first 200."""
    return [_one_json(each) for each in found]


def _one_json(each: MatchedRuns) -> dict[str, Any]:
    row: dict[str, Any] = {"checkpoint": each.checkpoint, "reference": each.reference, "status": each.status}
    matching = each.matching
    if matching is None:
        return row | {"reason": each.reason}
    theirs, mine = each.reference_latents, each.other_latents
    fired = [value for value in each.co_firing if value is not None]
    return row | {
        "least_cosine": LEAST_MATCH_COSINE,
        "reference_live_count": matching.reference_count,
        "live_count": matching.other_count,
        "matched_count": len(matching.pairs),
        "matched_fraction": matching.matched_fraction,
        **({"median_cosine": float(np.median(matching.cosine))} if len(matching.cosine) else {}),
        **({"median_co_firing": float(np.median(fired))} if fired else {}),
        "lost_count": len(matching.lost),
        "gained_count": len(matching.gained),
        "split_count": len(matching.split),
        "merged_count": len(matching.merged),
        "lost": [theirs[latent] for latent in matching.lost[:_SHOWN]],
        "gained": [mine[latent] for latent in matching.gained[:_SHOWN]],
        "split": {
            str(theirs[key]): [mine[latent] for latent in latents]
            for key, latents in list(matching.split.items())[:_SHOWN]
        },
        "merged": {
            str(mine[key]): [theirs[latent] for latent in latents]
            for key, latents in list(matching.merged.items())[:_SHOWN]
        },
    }


def matching_lines(matched: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `matching_json` gave, a line for each pair of checkpoints."""
    lines = []
    for each in matched:
        names = f"latents of {each['checkpoint']} against {each['reference']}"
        if each["status"] != "measured":
            lines.append(f"{names}: skipped, {each['reason']}")
            continue
        share = (
            f"{each['matched_count']:,} of {each['reference_live_count']:,} ({each['matched_fraction']:.0%})"
        )
        rest = ", ".join(
            f"{each[f'{kind}_count']:,} {kind}" for kind in ("lost", "gained", "split", "merged")
        )
        lines.append(f"{names}: {share} matched, {rest}")
    return lines
