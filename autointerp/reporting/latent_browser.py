"""A run directory -> the data of its report's latent browser: a list, and pages of what each latent shows.

The list (names, numbers, explanations) stands in report.html. What an opened latent shows stands there too
where it is little; else in files of a folder beside it, of which the page reads the one that it needs. Such
a file is a style sheet with one custom property: a page that was opened from a disk may load it, as it may
load a script, but whatever the file holds, or is replaced by, it cannot run. The page's policy lets in style
sheets by a nonce alone; hashes of scripts would not do, as browsers do not compare them with what they read
from `file:`. A file's property is named by the hash of its content, so that a page takes no data of another.

Everything that came from a model, a text or a checkpoint is made visible (`token_text`) and cut here, and the
page puts it into text nodes alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from autointerp.errors import BadInputError
from autointerp.records import EvaluationReport
from autointerp.reporting import numbers
from autointerp.reporting.latent_browser_examples import QUOTAS
from autointerp.reporting.latent_browser_facts import spark_text
from autointerp.reporting.latent_browser_packing import TokenCode, packed, shown_text, three_digits
from autointerp.reporting.latent_browser_pages import BrowserDictionary, browser_dictionary, browser_page
from autointerp.reporting.latent_browser_scores import BrowserScores, disagreement
from autointerp.reporting.latent_tables import LatentTables, open_latent_tables
from autointerp.sampling.latents.tables import TABLES
from autointerp.sampling.samplers.catalogue import SAMPLER_NAMES

__all__ = ["BrowserLimits", "LatentBrowser", "latent_address", "latent_browser"]

_TITLES = {
    "uniform": "Random firings",
    "quantiles": "From weak to strong",
    "top": "Strongest",
    "silent": "Silent, at random",
    "same_token": "Silent, with its token",
    "neighbours": "Silent, where a neighbour fires",
    "similar": "Silent, but similar",
    "near_misses": "Silent, by a little",
}
_UNMARKED = frozenset({"Silent, at random", "Silent, but similar"})
"""A context was drawn, and then any place in it, which means nothing."""
_LISTED_TOKENS = 3
_UNENCODED = "-_.!~*'()"
"""What JavaScript's encodeURIComponent lets stand."""
_LONGEST_LISTED = 240
_LEAD = (
    "What each latent fires on, what it is said to mean, and how well that predicts. Random firings come "
    "first: the strongest alone make most latents look clearer than they are."
)


@dataclass(frozen=True)
class BrowserLimits:
    """How much goes where."""

    listed_latents: int = 10_000
    """In the list: about 150 bytes each in the page."""
    embedded_latents: int = 400
    """Up to so many may show all in the page itself."""
    embedded_bytes: int = 3_000_000
    """If list and pages take no more than this."""
    page_latents: int = 100
    """In a file of the folder."""
    needs_one_file: bool = False
    """The page goes where no folder can be beside it: everything is in it, however large."""


@dataclass(frozen=True)
class LatentBrowser:
    """What report.html needs to show latents."""

    lead: str
    """Sentences above the list."""
    index: str = ""
    """The list, as from `packed`; empty where there is only `trouble`."""
    embedded: str = ""
    """What opened latents show, as from `packed`; empty where that is in `files`."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Contents of the files beside the page, by path from where it lies."""
    trouble: str = ""
    """Why the latents cannot be shown."""
    listed: frozenset[tuple[str, int]] = frozenset()
    """(checkpoint, latent) of all that can be opened."""


