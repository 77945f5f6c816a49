"""All latents of a dictionary as their graphs expect them, put into the subject beside simpler stand-ins.

Gao et al. 2024 (arXiv 2406.04093), section 4.4. Activations from which graphs are made are drawn by place:
every place of explain text has one random number for all latents, and each latent takes the places of its
smallest ones. So each latent's draw is as random as if it were alone, and where several latents fire at one
place they mostly share it, its suffixes and its runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.evaluation.inputs import Measurable
from autointerp.evaluation.studies.graph_building import GraphSetting, built, graphs_of
from autointerp.evaluation.studies.graph_text import SideText, expected, fired, narrowed, side_text
from autointerp.evaluation.work import Work
from autointerp.explaining.graph_walk import MergedGraphs
from autointerp.explaining.neuron_to_graph import GraphExample
from autointerp.metrics.n2g import KL, RECONSTRUCTION
from autointerp.metrics.n2g_text_models import TextModels
from autointerp.records import observation_frame
from autointerp.sampling.document_sums import failed_observations
from autointerp.sampling.latents.spilled import Spilled
from autointerp.sampling.readings import Checkpoint
from autointerp.sampling.samplers.hashing import hashed
from autointerp.sampling.spill import slug
from autointerp.sampling.token_losses import CleanPredictions, clean_predictions, substituted_losses
from autointerp.sampling.written_contexts import padded
from autointerp.subject.subject_model import SubjectPass

__all__ = ["BASELINES", "reconstruction"]

BASELINES = {
    "true activations": "the dictionary's own reconstruction",
    "bias": "the decoder's bias alone, as if no latent fired",
    "zeros": "zeros at the site",
    "bigram": "a bigram model of the explain text in the subject's place",
    "unigram": "a unigram model likewise",
}
"""By the value of the slice `baseline`, from what should be best to what should be worst."""


def reconstruction(
    work: Work, spilled: Spilled, entry: Measurable, setting: GraphSetting
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Observations of the two metrics at every baseline, and how many latents were simulated.

    Memory: of each latent its graph; one chunk of the text; a batch's logits.
    """
    name, seed = entry.summary.name, work.suite.seed
    examples = _shared_draw(spilled, name, work.suite.graphs.reconstruction_paths, seed=seed)
    graphs = built(work, [entry], examples, setting, key=f"n2g/simulated/{slug(name)}")
    failed = graphs.filter(status="failed")
    if failed.height:
        raise RuntimeError(failed["reason"][0])
    shard = f"n2g/reconstruction/{slug(name)}"
    if not work.store.has(shard):
        simulated = _Simulated.of(spilled, name, graphs)
        work.store.write(shard, _observed(work, spilled, entry.checkpoint, simulated))
    facts = {
        "latents": graphs.filter(status="built").height,
        "activations": int(graphs["examples"].sum()),
        "places": len({example.tokens for own in examples.values() for example in own}),
    }
    return work.store.read(shard), facts


def _shared_draw(
    spilled: Spilled, name: str, count: int, *, seed: int
) -> dict[tuple[str, int], list[GraphExample]]:
    """Of every latent that fires in explain text `count` firings, drawn by place."""
    kept = pl.DataFrame(schema={"latent": pl.UInt32})
    for side in side_text(spilled, "explain"):
        firings = fired(side, spilled, name)
        key = hashed(seed, "n2g place", firings["context"].to_numpy(), firings["position"].to_numpy())
        firings = firings.with_columns(key=pl.Series(key, dtype=pl.UInt64), chunk=pl.lit(side.chunk))
        joined = pl.concat([kept, firings], how="diagonal").sort("latent", "key")
        kept = joined.group_by("latent", maintain_order=True).head(count)
    texts: dict[tuple[str, int, int], tuple[int, ...]] = {}
    for side in side_text(spilled, "explain"):
        own = kept.filter(chunk=side.chunk).select("row", "position").unique()
        rows = own.join(side.frame.select("row", "tokens", "first_scored"), on="row")
        for row, position, tokens, first in rows.iter_rows():
            texts[side.chunk, row, position] = tuple(tokens[first : position + 1])
    found: dict[tuple[str, int], list[GraphExample]] = {}
    for latent, chunk, row, position, value in kept.select(
        "latent", "chunk", "row", "position", "value"
    ).iter_rows():
        example = GraphExample(name, latent, texts[chunk, row, position], value)
        found.setdefault((name, latent), []).append(example)
    return found


