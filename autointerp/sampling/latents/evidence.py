"""Tables of a run -> what explainers may see of a latent, and what its explanation is tested on.

The two are kept apart here: `evidence` holds examples of the explain split alone, `validate` and `score`
those of their splits. Every example is cut to the same number of tokens around its focus, so that neither its
length nor the place of its middle tells whether the latent fires there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from autointerp.explanation_records import Example, LatentEvidence
from autointerp.sampling.samplers.catalogue import SAMPLER_NAMES

__all__ = ["LatentCase", "LatentExamples", "TestExamples", "latent_id"]

_EXPLAIN = tuple(SAMPLER_NAMES)
_TESTED = ("quantiles", "top", "uniform", *(name for name, entry in SAMPLER_NAMES.items() if entry.is_silent))


@dataclass(frozen=True, eq=False)
class TestExamples:
    """What one split holds of a latent, by sampler."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    examples: Mapping[str, tuple[Example, ...]]

    def of(self, *samplers: str) -> tuple[Example, ...]:
        """Those of some samplers, in this order, none twice."""
        found = {example.id: example for name in samplers for example in self.examples.get(name, ())}
        return tuple(found.values())


@dataclass(frozen=True, eq=False)
class LatentCase:
    """A sampled latent: what explains it and what tests the explanation."""

    evidence: LatentEvidence
    validate: TestExamples
    score: TestExamples
    sampling_weight: float


def latent_id(sha256: str, latent: int) -> str:
    """Of a latent, the same in every run: its checkpoint's hash, shortened, and its index."""
    return f"{sha256[:16]}:{latent}"


class LatentExamples:
    """The sampled latents of one dictionary, read one after another.

    Cost: about 10 us an example. Memory: the dictionary's rows of the tables, and one latent's examples.
    """

    def __init__(
        self, tables: Mapping[str, pl.DataFrame], *, checkpoint: str, sha256: str, passage_tokens: int
    ) -> None:
        """Take the rows of one dictionary.

        Args:
            tables: `examples`, `contexts`, `vocabulary`, `latents`, `promoted` of `sampling.latents.tables`.
            checkpoint: its name.
            sha256: of its file.
            passage_tokens: tokens of an example around its focus.
        """
        self._checkpoint, self._sha256, self._length = checkpoint, sha256, passage_tokens
        own = pl.col("checkpoint") == checkpoint
        self._latents = tables["latents"].filter(own, is_sampled=True).sort("latent")
        self._examples = tables["examples"].filter(own).partition_by("latent", as_dict=True)
        self._promoted = tables["promoted"].filter(own)
        contexts = tables["contexts"]
        self._contexts = {row["context"]: row for row in contexts.iter_rows(named=True)}
        self._texts: dict[int, str] = dict(tables["vocabulary"].iter_rows())

    @property
    def undefined(self) -> list[tuple[int, float | None, str]]:
        """Sampled latents that fire in too few documents: (latent, sampling weight, reason)."""
        rows = self._latents.filter(pl.col("status") == "undefined")
        return list(rows.select("latent", "sampling_weight", "reason").iter_rows())

    @property
    def live(self) -> list[int]:
        """The latents that `cases` gives, ascending."""
        return self._latents.filter(pl.col("status") == "live")["latent"].to_list()

    def cases(self, latents: Sequence[int] | None = None) -> Iterator[LatentCase]:
        """Every live sampled latent, or some of them, in ascending order."""
        wanted = None if latents is None else frozenset(latents)
        for row in self._latents.filter(pl.col("status") == "live").iter_rows(named=True):
            if wanted is None or row["latent"] in wanted:
                yield self._case(row)

    def _case(self, row: Mapping[str, Any]) -> LatentCase:
        latent = row["latent"]
        frame = self._examples.get((latent,), pl.DataFrame())
        found: dict[str, dict[str, list[Example]]] = {"explain": {}, "validate": {}, "score": {}}
        for record in frame.sort("sampler", "stratum", "rank").iter_rows(named=True) if frame.height else ():
            wanted = _EXPLAIN if record["split"] == "explain" else _TESTED
            if record["sampler"] in wanted:
                example = self._example(record)
                found[record["split"]].setdefault(record["sampler"], []).append(example)
        sides = {split: {name: tuple(rows) for name, rows in own.items()} for split, own in found.items()}
        strongest = [abs(a) for rows in sides["explain"].values() for e in rows for a in e.activations]
        evidence = LatentEvidence(
            checkpoint=self._checkpoint,
            latent=latent,
            id=latent_id(self._sha256, latent),
            density=row["density"],
            maximum=max(strongest, default=0.0),
            examples=sides["explain"],
            promoted=self._pushed(latent, "promoted"),
            demoted=self._pushed(latent, "demoted"),
        )
        weight = 1.0 if row["sampling_weight"] is None else row["sampling_weight"]
        return LatentCase(evidence, TestExamples(sides["validate"]), TestExamples(sides["score"]), weight)

    def _pushed(self, latent: int, sign: str) -> tuple[tuple[str, float], ...]:
        rows = self._promoted.filter(latent=latent, sign=sign).sort("rank")
        pairs = rows.select("token", "logit").iter_rows()
        return tuple((self._texts[token], logit) for token, logit in pairs)

    def _example(self, record: Mapping[str, Any]) -> Example:
        context = self._contexts[record["context"]]
        unscored = frozenset(context["unscored"])
        begin, end, focus = (record[name] for name in ("begin", "end", "focus"))
        places = [place for place in range(begin, end) if place not in unscored]
        middle = places.index(focus)
        first = int(np.clip(middle - self._length // 2, 0, max(0, len(places) - self._length)))
        places = places[first : first + self._length]
        firing = dict(zip(record["fired"], record["activations"], strict=True))
        ids = tuple(context["tokens"][place] for place in places)
        return Example(
            id=f"{record['context']:016x}:{places[0]}-{places[-1] + 1}",
            document=context["cluster"],
            split=record["split"],
            sampler=record["sampler"],
            stratum=record["stratum"],
            tokens=tuple(self._texts[token] for token in ids),
            token_ids=ids,
            activations=tuple(float(firing.get(place, 0.0)) for place in places),
            focus=middle - first,
            weight=record["weight"],
        )
