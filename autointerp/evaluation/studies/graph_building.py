"""Sampled latents of all dictionaries -> their graphs, built together, kept in shards."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from autointerp.errors import BadInputError
from autointerp.evaluation.inputs import Measurable
from autointerp.evaluation.studies.refusals import named_filler
from autointerp.evaluation.studies.study import failure_reason
from autointerp.evaluation.work import Work
from autointerp.explaining.graph_trie import Graph
from autointerp.explaining.neuron_to_graph import GraphExample, GraphOptions, build_graphs
from autointerp.sampling.fragment_runs import FragmentRuns
from autointerp.sampling.latents.spilled import Spilled
from autointerp.sampling.samplers.sampler import SPLITS
from autointerp.subject.token_texts import token_texts

__all__ = ["GRAPHS", "GraphSetting", "built", "graph_setting", "graphs_of"]

GRAPHS: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "status": pl.String,  # built | failed
    "reason": pl.String,
    "data": pl.String,  # JSON of `Graph.to_json`; empty where there is none
    "examples": pl.UInt32,
    "unreached": pl.UInt32,  # activations of which no suffix reached the share
}
"""Columns of `latents/graphs.parquet`: a row is a latent of which there were examples."""

_WAVE = 2048
"""Activations worked on together. Equal fragments are run once in a wave; a killed run loses one."""


@dataclass(frozen=True)
class GraphSetting:
    """How a run's graphs are built."""

    options: GraphOptions
    front: tuple[int, ...]
    """Ids before every fragment."""

    def describe(self, tokenizer: Any) -> dict[str, Any]:
        """For the report."""
        names = token_texts(tokenizer, list(self.options.fillers[: self.options.filler_count]))
        return {
            "fillers": names,
            "front": token_texts(tokenizer, list(self.front)),
            "prefix_tokens": self.options.prefix_tokens,
            "suffix_share": self.options.suffix_share,
            "saliency_threshold": self.options.saliency_threshold,
            "match": self.options.match,
        }


def graph_setting(work: Work, spilled: Spilled) -> GraphSetting:
    """The suite's, with what it leaves to the subject and the text.

    Raises:
        SuiteError: the named filler is no single token.
    """
    section, tokenizer = work.suite.graphs, work.subject.tokenizer
    counts: Counter[int] = Counter()
    fronts: Counter[tuple[int, ...]] = Counter()
    for chunk in spilled.chunk_names:
        frame = spilled.contexts(chunk).frame.filter(pl.col("split") == SPLITS.index("explain"))
        heads = frame.select(pl.col("tokens").list.head(pl.col("first_scored")))["tokens"]
        fronts.update(map(tuple, heads.to_list()))
        own = frame.select(pl.col("tokens").list.slice(pl.col("first_scored")))["tokens"].explode(
            empty_as_null=False, keep_nulls=False
        )
        counts.update(dict(own.value_counts().iter_rows()))
    front = min(fronts, key=lambda each: (-fronts[each], each)) if fronts else ()
    front = front if section.front == "kept" else ()
    fillers = _fillers(section.filler, tokenizer, counts, section.fillers, work.suite.seed)
    limit = work.subject.context_limit or 10**9
    return GraphSetting(
        GraphOptions(
            fillers=fillers,
            suffix_share=section.suffix_share,
            saliency_threshold=section.saliency_threshold,
            match=section.match,
            prefix_tokens=max(1, min(section.prefix_tokens, limit - len(front) - 1)),
            filler_count=section.fillers,
        ),
        front,
    )


def _fillers(
    named: str | None, tokenizer: Any, counts: Mapping[int, int], count: int, seed: int
) -> tuple[int, ...]:
    counts = counts or dict.fromkeys(range(count + 1), 1)  # no text: nothing will be built either
    common = sorted(counts, key=lambda token: (-counts[token], token))
    if named is None:
        own = tokenizer.encode(" _", add_special_tokens=False)
        first = own if len(own) == 1 else common[:1]
    else:
        first = [named_filler(named, tokenizer)]
    weights = np.array([counts[token] for token in common], dtype=np.float64)
    draws = np.random.default_rng(seed).choice(
        common, size=min(count, len(common)), replace=False, p=weights / weights.sum()
    )
    return tuple(dict.fromkeys([*first, *draws[: count - 1].tolist(), *common[: count + 1]]))