@dataclass(frozen=True, eq=False)
class _Simulated:
    """Graphs of all latents, and by how much what they expect is multiplied."""

    merged: MergedGraphs
    scale: Float[np.ndarray, " latent"]
    """By index in the dictionary; 0 where a graph expects nothing in explain text."""

    @classmethod
    def of(cls, spilled: Spilled, name: str, graphs: pl.DataFrame) -> "_Simulated":
        """Fit E[s a] / E[s^2] on the explain text."""
        made = graphs_of(graphs, name)
        merged = MergedGraphs(made)
        size = max(made, default=-1) + 1
        products, squares = np.zeros(size), np.zeros(size)
        for side in side_text(spilled, "explain"):
            firings = fired(side, spilled, name, list(made)).rename({"value": "a"})
            for hits in expected(side, merged):
                both = hits.join(firings, on=("latent", "row", "position"), how="left")
                latent, s, a = (both[each].to_numpy() for each in ("latent", "value", "a"))
                products += np.bincount(latent, weights=s * np.nan_to_num(a), minlength=size)
                squares += np.bincount(latent, weights=s * s, minlength=size)
        return cls(merged, np.divide(products, squares, out=np.zeros(size), where=squares > 0))

    def activations(self, side: SideText) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Place in the text, latent and activation, in the order of places and latents."""
        parts = list(expected(side, self.merged))
        hits = pl.concat(parts).sort("place", "latent")
        latent = hits["latent"].to_numpy().astype(np.int64)
        return hits["place"].to_numpy(), latent, hits["value"].to_numpy() * self.scale[latent]


def _observed(work: Work, spilled: Spilled, checkpoint: Checkpoint, simulated: _Simulated) -> pl.DataFrame:
    """Sums of losses by document, of every stand-in."""
    models = TextModels(work.subject.vocabulary_size, _counted(spilled))
    wanted = _drawn_contexts(spilled, work.suite.graphs.reconstruction_tokens, seed=work.suite.seed)
    rows: list[pl.DataFrame] = []
    with work.progress.step("simulating latents", total=wanted.height, unit="context") as advance:
        for side in side_text(spilled, "score"):
            chosen = narrowed(side, wanted)
            if chosen is not None:
                for batch in _batches(chosen, work.suite.runtime.batch_tokens):
                    rows += _batch_losses(work, checkpoint, batch, simulated, models)
                    advance(batch.frame.height)
    if not rows:
        reason = "no context of the scored text was drawn"
        metrics = (RECONSTRUCTION, KL)
        return failed_observations(checkpoint.name, metrics, unit="all", reason=reason, status="undefined")
    sums = (
        pl.concat(rows)
        .group_by("stand_in", "document", "cluster", maintain_order=True)
        .agg(pl.col("delta", "kl", "count").sum())
    )
    frames = []
    for stand_in in ("", *BASELINES):
        own = sums.filter(stand_in=stand_in)
        for metric, column in ((RECONSTRUCTION, "delta"), (KL, "kl")):
            frames.append(
                observation_frame(
                    checkpoint=checkpoint.name,
                    metric=metric,
                    slice={"baseline": stand_in} if stand_in else {},
                    unit=own["document"].to_list(),
                    cluster=own["cluster"].to_list(),
                    numerator=own[column],
                    denominator=own["count"],
                )
            )
    return pl.concat(frames)


def _counted(spilled: Spilled) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for side in side_text(spilled, "explain"):
        yield side.text.tokens, np.flatnonzero(_is_head(side))


def _is_head(side: SideText) -> Bool[np.ndarray, " place"]:
    """Places of text whose next token is text of the same context."""
    found = side.is_text.copy()
    found[:-1] &= side.is_text[1:] & (side.row[1:] == side.row[:-1])
    found[-1:] = False
    return found


def _drawn_contexts(spilled: Spilled, token_count: int, *, seed: int) -> pl.DataFrame:
    """Contexts of score text in an order at random, until there are enough tokens: `chunk`, `row`."""
    frames = [
        side.frame.select("row", "context", tokens=pl.col("tokens").list.len()).with_columns(
            chunk=pl.lit(side.chunk)
        )
        for side in side_text(spilled, "score")
    ]
    if not frames:
        return pl.DataFrame(schema={"chunk": pl.String, "row": pl.UInt32})
    every = pl.concat(frames)
    key = hashed(seed, "n2g contexts", every["context"].to_numpy())
    every = every.with_columns(key=pl.Series(key, dtype=pl.UInt64)).sort("key", "chunk", "row")
    before = pl.col("tokens").cum_sum() - pl.col("tokens")
    return every.filter(before < token_count).select("chunk", "row")


def _batches(side: SideText, batch_tokens: int) -> Iterator[SideText]:
    """Contexts of about equal length together."""
    ordered = side.frame.with_columns(length=pl.col("tokens").list.len()).sort("length", "row")
    start = 0
    while start < ordered.height:
        longest = ordered["length"][min(start + batch_tokens, ordered.height) - 1]
        part = ordered.slice(start, max(1, batch_tokens // longest))
        chosen = narrowed(side, part.select("row").with_columns(chunk=pl.lit(side.chunk)))
        assert chosen is not None
        yield chosen
        start += part.height


@dataclass(frozen=True, eq=False)
class _Places:
    """Where a batch's text stands in the flattened grid, and which places predict."""

    text: Int[Tensor, " token"]
    is_kept: Bool[np.ndarray, " place"]
    """Of all places of the batch's `GraphText`, which are text."""
    predicts: Int[Tensor, " prediction"]
    target: Int[Tensor, " prediction"]
    row: np.ndarray
    """Of each prediction: number of its context in the chunk."""

    @classmethod
    def of(cls, side: SideText, width: int) -> "_Places":
        number = {row: place for place, row in enumerate(side.frame["row"].to_list())}
        line = np.array([number[row] for row in side.row.tolist()], dtype=np.int64)
        flat = line * width + side.position
        heads = np.flatnonzero(_is_head(side))
        return cls(
            torch.from_numpy(flat[side.is_text]),
            side.is_text,
            torch.from_numpy(flat[heads]),
            torch.from_numpy(side.text.tokens[heads + 1]),
            side.row[heads],
        )


