"""Random activations of a latent -> its graph: minimal suffixes, start marks, wildcards, joined in a trie.

Of each activation a on a token at the end of its text:

1. the suffix is lengthened token by token until the latent's strength there is at least `suffix_share` of a;
   the whole text, if that is never reached, with a as its strength. An activation that needs more than
   `prefix_tokens` gives no path: it would fit that one text alone, and cost as much as hundreds of others;
2. with one filler put before the suffix the strength must stay at `suffix_share` of a, or the path gets a
   start mark: the text must begin there;
3. each token of the suffix in turn is replaced by a filler: saliency = 1 - strength / that of the suffix. A
   token of saliency below `saliency_threshold` becomes a wildcard;
4. the tokens are put into the trie backwards; the suffix's strength stands at the end. Of equal paths the
   later one's stays.

So does the code of Gao et al. 2024 (section 4.3; github.com/openai/sparse_autoencoder, explanations.py),
after Foote et al. 2023 (arXiv 2305.19911), which augments with BERT, has 0.75 for the threshold and takes the
longest match. Ours differs in what stands for a token that is the filler itself, which would always be found
unimportant: the next filler.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autointerp.explaining.graph_trie import ANY, Graph, Match, Path, graph_of
from autointerp.sampling.fragment_runs import Ask

__all__ = ["BuiltGraph", "GraphExample", "GraphOptions", "build_graphs"]

_LEAST_OPEN = 1024
"""Suffixes tried in one round, at least: several lengths at once where few activations are left."""

Strengths = Callable[[Sequence[Ask]], np.ndarray]
"""`FragmentRuns.strengths`, or what a test puts in its place."""


@dataclass(frozen=True)
class GraphOptions:
    """How graphs are built; `sections.graphs.GraphSection` says what each means."""

    fillers: tuple[int, ...]
    """Ids; of several the mean strength counts. One more than are used, so that another can stand in."""
    suffix_share: float = 0.5
    saliency_threshold: float = 0.5
    match: Match = "first"
    prefix_tokens: int = 64
    filler_count: int = 1

    def fillers_of(self, token: int | None) -> tuple[int, ...]:
        """Those that stand for a token: the first ones that are not the token itself."""
        return tuple(filler for filler in self.fillers if filler != token)[: self.filler_count]


@dataclass(frozen=True)
class GraphExample:
    """One activation."""

    dictionary: str
    latent: int
    tokens: tuple[int, ...]
    """Ids of the text up to the token on which it fires, that one included."""
    activation: float
    """Not 0; of a negative one the strength is its size."""

    @property
    def owner(self) -> tuple[str, int]:
        """Whose it is."""
        return self.dictionary, self.latent


@dataclass(frozen=True)
class BuiltGraph:
    """A latent's graph and how it came about."""

    graph: Graph
    examples: int
    unreached: int
    """Activations whose share no suffix reached; those with more text than `prefix_tokens` have no path."""


class _Suffix(NamedTuple):
    example: GraphExample
    tokens: tuple[int, ...]
    strength: float
    is_reached: bool


def build_graphs(
    examples: Sequence[GraphExample], strengths: Strengths, options: GraphOptions
) -> dict[tuple[str, int], BuiltGraph]:
    """The graphs of all latents that have examples, by (dictionary, latent), in the order of their first one.

    Everything is asked for all latents at once; whoever answers can run equal fragments once.

    Args:
        examples: a latent's in the order in which they go into its trie.
        strengths: answers asks.
        options: how.

    Raises:
        ValueError: a filler is lacking, or an activation is 0.
    """
    if len(set(options.fillers)) <= options.filler_count:
        raise ValueError(f"needs more than {options.filler_count} different fillers, got {options.fillers}")
    found = _minimal_suffixes(examples, strengths, options)
    suffixes = [suffix for suffix in found if suffix is not None]
    needs_start = _needs_start(suffixes, strengths, options)
    salient = _salient(suffixes, strengths, options)
    paths: dict[tuple[str, int], list[Path]] = {}
    for suffix, mark, important in zip(suffixes, needs_start, salient, strict=True):
        tokens = zip(suffix.tokens, important, strict=True)
        backwards = tuple(token if stays else ANY for token, stays in tokens)[::-1]
        paths.setdefault(suffix.example.owner, []).append(Path(backwards, mark, suffix.strength))
    counts = Counter(example.owner for example in examples)
    unreached = Counter(
        example.owner
        for example, suffix in zip(examples, found, strict=True)
        if suffix is None or not suffix.is_reached
    )
    return {
        owner: BuiltGraph(graph_of(paths.get(owner, ()), match=options.match), count, unreached[owner])
        for owner, count in counts.items()
    }


