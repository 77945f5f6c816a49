"""Tables of latents -> what a report's page says of each beside its examples: firing, tokens, company."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from autointerp.errors import BadInputError
from autointerp.explaining.graph_trie import ANY, START, Graph
from autointerp.reporting.latent_browser_packing import TokenCode, shown_text, three_digits
from autointerp.reporting.latent_tables import LatentTables
from autointerp.sampling.latents.distribution import BASE

__all__ = ["DictionaryFacts", "graph_lines", "spark_text"]

_BARS = 24
_SHOWN_TOKENS = 8
_SHOWN_OTHERS = 8
_GRAPH_LINES = 60
_QUANTILES = ("q05", "q25", "q50", "q75", "q95")
_LARGEST_BIN = 35_000
"""The bins' ratio to this power is about the largest float64."""

Rows = Mapping[int, Sequence[Mapping[str, Any]]]


class DictionaryFacts:
    """The facts of some latents of one dictionary."""

    def __init__(self, tables: LatentTables, checkpoint: str, rows: pl.DataFrame) -> None:
        """Read them.

        Args:
            tables: of the run.
            checkpoint: the dictionary.
            rows: of `latents.parquet`, those that are shown.

        Raises:
            LatentTableError: a table is damaged.
        """
        latents = rows["latent"]
        own = (pl.col("checkpoint") == checkpoint) & pl.col("latent").is_in(latents.implode())
        bins = tables.rows(
            "histograms", own & (pl.col("unit") == "firing"), columns=["latent", "bin", "count"]
        )
        if bins.height and int(bins["bin"].cast(pl.Int64).abs().max() or 0) > _LARGEST_BIN:  # type: ignore[arg-type]
            raise tables.damaged("histograms", "a bin lies beyond all numbers")
        self._bins = _by_latent(bins)
        self._tokens = _by_latent(
            tables.rows("tokens", own & (pl.col("rank") < _SHOWN_TOKENS)).sort("latent", "rank")
        )
        self._promoted = _by_latent(
            tables.rows("promoted", own & (pl.col("rank") < _SHOWN_TOKENS))
            .drop_nulls("logit")
            .sort("latent", "rank")
        )
        self._neighbours = _by_latent(
            tables.rows("neighbours", own & (pl.col("rank") < _SHOWN_OTHERS)).sort("latent", "rank")
        )
        self._matches = _by_latent(_optional(tables, "matches", _MATCHES, own))
        self._graphs = _by_latent(_optional(tables, "graphs", _GRAPHS, own))
        self._rows = {row["latent"]: row for row in rows.iter_rows(named=True)}

    def row(self, latent: int) -> Mapping[str, Any]:
        """Its row of `latents.parquet`."""
        return self._rows[latent]

    def tokens(self, latents: Iterable[int]) -> Iterator[int]:
        """The tokens that the latents' facts name."""
        for latent in latents:
            for row in (*self._tokens.get(latent, ()), *self._promoted.get(latent, ())):
                yield row["token"]

    def peak_tokens(self, latent: int, count: int) -> list[int]:
        """The most common tokens at its peaks."""
        return [row["token"] for row in self._tokens.get(latent, ()) if row["place"] == "at"][:count]

    def promoted_tokens(self, latent: int, count: int) -> list[int]:
        """The tokens that its direction raises most."""
        return [row["token"] for row in self._promoted.get(latent, ()) if row["sign"] == "promoted"][:count]

    def listed_tokens(self, latent: int, count: int) -> list[int]:
        """Both."""
        return self.peak_tokens(latent, count) + self.promoted_tokens(latent, count)

    def histogram(self, latent: int) -> dict[str, Any] | None:
        """`low`, `high` and `counts` of its firings by |activation|, bars equally wide in the logarithm."""
        bins = self._bins.get(latent)
        if not bins:
            return None
        first, last = min(row["bin"] for row in bins), max(row["bin"] for row in bins)
        width = math.ceil((last - first + 1) / _BARS)
        counts = [0] * ((last - first) // width + 1)
        for row in bins:
            counts[(row["bin"] - first) // width] += row["count"]
        low, high = BASE ** (first - 1), BASE ** (first - 1 + width * len(counts))
        return {"low": three_digits(low), "high": three_digits(high), "counts": counts}

    def firing(self, latent: int) -> dict[str, Any]:
        """How often and how strongly it fires; what is not known has no key."""
        row = self._rows[latent]
        found = {
            "tokens": row["tokens_fired"],
            "documents": row["documents_fired"],
            "documentShare": row["document_density"],
            "weight": row["sampling_weight"],
            "maximum": row["maximum"],
            "mean": row["mean"],
            "quantiles": None if row["q50"] is None else [row[name] or 0.0 for name in _QUANTILES],
            "reason": shown_text(row["reason"]) if row["reason"] else None,
        }
        return {key: _short(value) for key, value in found.items() if value is not None}

    def company(self, latent: int) -> dict[str, Any]:
        """Neighbours by direction and by firing, and the best match in each other dictionary."""
        near: list[Any] = []
        together: list[Any] = []
        for row in self._neighbours.get(latent, ()):
            if row["kind"] == "decoder_cosine":
                near.append([row["other"], _short(row["value"])])
            elif row["kind"] == "co_firing":
                together.append([row["other"], _short(row["value"]), _short(row["lift"])])
        matches = [
            [shown_text(row["other_checkpoint"]), row["other_latent"], _short(row["cosine"])]
            for row in self._matches.get(latent, ())
            if row["cosine"] is not None
        ]
        found = {"near": near, "together": together, "matches": matches}
        return {key: value for key, value in found.items() if value}

    def words(self, latent: int, code: TokenCode) -> dict[str, Any]:
        """Tokens around its peaks, and those that it promotes and demotes, by the page's numbers."""
        found: dict[str, Any] = {}
        for row in self._tokens.get(latent, ()):
            entry = [code.number(row["token"]), _short(row["share"] or 0.0)]
            if row["undercount"]:
                entry.append(1)
            found.setdefault(row["place"], []).append(entry)
        for row in self._promoted.get(latent, ()):
            found.setdefault(row["sign"], []).append([code.number(row["token"]), _short(row["logit"])])
        return found

    def graph(self, latent: int) -> list[str]:
        """Its Neuron-to-Graph as lines of text; none where the run has none that can be read."""
        for row in self._graphs.get(latent, ()):
            try:
                data = json.loads(row["data"] or "{}")
                return graph_lines(*Graph.from_json(data if isinstance(data, dict) else {}))
            except (BadInputError, ValueError, RecursionError):
                return []
        return []


_MATCHES = {"other_checkpoint": pl.String, "other_latent": pl.UInt32, "cosine": pl.Float64}
_GRAPHS = {"data": pl.String}


def _optional(tables: LatentTables, name: str, columns: Mapping[str, Any], where: pl.Expr) -> pl.DataFrame:
    """Rows of a table that a run may have; empty where it is not there or is not what is known here."""
    nothing = pl.DataFrame(schema={"latent": pl.UInt32, **columns})
    if not tables.file(name).is_file():
        return nothing
    try:
        found = pl.scan_parquet(tables.file(name)).filter(where).select("latent", *columns).collect()
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return nothing
    return found if found.schema == nothing.schema else nothing


def _by_latent(rows: pl.DataFrame) -> Rows:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        found.setdefault(row["latent"], []).append(row)
    return found


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(item) for item in value]
    return three_digits(value) if isinstance(value, float) else value


def spark_text(histogram: Mapping[str, Any] | None) -> str:
    """A histogram's bars as digits, 9 the highest; one that is not empty is at least 1."""
    if not histogram:
        return ""
    most = max(histogram["counts"])
    return "".join(str(math.ceil(9 * count / most)) for count in histogram["counts"])


def graph_lines(graph: Graph, texts: Mapping[int, str]) -> list[str]:
    """A graph as a tree, a line for every place at which paths part, read from the firing token backwards.

    `␣if ← ⏎ ← *   2.5 ×3`: the latent fires at 2.5 on " if" behind a line break behind any token, as 3
    activations said; `⊢` is the beginning of the text. At most 60 lines; `…` says that there are more.
    """
    children: dict[int, list[int]] = {}
    for place, node in enumerate(graph.nodes):
        children.setdefault(node.parent, []).append(place)

    def name(token: int) -> str:
        text = {ANY: "*", START: "⊢"}.get(token)
        return text or shown_text(texts.get(token, f"[{token}]")).replace(" ", "␣") or "(empty)"

    lines: list[str] = []
    pending = [(place, "", "") for place in reversed(children.get(-1, ()))]
    while pending and len(lines) < _GRAPH_LINES:
        place, margin, branch = pending.pop()
        words = [name(graph.nodes[place].token)]
        while graph.nodes[place].value is None and len(children.get(place, ())) == 1:
            place = children[place][0]
            words.append(name(graph.nodes[place].token))
        node = graph.nodes[place]
        end = "" if node.value is None else f"   {three_digits(node.value)} ×{node.count}"
        lines.append(f"{margin}{branch}{' ← '.join(words)}{end}")
        below = children.get(place, [])
        inner = margin + {"": "", "├ ": "│ ", "└ ": "  "}[branch]
        pending += [
            (child, f"{inner}  ", "└ " if index == len(below) - 1 else "├ ")
            for index, child in reversed(list(enumerate(below)))
        ]
    return [*lines, "…"] if pending else lines
