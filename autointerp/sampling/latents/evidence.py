"""Tables of a run -> what explainers may see of a latent, and what its explanation is tested on.

The two are kept apart here: `evidence` holds examples of the explain split alone, `validate` and `score`
those of their splits. Every example is cut to the same number of tokens around its focus, so that neither its
length nor the place of its middle tells whether the latent fires there. Those of sampler `uniform` that test
an explanation have their focus anywhere: they are marked wrongly in fuzzing, and if a token on which the
latent fires always stood in their middle, a mark there would give away that marks are right.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import polars as pl

from autointerp.explanation_records import Example, LatentEvidence
from autointerp.sampling.samplers.sampler import SPLITS

__all__ = ["ContextTexts", "LatentCase", "LatentExamples", "TestExamples", "latent_id"]

_READ = (
    *("split", "sampler", "stratum", "weight"),
    *("context", "begin", "end", "focus", "fired", "activations"),
)

_GOLDEN = 0x9E3779B97F4A7C15
"""Odd, with bits that look like those of a random number: what is multiplied by it is scattered."""


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


@dataclass(frozen=True, eq=False)
class _Context:
    """What is read of a context, once for all examples in it."""

    cluster: str
    places: tuple[int, ...]
    """Positions that are text, ascending."""
    ids: tuple[int, ...]
    """Token at each of these."""
    texts: tuple[str, ...]


class ContextTexts:
    """The contexts of a run as text; shared by all dictionaries.

    Memory: every context that is asked for, about 100 bytes a token.
    """

    def __init__(self, tables: Mapping[str, pl.DataFrame]) -> None:
        """Take `contexts` and `vocabulary` of `sampling.latents.tables`."""
        frame = tables["contexts"]
        names = ("context", "cluster", "first_scored", "unscored", "tokens")
        columns = [frame[name].to_list() for name in names]
        self._rows = {context: row for context, *row in zip(*columns, strict=True)}
        self._found: dict[int, _Context] = {}
        self.texts: dict[int, str] = dict(tables["vocabulary"].iter_rows())

    def __getitem__(self, context: int) -> _Context:
        """One context."""
        found = self._found.get(context)
        if found is None:
            cluster, first, unscored, tokens = self._rows[context]
            left_out = frozenset(unscored)
            places = tuple(place for place in range(first, len(tokens)) if place not in left_out)
            ids = tuple(tokens[place] for place in places)
            found = _Context(cluster, places, ids, tuple(self.texts[token] for token in ids))
            self._found[context] = found
        return found


class LatentExamples:
    """The sampled latents of one dictionary, read one after another.

    Cost: about 10 us an example. Memory: the dictionary's rows of the tables, and the cases that are kept.
    """

    def __init__(
        self,
        tables: Mapping[str, pl.DataFrame],
        contexts: ContextTexts,
        *,
        checkpoint: str,
        sha256: str,
        passage_tokens: int,
        explain_fraction: float,
    ) -> None:
        """Take the rows of one dictionary.

        Args:
            tables: `examples`, `latents`, `promoted` of `sampling.latents.tables`.
            contexts: the text.
            checkpoint: its name.
            sha256: of its file.
            passage_tokens: tokens of an example around its focus.
            explain_fraction: share of the text that is on the explain split.
        """
        self._explain_fraction = explain_fraction
        self._checkpoint, self._sha256, self._length = checkpoint, sha256, passage_tokens
        own = pl.col("checkpoint") == checkpoint
        self._latents = tables["latents"].filter(own, is_sampled=True).sort("latent")
        drawn = tables["examples"].filter(own, sampler="uniform", split="explain")
        self._explain_firings = dict(drawn.select("latent", "population").unique("latent").iter_rows())
        examples = tables["examples"].filter(own).sort("stratum", "rank", maintain_order=True)
        self._examples = examples.select("latent", *_READ).partition_by("latent", as_dict=True)
        pushed = tables["promoted"].filter(own).sort("rank").select("latent", "sign", "token", "logit")
        self._pushed: dict[tuple[int, str], list[tuple[int, float]]] = {}
        for latent, sign, *pair in pushed.iter_rows():
            self._pushed.setdefault((latent, sign), []).append(tuple(pair))
        self._contexts = contexts

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
        rows = self._latents.filter(pl.col("status") == "live")
        columns = ("latent", "density", "tokens_fired", "sampling_weight")
        for latent, density, fired, weight in rows.select(columns).iter_rows():
            if wanted is None or latent in wanted:
                # of the explain split alone: the others' firings are not for explainers to know
                firings = self._explain_firings.get(latent, fired * self._explain_fraction)
                share = firings / fired / self._explain_fraction
                yield self._case(latent, min(1.0, density * share), 1.0 if weight is None else weight)

    def _case(self, latent: int, density: float, weight: float) -> LatentCase:
        sides = self._sides(latent)
        explain = [e.activations for rows in sides["explain"].values() for e in rows]
        evidence = LatentEvidence(
            checkpoint=self._checkpoint,
            latent=latent,
            id=latent_id(self._sha256, latent),
            density=density,
            maximum=max(map(abs, chain.from_iterable(explain)), default=0.0),
            examples=sides["explain"],
            promoted=self._texts_pushed(latent, "promoted"),
            demoted=self._texts_pushed(latent, "demoted"),
        )
        return LatentCase(evidence, TestExamples(sides["validate"]), TestExamples(sides["score"]), weight)

    def _sides(self, latent: int) -> dict[str, dict[str, tuple[Example, ...]]]:
        found: dict[str, dict[str, list[Example]]] = {split: {} for split in SPLITS}
        frame = self._examples.get((latent,))
        if frame is not None:
            for row in zip(*(frame[name].to_list() for name in _READ), strict=True):
                example = self._example(*row)
                found[example.split].setdefault(example.sampler, []).append(example)
        return {split: {name: tuple(rows) for name, rows in own.items()} for split, own in found.items()}

    def _texts_pushed(self, latent: int, sign: str) -> tuple[tuple[str, float], ...]:
        pairs = self._pushed.get((latent, sign), ())
        return tuple((self._contexts.texts[token], logit) for token, logit in pairs)

    def _example(self, split: Any, sampler: str, stratum: int, weight: Any, *window: Any) -> Example:
        number, begin, end, focus, fired, activations = window
        context = self._contexts[number]
        low, high = bisect_left(context.places, begin), bisect_left(context.places, end)
        middle = bisect_left(context.places, focus)
        before = self._length // 2
        if sampler == "uniform" and split != "explain":
            before = _anywhere(number, focus, self._length)
        first = max(low, min(middle - before, high - self._length))
        last = min(high, first + self._length)
        places = context.places[first:last]
        values = [0.0] * len(places)
        for place, activation in zip(fired, activations, strict=True):
            if places[0] <= place <= places[-1]:
                values[bisect_left(places, place)] = activation
        return Example(
            id=f"{number:016x}:{places[0]}-{places[-1] + 1}",
            document=context.cluster,
            split=split,
            sampler=sampler,
            stratum=stratum,
            tokens=context.texts[first:last],
            token_ids=context.ids[first:last],
            activations=tuple(values),
            focus=middle - first,
            weight=1.0 if weight is None else weight,  # samplers that draw nothing have none
        )


def _anywhere(context: int, focus: int, length: int) -> int:
    """Tokens before the focus, 0 to `length` - 1, all as likely; the same in every run."""
    mixed = (context ^ (focus + 1) * _GOLDEN) * _GOLDEN % 2**64
    return mixed * length >> 64
