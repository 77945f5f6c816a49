"""How fast the judge in this process answers: `LocalModel`, beside a loop that asks one question at a time.

    python benchmarks/speed/local_judge.py                    # SmolLM2-135M's shapes, random weights
    python benchmarks/speed/local_judge.py --size tiny        # seconds, to see that it runs
    python benchmarks/speed/local_judge.py --device cuda --size 1b --dtype bfloat16

Questions begin alike, as those of a judge do. Printed are prompt tokens per second of both sides, their
ratio, and the largest difference between the log-probabilities that the two give.
"""

import argparse
import asyncio
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from autointerp.llm.local_model import LocalModel
from autointerp.llm.requests import Reply, Request
from autointerp.testing.tiny_subject import tiny_tokenizer

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
    },
}
SHARED = "A unit fires on some tokens of text and is silent on all others; say where it fires, and how. " * 12


def main() -> None:
    options = _options()
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    size = SIZES[options.size] | {"num_key_value_heads": 1 if options.size != "1b" else 8}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = LlamaConfig(vocab_size=49_152, max_position_embeddings=4096, **size, **ids)
    model = LlamaForCausalLM(config).to(options.device, getattr(torch, options.dtype)).eval()
    prompts = [
        f"{SHARED}Text {i}: " + f"the {i} red fox ran over {i * 7} hills. " * 6
        for i in range(options.questions)
    ]
    rows = []
    for name, echo, tokens in (
        ("a reply of one token, 20 alternatives", False, 1),
        ("echoed prompt", True, 0),
    ):
        asked = [
            Request(prompt=p, max_tokens=tokens, may_cut=True, echo=echo, top_logprobs=20) for p in prompts
        ]
        ours, seconds = asyncio.run(_ours(model, tokenizer, asked))
        plain, plain_seconds = _plain(model, tokenizer, prompts, echo=echo)
        count = sum(len(tokenizer(p)["input_ids"]) for p in prompts)
        gap = max(_gap(a, b) for a, b in zip(ours, plain, strict=True))
        rows.append((name, count / seconds, count / plain_seconds, plain_seconds / seconds, gap))
    device = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"{device}, torch {torch.__version__}, {options.size}, {options.dtype}, {len(prompts)} questions\n")
    print("| question | LocalModel, prompt tokens/s | one by one | ratio | largest difference, nats |")
    print("| :--- | ---: | ---: | ---: | ---: |")
    for name, fast, slow, ratio, gap in rows:
        print(f"| {name} | {fast:,.0f} | {slow:,.0f} | {ratio:.1f} | {gap:.1e} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--questions", type=int, default=32)
    return parser.parse_args()


async def _ours(model: Any, tokenizer: Any, asked: list[Request]) -> tuple[list[list[float]], float]:
    judge = LocalModel.of(model, tokenizer, name="random")
    try:
        await judge.answer(asked[0])  # the first call tries out what the model can reuse
        begun = time.perf_counter()
        answers = await asyncio.gather(*(judge.answer(request) for request in asked))
        seconds = time.perf_counter() - begun
    finally:
        judge.close()
    if not all(isinstance(answer, Reply) for answer in answers):
        raise SystemExit(f"refused: {answers}")
    return [[t.logprob for t in answer.logprobs if t.logprob is not None] for answer in answers], seconds


@torch.no_grad()
def _plain(model: Any, tokenizer: Any, prompts: list[str], *, echo: bool) -> tuple[list[list[float]], float]:
    found = []
    begun = time.perf_counter()
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]], device=model.device)
        logits = model(ids, logits_to_keep=0 if echo else 1).logits[0].float().log_softmax(-1)
        logits.topk(20)
        if echo:
            found.append(logits[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist())
        else:
            found.append([float(logits[-1].max())])
    return found, time.perf_counter() - begun


def _gap(ours: list[float], plain: list[float]) -> float:
    """Ours may know one token more: the first one, behind a BOS."""
    short = min(len(ours), len(plain))
    return max(abs(a - b) for a, b in zip(ours[-short:], plain[-short:], strict=True))


if __name__ == "__main__":
    main()
