"""What the parts of `gpu.py` share: the command line, what was found, and how a part that fails is told."""

import argparse
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from workload import Workload


@dataclass
class Session:
    """The command line, and what was found so far."""

    options: argparse.Namespace
    found: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.perf_counter)

    @property
    def has_time(self) -> bool:
        """Whether a new measurement may begin."""
        return time.perf_counter() - self.begun < self.options.seconds

    def say(self, text: str) -> None:
        """Print and keep a line, or a table, of the report."""
        print(text, flush=True)
        self.lines.append(text)

    def save(self) -> None:
        """Write what there is."""
        if self.options.out is not None:
            self.options.out.mkdir(parents=True, exist_ok=True)
            (self.options.out / "gpu.json").write_text(json.dumps(self.found, indent=2, default=str) + "\n")
            (self.options.out / "gpu.md").write_text("\n\n".join(self.lines) + "\n")


def guarded(session: Session, work: Callable[[], Any]) -> Any:
    """What a measurement gives; None, and why, where it goes wrong."""
    try:
        return work()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        session.say(f"- FAILED: {type(error).__name__}: {str(error)[:300]}")
        session.found.setdefault("failures", []).append(traceback.format_exc())
        free()
        return None


def free() -> None:
    """Give the device's memory back between measurements."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def workload(options: argparse.Namespace, latent_count: int, *, batch_tokens: int, tokens: int) -> Workload:
    """GPT-2 small's shapes, random weights; subjects are made anew, which takes seconds."""
    return Workload(
        token_count=tokens,
        latent_count=latent_count,
        k=32,
        batch_tokens=batch_tokens,
        chunk_tokens=min(tokens, 16_384),
        device=options.device,
    )