def built(
    work: Work,
    entries: Sequence[Measurable],
    examples: Mapping[tuple[str, int], Sequence[GraphExample]],
    setting: GraphSetting,
    *,
    key: str,
) -> pl.DataFrame:
    """GRAPHS of all latents that have examples.

    Args:
        work: the run.
        entries: dictionaries.
        examples: by (dictionary, latent).
        setting: how.
        key: of the shards, one a wave.
    """
    checkpoints = {entry.summary.name: entry.checkpoint for entry in entries}
    runs = FragmentRuns(
        work.subject,
        checkpoints,
        front=setting.front,
        batch_tokens=work.suite.runtime.batch_tokens,
    )
    frames = []
    total = sum(map(len, examples.values()))
    with work.progress.step("building graphs", total=total, unit="activation") as advance:
        for number, wave in enumerate(_waves(examples)):
            shard = f"{key}/{number:05d}-{_wave_hash(wave, setting)}"
            if not _is_done(work, shard):
                work.store.write(shard, _wave_frame(work, wave, runs, setting.options))
            frames.append(work.store.read(shard))
            advance(len(wave))
    work.store.event("graphs built", key=key, **asdict(runs.counts))
    return pl.concat(frames) if frames else pl.DataFrame(schema=GRAPHS)


def _wave_hash(wave: Sequence[GraphExample], setting: GraphSetting) -> str:
    """Of all that its graphs depend on: waves are others where a dictionary comes back that had failed."""
    return hashlib.sha256(repr((setting, list(wave))).encode()).hexdigest()[:12]


def _is_done(work: Work, shard: str) -> bool:
    """A failure may have been the machine's fault: it is tried again."""
    return work.store.has(shard) and not (work.store.read(shard)["status"] == "failed").any()


def _waves(examples: Mapping[tuple[str, int], Sequence[GraphExample]]) -> Iterator[list[GraphExample]]:
    """Whole latents, of all dictionaries in turn, so that these share what is run."""
    by_dictionary: dict[str, list[Sequence[GraphExample]]] = {}
    for (name, _), own in examples.items():
        by_dictionary.setdefault(name, []).append(own)
    longest = max(map(len, by_dictionary.values()), default=0)
    wave: list[GraphExample] = []
    for place in range(longest):
        for own in by_dictionary.values():
            wave += own[place] if place < len(own) else ()
        if len(wave) >= _WAVE:
            yield wave
            wave = []
    if wave:
        yield wave


def _wave_frame(
    work: Work, wave: Sequence[GraphExample], runs: FragmentRuns, options: GraphOptions
) -> pl.DataFrame:
    """The graphs of a wave; where that fails, of each dictionary alone, so that only one's are lost."""
    try:
        return _built_frame(work, wave, runs, options)
    except Exception:  # whatever a dictionary or a model can raise is a row, not the end of the run
        names = dict.fromkeys(example.dictionary for example in wave)
        parts = [[example for example in wave if example.dictionary == name] for name in names]
        return pl.concat([_guarded(work, part, runs, options) for part in parts])


def _guarded(
    work: Work, wave: Sequence[GraphExample], runs: FragmentRuns, options: GraphOptions
) -> pl.DataFrame:
    try:
        return _built_frame(work, wave, runs, options)
    except BadInputError:
        raise
    except Exception as error:
        reason = failure_reason(error)
        counts = Counter((example.dictionary, example.latent) for example in wave)
        rows = [(*whose, "failed", reason, "", count, 0) for whose, count in counts.items()]
        return pl.DataFrame(rows, schema=GRAPHS, orient="row")


def _built_frame(
    work: Work, wave: Sequence[GraphExample], runs: FragmentRuns, options: GraphOptions
) -> pl.DataFrame:
    found = build_graphs(wave, runs.strengths, options)
    ids = sorted({node.token for made in found.values() for node in made.graph.nodes if node.token >= 0})
    texts = dict(zip(ids, token_texts(work.subject.tokenizer, ids), strict=True))
    rows = [
        (*whose, "built", "", json.dumps(made.graph.to_json(texts)), made.examples, made.unreached)
        for whose, made in found.items()
    ]
    return pl.DataFrame(rows, schema=GRAPHS, orient="row")


def graphs_of(frame: pl.DataFrame, checkpoint: str) -> dict[int, Graph]:
    """The graphs of a dictionary, by latent."""
    own = frame.filter(checkpoint=checkpoint, status="built")
    return {
        latent: Graph.from_json(json.loads(data))[0]
        for latent, data in own.select("latent", "data").iter_rows()
    }
