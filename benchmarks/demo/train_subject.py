"""Train the demo's subject: a 3.4 M parameter Llama on installed Python sources.

One trunk is trained at a constant learning rate. At 0.8 of every budget (T, T/2,
... T/32 tokens) a branch leaves it, decays the learning rate to zero over the
remaining 0.2 and is saved as a member: a transformers folder with `training.json`.

    python benchmarks/demo/train_subject.py --tokens 8192000

A killed run continues from the last saved state when started again. On two idle cores a
step of 4096 tokens takes about 0.7 s. The recorded training loss is the mean over the last
100 steps, which for the smallest budgets reach back to before the decay.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import platform
import random
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional
from training_text import (
    Windows,
    collect_training_text,
    held_out_contexts,
    read_source,
    train_tokenizer,
    write_token_stream,
)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
SUBJECT = HERE.parents[1] / "autointerp" / "demo" / "subject"
BRANCH_AT = 0.8
HALVINGS = 5
SAVE_SECONDS = 180.0

log = logging.getLogger("train_subject")


@dataclass(frozen=True)
class Recipe:
    """Everything but the budget that determines the trunk's weights."""

    seed: int = 0
    vocabulary: int = 4096
    tokenizer_bytes: int = 20_000_000
    layers: int = 6
    width: int = 192
    mlp_width: int = 512
    heads: int = 6
    context: int = 256
    batch: int = 16
    optimiser: str = "muon"
    matrix_rate: float = 0.01
    other_rate: float = 0.005
    weight_decay: float = 0.1
    warmup_steps: int = 60
    gradient_clip: float = 1.0

    @property
    def tokens_per_step(self) -> int:
        """Positions processed in one optimiser step."""
        return self.batch * self.context


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file in one move."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def replace_folder(source: Path, target: Path) -> None:
    """Put a copy of `source` in the place of `target` with two renames."""
    incoming, outgoing = target.with_suffix(".incoming"), target.with_suffix(".outgoing")
    for folder in (incoming, outgoing):
        shutil.rmtree(folder, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, incoming)
    if target.exists():
        target.rename(outgoing)
    incoming.rename(target)
    shutil.rmtree(outgoing, ignore_errors=True)


def prepare_data(build: Path, recipe: Recipe) -> None:
    """Write the tokenizer, the text's manifest and the shuffled token stream, once."""
    stream = build / "tokens.uint16"
    if stream.exists():
        return
    text = collect_training_text()
    texts = [document.text for document in text.documents]
    tokenizer = train_tokenizer(texts, recipe.vocabulary, recipe.tokenizer_bytes, recipe.seed)
    tokenizer.model_max_length = 2 * recipe.context
    tokenizer.save_pretrained(build / "tokenizer")
    log.info("tokenizer trained on a sample of %d documents", len(texts))
    random.Random(recipe.seed + 1).shuffle(texts)
    partial = stream.with_suffix(".partial")
    count = write_token_stream(texts, tokenizer, partial)
    write_json(build / "training_text.json", {"tokens": count, **text.manifest()})
    partial.rename(stream)
    log.info("%d tokens written", count)


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    """Return the untrained subject, a function of the recipe alone."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=2 * recipe.context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def token_losses(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Return the cross-entropy in nats of every token but each row's first."""
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden).float()
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")


