"""Ablations per second: continuing from kept keys and values against a forward pass over the whole context.

    python benchmarks/speed/ablation_sparsity.py                 # the demo's shapes and GPT-2 small's
    python benchmarks/speed/ablation_sparsity.py --quick         # does it run at all; not for numbers

Both sides ablate the same directions at the same tokens, 16 a token, follow T = 16 tokens, and make of the
change of the logits the sparsity of each ablation. The loop runs the whole context for every ablation, in
batches of 16, with a hook at the site; the unembedding is done for the T tokens only, as on our side.
`logits` is the time until the logits are there, `sparsity` with what is made of them: there the loop takes
medians with torch and we with numpy's partition. The sides take turns; ratios are medians over neighbouring
pairs, of processor time too, which is steadier where others use the machine.

The bound is that of the multiplications in the blocks' matrices and the unembedding, clean passes included;
attention itself, norms, medians and sums are not in it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from autointerp.demo import demo_subject
from autointerp.metrics.ablation_sparsity import sparsity, token_effects
from autointerp.provenance import provenance
from autointerp.subject.continued_pass import ContinuedPass, Starts
from autointerp.subject.hooks import on_output
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import tiny_tokenizer

HORIZON = 16
BATCH = 16
"""Ablations of one token, and of a batch of the loop."""
TOLERANCE = 1e-4
LOGITS = 1 << 24
"""Numbers of logits that our side holds at a time, as in a run."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A subject, where it is ablated, and how much of it."""

    name: str
    subject: SubjectModel
    layer: int
    context_length: int
    token_count: int

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.hook_resid_post"

    def bound(self) -> float:
        """Multiplications of the loop over ours, for contexts of full length."""
        blocks = self.subject.blocks.modules
        sizes = [sum(w.numel() for w in block.parameters() if w.ndim == 2) for block in blocks]
        head = HORIZON * self.subject.d_model * self.subject.vocabulary_size
        whole = self.context_length * sum(sizes) + head
        ours = HORIZON * sum(sizes[self.layer + 1 :]) + head
        clean = (self.context_length * sum(sizes)) / BATCH + ours / BATCH
        return (whole + whole / BATCH) / (ours + clean)


class Workload(NamedTuple):
    """Contexts, a token of each, and what is subtracted there."""

    tokens: Tensor
    position: Tensor
    directions: Tensor
    """[context, 16, d_model]."""


def workload(shape: Shape) -> Workload:
    """Random tokens; one is ablated in each context, anywhere that leaves T."""
    generator = torch.Generator().manual_seed(0)
    size = (shape.token_count, shape.context_length)
    tokens = torch.randint(3, shape.subject.vocabulary_size, size, generator=generator)
    last = shape.context_length - HORIZON + 1
    position = torch.randint(1, last, (shape.token_count,), generator=generator)
    directions = torch.randn(shape.token_count, BATCH, shape.subject.d_model, generator=generator)
    return Workload(tokens, position, directions)


# ---- the two sides ------------------------------------------------------------------------------------