def _minimal_suffixes(
    examples: Sequence[GraphExample], strengths: Strengths, options: GraphOptions
) -> list[_Suffix | None]:
    """By example; shorter suffixes are tried first, of all examples together."""
    if any(example.activation == 0 or not example.tokens for example in examples):
        raise ValueError("an example without tokens or activation")
    found: dict[int, _Suffix | None] = {}
    tried = 0
    while len(found) < len(examples):
        still = [place for place in range(len(examples)) if place not in found]
        lengths = range(tried + 1, tried + 1 + max(1, _LEAST_OPEN // len(still)))
        tried = lengths[-1]
        asked = [
            (place, length)
            for place in still
            for length in lengths
            if length <= min(len(examples[place].tokens), options.prefix_tokens)
        ]
        asks = [
            _ask(examples[place], examples[place].tokens[-length:], options.suffix_share)
            for place, length in asked
        ]
        for (place, length), strength in zip(asked, strengths(asks).tolist(), strict=True):
            example = examples[place]
            if place not in found and strength >= options.suffix_share * abs(example.activation):
                found[place] = _Suffix(example, example.tokens[-length:], strength, is_reached=True)
        found |= {
            place: _unreached(examples[place], options)
            for place in still
            if place not in found and tried >= min(len(examples[place].tokens), options.prefix_tokens)
        }
    return [found[place] for place in range(len(examples))]


def _unreached(example: GraphExample, options: GraphOptions) -> _Suffix | None:
    if len(example.tokens) > options.prefix_tokens:
        return None
    return _Suffix(example, example.tokens, abs(example.activation), is_reached=False)


def _ask(example: GraphExample, fragment: tuple[int, ...], share: float) -> Ask:
    sign = 1 if example.activation > 0 else -1
    return Ask(fragment, example.dictionary, example.latent, sign, share * abs(example.activation))


def _needs_start(suffixes: Sequence[_Suffix], strengths: Strengths, options: GraphOptions) -> list[bool]:
    asked = [(place, filler) for place in range(len(suffixes)) for filler in options.fillers_of(None)]
    share = options.suffix_share if options.filler_count == 1 else 0.0  # of a mean, all terms are needed
    asks = [
        _ask(suffixes[place].example, (filler, *suffixes[place].tokens), share) for place, filler in asked
    ]
    means = _means(asked, strengths(asks), len(suffixes)).tolist()
    return [
        mean < options.suffix_share * abs(suffix.example.activation)
        for mean, suffix in zip(means, suffixes, strict=True)
    ]


def _salient(
    suffixes: Sequence[_Suffix], strengths: Strengths, options: GraphOptions
) -> list[tuple[bool, ...]]:
    """By suffix, which of its tokens stay."""
    spots = [(place, at) for place, suffix in enumerate(suffixes) for at in range(len(suffix.tokens))]
    asked: list[tuple[int, int]] = []
    asks: list[Ask] = []
    for spot, (place, at) in enumerate(spots):
        suffix = suffixes[place]
        tokens = suffix.tokens
        # A strength s is salient where 1 - s / strength >= threshold: smaller ones need not be told apart.
        least = (1 - options.saliency_threshold) * suffix.strength if options.filler_count == 1 else 0.0
        for filler in options.fillers_of(tokens[at]):
            asked.append((spot, filler))
            fragment = (*tokens[:at], filler, *tokens[at + 1 :])
            asks.append(
                Ask(
                    fragment,
                    suffix.example.dictionary,
                    suffix.example.latent,
                    1 if suffix.example.activation > 0 else -1,
                    least,
                )
            )
    means = _means(asked, strengths(asks), len(spots)).tolist()
    found: list[list[bool]] = [[] for _ in suffixes]
    for (place, _), mean in zip(spots, means, strict=True):
        found[place].append(1 - mean / suffixes[place].strength >= options.saliency_threshold)
    return [tuple(own) for own in found]


def _means(asked: Sequence[tuple[int, int]], values: np.ndarray, count: int) -> np.ndarray:
    """Mean value by the first of each pair."""
    owner = np.array([place for place, _ in asked], dtype=np.int64)
    if not count:
        return np.zeros(0)
    return np.bincount(owner, weights=values, minlength=count) / np.bincount(owner, minlength=count)
