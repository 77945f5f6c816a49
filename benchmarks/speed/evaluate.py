"""Checkpoint-tokens per second: `autointerp`'s one pass for all checkpoints against the plain loop.

    python benchmarks/speed/evaluate.py                  # 1 and 4 checkpoints, ratio, memory
    python benchmarks/speed/evaluate.py --quick          # does it run at all; not for numbers

What is compared, and the numbers: README.md beside this file.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import polars as pl
import torch
from plain_loop import DenseTopK, Numbers, plain_loop
from workload import CONTEXT_LENGTH, CONTEXTS_PER_DOCUMENT, LAYER, SITE, Workload, mean_vector

from autointerp.metrics.catalogue import FAMILIES
from autointerp.provenance import provenance
from autointerp.run_store import RunStore
from autointerp.sampling.activation_pass import (
    CLEAN_LOSS,
    SUBJECT,
    ActivationPass,
    PassCost,
    read_firing_totals,
    read_observations,
)
from autointerp.sampling.readings import Checkpoint

TOLERANCE = 1e-4
"""Largest difference between the two sides, in each metric's own unit; for firing counts as a share."""


# ---- the two sides ------------------------------------------------------------------------------------


def one_pass(
    workload: Workload, checkpoints: Sequence[Checkpoint], *, ablations: bool = True
) -> tuple[list[Numbers], PassCost]:
    """Ours, as `autointerp evaluate` runs it: chunk by chunk into a run directory, then the totals."""
    families = list(FAMILIES.values())
    known = [name for family in families for name in family.metrics]
    activation_pass = ActivationPass(
        workload.subject,
        checkpoints,
        families,
        workload.calibration,
        metrics=[name for name in known if ablations or "fraction_recovered" not in name],
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        RunStore.open(Path(folder) / "run", suite_toml="", identity={}) as store,
    ):
        cost = activation_pass.run(workload.chunks(), store)
        observations = read_observations(store, cost.chunk_names)
        firing = read_firing_totals(store, cost.chunk_names)
    return [
        _numbers(observations, firing, checkpoint.name, workload.latent_count) for checkpoint in checkpoints
    ], cost


def _numbers(observations: pl.DataFrame, firing: pl.DataFrame, checkpoint: str, latent_count: int) -> Numbers:
    """Totals over documents, without intervals, which are no part of the comparison."""
    rows = observations.filter(pl.col("checkpoint").is_in([checkpoint, SUBJECT]), pl.col("slice") == "{}")
    sums = {
        metric: (numerator, denominator)
        for metric, numerator, denominator in rows.group_by("metric")
        .agg(pl.col("numerator").sum(), pl.col("denominator").sum())
        .iter_rows()
    }
    found: Numbers = {metric: above / below for metric, (above, below) in sums.items()}
    found["reconstruction.explained_variance"] = 1 - found["reconstruction.explained_variance"]
    count = sums[CLEAN_LOSS][1]
    for name in ("zero", "mean"):
        if f"downstream.fraction_recovered_{name}" not in sums:
            continue
        rise = sums.pop(f"downstream.fraction_recovered_{name}")[1]
        found[f"{name}_ce_nats"] = found[CLEAN_LOSS] + rise / count
    fired = torch.zeros(latent_count, dtype=torch.long)
    mine = firing.filter(pl.col("checkpoint") == checkpoint)
    fired[mine["latent"].to_torch()] = mine["tokens_fired"].to_torch()
    return found | {"fired": fired}


def loop_of_passes(
    workload: Workload, checkpoints: Sequence[Checkpoint], *, ablations: bool = True
) -> list[Numbers]:
    """The plain loop, once for each checkpoint."""
    model = workload.subject.model
    mean = mean_vector(workload)
    unit_mean = workload.calibration[SITE].unit_mean.to(mean)
    return [
        plain_loop(
            model,
            model.transformer.h[LAYER],
            DenseTopK(checkpoint.sae, workload.k),
            (batch.tokens.to(workload.device) for chunk in workload.chunks() for batch in chunk.batches),
            mean,
            unit_mean,
            ablations=ablations,
        )
        for checkpoint in checkpoints
    ]


# ---- do they agree ------------------------------------------------------------------------------------


