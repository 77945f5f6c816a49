"""Graphs of the embedded suite's latents, all together, against the loop over latents in batches of 16.

    python benchmarks/speed/neuron_to_graph.py [--latents 6] [--repeats 3] [--threads 2]

Both sides build the same graphs from the same activations. The loop is the paper's: latent after latent, its
activations' suffixes of one length in batches of 16, padded, through the whole model, and the dictionary at
all positions; each suffix's saliency in batches of 16 of its own. Ours is timed twice: without sharing, where
every fragment that a latent asks for is run for it alone, so that what is gained comes from large batches of
equal length, from stopping at the site and from looking at the last position only; and with equal fragments
run once.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autointerp.bundled import bundled_path
from autointerp.config import Suite, load_suite
from autointerp.evaluation.inputs import (
    context_options,
    loaded_subject,
    opened_checkpoints,
    opened_corpus,
    placed_all,
)
from autointerp.explaining.graph_trie import ANY, Graph, Path, graph_of
from autointerp.explaining.neuron_to_graph import GraphExample, GraphOptions, build_graphs
from autointerp.progress import SILENT
from autointerp.sampling.contexts import corpus_chunks
from autointerp.sampling.fragment_runs import FragmentRuns, RunCounts
from autointerp.sampling.readings import Checkpoint
from autointerp.subject.subject_model import SubjectModel

_TOKENS = 24_000
_EXAMPLES = 16
_BATCH = 16
_FRONT = (0,)
_LEAST_ALIKE = 0.98


def _activations(
    subject: SubjectModel, suite: Suite, corpus: Any, checkpoints: Sequence[Checkpoint], latents: int
) -> list[GraphExample]:
    """Random activations of random latents, and the text before them."""
    chance = random.Random(0)
    chunks = corpus_chunks(
        corpus,
        subject.tokenizer,
        context_options(suite.corpus),
        batch_tokens=2048,
        chunk_tokens=2048,
        max_tokens=_TOKENS,
        split="evaluation",
        calibration_fraction=suite.corpus.calibration_fraction,
    )
    places: dict[tuple[str, int], list[tuple[tuple[int, ...], float]]] = {}
    for chunk in chunks:
        for batch in chunk.batches:
            for checkpoint in checkpoints:
                read = subject.read(batch.tokens, [checkpoint.reads], batch.attention_mask)
                for row, mask in enumerate(batch.is_scored.tolist()):
                    fired = checkpoint.sae.encode_sparse(read[checkpoint.reads][row].float())
                    ids = batch.tokens[row].tolist()
                    found = (fired.token_indices(), fired.indices, fired.values)
                    for position, latent, value in zip(*(part.tolist() for part in found), strict=True):
                        if mask[position]:
                            text = tuple(ids[1 : position + 1])
                            places.setdefault((checkpoint.name, latent), []).append((text, value))
    examples = []
    for checkpoint in checkpoints:
        owners = [
            owner for owner in places if owner[0] == checkpoint.name and len(places[owner]) >= _EXAMPLES
        ]
        for owner in chance.sample(sorted(owners), latents):
            drawn = chance.sample(places[owner], _EXAMPLES)
            examples += [GraphExample(*owner, text, value) for text, value in drawn]
    return examples


class _Loop:
    """One latent after the other."""

    def __init__(
        self, subject: SubjectModel, checkpoints: Sequence[Checkpoint], options: GraphOptions
    ) -> None:
        self._subject, self._options = subject, options
        self._checkpoints = {checkpoint.name: checkpoint for checkpoint in checkpoints}

    def graphs(self, examples: Sequence[GraphExample]) -> dict[tuple[str, int], Graph]:
        owners = dict.fromkeys(example.owner for example in examples)
        return {
            owner: self._graph([example for example in examples if example.owner == owner])
            for owner in owners
        }

    def _graph(self, examples: Sequence[GraphExample]) -> Graph:
        checkpoint, latent = self._checkpoints[examples[0].dictionary], examples[0].latent
        share = self._options.suffix_share
        suffixes: dict[int, tuple[tuple[int, ...], float]] = {}
        for length in range(1, self._options.prefix_tokens + 1):
            still = [
                place
                for place, example in enumerate(examples)
                if place not in suffixes and length <= len(example.tokens)
            ]
            texts = [examples[place].tokens[-length:] for place in still]
            for place, text, value in zip(still, texts, self._values(checkpoint, latent, texts), strict=True):
                if value >= share * examples[place].activation:
                    suffixes[place] = (text, value)
        for place, example in enumerate(examples):
            if place not in suffixes and len(example.tokens) <= self._options.prefix_tokens:
                suffixes[place] = (example.tokens, example.activation)
        filler = self._options.fillers[0]
        order = sorted(suffixes)
        padded = self._values(checkpoint, latent, [(filler, *suffixes[place][0]) for place in order])
        paths = []
        for place, after in zip(order, padded, strict=True):
            text, value = suffixes[place]
            changed = [
                (*text[:at], self._options.fillers_of(text[at])[0], *text[at + 1 :])
                for at in range(len(text))
            ]
            values = self._values(checkpoint, latent, changed)
            tokens = [
                token if 1 - each / value >= self._options.saliency_threshold else ANY
                for token, each in zip(text, values, strict=True)
            ]
            paths.append(Path(tuple(tokens[::-1]), after < share * examples[place].activation, value))
        return graph_of(paths)

    @torch.no_grad()
    def _values(self, checkpoint: Checkpoint, latent: int, texts: Sequence[tuple[int, ...]]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(texts), _BATCH):
            rows = [[*_FRONT, *text] for text in texts[start : start + _BATCH]]
            width = max(map(len, rows))
            tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
            lengths = torch.tensor([len(row) for row in rows])
            mask = torch.arange(width)[None] < lengths[:, None]
            x: Tensor = self._subject.read_with_logits(tokens, [checkpoint.reads], mask).activations[
                checkpoint.reads
            ]
            z = checkpoint.sae.encode(x.flatten(0, 1).float()).view(*tokens.shape, -1)
            found += z[torch.arange(len(rows)), lengths - 1, latent].tolist()
        return found


def _timed(call: Callable[[], dict[tuple[str, int], Graph]]) -> tuple[float, dict[tuple[str, int], Graph]]:
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


def _alike(one: dict[tuple[str, int], Graph], other: dict[tuple[str, int], Graph]) -> float:
    """Share of paths that are the same on both sides; a strength at the threshold may fall on either side."""
    same = total = 0
    for owner, graph in one.items():
        own, theirs = ({path[:2] for path, _ in each.paths} for each in (graph, other[owner]))
        same, total = same + len(own & theirs), total + len(own | theirs)
    return same / total


def main() -> int:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latents", type=int, default=6, help="of each checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    suite = load_suite(bundled_path("suites", "demo.toml"))
    subject = loaded_subject(suite.subject)
    entries = placed_all(opened_checkpoints(suite, progress=SILENT), subject, suite)
    checkpoints = [entry.checkpoint for entry in entries]
    corpus = opened_corpus(suite.corpus)
    examples = _activations(subject, suite, corpus, checkpoints, chosen.latents)
    common = subject.tokenizer.encode(" _", add_special_tokens=False)
    options = GraphOptions(fillers=(common[0], common[0] + 1), prefix_tokens=suite.graphs.prefix_tokens)
    loop = _Loop(subject, checkpoints, options)
    counts: dict[bool, RunCounts] = {}

    def together(*, is_shared: bool) -> dict[tuple[str, int], Graph]:
        runs = FragmentRuns(
            subject,
            {each.name: each for each in checkpoints},
            front=_FRONT,
            batch_tokens=suite.runtime.batch_tokens,
            is_shared=is_shared,
        )
        built = build_graphs(examples, runs.strengths, options)
        counts[is_shared] = runs.counts
        return {owner: each.graph for owner, each in built.items()}

    seconds: dict[str, list[float]] = {"loop": [], "apart": [], "shared": []}
    graphs: dict[str, dict[tuple[str, int], Graph]] = {}
    for _ in range(chosen.repeats):
        for name, call in (
            ("loop", lambda: loop.graphs(examples)),
            ("apart", lambda: together(is_shared=False)),
            ("shared", lambda: together(is_shared=True)),
        ):
            taken, graphs[name] = _timed(call)
            seconds[name].append(taken)
    alike = min(_alike(graphs["loop"], graphs[name]) for name in ("apart", "shared"))
    if alike < _LEAST_ALIKE:
        print(f"only {alike:.1%} of the paths are the same: no ratio is printed", file=sys.stderr)
        return 1
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    ratios = {
        name: statistics.median(np.divide(seconds["loop"], seconds[name]).tolist())
        for name in ("apart", "shared")
    }
    print(
        f"{len(examples)} activations of {len(graphs['loop'])} latents; {alike:.1%} of the paths are the same"
    )
    print(f"loop over latents, batches of {_BATCH}: {middle['loop']:.1f} s")
    print(f"together, nothing shared:         {middle['apart']:.1f} s, {ratios['apart']:.1f} times as fast")
    print(f"together, equal fragments once:   {middle['shared']:.1f} s, {ratios['shared']:.1f} times as fast")
    asked, run = counts[False], counts[True]
    print(
        f"fragments {asked.fragments} asked for, {run.fragments} run once shared "
        f"({run.fragments / asked.fragments:.0%}); "
        f"tokens {asked.tokens} and {run.tokens} ({run.tokens / asked.tokens:.0%})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
