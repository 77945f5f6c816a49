"""The firings that the pass kept -> tables of latents: totals, statistics, examples, vocabulary."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from autointerp.config import SamplingSection
from autointerp.errors import SuiteError
from autointerp.evaluation.inputs import Measurable
from autointerp.evaluation.work import Work
from autointerp.run_store import RunStore
from autointerp.sampling.activation_pass import PassCost, read_firing_totals, read_tokens
from autointerp.sampling.latents.choice import Choice, followed_latents
from autointerp.sampling.latents.decoder_neighbours import decoder_directions, nearest_latents
from autointerp.sampling.latents.examples import WindowOptions
from autointerp.sampling.latents.gathering import Dictionary, Gathered, GatherOptions, gather
from autointerp.sampling.latents.promoted_tokens import PROMOTED_SCHEMA, promoted_tokens
from autointerp.sampling.latents.sides import SplitShares
from autointerp.sampling.latents.spilled import Spilled, document_sides
from autointerp.sampling.latents.store import table_of, write_tables
from autointerp.sampling.latents.tables import TABLES
from autointerp.sampling.samplers.sampler import SPLITS
from autointerp.sampling.spill import SpillPlan
from autointerp.subject.direct_path import DirectPath, writes_to_stream
from autointerp.subject.token_texts import token_texts

__all__ = ["refuse_absent_latents", "sample_latents", "spill_plan"]

_READINGS = 4


def refuse_absent_latents(section: SamplingSection, entries: Sequence[Measurable]) -> None:
    """Refuse indices that no checkpoint has; a narrower checkpoint than others goes without those it lacks.

    Raises:
        SuiteError: there is one.
    """
    widest = max((entry.summary.latent_count for entry in entries), default=0)
    absent = (
        [index for index in section.latents if index >= widest] if isinstance(section.latents, tuple) else []
    )
    if section.enabled and absent:
        raise SuiteError(
            f"sampling.latents names latent {absent[0]}, which no checkpoint has",
            where="suite",
            remedy=f"the widest one has latents 0 to {widest - 1}",
        )


def spill_plan(suite_seed: int, section: SamplingSection, entries: Sequence[Measurable]) -> SpillPlan | None:
    """What the pass is to keep for the latents; None where they are not sampled."""
    if not section.enabled:
        return None
    choice = _options(section, suite_seed).choice
    followed = {
        entry.summary.name: followed_latents(choice, entry.summary.latent_count, seed=suite_seed)
        for entry in entries
    }
    return SpillPlan(followed)


def sample_latents(
    work: Work, measurables: Sequence[Measurable], cost: PassCost, left_out: Mapping[str, tuple[str, str]]
) -> pl.DataFrame:
    """Sample the latents of every dictionary, and write the tables of the run.

    Args:
        work: the run.
        measurables: the checkpoints and the nulls.
        cost: what the pass went over.
        left_out: by name, (status, reason) of dictionaries whose firings are not whole.

    Returns:
        `tables.COVERAGE`: one row per dictionary.
    """
    section, seed = work.suite.sampling, work.suite.seed
    shares = SplitShares(section.explain_fraction, section.validate_fraction, section.score_fraction)
    documents = document_sides(
        work.store, cost.chunk_names, shares=shares, least_similarity=section.duplicate_similarity, seed=seed
    )
    spilled = Spilled(work.store, cost.chunk_names, documents)
    going = [entry for entry in measurables if entry.summary.name not in left_out]
    token_count = int(read_tokens(work.store, cost.chunk_names)["token_count"].sum())
    total = _READINGS * len(cost.chunk_names) * len(going)
    documents_fired = _documents_fired(work, cost)
    parts = [_left_out(left_out)]
    with work.progress.step("sampling latents", total=total, unit="chunk") as advance:
        path = DirectPath.of(work.subject)
        for entry in going:
            gathered = gather(
                spilled, _dictionary(entry), _options(section, seed), token_count=token_count, advance=advance
            )
            parts.append(
                _tables(work, entry, gathered, path)
                | {"latents": _latents(entry.summary.name, gathered, documents_fired)}
            )
    tables = _joined(parts)
    tables["vocabulary"] = _vocabulary(work, tables)
    if isinstance(work.store, RunStore):
        write_tables(work.store, tables)
    return tables["coverage"]


def _options(section: SamplingSection, seed: int) -> GatherOptions:
    return GatherOptions(
        choice=Choice(
            latents=section.latents,
            count=section.latent_count,
            least_documents=section.least_documents,
            ultra_dense=section.ultra_dense,
        ),
        examples=section.examples,
        strata=section.strata,
        window=WindowOptions(section.window_tokens, section.centring),
        seed=seed,
    )


def _dictionary(entry: Measurable) -> Dictionary:
    sae = entry.checkpoint.sae

    def nearest(latents: np.ndarray) -> pl.DataFrame:
        return nearest_latents(sae, latents.tolist())

    return Dictionary(entry.summary.name, entry.checkpoint.reads, sae.latent_count, nearest)


def _tables(
    work: Work, entry: Measurable, gathered: Gathered, path: DirectPath | str
) -> dict[str, pl.DataFrame]:
    """Whatever has a column `checkpoint`, with it; contexts are the same for all."""
    name = entry.summary.name
    split = pl.col("split").replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String)
    frames = {
        "histograms": gathered.histograms,
        "tokens": gathered.tokens,
        "neighbours": gathered.neighbours,
        "examples": gathered.examples.with_columns(split).rename({"position": "focus"}),
        "promoted": _promoted(work, entry, gathered, path),
        "coverage": pl.DataFrame([gathered.coverage]).with_columns(
            status=pl.lit("measured"), reason=pl.lit("")
        ),
    }
    tables = {key: table_of(key, frame, checkpoint=name) for key, frame in frames.items()}
    return tables | {"contexts": gathered.contexts}


def _promoted(work: Work, entry: Measurable, gathered: Gathered, path: DirectPath | str) -> pl.DataFrame:
    """What sampled latents promote; nothing where the subject or site has no direct path to the logits."""
    sae, site = entry.checkpoint.sae, entry.checkpoint.site
    if isinstance(path, str) or not writes_to_stream(work.subject, site):
        return pl.DataFrame(schema=PROMOTED_SCHEMA)
    latents = gathered.latents.filter("is_sampled")["latent"].to_list()
    directions = decoder_directions(sae, latents)
    return promoted_tokens(work.subject, directions, latents=latents, path=path)


def _left_out(reasons: Mapping[str, tuple[str, str]]) -> dict[str, pl.DataFrame]:
    rows = [{"checkpoint": name, "status": status, "reason": why} for name, (status, why) in reasons.items()]
    empty = {name: pl.DataFrame(schema=schema) for name, schema in TABLES.items()}
    return empty | {"coverage": pl.DataFrame(rows, schema=TABLES["coverage"])}


def _joined(parts: Sequence[Mapping[str, pl.DataFrame]]) -> dict[str, pl.DataFrame]:
    tables = {name: pl.concat([part[name] for part in parts if name in part]) for name in TABLES}
    return tables | {"contexts": tables["contexts"].unique("context", keep="first").sort("context")}


def _documents_fired(work: Work, cost: PassCost) -> pl.DataFrame:
    """In how many documents each latent fires, as the pass counted; and in which share of all."""
    document_count = read_tokens(work.store, cost.chunk_names).height
    return read_firing_totals(work.store, cost.chunk_names).select(
        "checkpoint",
        pl.col("latent").cast(pl.UInt32),
        "documents_fired",
        document_density=pl.col("documents_fired") / document_count,
    )


def _latents(name: str, gathered: Gathered, documents_fired: pl.DataFrame) -> pl.DataFrame:
    own = documents_fired.filter(checkpoint=name).drop("checkpoint")
    frame = gathered.latents.join(own, on="latent", how="left", maintain_order="left")
    return table_of(
        "latents",
        frame.with_columns(pl.col("documents_fired", "document_density").fill_null(0)),
        checkpoint=name,
    )


def _vocabulary(work: Work, tables: Mapping[str, Any]) -> pl.DataFrame:
    """Every token that another table names, as text."""
    parts = [tables["contexts"]["tokens"].explode(), tables["tokens"]["token"], tables["promoted"]["token"]]
    ids = pl.concat([part.cast(pl.Int32) for part in parts]).drop_nulls().unique().sort()
    return pl.DataFrame(
        {"token": ids, "text": token_texts(work.subject.tokenizer, ids.to_list())},
        schema=TABLES["vocabulary"],
    )
