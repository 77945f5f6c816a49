"""Probe loss and known features of every dictionary: the subject is run once over the tasks' texts."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import polars as pl
import torch
from torch import Tensor

from autointerp.evaluation.inputs import Measurable, context_options
from autointerp.evaluation.studies.probing_examples import (
    TaskBlock,
    checked,
    data_hash,
    example_table,
    lack_of,
    task_blocks,
)
from autointerp.evaluation.studies.probing_rows import (
    checkpoint_facts,
    checkpoint_observations,
    lacking_observations,
)
from autointerp.evaluation.studies.probing_texts import read_vectors
from autointerp.evaluation.studies.probing_work import FACTS, LOGITS, Shard, probe_dictionary, probe_site
from autointerp.evaluation.studies.study import Studied, guarded
from autointerp.evaluation.work import Work
from autointerp.metrics.probe_loss import PROBE_METRICS
from autointerp.probe_records import ProbeData, TaskExamples
from autointerp.probing.catalogue import load_probe_data
from autointerp.progress import Advance
from autointerp.records import OBSERVATION_SCHEMA, MetricDefinition

__all__ = ["PROBES", "ProbeStudy", "observe_probes"]

_DIRECTIONS = "random_directions"


class ProbeStudy:
    """The family `probe`."""

    family = "probe"
    title = "probes"

    @property
    def metrics(self) -> Sequence[MetricDefinition]:
        """Loss, AUROC and accuracy of the best latent's probe, and F1 of the best detector."""
        return PROBE_METRICS

    def observe(self, work: Work, entries: Sequence[Measurable]) -> Studied:
        """Probe every dictionary on every task that there is.

        Raises:
            SuiteError: a task is unknown, or its examples cannot be used.
        """
        data = load_probe_data(
            work.suite.probes.tasks,
            tokenizer=work.subject.tokenizer,
            # Rare questions need all of a document, not the few contexts that keep the pass short.
            options=replace(context_options(work.suite.corpus), max_contexts_per_document=None),
            examples=work.suite.probes.examples,
            seed=work.suite.seed,
        )
        return observe_probes(work, entries, data)


PROBES = ProbeStudy()


def observe_probes(work: Work, entries: Sequence[Measurable], data: ProbeData) -> Studied:
    """The same with given examples.

    Memory: token vectors of one block of tasks (512 MB, or one task's), and what `probe_search.search` and
    `PooledActivations` say; the number of latents does not matter.
    """
    checked(data)
    lacks = {task.task.name: lack_of(task) for task in data.tasks}
    usable = [task for task in data.tasks if not lacks[task.task.name]]
    reasons = {name: ("undefined", lack) for name, lack in lacks.items() if lack}
    reasons |= {one.task.name: ("skipped", one.reason) for one in data.skipped}
    run = _Run(work, entries, data)
    examples = example_table(data)
    lexical = {task.task.name: task.task.is_lexical for task in usable}
    observed, facts, failed = [], {}, run.all_blocks(usable)
    for entry in entries:
        name = entry.summary.name
        observed.append(lacking_observations(name, reasons, has_tasks=bool(usable)))
        if name in failed:
            observed.append(failed[name])
        elif usable:
            shard = run.of_checkpoint(entry)
            facts[name] = checkpoint_facts(shard, lexical)
            counts = {
                "latent_count": entry.summary.latent_count,
                "counts": work.suite.probes.sparse_counts,
            }
            observed.append(checkpoint_observations(name, shard.logits, examples, **counts))
    frame = pl.concat([pl.DataFrame(schema=OBSERVATION_SCHEMA), *observed])
    return Studied(frame, _facts(work, data, lacks) | {"checkpoints": facts})