def differences(ours: Sequence[Numbers], plain: Sequence[Numbers]) -> dict[str, float]:
    """Largest difference per number over the checkpoints."""
    largest: dict[str, float] = {}
    for mine, other in zip(ours, plain, strict=True):
        for name, value in other.items():
            if name == "fired":
                total = value.sum().item()
                gap = (mine[name] - value.cpu()).abs().sum().item() / total
            else:
                gap = abs(mine[name] - value)
            largest[name] = max(largest.get(name, 0.0), gap)
    return largest


def refuse_disagreement(found: dict[str, float]) -> None:
    """No ratio between two programs that compute different things."""
    apart = {name: gap for name, gap in found.items() if not gap <= TOLERANCE}
    if apart:
        sys.exit(f"the two sides disagree by more than {TOLERANCE}, so there is no ratio: {apart}")


# ---- time ---------------------------------------------------------------------------------------------


class Spent(NamedTuple):
    """What one run of one side took."""

    wall: float
    processor: float
    """Seconds of all threads together: on a machine that others use too, steadier than the wall's."""


def timed(work: Callable[[], Any], device: str) -> tuple[Spent, Any]:
    """Time of a call, with the device's queue empty before and after."""
    if device != "cpu":
        torch.cuda.synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return Spent(time.perf_counter() - wall, time.process_time() - processor), result


def compared(workload: Workload, count: int, repeats: int, *, ablations: bool = True) -> dict[str, Any]:
    """Both sides in turn, `repeats` times, after a few tokens through each that are thrown away."""
    checkpoints = workload.checkpoints(count)
    few = workload.shortened(CONTEXT_LENGTH * CONTEXTS_PER_DOCUMENT)
    one_pass(few, checkpoints[:1])
    loop_of_passes(few, checkpoints[:1])
    spent: dict[str, list[Spent]] = {"one_pass": [], "plain_loop": []}
    gaps: dict[str, float] = {}
    for repeat in range(repeats):
        ours_spent, (ours, cost) = timed(
            lambda: one_pass(workload, checkpoints, ablations=ablations), workload.device
        )
        plain_spent, plain = timed(
            lambda: loop_of_passes(workload, checkpoints, ablations=ablations), workload.device
        )
        if repeat == 0:
            gaps = differences(ours, plain)
            refuse_disagreement(gaps)
        spent["one_pass"].append(ours_spent)
        spent["plain_loop"].append(plain_spent)
    return _row(count, cost, spent, gaps)


def _row(count: int, cost: PassCost, spent: dict[str, list[Spent]], gaps: dict[str, float]) -> dict[str, Any]:
    """Rates, and the ratio of each pair of neighbouring runs."""
    pairs = list(zip(spent["one_pass"], spent["plain_loop"], strict=True))
    return {
        "checkpoints": count,
        "tokens": cost.token_count,
        "seconds": {name: [each._asdict() for each in values] for name, values in spent.items()},
        "checkpoint_tokens_per_second": {
            name: spread([count * cost.token_count / each.wall for each in values])
            for name, values in spent.items()
        },
        "ratio": spread([plain.wall / ours.wall for ours, plain in pairs]),
        "processor_ratio": spread([plain.processor / ours.processor for ours, plain in pairs]),
        "steps_of_the_last_pass": cost.seconds,
        "largest_differences": gaps,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": median(values), "least": min(values), "most": max(values)}


# ---- memory -------------------------------------------------------------------------------------------


def peak_bytes() -> int:
    """Of this process. Not getrusage on Linux: there a child begins with its parent's peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def peaks(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of our side in processes of their own, on the corpus and on one four times as long."""
    found = {}
    for times in (1, 4):
        command = [sys.executable, __file__, "--memory-child", "--tokens", str(times * arguments.tokens)]
        for name in ("latents", "k", "threads", "device", "batch_tokens", "chunk_tokens"):
            command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[f"{times}x"] = json.loads(done.stdout.splitlines()[-1])
    return found | {"growth": found["4x"]["peak_bytes"] / found["1x"]["peak_bytes"] - 1}


def memory_child(workload: Workload) -> None:
    """One pass, one checkpoint; one line of JSON."""
    _, cost = one_pass(workload, workload.checkpoints(1))
    gpu = torch.cuda.max_memory_allocated() if workload.device != "cpu" else None
    print(json.dumps({"tokens": cost.token_count, "peak_bytes": peak_bytes(), "gpu_peak_bytes": gpu}))


# ---- what is shown ------------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| checkpoints | tokens | one pass, checkpoint-tokens/s | plain loop | ratio | of processor time |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        rates = row["checkpoint_tokens_per_second"]
        cells = [f"{row['checkpoints']}", f"{row['tokens']:,}"]
        cells += [cell(rates["one_pass"], 0), cell(rates["plain_loop"], 0), cell(row["ratio"], 2)]
        cells += [cell(row["processor_ratio"], 2)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: dict[str, float], digits: int) -> str:
    """Median, and the extremes behind it."""
    middle, least, most = (f"{values[key]:,.{digits}f}" for key in ("median", "least", "most"))
    return f"{middle} ({least} to {most})"


def described(workload: Workload, repeats: int) -> dict[str, Any]:
    """Where and with what: hardware, versions, shapes. No host name."""
    name = torch.cuda.get_device_name() if workload.device != "cpu" else None
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "workload": asdict(workload) | {"subject": "GPT-2 small's shapes, random weights", "site": SITE},
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "load_average_at_the_start": load,
        **provenance(seed=0, accelerator=name),
    }


