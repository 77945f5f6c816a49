"""Checkpoint-tokens per second of keeping every firing: one pass for all checkpoints against the plain loop.

    python benchmarks/speed/sampling.py                        # 1, 4 and 8 checkpoints, ratio, agreement
    python benchmarks/speed/sampling.py --memory               # peak memory over 16k and over 128k tokens
    python benchmarks/speed/sampling.py --tracked 1000 32768   # time by number of sampled latents
    python benchmarks/speed/sampling.py --bfloat16             # the same in bfloat16, and what it changes
    python benchmarks/speed/sampling.py --profile              # what the time is made of
    python benchmarks/speed/sampling.py --quick                # does it run at all; not for numbers

What is compared, and the numbers: README.md beside this file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import torch
from evaluate import Spent, cell, described, headline, peak_bytes, spread, timed
from plain_sampling import Triples, bare_model, differences, plain, refuse_disagreement
from workload import CONTEXT_LENGTH, CONTEXTS_PER_DOCUMENT, LAYER, Workload

from autointerp.run_store import RunStore
from autointerp.sampling.activation_pass import ActivationPass, PassCost, read_tokens
from autointerp.sampling.latents.choice import Choice, followed_latents
from autointerp.sampling.latents.decoder_neighbours import nearest_latents
from autointerp.sampling.latents.gathering import Dictionary, GatherOptions, gather
from autointerp.sampling.latents.sides import SplitShares
from autointerp.sampling.latents.spilled import Spilled, document_sides
from autointerp.sampling.readings import Checkpoint
from autointerp.sampling.spill import SpillPlan, context_key, firing_key

# ---- ours -----------------------------------------------------------------------------------------------


def spilling(
    workload: Workload, checkpoints: Sequence[Checkpoint], store: RunStore, choice: Choice
) -> PassCost:
    """The pass alone: every firing, contexts, signatures, embeddings and near misses, on disk."""
    followed = {entry.name: followed_latents(choice, entry.sae.latent_count, seed=0) for entry in checkpoints}
    one_pass = ActivationPass(workload.subject, checkpoints, [], {}, spill=SpillPlan(followed))
    return one_pass.run(workload.chunks(), store)


def gathering(
    checkpoints: Sequence[Checkpoint], store: RunStore, cost: PassCost, options: GatherOptions
) -> int:
    """Totals, statistics and examples of every checkpoint; how many examples there are."""
    shares = SplitShares()
    documents = document_sides(store, cost.chunk_names, shares=shares, least_similarity=0.5, seed=0)
    spilled = Spilled(store, cost.chunk_names, documents)
    token_count = int(read_tokens(store, cost.chunk_names)["token_count"].sum())
    example_count = 0
    for entry in checkpoints:
        found = gather(spilled, _dictionary(entry), options, token_count=token_count)
        example_count += found.examples.height
    return example_count


def _dictionary(entry: Checkpoint) -> Dictionary:
    def nearest(latents: np.ndarray) -> pl.DataFrame:
        return nearest_latents(entry.sae, latents.tolist())

    return Dictionary(entry.name, entry.reads, entry.sae.latent_count, nearest)


def ours(
    workload: Workload, checkpoints: Sequence[Checkpoint], options: GatherOptions, *, keep: bool = False
) -> dict[str, Any]:
    """Pass and gathering, as `autointerp evaluate` runs them, with the seconds of each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        RunStore.open(Path(folder) / "run", suite_toml="", identity={}) as store,
    ):
        begun = time.perf_counter()
        cost = spilling(workload, checkpoints, store, options.choice)
        passed = time.perf_counter()
        example_count = gathering(checkpoints, store, cost, options)
        seconds = {"pass": passed - begun, "gathering": time.perf_counter() - passed}
        firing_bytes = sum(
            file.stat().st_size for file in (Path(folder) / "run" / "chunks").glob("firings*.parquet")
        )
        triples = [kept_triples(store, cost, entry.name) for entry in checkpoints] if keep else []
    return {
        "cost": cost,
        "seconds": seconds,
        "example_count": example_count,
        "bytes_per_checkpoint_token": firing_bytes / cost.token_count / len(checkpoints),
        "triples": triples,
    }


def kept_triples(store: RunStore, cost: PassCost, name: str) -> Triples:
    """What the pass kept, with tokens numbered as the corpus has them (every context is full here)."""
    parts = []
    before = 0
    for chunk in cost.chunk_names:
        frame = store.read(firing_key(name, chunk))
        parts.append(frame.with_columns(token=before + pl.col("row") * CONTEXT_LENGTH + pl.col("position")))
        before += store.read(context_key(chunk)).height * CONTEXT_LENGTH
    frame = pl.concat(parts).sort("token", "latent")
    return {column: frame[column].to_numpy() for column in ("token", "latent", "value")}


# ---- what is measured -----------------------------------------------------------------------------------


