"""Probes of all latents at once against scikit-learn's loop, and the memory of a million latents.

    python benchmarks/speed/probe_loss.py                 # 4096 latents, 2000 examples, one thread on either side
    python benchmarks/speed/probe_loss.py --threads 2
    python benchmarks/speed/probe_loss.py --latents 512   # a quick look

Both sides standardise and fit every latent, with the same penalty (C = 1); scikit-learn by `newton-cholesky`, its
fastest solver here, to a gradient of 1e-6: at its default of 1e-4 its own losses are off by some 1e-6. Losses are
compared before a ratio is printed. Memory is the peak of a whole process (Python and torch are most of it) that
searches a stream of random directions.
"""  # noqa: E501 - commands

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from autointerp.metrics.probe_newton import fit_probes, standardised
from autointerp.metrics.probe_pooling import DirectionBank, Items, PooledInputs
from autointerp.metrics.probe_search import ProbedTask, search

EXAMPLES = 2000
TOLERANCE_NATS = 1e-6
GRADIENT = 1e-6
MEMORY_EXAMPLES, MEMORY_WIDTH = 600, 64


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-latents", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of is not None:
        print(json.dumps(_peak_of_search(options.peak_of)))
        return
    torch.set_num_threads(options.threads)
    _compare(options.latents, options.examples, threads=options.threads, repeats=options.repeats)
    for count in options.memory_latents:
        command = [sys.executable, __file__, "--peak-of", str(count)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"search of {count:>9,} latents: peak {told['megabytes']:.0f} MB, {told['seconds']:.1f} s")


def _made_up(latents: int, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Weak, strong and heavy-tailed latents."""
    rng = np.random.default_rng(0)
    label = rng.random(examples) < 0.4
    values = rng.standard_normal((latents, examples))
    values += rng.choice([0.0, 0.05, 0.3, 1.0, 3.0], (latents, 1)) * label
    values[::4] = values[::4] ** 3
    return values, label


def _compare(latents: int, examples: int, *, threads: int, repeats: int) -> None:
    values, label = _made_up(latents, examples)
    with threadpool_limits(threads):
        loop_seconds, expected = _scikit_learn(values, label)
    print(f"{latents} latents, {examples} examples, {threads} thread{'s' * (threads > 1)} on either side")
    print(f"scikit-learn's loop: {loop_seconds:.2f} s")
    for dtype in (torch.float32, torch.float64):
        seconds, losses = _ours(torch.tensor(values, dtype=dtype), torch.tensor(label), repeats)
        apart = float(np.abs(losses - expected).max())
        if dtype == torch.float64 and apart > TOLERANCE_NATS:
            raise SystemExit(f"losses differ by {apart:.2g} nats: no ratio")
        print(
            f"{dtype!s:>14}: {statistics.median(seconds):.3f} s (of {repeats}: {min(seconds):.3f} to "
            f"{max(seconds):.3f}), {loop_seconds / statistics.median(seconds):.0f} times as fast; "
            f"losses equal to {apart:.1g} nats"
        )


def _ours(values: torch.Tensor, label: torch.Tensor, repeats: int) -> tuple[list[float], np.ndarray]:
    seconds = []
    for _ in range(repeats + 1):  # the first one warms up
        begun = time.perf_counter()
        (probes,) = fit_probes(standardised(values), [label])
        seconds.append(time.perf_counter() - begun)
    return seconds[1:], probes.loss.double().numpy()


def _scikit_learn(values: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray]:
    losses = np.empty(len(values))
    begun = time.perf_counter()
    for latent, row in enumerate(values):
        z = ((row - row.mean()) / row.std())[:, None]
        model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=GRADIENT).fit(z, label)
        logit = z[:, 0] * model.coef_[0, 0] + model.intercept_[0]
        losses[latent] = np.logaddexp(0.0, np.where(label, -logit, logit)).mean()
    return time.perf_counter() - begun, losses


def _peak_of_search(latents: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(MEMORY_EXAMPLES, MEMORY_WIDTH, generator=generator)
    rows = np.arange(MEMORY_EXAMPLES)
    items = Items(("token",) * MEMORY_EXAMPLES, rows, rows + 1)
    task = ProbedTask("synthetic", rows, (x[:, 0] > 0).numpy(), rows < MEMORY_EXAMPLES // 6)
    values = PooledInputs(DirectionBank(x, latents, seed=0, site="synthetic"), x, items)
    begun = time.perf_counter()
    search(values, [task], [[task.label]], keep=128)
    seconds = time.perf_counter() - begun
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"megabytes": peak * unit / 1e6, "seconds": seconds}


if __name__ == "__main__":
    main()
