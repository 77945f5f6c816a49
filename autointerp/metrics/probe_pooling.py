"""Token vectors of a site -> a value for each latent and item: a token's, or the mean or maximum of a text's.

An item is what a probe sees of an example. Its vectors lie one after another in a table of token vectors, so
that texts and positions that several tasks ask about are there once. A latent's value of an item is

    token    p(x_t)                      last and marked tokens
    mean     mean over tokens of p(x_t)  = W mean(N(x_t)) + b: exact, as pre-activations are affine in N(x)
    max      max over tokens of p(x_t)

with p the latent's pre-activation and N what the dictionary does to its input, token by token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.probe_records import ProbeData, TaskExamples
from autointerp.sampling.samplers.hashing import text_hash

__all__ = [
    "ChannelBank",
    "DictionaryBank",
    "DirectionBank",
    "ItemTable",
    "Items",
    "LinearBank",
    "PooledInputs",
    "PooledValues",
    "Rows",
    "item_table",
]

Pooling = Literal["token", "mean", "max"]
_TOKENS = 8192
"""Vectors that are normalised at a time."""
_ROOM = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Values of one block of tokens and latents, before their maximum is taken."""
_DRAWN = 512
"""Directions of one draw; a block of other size reads parts of several."""


@dataclass(frozen=True, eq=False)
class Items:
    """Which rows of a table of token vectors each item is made of: `start` up to, not including, `stop`."""

    pooling: tuple[Pooling, ...]
    start: Int[np.ndarray, " item"]
    stop: Int[np.ndarray, " item"]

    def only(self, items: Int[np.ndarray, " chosen"]) -> "Items":
        """Some items, in the order given."""
        pooling = tuple(self.pooling[item] for item in items.tolist())
        return Items(pooling, self.start[items], self.stop[items])

    @property
    def is_single(self) -> np.ndarray:
        """Whether an item is one token, so that nothing is pooled."""
        return np.array([kind == "token" for kind in self.pooling], dtype=bool)


@dataclass(frozen=True, eq=False)
class ItemTable:
    """What some tasks need of their texts."""

    text: Int[np.ndarray, " token"]
    """Index into `ProbeData.texts`; ascending."""
    position: Int[np.ndarray, " token"]
    """In the text; ascending within one."""
    items: Items
    of_task: tuple[Int[np.ndarray, " _"], ...]
    """For each task, the item of every example."""


def item_table(data: ProbeData, tasks: Sequence[TaskExamples]) -> ItemTable:
    """The token vectors that tasks need, each once, and how items are made of them.

    Raises:
        ValueError: a text has no token to pool over, or a marked position lies outside of its text.
    """
    keys = [_keys(data, task) for task in tasks]
    wanted = {key: None for of_task in keys for key in of_task}
    tokens = sorted({(key.text, position) for key in wanted for position in range(key.start, key.stop)})
    row = {token: index for index, token in enumerate(tokens)}
    start = np.array([row[key.text, key.start] for key in wanted], dtype=np.int64)
    length = np.array([key.stop - key.start for key in wanted], dtype=np.int64)
    place = {key: index for index, key in enumerate(wanted)}
    table = np.array(tokens, dtype=np.int64).reshape(-1, 2)
    return ItemTable(
        text=table[:, 0],
        position=table[:, 1],
        items=Items(tuple(key.pooling for key in wanted), start, start + length),
        of_task=tuple(np.array([place[key] for key in of_task], dtype=np.int64) for of_task in keys),
    )


class _Key(NamedTuple):
    """Two examples with the same key are the same item."""

    pooling: Pooling
    text: int
    start: int
    stop: int


def _keys(data: ProbeData, task: TaskExamples) -> list[_Key]:
    found = []
    for text, position in zip(task.text.tolist(), task.position.tolist(), strict=True):
        length = len(data.texts[text].tokens)
        first = position if task.task.pooling == "marked" else data.first_scored
        last = position if task.task.pooling == "marked" else length - 1
        if not 0 <= first <= last < length:
            raise ValueError(f"{task.task.name}: a text of {length} tokens has none to read at {position}")
        if task.task.pooling in ("last", "marked"):
            found.append(_Key("token", text, last, last + 1))
        else:
            found.append(_Key("mean" if task.task.pooling == "mean" else "max", text, first, last + 1))
    return found


