"""The parts `top-k` and `profile` of `gpu.py`: what a device's time goes into."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import evaluate as metric_speed
import sampling as firing_speed
import torch
from evaluate import spread
from gpu_session import Session, workload
from workload import Workload

from autointerp.checkpoints import sharded_products, topk_functions
from autointerp.run_store import RunStore
from autointerp.sampling.latents.choice import Choice

GEMM = ("gemm", "cutlass", "xmma", "nvjet", "gemv")
CHOICE = ("topk", "radix", "sort", "bitonic")
ATTENTION = ("fmha", "flash", "attention")


def top_k(session: Session) -> None:
    """Two ways to the k largest, which must choose the same; and encoding by block size."""
    options = session.options
    lines = [
        "| tokens x latents | dtype | `torch.topk`, ms | through groups, ms | same choice | product, ms |",
        "| ---: | :--- | ---: | ---: | :--- | ---: |",
    ]
    n = options.latents
    for rows, latent_count in ((512, n), (2048, n), (512, 4 * n)):
        for dtype in (torch.float32, torch.bfloat16):
            line = one_choice(options, rows, latent_count, dtype)
            print(line, flush=True)
            lines.append(line)
    session.say("\n".join(["The k = 32 largest of each row", "", *lines]))
    lines = ["| tokens of a block | encoding, ms |", "| ---: | ---: |"]
    load = workload(options, options.latents, batch_tokens=options.batch, tokens=options.batch)
    sae = load.checkpoints(1)[0].sae
    x = torch.randn(options.batch, sae.d_model, device=options.device)
    before = sharded_products._EFFICIENT_BLOCK, sharded_products._LARGEST_BLOCK_BYTES
    try:
        for block in (512, 1024, 2048, 4096, 8192):
            sharded_products._EFFICIENT_BLOCK = block
            sharded_products._LARGEST_BLOCK_BYTES = 2**32
            lines.append(f"| {block:,} | {milliseconds(lambda: sae.encode_sparse(x), options):.2f} |")
    finally:
        sharded_products._EFFICIENT_BLOCK, sharded_products._LARGEST_BLOCK_BYTES = before
    session.say("\n".join([f"Encoding {options.batch:,} tokens, n = {options.latents:,}", "", *lines]))
    session.found["top_k"] = session.lines[-2:]


def one_choice(options: argparse.Namespace, rows: int, latent_count: int, dtype: torch.dtype) -> str:
    """A line of the table."""
    generator = torch.Generator().manual_seed(0)
    pre = torch.randn(rows, latent_count, generator=generator).to(options.device, dtype)
    weight = torch.randn(latent_count, 768, generator=generator).to(options.device, dtype)
    x = torch.randn(rows, 768, generator=generator).to(options.device, dtype)
    pays_off = topk_functions._pays_off
    spent, chosen = [], []
    try:
        for answer in (False, True):
            topk_functions._pays_off = lambda _pre, _k, answer=answer: answer
            chosen.append(topk_functions.largest_indices(pre, 32))
            spent.append(milliseconds(lambda: topk_functions.largest_indices(pre, 32), options))
    finally:
        topk_functions._pays_off = pays_off
    product = milliseconds(lambda: x @ weight.T, options)
    same = "yes" if torch.equal(*chosen) else "NO"
    cells = [f"{rows:,} x {latent_count:,}", str(dtype)[6:], f"{spent[0]:.3f}", f"{spent[1]:.3f}", same]
    return f"| {' | '.join([*cells, f'{product:.3f}'])} |"


def milliseconds(work: Callable[[], Any], options: argparse.Namespace) -> float:
    """Median of some calls, the device's queue emptied around each."""
    with torch.no_grad():
        work()
        return (
            1e3
            * spread([metric_speed.timed(work, options.device)[0].wall for _ in range(options.calls)])[
                "median"
            ]
        )


def profile(session: Session) -> None:
    """Seconds of the GPU's kernels in one pass over one checkpoint that keeps every firing."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    options = session.options
    load = workload(options, options.latents, batch_tokens=options.batch, tokens=options.tokens)
    checkpoints, few = load.checkpoints(1), load.shortened(min(options.tokens, 2048))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.device != "cpu" else [])]
    with tempfile.TemporaryDirectory() as folder:
        passed(few, checkpoints, Path(folder) / "few")
        begun = time.perf_counter()
        passed(load, checkpoints, Path(folder) / "plain")
        wall = time.perf_counter() - begun
        with profiler(activities=activities) as seen:
            passed(load, checkpoints, Path(folder) / "profiled")
    parts: dict[str, float] = {}
    names: dict[str, float] = {}
    for name, seconds in kernels(seen, on_device=options.device != "cpu"):
        parts[kind_of(name)] = parts.get(kind_of(name), 0.0) + seconds
        names[name] = names.get(name, 0.0) + seconds
    busy = sum(parts.values())
    session.found["profile"] = {"wall": wall, "busy": busy, "parts": parts}
    lines = ["| kernels | seconds | of the device's time |", "| :--- | ---: | ---: |"]
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    lines += [f"| {name} | {seconds:.3f} | {seconds / max(busy, 1e-9):.0%} |" for name, seconds in ordered]
    session.say(
        f"One pass over {load.token_count:,} tokens, one checkpoint, n = {options.latents:,}: {wall:.2f} s, "
        f"of which the device works {busy:.2f} s"
    )
    session.say("\n".join(lines))
    for name, seconds in sorted(names.items(), key=lambda item: -item[1])[:15]:
        print(f"  {seconds:.4f} s  {name[:110]}", flush=True)


def passed(load: Workload, checkpoints: Sequence[Any], folder: Path) -> None:
    """The pass alone."""
    with RunStore.open(folder, suite_toml="", identity={}) as store:
        firing_speed.spilling(load, checkpoints, store, Choice(count=200))
    if load.device != "cpu":
        torch.cuda.synchronize()


def kernels(seen: Any, *, on_device: bool) -> Iterator[tuple[str, float]]:
    """Names and seconds."""
    for event in seen.key_averages():
        micros = event.self_device_time_total if on_device else event.self_cpu_time_total
        is_kernel = not on_device or str(getattr(event, "device_type", "")).endswith("CUDA")
        if is_kernel and micros:
            yield event.key, micros / 1e6


def kind_of(name: str) -> str:
    """What a kernel does, by its name."""
    low = name.lower()
    kinds = (("matrix products", GEMM), ("choosing the top k, sorting", CHOICE), ("attention", ATTENTION))
    kinds += (("copies", ("memcpy", "memset")),)
    return next((kind for kind, words in kinds if any(word in low for word in words)), "everything else")
