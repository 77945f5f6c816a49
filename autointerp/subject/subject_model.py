"""Runs a language model: reads its sites, replaces one of them, and goes on from there."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from autointerp.errors import SiteError, SubjectError
from autointerp.subject.hooks import StopReadingError, as_positions, on_input, on_output, pass_through
from autointerp.subject.loading import fingerprint_of_model, load_parts
from autointerp.subject.places import Places
from autointerp.subject.probing_pass import probe, probe_tokens
from autointerp.subject.sites import Blocks, Site, find_blocks

__all__ = ["SubjectModel", "SubjectPass"]


@dataclass(frozen=True, eq=False)
class SubjectPass:
    """One clean pass: what was read, what the model predicted, and what re-entering it needs."""

    activations: dict[str, Float[Tensor, "batch position _"]]
    """By the name of the site, as it was asked for."""
    logits: Float[Tensor, "batch position vocabulary"]
    tokens: Int[Tensor, "batch position"]
    attention_mask: Bool[Tensor, "batch position"] | None
    block_inputs: Mapping[int, Float[Tensor, "batch position d_model"]] = field(default_factory=dict)
    """What went into the blocks whose insides were read; re-entering inside a block starts there."""


class SubjectModel:
    """A causal language model under study. One pass at a time: not for use from several threads."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        sha256: str | None = None,
    ) -> None:
        """Wrap a Hugging Face causal language model that is already in memory.

        Args:
            model: a `PreTrainedModel` with a language modelling head; put into evaluation mode.
            tokenizer: its tokenizer.
            name: what the report calls it.
            revision: commit of the hub it came from, where known.
            sha256: hash over its files; without it, over its configuration and weights in memory.

        Raises:
            SubjectError: the model has no blocks, gives no finite logits, or lets a token see later ones.
        """
        self.model: Any = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.sha256 = sha256 or fingerprint_of_model(model)
        self.blocks: Blocks = find_blocks(model, expected_count=self._configured("num_hidden_layers"))
        few = probe_tokens(
            vocabulary_size=self._configured("vocab_size") or 2,
            context_limit=self.context_limit,
            device=self.device,
        )
        seen = probe(self._run, self.blocks, few, name=name)
        self.d_model, self.vocabulary_size, self._forms = seen.d_model, seen.vocabulary_size, seen.forms
        self._places = Places(self.model, self.blocks, name=name, run=self._run, tokens=few)
        self._few_tokens = few
        self._widths: dict[str, int] = {}

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> "SubjectModel":
        """Load a local folder (never touching the network) or a model of the Hugging Face hub.

        Code that comes with a model is never run.

        Raises:
            SubjectError: there is no such model, it is damaged, incomplete or not a causal language model.
        """
        parts = load_parts(name_or_path, revision=revision, dtype=dtype, device=device)
        return cls(
            parts.model, parts.tokenizer, name=parts.name, revision=parts.revision, sha256=parts.sha256
        )

    # ---- what it is ---------------------------------------------------------------------------------

    @property
    def layer_count(self) -> int:
        """How many blocks it has."""
        return len(self.blocks.modules)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights, and so of its activations."""
        kind: torch.dtype = next(self.model.parameters()).dtype
        return kind

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        place: torch.device = next(self.model.parameters()).device
        return place

    @property
    def context_limit(self) -> int | None:
        """How many positions it was built for; None where its configuration does not say."""
        return self._configured("max_position_embeddings")

    @cached_property
    def parameter_count(self) -> int:
        """How many weights it has, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def describe(self) -> dict[str, Any]:
        """What a report says about it: plain values, no path of this machine."""
        return {
            "name": self.name,
            "revision": self.revision,
            "sha256": self.sha256,
            "model_type": self.model.config.model_type,
            "layer_count": self.layer_count,
            "d_model": self.d_model,
            "vocabulary_size": self.vocabulary_size,
            "parameter_count": self.parameter_count,
            "context_limit": self.context_limit,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
        }

    def width(self, site: str | Site) -> int:
        """Length of the vectors at a site.

        Raises:
            SiteError: the subject has no such site.
        """
        site = self._places.checked(site)
        if site.name not in self._widths:
            self._widths[site.name] = self.read(self._few_tokens[:1], [site])[site.name].shape[-1]
        return self._widths[site.name]

    def canonical_site(self, name: str) -> str:
        """The one name of a place that can be written in several ways.

        That is TransformerLens's where there is one (`blocks.1.hook_resid_post` for `model.layers.1`,
        `blocks.1.hook_mlp_out` for `model.layers.1.mlp` in a model built so), else the module's path. The
        input of a block and the output of the one before keep their two names.

        Raises:
            SiteError: the subject has no such site.
        """
        return self._places.canonical_name(name)

    def _configured(self, key: str) -> int | None:
        value = getattr(self.model.config.get_text_config(), key, None)
        return value if isinstance(value, int) else None

    # ---- reading ------------------------------------------------------------------------------------

    def read(
        self,
        tokens: Int[Tensor, "batch position"],
        sites: Sequence[str | Site],
        attention_mask: Bool[Tensor, "batch position"] | None = None,
    ) -> dict[str, Float[Tensor, "batch position _"]]:
        """The activations at `sites`, by name; the pass ends at the last of them, so without logits.

        Args:
            tokens: ids.
            sites: names as `parse_site` takes them.
            attention_mask: true where there is a token; None when there is no padding.

        Raises:
            SiteError: the subject has no such site, or it did not run on these tokens.
            SubjectError: the tokens do not fit the subject.
        """
        wanted = {site.name: site for site in map(self._places.checked, sites)}
        tokens, mask = self._checked_tokens(tokens, attention_mask)
        activations: dict[Any, Tensor] = {}
        if not wanted:
            return activations
        with ExitStack() as stack:
            self._watch(wanted, activations, tokens, stack, stop_at=len(wanted))
            try:
                self._run(tokens, mask)
            except StopReadingError:
                return activations
        raise _never_ran(wanted, activations)

    def read_with_logits(
        self,
        tokens: Int[Tensor, "batch position"],
        sites: Sequence[str | Site],
        attention_mask: Bool[Tensor, "batch position"] | None = None,
    ) -> SubjectPass:
        """The activations at `sites` and the logits, in one pass through the whole model.

        Args and errors: as for `read`.
        """
        wanted = {site.name: site for site in map(self._places.checked, sites)}
        tokens, mask = self._checked_tokens(tokens, attention_mask)
        activations: dict[Any, Tensor] = {}
        block_inputs: dict[Any, Tensor] = {}
        layers = {self._places.inner_layer(site) for site in wanted.values()} - {None}
        with ExitStack() as stack:
            self._watch(wanted, activations, tokens, stack)
            for layer in layers:
                keep = _keeper(block_inputs, layer, tokens)
                stack.enter_context(on_input(self.blocks.modules[layer or 0], keep))
            logits = self._run(tokens, mask)
        if len(activations) < len(wanted):
            raise _never_ran(wanted, activations)
        return SubjectPass(activations, logits, tokens, mask, block_inputs)

    def _watch(
        self,
        wanted: Mapping[str, Site],
        activations: dict[Any, Tensor],
        tokens: Tensor,
        stack: ExitStack,
        *,
        stop_at: int | None = None,
    ) -> None:
        for name, site in wanted.items():
            stack.enter_context(self._at(site, _keeper(activations, name, tokens, stop_at=stop_at)))

    def _at(self, site: Site, change: Callable[[Tensor], Tensor | None]) -> AbstractContextManager[None]:
        """A context in which `change` is given what goes by at the site."""
        attach = on_input if site.kind in ("resid_pre", "resid_mid") else on_output
        return attach(self._places.module(site), change)

    # ---- replacing ----------------------------------------------------------------------------------

    def logits_from(
        self,
        site: str | Site,
        activations: Float[Tensor, "batch position _"],
        subject_pass: SubjectPass | Int[Tensor, "batch position"],
        attention_mask: Bool[Tensor, "batch position"] | None = None,
    ) -> Float[Tensor, "batch position vocabulary"]:
        """The logits when `activations` stand at `site` instead of what the model computes there.

        For residual sites the blocks below are not run. For a site inside a block (`mlp_out`, `attn_out`,
        `resid_mid`, a module in it) the same holds if `subject_pass` has read a site in that block; the
        block itself starts from its own input. With bare tokens such a site, and in any case a module
        outside the blocks, takes a run of the whole model. Putting in what was read gives the logits of the
        clean pass, to the bit in float32.

        Args:
            site: where.
            activations: what stands there, at all positions.
            subject_pass: the clean pass on the same tokens, or the tokens themselves.
            attention_mask: only with bare tokens.

        Raises:
            SiteError: the subject has no such site, or the activations do not have its shape.
            SubjectError: the tokens do not fit the subject.
        """
        site = self._places.checked(site)
        if isinstance(subject_pass, SubjectPass):
            tokens, mask = subject_pass.tokens, subject_pass.attention_mask
            block_inputs = subject_pass.block_inputs
        else:
            tokens, mask = self._checked_tokens(subject_pass, attention_mask)
            block_inputs = {}
        new = self._checked_activations(site, activations, tokens)
        with ExitStack() as stack:
            self._skip_below(site, block_inputs, stack)
            if site.kind == "resid_mid":
                self._replace_middle(site, new, stack)
            else:
                # A copy, since some models add to it in place (Falcon's MLP output).
                stack.enter_context(self._at(site, lambda old: new.view(old.shape).clone()))
            return self._run(tokens, mask)

    def _skip_below(self, site: Site, block_inputs: Mapping[int, Tensor], stack: ExitStack) -> None:
        """Let the blocks that the site does not depend on compute nothing."""
        edge, inner = self._places.edge_layer(site), self._places.inner_layer(site)
        blocks = self.blocks.modules
        if edge is not None:
            first = edge + (site.kind == "resid_post")
            stack.enter_context(pass_through(blocks[:first], self._forms))
        elif inner is not None and inner in block_inputs:
            stack.enter_context(pass_through(blocks[:inner], self._forms))
            stack.enter_context(on_input(blocks[inner], lambda _old: block_inputs[inner].clone()))

    def _replace_middle(self, site: Site, new: Tensor, stack: ExitStack) -> None:
        """Replace the residual between attention and MLP.

        The block adds the MLP's output to the residual that it kept for itself, so the change of that
        residual is added to the block's output as well.
        """
        changes: list[Tensor] = []

        def replace(old: Tensor) -> Tensor:
            changes.append(new - old.view(new.shape))
            return new.view(old.shape).clone()

        stack.enter_context(self._at(site, replace))
        block = self.blocks.modules[self._places.inner_layer(site) or 0]
        stack.enter_context(on_output(block, lambda old: old + changes[-1]))

    # ---- running ------------------------------------------------------------------------------------

    # Not inference_mode: it was measured to be no faster, and what it returns can neither be changed in
    # place nor take part in training without a copy.
    @torch.no_grad()
    def _run(self, tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
        mask = None if attention_mask is None else attention_mask.long()
        logits: Tensor = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        return logits

    def _checked_tokens(self, tokens: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Both on the subject's device; no mask where nothing is masked, which is faster."""
        where = f"tokens for {self.name}"
        if tokens.ndim != 2 or not tokens.numel():
            raise SubjectError(f"tokens [batch position] have shape {tuple(tokens.shape)}", where=where)
        lowest, highest = int(tokens.min()), int(tokens.max())
        if lowest < 0 or highest >= self.vocabulary_size:
            raise SubjectError(
                f"ids {lowest} to {highest} are outside the vocabulary of {self.vocabulary_size}",
                where=where,
                remedy="use the subject's own tokenizer",
            )
        if self.context_limit is not None and tokens.shape[1] > self.context_limit:
            raise SubjectError(
                f"{tokens.shape[1]} positions are more than the {self.context_limit} it was built for",
                where=where,
                remedy="choose a smaller context_length",
            )
        if attention_mask is None or bool(attention_mask.all()):
            return tokens.to(self.device), None
        return tokens.to(self.device), attention_mask.bool().to(self.device)

    def _checked_activations(self, site: Site, activations: Tensor, tokens: Tensor) -> Tensor:
        expected = (*tokens.shape, self.width(site))
        if activations.shape != expected:
            raise SiteError(
                f"activations have shape {tuple(activations.shape)}, the site has {expected}",
                where=f"site {site.name!r} of {self.name}",
                remedy="use activations or a dictionary made for this site of this subject",
            )
        return activations.detach().to(device=self.device, dtype=self.dtype).contiguous()


def _keeper(
    store: dict[Any, Tensor], key: str | int | None, tokens: Tensor, *, stop_at: int | None = None
) -> Callable[[Tensor], None]:
    """Stores the first tensor that goes by; ends the pass when `stop_at` of them are there."""
    batch_shape = (tokens.shape[0], tokens.shape[1])

    def keep(value: Tensor) -> None:
        if key not in store:
            # A copy, since some models add to the residual stream in place.
            store[key] = as_positions(value, batch_shape).detach().clone()
        if len(store) == stop_at:
            raise StopReadingError

    return keep


def _never_ran(wanted: Mapping[str, Site], activations: Mapping[str, Tensor]) -> SiteError:
    return SiteError(
        "the model never ran it on these tokens",
        where=f"site {', '.join(sorted(wanted.keys() - activations.keys()))}",
        remedy="name a module that the forward pass uses",
    )