def latent_browser(
    run: Path,
    report: EvaluationReport,
    explained: Sequence[Mapping[str, Any]] = (),
    *,
    folder: str = "report_latents",
    with_text: bool = True,
    limits: BrowserLimits | None = None,
) -> LatentBrowser | None:
    """The browser of a run; None where no latents were sampled.

    A damaged table does not take the report with it: the browser says what is wrong instead.

    Args:
        run: the run directory.
        report: what the run found.
        explained: as from `explanations.with_scores`.
        folder: name of the folder beside the page, for more than `limits` lets into it.
        with_text: whether anything of the corpus, its tokens and the explanations is in it.
        limits: how much goes where.
    """
    if not any((run / "latents" / f"{name}.parquet").is_file() for name in TABLES):
        return None
    limits = limits or BrowserLimits()
    try:
        tables = open_latent_tables(run)
        rows, sampled_count = _listed(tables, report, limits.listed_latents)
        if rows.is_empty():
            return None
        texts = dict(tables.rows("vocabulary").iter_rows()) if with_text else {}
        source = _Source(tables, BrowserScores(report, explained), texts, with_text)
        made = _made(source, rows, limits)
    except BadInputError as error:
        return LatentBrowser(_LEAD, trouble=shown_text(str(error), 400))
    files = {} if made.is_embedded else _files(made.pages, folder)
    index = _index(report, source, made) | {
        "files": [[quote(name), _property(page)] for name, page in zip(files, made.pages, strict=False)]
    }
    return LatentBrowser(
        lead=_lead(rows.height, sampled_count, len(made.parts), with_text=with_text),
        index=packed(index),
        embedded=made.pages[0] if made.is_embedded else "",
        files=files,
        listed=frozenset(rows.select("checkpoint", "latent").iter_rows()),
    )


def latent_address(checkpoint: str, latent: int) -> str:
    """Where the page shows a latent: `#latents/NAME/47`, encoded as the page's script does."""
    return f"#latents/{quote(shown_text(checkpoint), safe=_UNENCODED)}/{latent}"


def _listed(tables: LatentTables, report: EvaluationReport, most: int) -> tuple[pl.DataFrame, int]:
    """Sampled latents in the order of the report's checkpoints, if too many those of smallest hash."""
    found = tables.rows("latents", pl.col("is_sampled"))
    names = [checkpoint.name for checkpoint in report.checkpoints]
    order = {name: index for index, name in enumerate(names)}
    found = found.filter(pl.col("checkpoint").is_in(names)).with_columns(
        order=pl.col("checkpoint").replace_strict(order, return_dtype=pl.UInt32)
    )
    sampled_count = found.height
    if sampled_count > most:
        ids = [f"{name} {latent}" for name, latent in found.select("checkpoint", "latent").iter_rows()]
        hashes = [hashlib.sha256(text.encode()).hexdigest() for text in ids]
        found = found.with_columns(hash=pl.Series(hashes)).sort("hash").head(most).drop("hash")
    return found.sort("order", "latent"), sampled_count


@dataclass(frozen=True, eq=False)
class _Source:
    """Where pages are made from."""

    tables: LatentTables
    scores: BrowserScores
    texts: Mapping[int, str]
    with_text: bool

    def dictionary(self, rows: pl.DataFrame) -> BrowserDictionary:
        """What is shown of some latents of one dictionary."""
        name = rows["checkpoint"][0]
        return browser_dictionary(self.tables, name, rows, with_text=self.with_text)

    def page(self, parts: Sequence[tuple[BrowserDictionary, Sequence[int]]]) -> str:
        """A page, packed."""
        return packed(
            browser_page(self.tables, parts, self.scores, texts=self.texts, with_text=self.with_text)
        )


@dataclass(frozen=True, eq=False)
class _Made:
    """Packed pages in the order of the list, and what the list is made from."""

    pages: Sequence[str]
    parts: Sequence[BrowserDictionary]
    page_of: Sequence[int]
    """Of each row of the list."""
    is_embedded: bool


def _made(source: _Source, rows: pl.DataFrame, limits: BrowserLimits) -> _Made:
    """One page if it may stand in the report, else pages of some latents of one dictionary."""
    dictionaries = rows.partition_by("checkpoint", maintain_order=True)
    if limits.needs_one_file or rows.height <= limits.embedded_latents:
        parts = [source.dictionary(own) for own in dictionaries]
        page = source.page([(part, part.latents) for part in parts])
        if limits.needs_one_file or len(page) <= limits.embedded_bytes:
            return _Made([page], parts, [0] * rows.height, is_embedded=True)
    parts, pages, page_of = [], [], []
    for own in dictionaries:  # texts of one dictionary at a time are in memory
        part = source.dictionary(own)
        for first in range(0, len(part.latents), limits.page_latents):
            latents = part.latents[first : first + limits.page_latents]
            page_of += [len(pages)] * len(latents)
            pages.append(source.page([(part, latents)]))
        parts.append(replace(part, examples={}, mistakes={}))
    return _Made(pages, parts, page_of, is_embedded=False)


