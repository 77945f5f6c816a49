"""Runs a language model: reads its sites, replaces one of them, and goes on from there."""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from autointerp.errors import SiteError, SubjectError
from autointerp.subject.attaching import keeper, reading, replacing
from autointerp.subject.hooks import StopReadingError, on_input
from autointerp.subject.loading import fingerprint_of_model, load_parts
from autointerp.subject.placement import DeviceMap, devices_of, entry_device
from autointerp.subject.places import Places
from autointerp.subject.probing_pass import probe, probe_tokens
from autointerp.subject.quantization import describe_quantization, parameter_count
from autointerp.subject.reentry import Reentry
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
        saved_from: str | None = None,
    ) -> None:
        """Wrap a Hugging Face causal language model that is already in memory.

        Args:
            model: a `PreTrainedModel` with a language modelling head; put into evaluation mode.
            tokenizer: its tokenizer.
            name: what the report calls it.
            revision: commit of the hub it came from, where known.
            sha256: hash over its files; without it, over its configuration and weights in memory.
            saved_from: what it was called when it was saved, where known.

        Raises:
            SubjectError: the model has no blocks, gives no finite logits, or lets a token see later ones.
        """
        self.model: Any = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.sha256 = sha256 or fingerprint_of_model(model)
        stated = getattr(model.config, "_name_or_path", None)
        self._saved_from = (stated or "") if saved_from is None else saved_from
        self.blocks: Blocks = find_blocks(model, expected_count=self._configured("num_hidden_layers"))
        few = probe_tokens(
            vocabulary_size=self._configured("vocab_size") or 2,
            context_limit=self.context_limit,
            device=self.device,
        )
        seen = probe(self._run, self.blocks, few, name=name)
        self.d_model, self.vocabulary_size = seen.d_model, seen.vocabulary_size
        self.dtype: torch.dtype = seen.dtype
        """What it computes in: of its activations, and of its weights unless they are quantised."""
        self.places = Places(self.model, self.blocks, name=name, run=self._run, tokens=few)
        """Where its sites are."""
        self.reentry = Reentry(self.places, self.blocks, seen.forms, run=self._run, tokens=few)
        """What leaves out the blocks below a site."""
        self._few_tokens = few
        self._seen: dict[str, tuple[int, torch.device]] = {}

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        dtype: torch.dtype | Literal["auto"] = torch.float32,
        device: str | torch.device = "cpu",
        device_map: DeviceMap | None = None,
        quantization: str | Mapping[str, Any] | None = None,
    ) -> "SubjectModel":
        """Load a local folder (never touching the network) or a model of the Hugging Face hub.

        Code that comes with a model is never run. A model that is stored quantised is loaded so.

        Args:
            name_or_path: folder, or name on the hub.
            revision: of a hub model.
            dtype: what to compute in; "auto": the type that it is stored in.
            device: where to compute; without a device map only.
            device_map: spreads it over devices, or leaves weights off them until they are used: "auto", or
                from paths of modules to devices. Needs `accelerate`. Tokens go to the first device; what is
                read comes back on the device where it was.
            quantization: quantises it while loading: "bitsandbytes-4bit", "bitsandbytes-8bit", or a table
                as a model's config.json holds it under `quantization_config`.

        Raises:
            SubjectError: there is no such model, it is damaged, incomplete or not a causal language model,
                or it cannot be placed or quantised as asked.
        """
        parts = load_parts(
            name_or_path,
            revision=revision,
            dtype=dtype,
            device=device,
            device_map=device_map,
            quantization=quantization,
        )
        return cls(
            parts.model,
            parts.tokenizer,
            name=parts.name,
            revision=parts.revision,
            sha256=parts.sha256,
            saved_from=parts.saved_from or "",
        )

    # ---- what it is ---------------------------------------------------------------------------------

    @property
    def layer_count(self) -> int:
        """How many blocks it has."""
        return len(self.blocks.modules)

    @property
    def device(self) -> torch.device:
        """Where it computes; of a model on several devices the first, where tokens go."""
        return entry_device(self.model)

    @property
    def known_names(self) -> tuple[str, ...]:
        """What a checkpoint may call it: its name, what it was saved from, and the last parts of both."""
        found: list[str] = []
        for name in (self.name, self._saved_from):
            is_path = name.startswith(("/", "~", ".")) or "\\" in name
            found += ["" if is_path else name, re.split(r"[/\\]", name.rstrip("/\\"))[-1]]
        return tuple(dict.fromkeys(name for name in found if name.strip(".~")))

    @property
    def context_limit(self) -> int | None:
        """How many positions it was built for; None where its configuration does not say."""
        return self._configured("max_position_embeddings")

    @cached_property
    def parameter_count(self) -> int:
        """How many weights it has, shared ones counted once, packed ones for all that they stand for."""
        return parameter_count(self.model)

    def describe(self) -> dict[str, Any]:
        """What a report says about it: plain values, no path of this machine."""
        quantization, devices = describe_quantization(self.model), ", ".join(devices_of(self.model))
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
            **({"quantization": quantization} if quantization else {}),
            **({"device_map": devices} if devices else {}),
        }

    def width(self, site: str | Site) -> int:
        """Length of the vectors at a site.

        Raises:
            SiteError: the subject has no such site.
        """
        return self._at(site)[0]

    def site_device(self, site: str | Site) -> torch.device:
        """Where what is read at a site lies; elsewhere than `device` only with a device map.

        Raises:
            SiteError: the subject has no such site.
        """
        return self._at(site)[1]

    def _at(self, site: str | Site) -> tuple[int, torch.device]:
        site = self.places.checked(site)
        if site.name not in self._seen:
            self.read(self._few_tokens[:1], [site])
        return self._seen[site.name]

    def canonical_site(self, name: str) -> str:
        """The one name of a place that can be written in several ways.

        That is TransformerLens's where there is one (`blocks.1.hook_resid_post` for `model.layers.1`,
        `blocks.1.hook_mlp_out` for `model.layers.1.mlp` in a model built so), else the module's path. The
        input of a block and the output of the one before keep their two names.

        Raises:
            SiteError: the subject has no such site.
        """
        return self.places.canonical_name(name)

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
        wanted = {site.name: site for site in map(self.places.checked, sites)}
        tokens, mask = self._checked_tokens(tokens, attention_mask)
        activations: dict[Any, Tensor] = {}
        if not wanted:
            return activations
        with ExitStack() as stack:
            self._watch(wanted, activations, tokens, stack, stop_at=len(wanted))
            try:
                self._run(tokens, mask)
            except StopReadingError:
                self._note(activations)
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
        wanted = {site.name: site for site in map(self.places.checked, sites)}
        tokens, mask = self._checked_tokens(tokens, attention_mask)
        activations: dict[Any, Tensor] = {}
        block_inputs: dict[Any, Tensor] = {}
        layers = {self.places.inner_layer(site) for site in wanted.values()} - {None}
        with ExitStack() as stack:
            self._watch(wanted, activations, tokens, stack)
            for layer in layers:
                keep = keeper(block_inputs, layer, tokens)
                stack.enter_context(on_input(self.blocks.modules[layer or 0], keep))
            logits = self._run(tokens, mask)
        if len(activations) < len(wanted):
            raise _never_ran(wanted, activations)
        self._note(activations)
        return SubjectPass(activations, logits, tokens, mask, block_inputs)

    def _note(self, activations: Mapping[str, Tensor]) -> None:
        self._seen |= {name: (value.shape[-1], value.device) for name, value in activations.items()}

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
            keep = keeper(activations, name, tokens, stop_at=stop_at)
            stack.enter_context(reading(self.places, site, keep))

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
        site = self.places.checked(site)
        if isinstance(subject_pass, SubjectPass):
            tokens, mask = subject_pass.tokens, subject_pass.attention_mask
            block_inputs = subject_pass.block_inputs
        else:
            tokens, mask = self._checked_tokens(subject_pass, attention_mask)
            block_inputs = {}
        new = self._checked_activations(site, activations, tokens)
        below = self.reentry.skipping_below(site, block_inputs)
        with below, replacing(self.places, self.blocks, site, new):
            return self._run(tokens, mask)

    # ---- running ------------------------------------------------------------------------------------

    # Not inference_mode: it was measured to be no faster, and what it returns can neither be changed in
    # place nor take part in training without a copy.
    @torch.no_grad()
    def _run(self, tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
        mask = None if attention_mask is None else attention_mask.long()
        logits: Tensor = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        return logits.to(self.device)

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
        return activations.detach().contiguous()


def _never_ran(wanted: Mapping[str, Site], activations: Mapping[str, Tensor]) -> SiteError:
    return SiteError(
        "the model never ran it on these tokens",
        where=f"site {', '.join(sorted(wanted.keys() - activations.keys()))}",
        remedy="name a module that the forward pass uses",
    )