class _Run:
    """One run's shards: what is kept of every block of tasks, by dictionary and by site."""

    def __init__(self, work: Work, entries: Sequence[Measurable], data: ProbeData) -> None:
        section = work.suite.probes
        self._work, self._entries, self._data, self._section = work, entries, data, section
        self._prefix = f"probe/{data_hash(data, (section.model_dump(mode='json'), work.suite.seed))}"
        self._sites: dict[str, list[Measurable]] = {}
        for entry in entries:
            self._sites.setdefault(entry.checkpoint.reads, []).append(entry)
        self._blocks: list[str] = []
        """What shards of each block are named after, the one that is worked on last."""

    def all_blocks(self, tasks: Sequence[TaskExamples]) -> dict[str, pl.DataFrame]:
        """Do what is not yet done; by name, the failed rows of dictionaries that could not be probed."""
        failed: dict[str, pl.DataFrame] = {}
        width = sum(self._work.subject.width(site) for site in self._sites)
        total = len(self._entries) * len(tasks)
        with self._work.progress.step("probing", total=total, unit="task") as advance:
            for block in task_blocks(self._data, tasks, width=max(1, width)):
                self._blocks.append(f"{len(self._blocks):04d}-{block.key}")
                for entry, rows in self._one_block(block, failed, advance):
                    failed[entry.summary.name] = rows
        return failed

    def _one_block(
        self, block: TaskBlock, failed: Mapping[str, pl.DataFrame], advance: Advance
    ) -> Iterator[tuple[Measurable, pl.DataFrame]]:
        """The dictionaries that fail on a block, and with what rows."""
        vectors: dict[str, Tensor] = {}
        for site, entries in self._sites.items():
            for entry in entries:
                if entry.summary.name not in failed:
                    rows = self._guarded(block, site, entry, vectors)
                    if rows.height:
                        yield entry, rows
                advance(len(block.tasks))

    def _guarded(
        self, block: TaskBlock, site: str, entry: Measurable, vectors: dict[str, Tensor]
    ) -> pl.DataFrame:
        """Keep what is missing of a dictionary and its site on a block; failed rows, or none."""
        names = [metric.name for metric in PROBE_METRICS]

        def observe() -> pl.DataFrame:
            if not self._has(self._site_key(site)):
                x = self._read(block, site, vectors)
                self._write(self._site_key(site), self._probed_site(x, block, site))
            if not self._has(self._entry_key(entry)):
                x = self._read(block, site, vectors)
                entry.check_unchanged()
                sae = entry.checkpoint.sae
                found = probe_dictionary(sae, x, block, self._section, seed=self._work.suite.seed)
                self._write(self._entry_key(entry), found)
            return pl.DataFrame(schema=OBSERVATION_SCHEMA)

        return guarded(entry.summary.name, names, observe)

    def _read(self, block: TaskBlock, site: str, vectors: dict[str, Tensor]) -> Tensor:
        """The block's vectors; of all sites at once, when the first is asked for."""
        if not vectors:
            total = sum(len(self._data.texts[text].tokens) for text in set(block.table.text.tolist()))
            with self._work.progress.step("reading probe texts", total=total, unit="token") as advance:
                vectors |= read_vectors(
                    self._work.subject,
                    self._data.texts,
                    block.table,
                    list(self._sites),
                    batch_tokens=self._work.suite.runtime.batch_tokens,
                    advance=advance,
                )
        return vectors[site]

    def _probed_site(self, x: Tensor, block: TaskBlock, site: str) -> Shard:
        counts = self._latent_counts(site)
        device: torch.device = self._sites[site][0].checkpoint.sae.device
        options: dict[str, Any] = {"latent_counts": counts, "seed": self._work.suite.seed, "device": device}
        return probe_site(x, block, self._section, site=site, **options)

    def _latent_counts(self, site: str) -> list[int]:
        return sorted({entry.summary.latent_count for entry in self._sites[site]})

    def _site_key(self, site: str, block: str | None = None) -> str:
        """Names the widths, too: others, where a dictionary comes back that had failed."""
        widths = hashlib.sha256(repr(self._latent_counts(site)).encode()).hexdigest()[:12]
        return f"{self._prefix}/{block or self._blocks[-1]}/site/{site}/{widths}"

    def _entry_key(self, entry: Measurable, block: str | None = None) -> str:
        return f"{self._prefix}/{block or self._blocks[-1]}/dictionary/{entry.summary.name}"

    def _has(self, key: str) -> bool:
        return self._work.store.has(f"{key}/facts") and self._work.store.has(f"{key}/logits")

    def _write(self, key: str, shard: Shard) -> None:
        self._work.store.write(f"{key}/facts", shard.facts)
        self._work.store.write(f"{key}/logits", shard.logits)

    def of_checkpoint(self, entry: Measurable) -> Shard:
        """All that was found of a dictionary; random directions are as many as it has latents."""
        read = self._work.store.read
        logits, facts = [pl.DataFrame(schema=LOGITS)], [pl.DataFrame(schema=FACTS)]
        for block in self._blocks:
            for key in (self._entry_key(entry, block), self._site_key(entry.checkpoint.reads, block)):
                logits.append(read(f"{key}/logits"))
                facts.append(read(f"{key}/facts"))
        mine = f"{_DIRECTIONS}@{entry.summary.latent_count}"
        return Shard(_named(pl.concat(logits), mine), _named(pl.concat(facts), mine))


def _named(rows: pl.DataFrame, mine: str) -> pl.DataFrame:
    """Without the random directions of dictionaries of other width."""
    rows = rows.filter(~pl.col("kind").str.starts_with(f"{_DIRECTIONS}@") | (pl.col("kind") == mine))
    return rows.with_columns(kind=pl.col("kind").replace(mine, _DIRECTIONS))


def _facts(work: Work, data: ProbeData, lacks: Mapping[str, str]) -> dict[str, Any]:
    """The tasks and the settings."""
    section = work.suite.probes
    tasks = [
        _task_facts(task)
        | (
            {"status": "undefined", "reason": lack}
            if (lack := lacks[task.task.name])
            else {"status": "probed"}
        )
        for task in data.tasks
    ]
    skipped = [asdict(one.task) | {"status": "skipped", "reason": one.reason} for one in data.skipped]
    return {
        "values": section.values,
        "inverse_penalty": section.inverse_penalty,
        "sparse_counts": list(section.sparse_counts),
        "text_count": len(data.texts),
        "tasks": tasks + skipped,
    }


def _task_facts(task: TaskExamples) -> dict[str, Any]:
    return asdict(task.task) | {
        "train_count": int((~task.is_test).sum()),
        "test_count": int(task.is_test.sum()),
        "train_positive_count": int(task.label[~task.is_test].sum()),
        "test_positive_count": int(task.label[task.is_test].sum()),
    }