def continued(shape: Shape, load: Workload, passes: ContinuedPass, *, reduce: bool) -> list[Tensor]:
    """Ours: contexts 16 at a time, ablations as many as 16 million logits hold."""
    found = []
    most = max(1, LOGITS // (HORIZON * shape.subject.vocabulary_size * (BATCH + 1)))
    for begin in range(0, len(load.tokens), 16):
        part = slice(begin, begin + 16)
        kept = passes.keep(load.tokens[part, : int(load.position[part].max()) + HORIZON])
        position, directions = load.position[part], load.directions[part]
        for first in range(0, len(position), most):
            rows = torch.arange(first, min(first + most, len(position)))
            stands = Starts(rows, position[rows]).of(kept.activations[shape.site], 1)
            clean_and_ablated = torch.cat([stands, stands - directions[rows]], dim=1).flatten(0, 1)
            starts = Starts(*(each.repeat_interleave(BATCH + 1) for each in (rows, position[rows])))
            logits = passes.logits(kept, shape.site, starts, clean_and_ablated, length=HORIZON)
            for of_token in logits.split(BATCH + 1):
                if not reduce:
                    found.append(of_token[1:, :, ::211].clone())
                    continue
                of_token[1:].sub_(of_token[0])
                effects = token_effects(of_token[1:])
                values = sparsity(effects, vocabulary_size=shape.subject.vocabulary_size)
                found.append(torch.from_numpy(values))
    return found


@torch.no_grad()
def loop(shape: Shape, load: Workload, *, reduce: bool) -> list[Tensor]:
    """The plain one: a forward pass over the context for each ablation, 16 in a batch."""
    model = shape.subject.model
    block = model.get_submodule(shape.subject.blocks.path)[shape.layer]
    found = []
    for tokens, at, directions in zip(load.tokens, load.position.tolist(), load.directions, strict=True):
        seen = tokens[None]

        def logits(tokens: Tensor, at: int = at) -> Tensor:
            hidden = model.base_model(tokens, use_cache=False).last_hidden_state
            return model.get_output_embeddings()(hidden[:, at : at + HORIZON])

        def ablate(stream: Tensor, at: int = at, directions: Tensor = directions) -> Tensor:
            stream = stream.clone()
            stream[:, at] -= directions
            return stream

        clean = logits(seen)
        with on_output(block, ablate):
            ablated = logits(seen.expand(BATCH, -1))
        if not reduce:
            found.append(ablated[..., ::211].clone())
            continue
        change = ablated - clean
        change -= change.median(dim=-1, keepdim=True).values
        change = change.flatten(1)
        size = change.shape[1]
        found.append(change.abs().sum(1).double() ** 2 / change.square().sum(1).double() / size)
    return found


# ---- time ---------------------------------------------------------------------------------------------


class Spent(NamedTuple):
    wall: float
    processor: float


def timed(work: Callable[[], Any]) -> tuple[Spent, Any]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return Spent(time.perf_counter() - wall, time.process_time() - processor), result


def compared(shape: Shape, repeats: int) -> dict[str, Any]:
    """Both sides in turn, after a little of each that is thrown away."""
    load = workload(shape)
    passes = ContinuedPass(shape.subject, [shape.site])
    few = Workload(*(each[:1] for each in load))
    for reduce in (False, True):
        gap = largest_gap(continued(shape, few, passes, reduce=reduce), loop(shape, few, reduce=reduce))
        if not gap <= TOLERANCE:
            sys.exit(f"{shape.name}: the two sides differ by {gap:.1e}, so there is no ratio")
    if passes.why_whole[shape.site]:
        sys.exit(f"{shape.name}: {passes.why_whole[shape.site]}")
    row: dict[str, Any] = {
        "shape": shape.name,
        "bound": shape.bound(),
        "ablations": BATCH * shape.token_count,
    }
    for name, reduce in (("logits", False), ("sparsity", True)):
        pairs = []
        for _ in range(repeats):
            ours, one = timed(lambda reduce=reduce: continued(shape, load, passes, reduce=reduce))
            plain, other = timed(lambda reduce=reduce: loop(shape, load, reduce=reduce))
            pairs.append((ours, plain))
        row[name] = {
            "largest_difference": largest_gap(one, other),
            "milliseconds_each": [
                1e3 * median(s.wall for s in side) / row["ablations"] for side in zip(*pairs, strict=True)
            ],
            "ratio": spread([plain.wall / ours.wall for ours, plain in pairs]),
            "processor_ratio": spread([plain.processor / ours.processor for ours, plain in pairs]),
        }
    return row


def largest_gap(ours: list[Tensor], other: list[Tensor]) -> float:
    """In units of the loop's spread, for logits; sparsities lie in (0, 1]."""
    mine, theirs = torch.cat(ours).double().flatten(), torch.cat(other).double().flatten()
    return float((mine - theirs).abs().max() / max(1.0, float(theirs.std())))


def spread(values: list[float]) -> list[float]:
    """Median, least and most."""
    return [median(values), min(values), max(values)]


def shapes(*, quick: bool) -> list[Shape]:
    """The demo's subject at its suite's context length, and GPT-2 small's shapes with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gpt2 = GPT2LMHeadModel(GPT2Config(use_cache=False))
    small = SubjectModel(gpt2, tiny_tokenizer(), name="gpt2-small-shapes", sha256="0" * 64)
    return [
        Shape("demo", SubjectModel.load(demo_subject()), 4, 128, 2 if quick else 32),
        Shape("GPT-2 small's shapes, layer 8", small, 8, 64, 1 if quick else 6),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for shape in shapes(quick=options.quick):
        row = compared(shape, 1 if options.quick else options.repeats)
        rows.append(row)
        print(f"{row['shape']}: {row['ablations']} ablations, the arithmetic's bound is {row['bound']:.1f}")
        for name in ("logits", "sparsity"):
            each = row[name]
            ours, plain = each["milliseconds_each"]
            wall, processor = (
                "{:.1f} ({:.1f} to {:.1f})".format(*each[key]) for key in ("ratio", "processor_ratio")
            )
            print(
                f"  {name}: ours {ours:.2f} ms, loop {plain:.2f} ms each; ratio {wall}, of processor time "
                f"{processor}; largest difference {each['largest_difference']:.1e}"
            )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        found = {"rows": rows, "threads": options.threads, "provenance": provenance(seed=0)}
        options.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