def compared(workload: Workload, count: int, repeats: int, options: GatherOptions) -> dict[str, Any]:
    """Both sides in turn, after a few tokens through each that are thrown away."""
    checkpoints = workload.checkpoints(count)
    few = workload.shortened(CONTEXT_LENGTH * CONTEXTS_PER_DOCUMENT)
    warm = replace(options, choice=replace(options.choice, count=50))
    ours(few, checkpoints[:1], warm)
    plain(few, checkpoints[:1])
    spent: dict[str, list[Spent]] = {"ours": [], "plain": [], "bare_model": []}
    gaps: list[dict[str, float]] = []
    shares = []
    for repeat in range(repeats):
        keep = repeat == 0
        mine_spent, mine = timed(lambda: ours(workload, checkpoints, options, keep=keep), workload.device)  # noqa: B023
        other_spent, other = timed(lambda: plain(workload, checkpoints, keep=keep), workload.device)  # noqa: B023
        bare_spent, _ = timed(lambda: bare_model(workload), workload.device)
        if keep:
            gaps = [
                differences(a, b, workload.latent_count) for a, b in zip(mine["triples"], other, strict=True)
            ]
            refuse_disagreement(gaps)
        spent["ours"].append(mine_spent)
        spent["plain"].append(other_spent)
        spent["bare_model"].append(bare_spent)
        shares.append(mine["seconds"])
    tokens = mine["cost"].token_count
    pairs = list(zip(spent["ours"], spent["plain"], strict=True))
    return {
        "checkpoints": count,
        "tokens": tokens,
        "seconds": {name: [each._asdict() for each in values] for name, values in spent.items()},
        "rate": {
            name: spread([(1 if name == "bare_model" else count) * tokens / each.wall for each in values])
            for name, values in spent.items()
        },
        "ratio": spread([other.wall / mine.wall for mine, other in pairs]),
        "processor_ratio": spread([other.processor / mine.processor for mine, other in pairs]),
        "gathering_share": median([each["gathering"] / sum(each.values()) for each in shares]),
        "bytes_per_checkpoint_token": mine["bytes_per_checkpoint_token"],
        "steps_of_the_last_pass": mine["cost"].seconds,
        "largest_differences": gaps,
    }


def by_tracked(workload: Workload, tracked: Sequence[int], options: GatherOptions) -> list[dict[str, Any]]:
    """Time of the whole by number of sampled latents, one checkpoint; the pass is the same work for all."""
    checkpoints = workload.checkpoints(1)
    rows = []
    for count in tracked:
        some = replace(options, choice=replace(options.choice, count=count))
        spent, found = timed(lambda: ours(workload, checkpoints, some), workload.device)  # noqa: B023
        rows.append(
            {"tracked": count, "wall": spent.wall, **found["seconds"], "examples": found["example_count"]}
        )
    return rows