def training_loss(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Return the mean loss of a batch under bfloat16 autocast."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return token_losses(model, ids).mean()


def new_optimisers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon (or AdamW) for the block matrices and AdamW for embeddings and norms."""
    named = list(model.named_parameters())
    matrices = [each for name, each in named if each.ndim == 2 and "layers" in name]
    others = [each for name, each in named if each.ndim != 2 or "layers" not in name]
    adam = {"betas": (0.9, 0.95), "fused": True}
    rate, decay = recipe.matrix_rate, recipe.weight_decay
    first = (
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        if recipe.optimiser == "muon"
        else torch.optim.AdamW(matrices, lr=rate, weight_decay=decay, **adam)
    )
    return [first, torch.optim.AdamW(others, lr=recipe.other_rate, weight_decay=0.0, **adam)]


@dataclass
class Run:
    """A model in training: the trunk, or the branch of one budget."""

    recipe: Recipe
    windows: Windows
    model: LlamaForCausalLM
    optimisers: list[torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Replace the state file in one move; the data order needs only the step."""
        state = {
            "model": self.model.state_dict(),
            "optimisers": [each.state_dict() for each in self.optimisers],
            "rest": [self.step, self.seconds, self.recent],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a state file."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds, self.recent = state["rest"]

    def advance(self, scale: float) -> None:
        """Take one optimiser step at `scale` times the recipe's learning rates."""
        begun = time.monotonic()
        rates = (self.recipe.matrix_rate, self.recipe.other_rate)
        loss = compiled_loss(self.model, self.windows.batch(self.step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_clip)
        for optimiser, rate in zip(self.optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale
            optimiser.step()
        self.model.zero_grad()
        self.step += 1
        self.recent = [*self.recent[-99:], loss.item()]
        self.seconds += time.monotonic() - begun


compiled_loss = torch.compile(training_loss)


def start_run(build: Path, recipe: Recipe) -> Run:
    """Return the trunk at its saved state, or at step 0 when none was saved."""
    stream = np.memmap(build / "tokens.uint16", dtype=np.uint16, mode="r")
    windows = Windows(stream, recipe.context, recipe.batch, recipe.seed)
    model = new_model(recipe)
    run = Run(recipe, windows, model, new_optimisers(model, recipe))
    if (build / "trunk.pt").exists():
        run.load(build / "trunk.pt")
    return run


def learning_rate_scale(step: int, recipe: Recipe, decay: tuple[int, int] | None) -> float:
    """Return warm-up, then 1, then a line to 0 over the decay's (first, end) steps."""
    scale = min(1.0, (step + 1) / recipe.warmup_steps)
    if decay is None or step < decay[0]:
        return scale
    return scale * (decay[1] - step) / (decay[1] - decay[0])


def train_until(run: Run, end: int, state: Path, decay: tuple[int, int] | None) -> None:
    """Advance a run to step `end`, saving its state every few minutes and at the end."""
    saved, begun, first = time.monotonic(), time.monotonic(), run.step
    while run.step < end:
        run.advance(learning_rate_scale(run.step, run.recipe, decay))
        now = time.monotonic()
        if now - saved > SAVE_SECONDS:
            run.save(state)
            saved = now
        if run.step % 50 == 0:
            speed = (run.step - first) * run.recipe.tokens_per_step / (now - begun)
            minutes = (end - run.step) * run.recipe.tokens_per_step / speed / 60
            loss = np.mean(run.recent[-50:])
            message = "%s step %d/%d loss %.3f, %.0f tokens/s, %.1f min left"
            log.info(message, state.stem, run.step, end, loss, speed, minutes)
    run.save(state)


@torch.no_grad()
def held_out_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, limit: int
) -> dict[str, float]:
    """Return the loss on the interpreter's own standard library, in float32.

    `nats_per_token` is the mean over all tokens but the prepended one; `bits_per_byte`
    divides the same sum by the UTF-8 bytes of those tokens. Lower is better for both.
    """
    contexts = held_out_contexts(tokenizer, limit)
    total = sum(float(token_losses(model, batch).sum()) for batch in contexts.split(32))
    tokens = contexts[:, 1:].flatten().tolist()
    # In a byte-level vocabulary every character of a token's name stands for one byte.
    size = sum(map(len, tokenizer.convert_ids_to_tokens(tokens)))
    return {
        "contexts": len(contexts),
        "nats_per_token": round(total / len(tokens), 5),
        "bits_per_byte": round(total / math.log(2) / size, 5),
    }


def training_flops(recipe: Recipe, parameters: int, tokens: int) -> float:
    """Return 6 N D for the matrices and 6 L d C D for causal attention's two products."""
    attention = recipe.layers * recipe.width * recipe.context
    return 6.0 * (parameters + attention) * tokens


def processor_name() -> str:
    """Return the processor's model name, with its core count."""
    info = read_source(Path("/proc/cpuinfo")) or ""
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, no GPU"


def export_member(run: Run, build: Path) -> Path:
    """Write a finished branch as a transformers folder in bfloat16, with `training.json`."""
    recipe, tokens = run.recipe, run.step * run.recipe.tokens_per_step
    partial, member = build / "member.partial", build / "members" / str(tokens)
    shutil.rmtree(partial, ignore_errors=True)
    copy.deepcopy(run.model).to(torch.bfloat16).save_pretrained(partial)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(build / "tokenizer")
    tokenizer.save_pretrained(partial)
    saved = LlamaForCausalLM.from_pretrained(partial, dtype=torch.float32).eval()
    parameters = saved.num_parameters()
    record = {
        "tokens": tokens,
        "parameters": parameters,
        "training_flops": training_flops(recipe, parameters, tokens),
        "flops_formula": "6*N*D + 6*layers*width*context*D; N counts the tied embedding once",
        "train_nats_per_token": round(float(np.mean(run.recent)), 5),
        "held_out": held_out_loss(saved, tokenizer, 1500),
        "seconds": round(run.seconds, 1),
        "recipe": asdict(recipe),
        "schedule": f"warm-up, constant, linear to 0 from {BRANCH_AT} of the tokens",
        "text": "Python sources of installed packages, see benchmarks/demo/training_text.py",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "hardware": processor_name(),
    }
    write_json(partial / "training.json", record)
    member.parent.mkdir(exist_ok=True)
    partial.rename(member)
    log.info("member %s: %s", tokens, record["held_out"])
    return member


def train_branch(run: Run, build: Path, end: int) -> None:
    """Decay the trunk, now at 0.8 of `end` steps, to zero; export it; go back to the trunk."""
    state = build / f"branch-{end}.pt"
    if state.exists():
        run.load(state)
    train_until(run, end, state, (branch_step(end), end))
    replace_folder(export_member(run, build), SUBJECT)
    state.unlink()
    run.load(build / "trunk.pt")


def branch_step(end: int) -> int:
    """Return the step at which the branch of an `end`-step budget leaves the trunk."""
    return round(BRANCH_AT * end)


def train_members(build: Path, recipe: Recipe, tokens: int) -> None:
    """Train the trunk and, as it passes them, the branches of T/32, T/16, ... T tokens."""
    last = tokens // recipe.tokens_per_step
    ends = [last >> halving for halving in range(HALVINGS, -1, -1)]
    run = start_run(build, recipe)
    for end in ends:
        if run.step > branch_step(end):
            continue
        train_until(run, branch_step(end), build / "trunk.pt", None)
        if not (build / "members" / str(end * recipe.tokens_per_step)).exists():
            train_branch(run, build, end)


def main() -> None:
    """Prepare the data, then train every member that is not there yet."""
    parser = argparse.ArgumentParser(description="Train the demo's subject.")
    parser.add_argument("--build", type=Path, default=HERE / "build")
    parser.add_argument("--tokens", type=int, default=8_192_000, help="the largest budget, T")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    transformers.utils.logging.set_verbosity_error()
    options.build.mkdir(parents=True, exist_ok=True)
    # A compilation cut short leaves a broken library in torch's shared cache, so it gets its own.
    compiled = options.build / "compiled"
    shutil.rmtree(compiled, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compiled)
    recipe = Recipe(seed=options.seed)
    prepare_data(options.build, recipe)
    train_members(options.build, recipe, options.tokens)


if __name__ == "__main__":
    main()
