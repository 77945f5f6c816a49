"""Runs a causal language model on prompts of unequal length, with keys and values of earlier tokens reused.

Prompts are padded on the right, behind all that counts. Before tokens are added one by one, the keys and
values of shorter prompts are moved up against the end, so that no row has a gap: relative positions, sliding
windows and explicit position ids are then all those of the row alone.

What a family cannot do is found out by trying (`NetworkMode`), not believed: the same logits must come out.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

__all__ = ["KeyValues", "Network", "NetworkMode", "Session", "first_positions"]

KeyValues = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer, [row, head, position, width]."""

NetworkMode = Literal["cached", "padded", "single"]
"""`cached`: keys and values are reused. `padded`: prompts run together, all tokens anew at each step.
`single`: one prompt at a time, all tokens anew."""

_TOLERANCE = 1e-3
"""Of the spread of the logits, in float32; other precisions more, by their epsilon."""
_LOGIT_FLOATS = 2**26
"""Logits that are held at once where all positions are read: 256 MiB in float32."""
_FAULTS = (LookupError, AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError)

Visit = Callable[[int, Float[Tensor, "row position vocabulary"]], None]


class Network:
    """A model and what it was seen to do. One pass at a time."""

    def __init__(self, model: Any, *, pad_id: int = 0, mode: NetworkMode | None = None) -> None:
        """Try the model out, unless `mode` says how to run it."""
        self.model = model
        self.device: torch.device = next(model.parameters()).device
        self.pad_id = pad_id
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_keep = "logits_to_keep" in accepted
        self.vocabulary_size = int(model.config.get_text_config().vocab_size)
        self.mode: NetworkMode = mode or "single"
        if mode is None:
            self.mode = self._found_mode()

    @torch.no_grad()
    def run(
        self,
        tokens: Int[Tensor, "row position"],
        mask: Bool[Tensor, "row all_position"],
        positions: Int[Tensor, "row position"],
        cache: Any = None,
        *,
        keep: Int[Tensor, " kept"] | None = None,
    ) -> Float[Tensor, "row _ vocabulary"]:
        """Logits in float32, of all positions or of those in `keep`; the cache grows by the tokens."""
        options: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            options["past_key_values"] = cache
        if self._takes_positions:
            options["position_ids"] = positions
        if keep is not None and self._takes_keep:
            options["logits_to_keep"] = keep
        logits: Tensor = self.model(input_ids=tokens, attention_mask=mask.long(), **options).logits
        if keep is not None and not self._takes_keep:
            logits = logits[:, keep]
        return logits.float()

    def _found_mode(self) -> NetworkMode:
        generator = np.random.default_rng(0)
        rows = [generator.integers(0, self.vocabulary_size, size) for size in (7, 11, 9)]
        after = generator.integers(0, self.vocabulary_size, (2, len(rows)))
        expected = [
            self._alone(np.concatenate([row, after[:, index]]))[len(row) - 1 :]
            for index, row in enumerate(rows)
        ]
        wanted = torch.stack(expected, dim=1)
        for mode in ("cached", "padded"):
            self.mode = mode
            try:
                found = self._tried(rows, after)
            except _FAULTS:
                continue
            precision = torch.finfo(self.model.dtype).eps / torch.finfo(torch.float32).eps
            allowed = _TOLERANCE * max(1.0, precision**0.5) * float(wanted.std())
            if float((found - wanted).abs().max()) <= allowed:
                return mode
        return "single"

    def _alone(self, row: Int64[np.ndarray, " token"]) -> Float[Tensor, "position vocabulary"]:
        tokens = torch.from_numpy(row)[None].to(self.device)
        positions = torch.arange(len(row), device=self.device)[None]
        return self.run(tokens, torch.ones_like(tokens, dtype=torch.bool), positions)[0]

    def _tried(
        self, rows: Sequence[Int64[np.ndarray, " _"]], after: Int64[np.ndarray, "step row"]
    ) -> Float[Tensor, "_ row vocabulary"]:
        """The logits behind each row and behind the tokens after it, the way a batch is run."""
        past = None
        if self.mode == "cached":
            firsts = [Session(self, [row[:3]]) for row in rows]
            for first in firsts:
                first.read()
            layers = zip(*(first.keys_and_values() for first in firsts), strict=True)
            past = tuple(
                (torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in layers
            )
        session = Session(self, rows, past=past)
        found = [session.read(), *(session.step(torch.from_numpy(step)) for step in after)]
        return torch.stack(found)


class Session:
    """Some prompts on their way: read once, then one token more at a time."""

    def __init__(
        self,
        network: Network,
        rows: Sequence[Int64[np.ndarray, " _"]],
        *,
        past: KeyValues | None = None,
    ) -> None:
        """Nothing is run yet.

        Args:
            network: runs them.
            rows: ids of each whole prompt; each is longer than `past`.
            past: keys and values of the first tokens, for all rows or one for all; only of a network in
                mode `cached`.
        """
        self._network = network
        self._past_length = 0 if past is None else past[0][0].shape[2]
        self._past = past
        self._cache: Any = None
        self._lengths = [len(row) for row in rows]
        width = max(self._lengths)
        tokens = np.full((len(rows), width), network.pad_id, dtype=np.int64)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = row
        device = network.device
        self._tokens = torch.from_numpy(tokens).to(device)
        lengths = torch.tensor(self._lengths, device=device)[:, None]
        self._mask = torch.arange(width, device=device)[None] < lengths
        self._next_position = lengths

    @property
    def _is_cached(self) -> bool:
        return self._network.mode == "cached"

    def read(self, visit: Visit | None = None) -> Float[Tensor, "row vocabulary"]:
        """Run the prompts; the logits behind the last token of each.

        Args:
            visit: sees the logits of all positions that are not `past`, some at a time: the position in the
                prompt at which they begin, and the logits, those of padding among them.
        """
        if self._is_cached:
            self._cache = _cache_of(self._past, len(self._lengths))
            self._past = None
        chunks = self._chunks(every=visit is not None)
        last: list[Tensor | None] = [None] * len(self._lengths)
        for start, end in chunks:
            inside = [index for index, size in enumerate(self._lengths) if start < size <= end]
            kept = sorted({self._lengths[index] - 1 - start for index in inside})
            keep = None if visit else torch.tensor(kept, device=self._tokens.device)
            logits = self._network.run(
                self._tokens[:, start:end],
                self._mask[:, :end],
                torch.arange(start, end, device=self._tokens.device)[None].expand(len(self._lengths), -1),
                self._cache,
                keep=keep,
            )
            if visit is not None:
                visit(start, logits)
            for index in inside:
                place = self._lengths[index] - 1 - start
                last[index] = logits[index, place if visit else kept.index(place)].clone()
        return torch.stack([row for row in last if row is not None])

    def _chunks(self, *, every: bool) -> Iterator[tuple[int, int]]:
        """Ranges of positions to run at a time: all, or as many as there is room for logits."""
        width = self._tokens.shape[1]
        size = width
        if every and self._is_cached:
            size = max(1, _LOGIT_FLOATS // (len(self._lengths) * self._network.vocabulary_size))
        for start in range(self._past_length, width, size):
            yield start, min(start + size, width)

    def keys_and_values(self) -> KeyValues:
        """Of all rows, as they are now; of mode `cached` only, after `read`."""
        return tuple((layer.keys, layer.values) for layer in self._cache.layers)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows only."""
        chosen = torch.tensor(rows, device=self._tokens.device)
        self._lengths = [self._lengths[row] for row in rows]
        self._mask, self._tokens = self._mask[chosen], self._tokens[chosen]
        self._next_position = self._next_position[chosen]
        if self._is_cached:
            self._cache.batch_select_indices(chosen)

    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row vocabulary"]:
        """Add one token to each row; the logits behind it."""
        tokens = tokens.to(self._tokens.device)[:, None]
        if not self._is_cached:
            return self._anew(tokens)
        if not bool(self._mask[:, -1].all()):
            self._close_gaps()
        self._mask = torch.cat([self._mask, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        logits = self._network.run(tokens, self._mask, self._next_position, self._cache)
        self._next_position = self._next_position + 1
        return logits[:, -1]

    def _anew(self, tokens: Int[Tensor, "row 1"]) -> Float[Tensor, "row vocabulary"]:
        width = self._tokens.shape[1]
        if max(self._lengths) == width:
            pad = torch.full_like(tokens, self._network.pad_id)
            self._tokens = torch.cat([self._tokens, pad], dim=1)
            self._mask = torch.cat([self._mask, torch.zeros_like(pad, dtype=torch.bool)], dim=1)
        place = torch.tensor(self._lengths, device=tokens.device)[:, None]
        self._tokens = self._tokens.scatter(1, place, tokens)
        self._mask = self._mask.scatter(1, place, True)
        self._lengths = [size + 1 for size in self._lengths]
        self._next_position = self._next_position + 1
        return self.read()

    def _close_gaps(self) -> None:
        """Move each row's keys and values up against the end; what was behind them comes to the front."""
        width = self._mask.shape[1]
        shift = width - self._mask.sum(dim=1, keepdim=True)
        source = (torch.arange(width, device=shift.device)[None] - shift) % width
        self._mask = self._mask.gather(1, source)
        for layer in self._cache.layers:
            layer.keys = _moved(layer.keys, source)
            layer.values = _moved(layer.values, source)


def _moved(tensor: Tensor, source: Int[Tensor, "row position"]) -> Tensor:
    index = source[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
    return tensor.gather(2, index)


def _cache_of(past: KeyValues | None, row_count: int) -> Any:
    """A cache that keeps all positions of every layer: windows are the masks' business."""
    from transformers import DynamicCache

    if past is None:
        return DynamicCache()
    return DynamicCache(
        ddp_cache_data=[
            (keys.expand(row_count, -1, -1, -1), values.expand(row_count, -1, -1, -1))
            for keys, values in past
        ]
    )


def first_positions(keys_and_values: KeyValues, count: int, *, row: int = 0) -> KeyValues:
    """Keys and values of the first tokens of one row, in memory of their own."""
    return tuple(
        (keys[row : row + 1, :, :count].clone(), values[row : row + 1, :, :count].clone())
        for keys, values in keys_and_values
    )
