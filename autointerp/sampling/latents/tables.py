"""Columns of what a run leaves in `latents/*.parquet`. Knows no torch; docs/latents.md explains each table.

Everywhere `checkpoint` is the name in the report, `latent` the index in the dictionary, `context` the id of a
context, `split` one of explain, validate and score.
"""

from typing import Any

import polars as pl

__all__ = [
    "CONTEXTS",
    "COVERAGE",
    "EXAMPLES",
    "HISTOGRAMS",
    "LATENTS",
    "LEAST_MATCH_COSINE",
    "MATCHES",
    "NEIGHBOURS",
    "PROMOTED",
    "TABLES",
    "TOKENS",
    "VOCABULARY",
]

LATENTS: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "status": pl.String,  # live | dead | undefined (fires, but in too few documents for three splits)
    "reason": pl.String,  # of undefined, else ""
    "is_ultra_dense": pl.Boolean,
    "is_sampled": pl.Boolean,  # chosen: it has examples (where its status is live) and statistics
    "sampling_weight": pl.Float64,  # live latents that a chosen one stands for; null where none is defined
    "stratum": pl.String,  # of density, where latents were chosen by strata; else ""
    "tokens_fired": pl.UInt64,
    "density": pl.Float64,  # per scored token
    "documents_fired": pl.UInt32,
    "document_density": pl.Float64,  # per document
    "explain_documents": pl.UInt32,  # near-duplicates count as one
    "validate_documents": pl.UInt32,
    "score_documents": pl.UInt32,
    "mass": pl.Float64,  # sum of |activation| over all tokens
    "mean": pl.Float64,  # of the activation where it fires; null where it never does
    "maximum": pl.Float64,  # of |activation|; null where it never fires
    "first_context": pl.UInt64,  # in the order of the corpus; null where it never fires
    "first_position": pl.UInt32,
    "last_context": pl.UInt64,
    "last_position": pl.UInt32,
    "q05": pl.Float64,  # quantiles of |activation| over its firings, within 1 %; null where not sampled
    "q25": pl.Float64,
    "q50": pl.Float64,
    "q75": pl.Float64,
    "q95": pl.Float64,
}
"""`latents.parquet`: one row per latent of each dictionary, dead ones included."""

HISTOGRAMS: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "unit": pl.String,  # firing (every token) | peak (one per context)
    "bin": pl.Int32,  # |activation| in (g^(bin-1), g^bin], g = 1.01 / 0.99
    "count": pl.UInt32,
}
"""`histograms.parquet`: of sampled latents, non-empty bins only."""

EXAMPLES: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "sampler": pl.String,
    "split": pl.String,
    "stratum": pl.Int16,  # of sampler quantiles: 0 the weakest; else 0
    "rank": pl.UInt32,
    "context": pl.UInt64,
    "focus": pl.UInt32,  # position in the context of the firing or peak that was drawn
    "value": pl.Float32,  # activation there; null in silent text
    "begin": pl.UInt32,  # the window: positions begin <= p < end of the context
    "end": pl.UInt32,
    "fired": pl.List(pl.UInt32),  # positions in the window at which the latent fires; empty in silent text
    "activations": pl.List(pl.Float32),  # its activations there, one for each of `fired`
    "population": pl.UInt32,
    "weight": pl.Float64,
}
"""`examples.parquet`: of sampled latents."""

CONTEXTS: dict[str, Any] = {
    "context": pl.UInt64,
    "document": pl.String,
    "cluster": pl.String,  # the document, or the smallest id among its near-duplicates
    "split": pl.String,
    "start": pl.UInt32,  # where its text begins in its document, in tokens
    "first_scored": pl.UInt32,  # position of the first token of text: 1 behind a BOS token
    "unscored": pl.List(pl.UInt32),  # positions behind it that are no text, so that nothing fires there: EOS
    # between packed documents, the chat template's tokens
    "tokens": pl.List(pl.Int32),
}
"""`contexts.parquet`: every context that an example lies in, once for all dictionaries."""

VOCABULARY: dict[str, Any] = {"token": pl.Int32, "text": pl.String}
"""`vocabulary.parquet`: what each token that occurs in the other tables reads as."""

TOKENS: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "place": pl.String,  # before | at | after the peak
    "rank": pl.UInt32,
    "token": pl.Int32,
    "count": pl.UInt32,  # peaks; at least this many
    "share": pl.Float64,  # of all peaks of the latent
    "undercount": pl.UInt32,  # by how much `count` may fall short; 0: exact
}
"""`tokens.parquet`: the most common tokens at, before and after a latent's peaks."""

NEIGHBOURS: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "kind": pl.String,  # decoder_cosine | co_firing
    "rank": pl.UInt32,
    "other": pl.UInt32,
    "value": pl.Float64,  # cosine of directions | share of the firings on which `other` fires too
    "lift": pl.Float64,  # of co_firing: that share over the density of `other`; else null
}
"""`neighbours.parquet`."""

PROMOTED: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "sign": pl.String,  # promoted | demoted
    "rank": pl.UInt32,
    "token": pl.Int32,
    "logit": pl.Float64,  # per unit of activation, without the norm's scale; mean over vocabulary 0
}
"""`promoted.parquet`: what a direction adds to the logits, straight through the final norm's gain."""

COVERAGE: dict[str, Any] = {
    "checkpoint": pl.String,
    "status": pl.String,  # measured | failed | skipped
    "reason": pl.String,
    "latent_count": pl.UInt32,
    "live_count": pl.UInt32,  # fires at least once
    "scorable_count": pl.UInt32,  # live, and in enough documents of every split
    "ultra_dense_count": pl.UInt32,
    "sampled_count": pl.UInt32,
    "sampled_scorable_count": pl.UInt32,
    "scorable_fraction": pl.Float64,  # scorable_count / latent_count
    "scorable_mass_fraction": pl.Float64,  # share of all |activation| that scorable latents hold
    "dropped_for_leaks": pl.UInt32,  # earlier sides' examples that shared 16 tokens with a later one's
}
"""`coverage.parquet`: one row per dictionary; what scores of its sampled latents can speak for."""

LEAST_MATCH_COSINE = 0.7
"""Decoder directions of two dictionaries that are less alike never match."""

MATCHES: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "other_checkpoint": pl.String,
    "other_latent": pl.UInt32,  # the nearest there
    "cosine": pl.Float64,  # of the two decoder directions
    "followers": pl.List(pl.UInt32),  # latents there, alike enough to match, whose nearest here is this one
    "co_firing": pl.Float64,  # tokens on which both fire, over those on which either does; null if not alike
}
"""`matches.parquet`, a table that a run may have: each sampled latent against every other dictionary of its
site. Two latents are matched one-to-one where the nearest is among the followers."""

TABLES: dict[str, dict[str, Any]] = {
    "latents": LATENTS,
    "histograms": HISTOGRAMS,
    "examples": EXAMPLES,
    "contexts": CONTEXTS,
    "vocabulary": VOCABULARY,
    "tokens": TOKENS,
    "neighbours": NEIGHBOURS,
    "promoted": PROMOTED,
    "coverage": COVERAGE,
}
"""By file name."""