def peaks(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of our side in processes of their own, over two lengths of text."""
    found = {}
    for tokens in arguments.memory_tokens:
        command = [sys.executable, __file__, "--memory-child", "--tokens", str(tokens)]
        for name in (
            "latents",
            "k",
            "threads",
            "device",
            "batch_tokens",
            "chunk_tokens",
            "sampled",
            "examples",
        ):
            command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[tokens] = json.loads(done.stdout.splitlines()[-1])
    first, last = (found[tokens]["peak_bytes"] for tokens in arguments.memory_tokens)
    return {"by_tokens": found, "growth": last / first - 1}


def in_bfloat16(workload: Workload, repeats: int, options: GatherOptions) -> dict[str, Any]:
    """Subject and dictionary in bfloat16 against float32: time, and how many firings are others."""
    sides = {"float32": workload, "bfloat16": _lowered(workload)}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    kept: dict[str, Triples] = {}
    for repeat in range(repeats):
        for name, side in sides.items():
            checkpoints = [
                replace(entry, sae=entry.sae.to(dtype=getattr(torch, name))) for entry in side.checkpoints(1)
            ]
            took, found = timed(lambda: ours(side, checkpoints, options, keep=True), workload.device)  # noqa: B023
            spent[name].append(took.wall)
            if repeat == 0:
                kept[name] = found["triples"][0]
    return {
        "seconds": {name: spread(values) for name, values in spent.items()},
        "faster": spread([a / b for a, b in zip(spent["float32"], spent["bfloat16"], strict=True)]),
        "firings": differences(kept["bfloat16"], kept["float32"], workload.latent_count),
    }


def _lowered(workload: Workload) -> Workload:
    import copy

    low = replace(workload)
    subject = copy.copy(workload.subject)
    low.__dict__.update(subject=workload.subject, calibration=workload.calibration)
    from autointerp.subject.subject_model import SubjectModel
    from autointerp.testing.tiny_subject import tiny_tokenizer

    model = copy.deepcopy(subject.model).to(torch.bfloat16)
    low.__dict__["subject"] = SubjectModel(model, tiny_tokenizer(), name=subject.name, sha256="0" * 64)
    return low


@torch.inference_mode()
def gemm_rate(workload: Workload, *, seconds: float = 3.0) -> float:
    """Flops a second of the encoder's own product: (512, d_model) x (d_model, latents), float32."""
    x = torch.randn(512, workload.subject.d_model)
    weight = torch.randn(workload.latent_count, workload.subject.d_model)
    out = torch.empty(512, workload.latent_count)
    torch.mm(x, weight.T, out=out)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        torch.mm(x, weight.T, out=out)
        count += 1
    return 2 * x.numel() * workload.latent_count * count / (time.perf_counter() - begun)


def profile(workload: Workload, options: GatherOptions) -> dict[str, Any]:
    """Seconds of each step of one pass over one checkpoint, beside what its products would take."""
    found = ours(workload, workload.checkpoints(1), options)
    tokens = found["cost"].token_count
    d_model = workload.subject.d_model
    blocks = LAYER + 1
    block_flops = tokens * blocks * (24 * d_model**2 + 2 * CONTEXT_LENGTH * d_model)
    encoder_flops = 2 * tokens * d_model * workload.latent_count
    rate = gemm_rate(workload)
    return {
        "tokens": tokens,
        "steps": found["cost"].seconds | found["seconds"],
        "gemm_gflops_per_second": rate / 1e9,
        "blocks_at_that_rate_seconds": block_flops / rate,
        "encoder_at_that_rate_seconds": encoder_flops / rate,
    }


# ---- what is shown --------------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| checkpoints | tokens | one pass, checkpoint-tokens/s | plain loop | bare model, tokens/s | ratio "
        "| of processor time | gathering |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [f"{row['checkpoints']}", f"{row['tokens']:,}"]
        cells += [cell(row["rate"][name], 0) for name in ("ours", "plain", "bare_model")]
        cells += [cell(row["ratio"], 2), cell(row["processor_ratio"], 2), f"{row['gathering_share']:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    """The command line; --quick sets what is not given otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, help="of the corpus (default 8192)")
    parser.add_argument("--repeats", type=int, help="of each side, in turn (default 3)")
    parser.add_argument("--latents", type=int, help="of each dictionary (default 32768)")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--checkpoints", type=int, nargs="+", help="default: 1 4 8")
    parser.add_argument("--sampled", type=int, default=200, help="latents sampled of each checkpoint")
    parser.add_argument("--examples", type=int, default=20, help="of each latent, split and sampler")
    parser.add_argument("--tracked", type=int, nargs="+", help="time by number of sampled latents")
    parser.add_argument("--memory", action="store_true", help="peak memory over two lengths of text")
    parser.add_argument("--memory-tokens", type=int, nargs=2, default=[16_384, 131_072])
    parser.add_argument("--bfloat16", action="store_true", help="bfloat16 against float32")
    parser.add_argument("--profile", action="store_true", help="seconds by step")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="positions of a batch, on both sides")
    parser.add_argument("--chunk-tokens", type=int, help="tokens of a chunk (default 4096)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    parser.add_argument("--memory-child", action="store_true", help=argparse.SUPPRESS)
    found = parser.parse_args()
    usual = {"tokens": 8192, "repeats": 3, "latents": 32768, "checkpoints": [1, 4, 8], "chunk_tokens": 4096}
    quick = {"tokens": 1024, "repeats": 1, "latents": 4096, "checkpoints": [1, 2], "chunk_tokens": 512}
    for name, value in (quick if found.quick else usual).items():
        if getattr(found, name) is None:
            setattr(found, name, value)
    return found


def _measured(arguments: argparse.Namespace, workload: Workload, options: GatherOptions) -> dict[str, Any]:
    if arguments.memory:
        return {"memory": peaks(arguments)}
    if arguments.tracked:
        return {"tracked": by_tracked(workload, arguments.tracked, options)}
    if arguments.bfloat16:
        return {"bfloat16": in_bfloat16(workload, arguments.repeats, options)}
    if arguments.profile:
        return {"profile": profile(workload, options)}
    rows = [compared(workload, count, arguments.repeats, options) for count in arguments.checkpoints]
    print(table(rows))
    return {"rates": rows}


def main() -> None:
    """One question at a time."""
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
    options = GatherOptions(choice=Choice(count=arguments.sampled), examples=arguments.examples)
    if arguments.memory_child:
        found = ours(workload, workload.checkpoints(1), options)
        print(json.dumps({"tokens": found["cost"].token_count, "peak_bytes": peak_bytes()}))
        return
    facts = described(workload, arguments.repeats)
    print(headline(facts))
    facts |= _measured(arguments, workload, options)
    if "rates" not in facts:
        print(
            json.dumps(
                {key: facts[key] for key in facts if key in ("memory", "tracked", "bfloat16", "profile")},
                indent=2,
            )
        )
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