def headline(facts: dict[str, Any]) -> str:
    """One line above the table."""
    packages = facts["package_versions"]
    place = facts["accelerator"] or f"{facts['cpu']}, {facts['threads']} thread(s)"
    load = facts["load_average_at_the_start"]
    busy = "" if load is None else f", load average {load:.1f} at the start"
    return (
        f"{facts['date']}, {place}{busy}; torch {packages['torch']}, transformers "
        f"{packages['transformers']}; float32; n = {facts['workload']['latent_count']}, "
        f"k = {facts['workload']['k']}; median of {facts['repeats']} (least to most)"
    )


def parsed() -> argparse.Namespace:
    """The command line; --quick sets what is not given otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, help="of the corpus (default 8192)")
    parser.add_argument("--repeats", type=int, help="of each side, in turn (default 5)")
    parser.add_argument("--latents", type=int, help="of each dictionary (default 32768)")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--checkpoints", type=int, nargs="+", help="default: 1 4")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="positions of a batch, on both sides")
    parser.add_argument("--chunk-tokens", type=int, help="tokens of a chunk (default 4096)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--no-ablations", action="store_true", help="neither side ablates: two passes a checkpoint, not four"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out the runs that measure memory")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    parser.add_argument("--memory-child", action="store_true", help=argparse.SUPPRESS)
    found = parser.parse_args()
    usual = {"tokens": 8192, "repeats": 5, "latents": 32768, "checkpoints": [1, 4], "chunk_tokens": 4096}
    quick = {"tokens": 512, "repeats": 1, "latents": 4096, "checkpoints": [1, 2], "chunk_tokens": 512}
    for name, value in (quick if found.quick else usual).items():
        if getattr(found, name) is None:
            setattr(found, name, value)
    return found


def main() -> None:
    """Agreement, time, memory."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    workload = Workload(
        token_count=arguments.tokens,
        latent_count=arguments.latents,
        k=arguments.k,
        batch_tokens=arguments.batch_tokens,
        chunk_tokens=arguments.chunk_tokens,
        device=arguments.device,
    )
    if arguments.memory_child:
        memory_child(workload)
        return
    facts = described(workload, arguments.repeats)
    # First, while this process holds nothing and the children have the machine to themselves.
    memory = None if arguments.no_memory else peaks(arguments)
    rows = [
        compared(workload, count, arguments.repeats, ablations=not arguments.no_ablations)
        for count in arguments.checkpoints
    ]
    print(headline(facts), table(rows), sep="\n\n")
    for row in rows:
        gap = max(row["largest_differences"].values())
        print(
            f"\n{row['checkpoints']} checkpoint(s): the two sides differ by at most {gap:.1e} in any number"
        )
    if memory is not None:
        before, after = (memory[key]["peak_bytes"] / 2**20 for key in ("1x", "4x"))
        print(
            f"\npeak memory of one pass: {before:,.0f} MiB at {memory['1x']['tokens']:,} tokens, "
            f"{after:,.0f} MiB at {memory['4x']['tokens']:,} ({memory['growth']:+.1%})"
        )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(facts | {"rows": rows, "memory": memory}, indent=1) + "\n")


if __name__ == "__main__":
    main()