def _property(page: str) -> str:
    return f"--latents-{hashlib.sha256(page.encode()).hexdigest()[:16]}"


def _files(pages: Sequence[str], folder: str) -> dict[str, str]:
    return {
        f"{folder}/{number:03}.css": f'#latent-store{{{_property(page)}:"{page}"}}\n'
        for number, page in enumerate(pages)
    }


def _index(report: EvaluationReport, source: _Source, made: _Made) -> dict[str, Any]:
    nulls = {checkpoint.name for checkpoint in report.checkpoints if checkpoint.role == "null"}
    latents = [(number, part, latent) for number, part in enumerate(made.parts) for latent in part.latents]
    listed = [part.facts.listed_tokens(latent, _LISTED_TOKENS) for _, part, latent in latents]
    code = TokenCode(TokenCode.counted(listed if source.with_text else []), source.texts)
    rows = [
        {"c": number, "i": latent, "p": page} | _row(source, part, latent, code)
        for (number, part, latent), page in zip(latents, made.page_of, strict=True)
    ]
    samplers = [(_TITLES[name], SAMPLER_NAMES[name]) for name in QUOTAS]
    return {
        "checkpoints": [
            {"name": shown_text(part.checkpoint), "null": part.checkpoint in nulls} for part in made.parts
        ],
        "metrics": source.scores.metrics,
        "kinds": source.scores.kinds,
        "samplers": [
            {"title": title, "meaning": entry.meaning, "marked": title not in _UNMARKED}
            for title, entry in samplers
        ],
        "texts": code.texts,
        "withText": source.with_text,
        "rows": rows,
    }


def _row(source: _Source, part: BrowserDictionary, latent: int, code: TokenCode) -> dict[str, Any]:
    """A row of the list; what is not known has no key.

    `d`ensity, `m`aximum, `s`tatus if not live, `u`ltra-dense, `h`istogram, `v`alues of the headline scores,
    `x` how far these are apart, `t`ext of the first explanation, `k` tokens at the peaks, `o` promoted ones.
    """
    row = part.facts.row(latent)
    values = source.scores.headline(part.checkpoint, latent)
    apart = disagreement(values, source.scores.metrics)
    found: dict[str, Any] = {
        "d": three_digits(row["density"] or 0.0),
        "m": None if row["maximum"] is None else three_digits(row["maximum"]),
        "s": row["status"] if row["status"] != "live" else None,
        "u": 1 if row["is_ultra_dense"] else None,
        "h": spark_text(part.facts.histogram(latent)),
        "v": values,
        "x": None if apart is None else round(apart, 3),
    }
    if source.with_text:
        first = source.scores.first(part.checkpoint, latent)
        found["t"] = shown_text(first, _LONGEST_LISTED) if first else None
        found["k"] = [code.number(token) for token in part.facts.peak_tokens(latent, _LISTED_TOKENS)]
        found["o"] = [code.number(token) for token in part.facts.promoted_tokens(latent, _LISTED_TOKENS)]
    return {key: value for key, value in found.items() if value not in (None, "", [])}


def _lead(listed: int, sampled: int, dictionaries: int, *, with_text: bool) -> str:
    noun = "dictionary" if dictionaries == 1 else "dictionaries"
    words = f"{_LEAD} {numbers.count(listed)} sampled latents of {dictionaries} {noun}"
    if listed < sampled:
        words += f", drawn from {numbers.count(sampled)}; `autointerp show` has the others"
    return f"{words}." if with_text else f"{words}. Texts, tokens and explanations were left out."