def _batch_losses(
    work: Work, checkpoint: Checkpoint, side: SideText, simulated: _Simulated, models: TextModels
) -> list[pl.DataFrame]:
    subject = work.subject
    tokens, mask = padded(side.frame["tokens"].to_list())
    places = _Places.of(side, tokens.shape[1])
    clean_pass = subject.read_with_logits(tokens, sorted(checkpoint.sites), mask)
    device = clean_pass.logits.device
    predicts, target = places.predicts.to(device), places.target.to(device)
    clean = clean_predictions(_flat(clean_pass.logits), predicts, target)
    found = {}
    for name, values in _stand_ins(checkpoint, clean_pass, places, simulated.activations(side)).items():
        grid = clean_pass.activations[checkpoint.site].clone(memory_format=torch.contiguous_format)
        _flat(grid)[places.text.to(grid.device)] = values.to(grid)
        logits = _flat(subject.logits_from(checkpoint.site, grid, clean_pass))
        found[name] = _loss_frame(clean, logits, predicts, target)
    before = tokens.reshape(-1)[places.predicts]
    every = torch.arange(len(target), device=device)
    for name, logits in (("unigram", models.unigram(len(target))), ("bigram", models.bigram(before))):
        found[name] = _loss_frame(clean, logits.to(device), every, target)
    owners = side.frame.select("row", "document", "cluster")
    row = pl.Series("row", places.row, dtype=pl.UInt32)
    return [
        frame.with_columns(row, stand_in=pl.lit(name)).join(owners, on="row").drop("row")
        for name, frame in found.items()
    ]


def _loss_frame(
    clean: CleanPredictions,
    logits: Float[Tensor, "place vocabulary"],
    predicts: Int[Tensor, " prediction"],
    target: Int[Tensor, " prediction"],
) -> pl.DataFrame:
    losses = substituted_losses(clean, logits, predicts, target)
    delta = (losses.cross_entropy - clean.cross_entropy).double().cpu().numpy()
    return pl.DataFrame(
        {"delta": delta, "kl": losses.kl.double().cpu().numpy(), "count": np.ones(len(delta))}
    )


def _stand_ins(
    checkpoint: Checkpoint,
    clean_pass: SubjectPass,
    places: _Places,
    simulated: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> dict[str, Float[Tensor, "token d_out"]]:
    """What stands at the site at tokens of text, by baseline; empty name: the graphs' own.

    The normalisation is undone with the true token's mean and norm, in all of them alike; a skip connection,
    which is no latent, reads the true input.
    """
    sae = checkpoint.sae
    x = _flat(clean_pass.activations[checkpoint.reads])
    x = x[places.text.to(x.device)].to(sae.encoder_bias)
    _, statistics = sae.normalization.apply(x)
    skipped = sae.skipped(x)
    latents = _as_sparse(sae, simulated, places.is_kept)
    nothing = replace(
        latents,
        indices=latents.indices[:0],
        values=latents.values[:0],
        offsets=torch.zeros_like(latents.offsets),
    )
    return {
        "": sae.decode_sparse(latents, statistics) + skipped,
        "true activations": sae.reconstruct_sparse(x)[0],
        "bias": sae.decode_sparse(nothing, statistics) + skipped,
        "zeros": torch.zeros_like(skipped),
    }


def _as_sparse(
    sae: SparseAutoencoder,
    simulated: tuple[np.ndarray, np.ndarray, np.ndarray],
    is_kept: Bool[np.ndarray, " place"],
) -> SparseLatents:
    place, latent, value = (part[simulated[2] != 0] for part in simulated)
    token = (np.cumsum(is_kept) - 1)[place]
    counts = np.bincount(token, minlength=int(is_kept.sum()))
    return SparseLatents(
        torch.from_numpy(latent).to(sae.device),
        torch.from_numpy(value).to(sae.encoder_bias),
        torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])).to(sae.device),
        sae.latent_count,
    )


def _flat(grid: Float[Tensor, "batch position width"]) -> Float[Tensor, "place width"]:
    return grid.reshape(-1, grid.shape[-1])