class Rows(NamedTuple):
    """Some latents' pre-activations: `(weight h + bias) scale`."""

    weight: Float[Tensor, "latent d_model"]
    bias: Float[Tensor, " latent"] | None
    scale: Float[Tensor, " latent"] | None


@runtime_checkable
class LinearBank(Protocol):
    """Many latents that are affine in what is made of a token's vector."""

    latent_count: int

    def inputs(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """What the latents are affine in, on the device and in the precision of the computation."""
        ...

    def rows(self, latents: Int[Tensor, " latent"]) -> Rows:
        """Some latents."""
        ...


class DictionaryBank:
    """The pre-activations of a dictionary."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        """Nothing is copied."""
        self.latent_count = sae.latent_count
        self._sae = sae

    def inputs(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """`N(x) - pre_bias`."""
        sae = self._sae
        h = sae.normalization.apply(x.to(sae.encoder_bias))[0]
        return h if sae.pre_bias is None else h - sae.pre_bias

    def rows(self, latents: Int[Tensor, " latent"]) -> Rows:
        """Rows of the encoder; brought over where it lies elsewhere."""
        sae = self._sae
        weight = sae.encoder_weight[latents.to(sae.encoder_weight.device)].to(sae.encoder_bias)
        latents = latents.to(sae.device)
        scale = None if sae.latent_scale is None else sae.latent_scale[latents]
        return Rows(weight, sae.encoder_bias[latents], scale)


class ChannelBank:
    """The site's own channels: latent i is component i of the activation."""

    def __init__(self, d_model: int, *, device: torch.device | str = "cpu") -> None:
        """Of a site of this width."""
        self.latent_count = d_model
        self._device = device

    def inputs(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """The activations as they are."""
        return x.to(device=self._device, dtype=torch.float32)

    def rows(self, latents: Int[Tensor, " latent"]) -> Rows:
        """Unit vectors."""
        weight = torch.zeros(len(latents), self.latent_count, device=self._device)
        weight[torch.arange(len(latents), device=self._device), latents.to(self._device)] = 1.0
        return Rows(weight, None, None)


class DirectionBank:
    """Random directions on activations of which every channel has mean 0 and standard deviation 1.

    Components are standard normal. Direction i is the same in every run and for every number of directions,
    whatever the blocks in which they are asked for: it comes from the seed, the site and i.
    """

    def __init__(
        self,
        x: Float[Tensor, "token d_model"],
        count: int,
        *,
        seed: int,
        site: str,
        device: torch.device | str = "cpu",
    ) -> None:
        """Args: `x` are the activations whose channels' means and standard deviations are used."""
        self.latent_count = count
        self._device = device
        self._mean = x.double().mean(dim=0).to(device=device, dtype=torch.float32)
        spread = x.double().std(dim=0, correction=0).to(device=device, dtype=torch.float32)
        self._factor = torch.where(spread > 0, 1.0 / spread.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
        self._salt = f"probe directions\0{seed}\0{site}"

    def inputs(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """The standardised activations."""
        return (x.to(device=self._device, dtype=torch.float32) - self._mean) * self._factor

    def rows(self, latents: Int[Tensor, " latent"]) -> Rows:
        """Directions, drawn again whenever they are asked for, so that none is kept."""
        found = torch.empty(len(latents), len(self._mean))
        for draw in torch.unique(latents // _DRAWN).tolist():
            generator = torch.Generator().manual_seed(text_hash(f"{self._salt}\0{draw}") % 2**63)
            drawn = torch.randn(_DRAWN, len(self._mean), generator=generator)
            mine = latents // _DRAWN == draw
            found[mine] = drawn[latents[mine] % _DRAWN]
        return Rows(found.to(self._device), None, None)


@runtime_checkable
class PooledValues(Protocol):
    """Values of latents on items."""

    latent_count: int
    item_count: int
    device: torch.device

    def of(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent item"]:
        """Of some latents on all items."""
        ...


class PooledInputs:
    """Pre-activations of a bank on items. Memory: a vector for each item, or each token to take maxima of."""

    def __init__(self, bank: LinearBank, x: Float[Tensor, "token d_model"], items: Items) -> None:
        """Normalise and pool what latents are affine in; `x` is the table that the items point into."""
        self.latent_count = bank.latent_count
        self._bank, self.item_count = bank, len(items.pooling)
        kinds = np.array(items.pooling, dtype=object)
        self._points = np.flatnonzero(kinds != "max")
        self._vectors = self._pooled(x, items.only(self._points))
        self.device = self._vectors.device
        self._maxima = [
            self._span(x, items, group) for group in _by_length(items, np.flatnonzero(kinds == "max"))
        ]

    def _inputs(self, x: Tensor, rows: np.ndarray) -> Tensor:
        return self._bank.inputs(x[torch.from_numpy(rows)])

    def _pooled(self, x: Tensor, items: Items) -> Float[Tensor, "item d_model"]:
        """Token vectors, and means in float64 of what belongs together."""
        empty = self._bank.inputs(x[:0])
        found = empty.new_empty(len(items.start), x.shape[1])
        single = np.flatnonzero(items.is_single)
        for part in np.split(single, np.arange(_TOKENS, len(single), _TOKENS)):
            found[torch.from_numpy(part).to(found.device)] = self._inputs(x, items.start[part])
        for item in np.flatnonzero(~items.is_single).tolist():
            h = self._inputs(x, np.arange(items.start[item], items.stop[item]))
            found[item] = h.double().mean(dim=0)
        return found

    def _span(self, x: Tensor, items: Items, group: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Vectors of texts of about one length, (text, position, d_model); the last token is repeated."""
        length = int((items.stop[group] - items.start[group]).max())
        rows = np.minimum(items.start[group, None] + np.arange(length), items.stop[group, None] - 1)
        return group, self._inputs(x, rows.reshape(-1)).unflatten(0, rows.shape)

    def of(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent item"]:
        """Pre-activations of some latents on all items."""
        weight, bias, scale = self._bank.rows(latents)
        found = weight.new_empty(len(weight), self.item_count)
        values = weight @ self._vectors.T
        if len(self._points) == self.item_count:
            found = values
        else:
            found[:, torch.from_numpy(self._points).to(found.device)] = values
        for group, vectors in self._maxima:
            found[:, torch.from_numpy(group).to(found.device)] = _maxima(vectors, weight)
        # neither a bias nor a positive factor changes which token has the maximum
        found = found if bias is None else found.add_(bias[:, None])
        return found if scale is None else found.mul_(scale[:, None])


def _by_length(items: Items, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """Items of similar length, so that little is padded: at most an eighth, in groups of 8192 vectors."""
    length = items.stop[chosen] - items.start[chosen]
    order = np.argsort(-length, kind="stable")
    chosen, length = chosen[order], length[order]
    first = 0
    while first < len(chosen):
        longest = int(length[first])
        fits = np.flatnonzero(length[first:] < longest * 7 / 8)
        last = first + (int(fits[0]) if len(fits) else len(chosen) - first)
        last = min(last, first + max(1, _TOKENS // longest))
        yield chosen[first:last]
        first = last


def _maxima(
    vectors: Float[Tensor, "text position d_model"], weight: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "latent text"]:
    """Largest product of each text's vectors with each row."""
    room = _ROOM.get(weight.device.type, _ROOM["cpu"])
    texts = max(1, room // (vectors.shape[1] * max(1, len(weight))))
    return torch.cat([(part @ weight.T).amax(dim=1) for part in vectors.split(texts)]).T
