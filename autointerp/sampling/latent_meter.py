"""Runs a latent on texts that were not in the corpus: where it fires, what it does to what comes next.

Subject and dictionary are run as in the activation pass, so the numbers are the same as the pass has for the
same text. Texts are cut to one context. In the space of the site a latent's contribution is

    c = (z / s) n d        z activation, s the latent's scale, d its direction, n what undoes the
                           normalisation at the token (1 without one, for `layer_norm` the token's standard
                           deviation)

so that adding or taking away c is what the dictionary itself would add or leave out.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.explanation_records import Example
from autointerp.sampling.context_cutting import ContextOptions
from autointerp.sampling.corpus import document_of
from autointerp.sampling.readings import Checkpoint
from autointerp.sampling.written_contexts import (
    ContextBatch,
    ContextRow,
    WrittenContexts,
    padded,
    real_tokens,
)
from autointerp.subject.subject_model import SubjectModel
from autointerp.subject.token_texts import token_texts

__all__ = ["AblationEffects", "Continuation", "LatentMeter", "SteeringOptions"]

WRITTEN = "written"
"""`Example.sampler` of texts that somebody wrote."""


@dataclass(frozen=True)
class AblationEffects:
    """What the subject predicts otherwise without a latent."""

    lowered: tuple[tuple[str, float], ...]
    """Tokens whose log-probability falls most, with the mean change in nats (negative), most first."""
    raised: tuple[tuple[str, float], ...]
    """Tokens whose log-probability rises most, likewise (positive)."""
    position_count: int
    """Tokens on which the latent fired, over which the change is averaged; without any, nothing is listed."""


@dataclass(frozen=True)
class Continuation:
    """How the subject goes on after a prompt."""

    prompt: str
    plain: str
    steered: str
    """With the latent's direction added at every token."""


@dataclass(frozen=True)
class SteeringOptions:
    """How continuations are made."""

    new_tokens: int = 24
    """At most; fewer where the subject ends its text or its context is full."""
    temperature: float = 0.0
    """0: the likeliest token. Else drawn; both continuations of a prompt with the same random numbers."""
    seed: int = 0


