"""The same work on a GPU and on the CPU: do they agree, and what is gained there.

    python benchmarks/speed/gpu.py --out build/gpu          # gpu.md, gpu.json; about 5 minutes
    python benchmarks/speed/gpu.py --quick --device cpu     # does it run at all; not for numbers
    python benchmarks/speed/gpu.py --parts agreement        # of: agreement speed metrics top-k profile

What is compared: README.md beside this file. A part that goes wrong is said, and the next one begins; after
`--seconds` no new measurement begins. Exit code 1 where a part failed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import evaluate as metric_speed
import plain_sampling
import sampling as firing_speed
import torch
from gpu_agreement import agreement
from gpu_kernels import profile, top_k
from gpu_session import Session, free, guarded, workload

from autointerp.provenance import provenance
from autointerp.sampling.latents.choice import Choice
from autointerp.sampling.latents.gathering import GatherOptions

SLACK = 1e-3
"""Share of the firings that one side of `speed` may have alone: on a GPU products of two shapes take two
kernels, which round differently."""


def speed(session: Session) -> None:
    """Keeping every firing, against the plain loop on the same device."""
    options = session.options
    plain_sampling.TOLERANCE = SLACK
    gathering = GatherOptions(choice=Choice(count=200))
    header, *_ = [firing_speed.table([]).splitlines()]
    session.say("Keeping every firing (`sampling.py`), chunks of 16,384 tokens at most")
    rows = [f"| latents | batch {header[0]}", f"| ---: | ---: {header[1]}"]
    found = session.found.setdefault("speed", [])
    for latent_count, counts, batch_tokens in options.speed:
        load = workload(options, latent_count, batch_tokens=batch_tokens, tokens=options.tokens)
        for count in counts:
            if not session.has_time:
                session.say(f"- no time left for {count} of {latent_count:,} latents")
                continue
            row = guarded(
                session,
                lambda: firing_speed.compared(load, count, options.repeats, gathering),  # noqa: B023
            )
            if row is not None:
                found.append(row | {"latents": latent_count, "batch_tokens": batch_tokens})
                line = firing_speed.table([row]).splitlines()[-1]
                rows.append(f"| {latent_count:,} | {batch_tokens:,} {line}")
                print(
                    rows[-1],
                    json.dumps(row["steps_of_the_last_pass"]),
                    row["largest_differences"],
                    flush=True,
                )
        free()
    session.say("\n".join(rows))


def metrics(session: Session) -> None:
    """All metrics, against the plain loop on the same device."""
    options = session.options
    metric_speed.TOLERANCE = SLACK
    load = workload(options, options.latents, batch_tokens=options.batch, tokens=options.tokens // 2)
    rows = []
    for count in options.metric_counts:
        if session.has_time:
            row = guarded(session, lambda: metric_speed.compared(load, count, options.repeats))  # noqa: B023
            rows += [] if row is None else [row]
    session.found["metrics"] = rows
    session.say(f"All metrics (`evaluate.py`), n = {options.latents:,}, batches of {options.batch:,} tokens")
    session.say(metric_speed.table(rows))


PARTS: dict[str, Callable[[Session], None]] = {
    "agreement": agreement,
    "top-k": top_k,
    "speed": speed,
    "profile": profile,
    "metrics": metrics,
}


def parsed() -> argparse.Namespace:
    """The command line, and the sizes that follow from it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=300.0, help="after which nothing new begins")
    parser.add_argument("--tokens", type=int, help="of the speed measurements (default 32768)")
    parser.add_argument("--demo-tokens", type=int, help="of the agreement (default 30000)")
    parser.add_argument("--repeats", type=int, help="of each side, in turn (default 2)")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--out", type=Path, help="folder for gpu.md and gpu.json")
    found = parser.parse_args()
    quick = {"tokens": 1024, "demo_tokens": 3000, "repeats": 1, "latents": 2048, "batch": 512, "calls": 2}
    usual = {
        "tokens": 32_768,
        "demo_tokens": 30_000,
        "repeats": 2,
        "latents": 32_768,
        "batch": 8192,
        "calls": 20,
    }
    for name, value in (quick if found.quick else usual).items():
        if getattr(found, name, None) is None:
            setattr(found, name, value)
    found.metric_counts = [1] if found.quick else [1, 4]
    n = found.latents
    few, many = ([1], [1, 2]) if found.quick else ([1, 4], [1, 4, 8])
    found.speed = [(n, many, found.batch), (n, few[-1:], found.batch // 4), (4 * n, few, found.batch)]
    return found


def main() -> int:
    """One part after the other; 1 where one failed."""
    options = parsed()
    session = Session(options)
    accelerator = torch.cuda.get_device_name() if options.device != "cpu" else None
    facts = provenance(seed=0, accelerator=accelerator)
    session.found["facts"] = facts
    packages = facts["package_versions"]
    session.say(
        f"{facts['date']}, {accelerator or 'no accelerator'} beside {facts['cpu']}, "
        f"{torch.get_num_threads()} threads; torch {packages['torch']}, "
        f"transformers {packages['transformers']}; float32 unless said"
    )
    for name in options.parts:
        begun = time.perf_counter()
        session.say(f"## {name}")
        guarded(session, lambda: PARTS[name](session))  # noqa: B023
        session.found.setdefault("seconds", {})[name] = time.perf_counter() - begun
        if options.device != "cpu":
            session.say(f"({torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU at most so far)")
        print(f"[{name}: {time.perf_counter() - begun:.1f} s]", flush=True)
        session.save()
    return int("failures" in session.found)


if __name__ == "__main__":
    sys.exit(main())