class LatentMeter:
    """One subject with one dictionary. One call at a time, as the subject has it."""

    def __init__(
        self,
        subject: SubjectModel,
        checkpoint: Checkpoint,
        options: ContextOptions | None = None,
        *,
        batch_tokens: int = 4096,
    ) -> None:
        """Nothing is run yet.

        Args:
            subject: the language model.
            checkpoint: the dictionary with its sites, on the subject's device.
            options: how the corpus becomes contexts: length, BOS, chat template, special tokens.
            batch_tokens: positions run at once, padding included.

        Raises:
            CorpusError: the tokenizer lacks what the options need.
        """
        self.subject, self.checkpoint = subject, checkpoint
        self._contexts = WrittenContexts(
            subject.tokenizer, options or ContextOptions(), batch_tokens=batch_tokens
        )

    # ---- where it fires -----------------------------------------------------------------------------

    @torch.no_grad()
    def activations(self, latents: Sequence[int], texts: Sequence[str]) -> list[list[Example]]:
        """By latent, an example for each text, in their order.

        A text is cut to the first context's length. Its focus is the token on which the latent fires most.
        One without tokens gives an example without. Cost: one pass of the subject up to the site over all
        texts, each once, and one encoding, however many latents are asked for.

        Args:
            latents: indices in the dictionary.
            texts: any text; special tokens in it as the options say.
        """
        documents = {text: document_of(text) for text in texts}
        places = {text: place for place, text in enumerate(documents)}
        rows = [self._contexts.of_text(place, text) for text, place in places.items()]
        found: dict[int, np.ndarray] = {}
        for batch in self._contexts.batches([row for row in rows if any(row.is_text)]):
            values = self._values(batch, latents).cpu().numpy()
            for index, row in enumerate(batch.rows):
                found[row.key] = values[index, : len(row.ids)][np.array(row.is_text)]
        return [
            [
                self._example(rows[places[text]], found.get(places[text]), column, documents[text].id)
                for text in texts
            ]
            for column in range(len(latents))
        ]

    def _example(self, row: ContextRow, values: np.ndarray | None, column: int, document: str) -> Example:
        ids = [index for index, is_text in zip(row.ids, row.is_text, strict=True) if is_text]
        activations = [] if values is None else values[:, column].tolist()
        strengths = [abs(value) for value in activations]
        return Example(
            id=hashlib.sha256(f"{WRITTEN} {document}".encode()).hexdigest()[:16],
            document=document,
            split="explain",
            sampler=WRITTEN,
            stratum=0,
            tokens=tuple(token_texts(self.subject.tokenizer, ids)),
            token_ids=tuple(ids),
            activations=tuple(activations),
            focus=strengths.index(max(strengths)) if strengths else 0,
        )

    def _values(self, batch: ContextBatch, latents: Sequence[int]) -> Float[Tensor, "batch position latent"]:
        """Activations of some latents at all places; 0 on padding."""
        sites = self.subject.read(batch.tokens, [self.checkpoint.reads], batch.mask)
        return self._encoded(sites[self.checkpoint.reads], batch.mask, latents)

    def _encoded(
        self,
        x: Float[Tensor, "batch position d_model"],
        mask: Bool[Tensor, "batch position"],
        latents: Sequence[int],
    ) -> Float[Tensor, "batch position latent"]:
        fired = self.checkpoint.sae.encode_sparse(real_tokens(x, mask))
        wanted = torch.tensor(list(latents), device=fired.indices.device, dtype=fired.indices.dtype)
        columns = fired.values.new_zeros(fired.token_count, len(wanted))
        tokens = fired.token_indices()
        for column, latent in enumerate(wanted):
            at = fired.indices == latent
            columns[tokens[at], column] = fired.values[at]
        grid = columns.new_zeros(*mask.shape, len(wanted))
        grid[mask.to(grid.device)] = columns
        return grid

    # ---- what it does -------------------------------------------------------------------------------

    @torch.no_grad()
    def ablation_effects(
        self, contexts: Mapping[int, Sequence[Example]], *, count: int = 10
    ) -> dict[int, AblationEffects]:
        """By latent, the tokens whose log-probability changes most when the latent is taken away.

        Its contribution is subtracted from what really stands at the site, at all tokens of a context on
        which it fires, and the subject goes on from there; what else is at the site, the dictionary's error
        among it, stays. The change of the next token's log-probabilities is averaged over the tokens on
        which it fires. Every example is run as a context of its own, so an activation may differ from that
        in the longer context it was drawn from.

        Cost: over all contexts, one clean pass and one that starts at the site.

        Args:
            contexts: examples by latent; their tokens are used, not their activations.
            count: tokens in each list.
        """
        owners = list(contexts)
        rows = [
            self._contexts.of_ids(owner, example.token_ids)
            for owner, latent in enumerate(owners)
            for example in contexts[latent]
        ]
        sums = {owner: (0, torch.zeros(())) for owner in range(len(owners))}
        for batch in self._contexts.batches([row for row in rows if row.ids]):
            for owner, places, change in self._changes(batch, owners):
                before, total = sums[owner]
                sums[owner] = (before + places, total + change)
        return {latent: self._effects(*sums[owner], count) for owner, latent in enumerate(owners)}

    def _changes(self, batch: ContextBatch, owners: Sequence[int]) -> Iterator[tuple[int, int, Tensor]]:
        """For each context in which its latent fires: whose it is, on how many tokens, sums of changes."""
        place = self.checkpoint
        clean = self.subject.read_with_logits(batch.tokens, list(place.sites), batch.mask)
        latents = [owners[row.key] for row in batch.rows]
        chosen = sorted(set(latents))
        values = self._encoded(clean.activations[place.reads], batch.mask, chosen)
        column = torch.tensor([chosen.index(latent) for latent in latents], device=values.device)
        z = values.gather(2, column[:, None, None].expand(-1, values.shape[1], 1))[:, :, 0]
        directions = self._directions(latents)[:, None]
        scale = self._scale(clean.activations[place.reads], batch.mask)
        stands = clean.activations[place.site]
        moved = stands - ((z * scale)[:, :, None] * directions).to(stands)
        without = self.subject.logits_from(place.site, moved, clean)
        for index, row in enumerate(batch.rows):
            at = ((z[index] != 0) & batch.mask[index].to(z.device)).nonzero()[:, 0].to(without.device)
            if len(at):
                after = without[index, at].double().log_softmax(dim=1)
                before = clean.logits[index, at].double().log_softmax(dim=1)
                yield row.key, len(at), (after - before).sum(dim=0).cpu()

    def _effects(self, places: int, total: Tensor, count: int) -> AblationEffects:
        if not places:
            return AblationEffects((), (), 0)
        mean = total / places
        order = mean.argsort(stable=True)
        size = min(count, len(order))
        low, high = order[:size].tolist(), order.flip(0)[:size].tolist()
        return AblationEffects(
            tuple(pair for pair in self._named(low, mean) if pair[1] < 0),
            tuple(pair for pair in self._named(high, mean) if pair[1] > 0),
            places,
        )

    def _named(self, ids: Sequence[int], mean: Tensor) -> list[tuple[str, float]]:
        """Ids with texts; those beyond the tokenizer's, which models may have as padding, are left out."""
        known = [index for index in ids if index < len(self.subject.tokenizer)]
        texts = token_texts(self.subject.tokenizer, known)
        return [(text, float(mean[index])) for text, index in zip(texts, known, strict=True)]

    @torch.no_grad()
    def steered(
        self,
        latent: int,
        prompts: Sequence[str],
        *,
        strength: float,
        maximum: float,
        options: SteeringOptions | None = None,
    ) -> list[Continuation]:
        """How the subject goes on after each prompt, as it is and with the latent's direction added.

        What is added at every token of prompt and continuation is the contribution of the latent at
        activation `strength * maximum`. Cost: two passes over all prompts for each new token, the second
        from the site on.

        Args:
            latent: index in the dictionary.
            prompts: their first tokens, as many as leave room for the new ones.
            strength: in units of `maximum`; negative: the direction is taken away.
            maximum: largest |activation| of the latent in the corpus.
            options: length and sampling.
        """
        options = options or SteeringOptions()
        room = self.subject.context_limit or 10**9
        rows = [self._contexts.of_text(place, prompt) for place, prompt in enumerate(prompts)]
        kept = max(1, room - options.new_tokens)
        rows = [replace(row, ids=row.ids[:kept], is_text=row.is_text[:kept]) for row in rows]
        written: dict[tuple[int, float], str] = {}
        for amount in (0.0, strength * maximum):
            for batch in self._contexts.batches(
                [row for row in rows if row.ids], longer_by=options.new_tokens
            ):
                for row, text in zip(
                    batch.rows, self._continued(batch, latent, amount, options), strict=True
                ):
                    written[row.key, amount] = text
        return [
            Continuation(prompt, written.get((place, 0.0), ""), written.get((place, strength * maximum), ""))
            for place, prompt in enumerate(prompts)
        ]

    def _continued(
        self, batch: ContextBatch, latent: int, amount: float, options: SteeringOptions
    ) -> list[str]:
        texts = [list(row.ids) for row in batch.rows]
        ends = {self.subject.tokenizer.eos_token_id}
        draws = [np.random.default_rng((options.seed, row.key)) for row in batch.rows]
        alive = set(range(len(texts)))
        for _ in range(options.new_tokens):
            full = self.subject.context_limit or 10**9
            alive = {index for index in alive if len(texts[index]) < full}
            if not alive:
                break
            rows = sorted(alive)
            tokens, mask = padded([texts[index] for index in rows])
            logits = self._next_logits(tokens, mask, latent, amount)
            for index, row in zip(rows, logits, strict=True):
                token = _chosen(row, options.temperature, draws[index])
                if token in ends:
                    alive.discard(index)
                else:
                    texts[index].append(token)
        return [
            self._text_behind(row.ids, text[len(row.ids) :])
            for row, text in zip(batch.rows, texts, strict=True)
        ]

    def _next_logits(
        self,
        tokens: Int[Tensor, "batch position"],
        mask: Bool[Tensor, "batch position"],
        latent: int,
        amount: float,
    ) -> Float[Tensor, "batch vocabulary"]:
        place = self.checkpoint
        clean = self.subject.read_with_logits(tokens, list(place.sites), mask)
        logits = clean.logits
        if amount:
            scale = self._scale(clean.activations[place.reads], mask)[:, :, None]
            stands = clean.activations[place.site]
            moved = stands + (amount * scale * self._directions([latent])[None]).to(stands)
            logits = self.subject.logits_from(place.site, moved, clean)
        last = (mask.sum(dim=1) - 1).to(logits.device)
        return logits[torch.arange(len(last), device=logits.device), last]

    def _text_behind(self, before: Sequence[int], new: Sequence[int]) -> str:
        decode: Any = self.subject.tokenizer.decode
        settings = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(decode([*before, *new], **settings))[len(decode(list(before), **settings)) :]

    # ---- the latent in the site's space -------------------------------------------------------------

    def _directions(self, latents: Sequence[int]) -> Float[Tensor, "latent d_out"]:
        """`d / s` of each."""
        sae = self.checkpoint.sae
        rows = torch.tensor(list(latents))
        found = sae.decoder_weight[rows.to(sae.decoder_weight.device)].to(sae.encoder_bias)
        if sae.latent_scale is not None:
            found = found / sae.latent_scale[rows.to(sae.latent_scale.device)][:, None]
        return found

    def _scale(
        self, x: Float[Tensor, "batch position d_model"], mask: Bool[Tensor, "batch position"]
    ) -> Float[Tensor, "batch position"]:
        """`n` at every token; 0 on padding."""
        sae = self.checkpoint.sae
        statistics = sae.normalization.apply(real_tokens(x, mask).to(sae.encoder_bias))[1]
        grid = sae.encoder_bias.new_zeros(mask.shape)
        grid[mask.to(grid.device)] = statistics.std[:, 0]
        return grid


def _chosen(logits: Float[Tensor, " vocabulary"], temperature: float, random: np.random.Generator) -> int:
    if temperature <= 0:
        return int(logits.argmax())
    reached = (logits.double().cpu() / temperature).softmax(dim=0).cumsum(dim=0)
    place = torch.searchsorted(reached, float(random.random()) * float(reached[-1]), right=True)
    return min(int(place), len(reached) - 1)
