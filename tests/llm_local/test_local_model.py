"""The in-process model against transformers itself, and against itself in other batches."""

import asyncio
import math

import numpy as np
import pytest
import torch

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.local_model import LocalModel
from autointerp.llm.requests import Message, Reply, Request
from autointerp.testing.tiny_subject import TINY_FAMILIES, tiny_subject, tiny_tokenizer, write_tiny_subject

_SOME = ("llama", "gemma3", "gpt2", "opt", "bloom", "mixtral")
_LONG = "the ring in the inner court of the nation is there and here, then "


def _local(family: str = "llama", **options) -> LocalModel:
    subject = tiny_subject(family)
    return LocalModel.of(subject.model, subject.tokenizer, name=family, **options)


def _ask(model: LocalModel, *requests: Request) -> list[Reply | Refusal]:
    async def all_at_once():
        return await asyncio.gather(*(model.answer(request) for request in requests))

    try:
        return asyncio.run(all_at_once())
    finally:
        model.close()


def _one_by_one(model: LocalModel, *requests: Request) -> list[Reply | Refusal]:
    async def in_a_row():
        return [await model.answer(request) for request in requests]

    try:
        return asyncio.run(in_a_row())
    finally:
        model.close()


def _oracle_logprobs(family: str, text: str) -> np.ndarray:
    """Of each token but the first, from one plain forward pass."""
    subject = tiny_subject(family)
    ids = torch.tensor([subject.tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logprobs = subject.model(ids).logits[0].log_softmax(-1)
    return logprobs[:-1].numpy(), ids[0].numpy()


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_echo_is_the_models_own_log_softmax(family: str) -> None:
    text = _LONG + "the end"
    model = _local(family)
    assert model._engine.network.mode == "cached"
    (reply,) = _ask(model, Request(prompt=text, max_tokens=0, echo=True, top_logprobs=5))
    expected, ids = _oracle_logprobs(family, text)
    assert reply.logprobs[0].logprob is None
    found = np.array([token.logprob for token in reply.logprobs[1:]])
    np.testing.assert_allclose(found, expected[np.arange(len(ids) - 1), ids[1:]], atol=2e-5)
    for token, row in zip(reply.logprobs[1:], expected, strict=True):
        np.testing.assert_allclose([value for _, value in token.top], np.sort(row)[::-1][:5], atol=2e-5)
    assert reply.text == text
    assert "".join(token.token for token in reply.logprobs) == text


@pytest.mark.parametrize("family", [*_SOME, "falcon", "mpt", "gptj"])
def test_greedy_replies_are_those_of_generate_whatever_the_batch(family: str) -> None:
    subject = tiny_subject(family)
    prompts = ["the", _LONG, _LONG + "end", "onion ring, other things", _LONG + _LONG]
    model = LocalModel.of(subject.model, subject.tokenizer, name=family)
    requests = [Request(prompt=text, max_tokens=12, top_logprobs=1, may_cut=True) for text in prompts]
    for reply, text in zip(_ask(model, *requests), prompts, strict=True):
        ids = torch.tensor([subject.tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            made = subject.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=12,
                do_sample=False,
                output_scores=True,
                return_dict_in_generate=True,
            )
        new = made.sequences[0, ids.shape[1] :].tolist()
        scores = [
            score[0].log_softmax(-1)[index].item() for score, index in zip(made.scores, new, strict=True)
        ]
        ends = {subject.tokenizer.eos_token_id}
        kept = [(index, score) for index, score in zip(new, scores, strict=True) if index not in ends]
        assert reply.text == subject.tokenizer.decode([index for index, _ in kept], skip_special_tokens=True)
        np.testing.assert_allclose(
            [token.logprob for token in reply.logprobs], [score for _, score in kept], atol=5e-5
        )


@pytest.mark.parametrize("family", _SOME)
def test_answers_do_not_depend_on_the_batch_or_on_earlier_prompts(family: str) -> None:
    begin = _LONG * 2
    requests = [
        Request(prompt=begin + tail, max_tokens=count, echo=True, top_logprobs=3, seed=1, temperature=0.7)
        for tail, count in (("inner", 0), ("the other side", 4), ("", 3), ("no", 1))
    ]
    together = _ask(_local(family), *requests)
    in_a_row = _one_by_one(_local(family), *requests)
    alone = [_ask(_local(family, prefix_cache_bytes=0), request)[0] for request in requests]
    assert any(reply.usage.cached_tokens > 0 for reply in together)
    assert in_a_row[1].usage.cached_tokens > 0
    assert alone[1].usage.cached_tokens == 0
    for others in (together, in_a_row):
        for reply, expected in zip(others, alone, strict=True):
            _assert_same(reply, expected)


def _assert_same(reply: Reply, expected: Reply) -> None:
    assert reply.text == expected.text
    assert [token.offset for token in reply.logprobs] == [token.offset for token in expected.logprobs]
    for token, other in zip(reply.logprobs, expected.logprobs, strict=True):
        assert token.token == other.token
        assert (token.logprob is None) == (other.logprob is None)
        if token.logprob is not None:
            assert token.logprob == pytest.approx(other.logprob, abs=2e-5)
            np.testing.assert_allclose(
                [value for _, value in token.top], [value for _, value in other.top], atol=2e-5
            )


@pytest.mark.parametrize("mode", ["padded", "single"])
def test_models_without_reusable_keys_answer_the_same(mode: str) -> None:
    requests = [
        Request(prompt=_LONG + tail, max_tokens=5, echo=True, top_logprobs=2) for tail in ("", "inner", "n")
    ]
    slow = _local()
    slow._engine.network.mode = mode
    for reply, expected in zip(_ask(slow, *requests), _ask(_local(), *requests), strict=True):
        _assert_same(reply, expected)


def test_a_seed_repeats_a_draw_and_another_seed_or_replicate_draws_anew() -> None:
    def drawn(**changes):
        request = Request(prompt="the", max_tokens=16, temperature=1.5, may_cut=True, **changes)
        return _ask(_local(), request)[0].text

    assert drawn(seed=3) == drawn(seed=3)
    assert len({drawn(seed=seed) for seed in range(4)} | {drawn(seed=0, replicate=1)}) == 5


def test_draws_follow_the_models_probabilities() -> None:
    """One token, many seeds: the counts of the likeliest against their probabilities (within 5 sigma)."""
    count = 200
    requests = [
        Request(prompt="the ", max_tokens=1, temperature=1.0, seed=seed, top_logprobs=20)
        for seed in range(count)
    ]
    replies = _ask(_local(), *requests)
    likeliest, logprob = replies[0].logprobs[0].top[0]
    share = np.mean([reply.logprobs[0].token == likeliest for reply in replies])
    p = math.exp(logprob)
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / count)


def test_stop_strings_end_a_reply_before_them() -> None:
    (whole,) = _ask(_local(), Request(prompt="the", max_tokens=30, may_cut=True, top_logprobs=0))
    stop = whole.text[8:10]
    (cut,) = _ask(_local(), Request(prompt="the", max_tokens=30, stop=(stop, ""), top_logprobs=0))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert "".join(token.token for token in cut.logprobs).startswith(cut.text)
    assert cut.usage.completion_tokens < whole.usage.completion_tokens


def test_what_is_not_usable_is_refused_with_its_cause() -> None:
    model = _local()
    too_long, cut_off, barely = _ask(
        model,
        Request(prompt="x" * 500),
        Request(prompt="the", max_tokens=3),
        Request(prompt="x" * 120, max_tokens=50),
    )
    assert too_long == Refusal("too_long", "500 tokens do not fit into a context of 128")
    assert cut_off.cause == barely.cause == "cut_off"
    assert barely.detail == "ended at its limit of 8 tokens"


def test_a_reply_that_ends_at_once_still_shows_what_else_could_have_been() -> None:
    subject = tiny_subject()
    with torch.no_grad():
        head = subject.model.get_output_embeddings().weight
        head[subject.tokenizer.eos_token_id] = 0
        head.mul_(-1)
    model = LocalModel.of(subject.model, subject.tokenizer, name="ends")
    answers = _ask(
        model, *(Request(prompt=text, max_tokens=1, top_logprobs=20) for text in ("the", "on", "a", "z"))
    )
    for answer in answers:
        assert len(answer.logprobs) == 1 and len(answer.logprobs[0].top) == 20


def test_the_loop_stays_alive_and_cancelled_questions_are_dropped() -> None:
    model = _local()

    async def run() -> tuple[int, Reply]:
        ticks = 0
        slow = asyncio.create_task(model.answer(Request(prompt="the", max_tokens=100, may_cut=True)))
        dropped = asyncio.create_task(model.answer(Request(prompt="on", max_tokens=100, may_cut=True)))
        await asyncio.sleep(0.01)
        dropped.cancel()
        while not slow.done():
            ticks += 1
            await asyncio.sleep(0.001)
        return ticks, await slow

    ticks, reply = asyncio.run(run())
    assert ticks > 3
    assert isinstance(reply, Reply)
    # Another loop can go on with the same model.
    assert isinstance(_ask(model, Request(prompt="a", max_tokens=2, may_cut=True))[0], Reply)


def test_small_batches_and_a_small_cache_change_nothing() -> None:
    requests = [Request(prompt=_LONG + "on" * n, max_tokens=3, may_cut=True) for n in range(6)]
    model = _local(max_batch_tokens=90, prefix_cache_bytes=30_000)
    small = _ask(model, *requests)
    assert model._engine.prefixes.byte_count <= 30_000
    assert [reply.text for reply in small] == [reply.text for reply in _ask(_local(), *requests)]


def test_memory_that_runs_out_makes_batches_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _local()
    answer, sizes = model._engine.answer, []

    def greedy_for_memory(jobs):
        sizes.append(len(jobs))
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return answer(jobs)

    monkeypatch.setattr(model._engine, "answer", greedy_for_memory)
    replies = _ask(model, *(Request(prompt=f"{_LONG}{n}", max_tokens=2, may_cut=True) for n in range(8)))
    assert sizes[:2] == [8, 4]
    assert all(isinstance(reply, Reply) for reply in replies)


def test_a_model_that_fails_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _local()

    def broken(jobs):
        raise RuntimeError("shapes\ndo not fit")

    monkeypatch.setattr(model._engine, "answer", broken)
    with pytest.raises(EndpointError, match=r"llama: the model fails \(shapes do not fit\)"):
        _ask(model, Request(prompt="the"))


def test_a_folder_is_loaded_and_known_by_its_weights(tmp_path) -> None:
    path = write_tiny_subject(tmp_path / "judge")
    model = LocalModel(path, device="cpu")
    assert model.name == "judge"
    assert model.context_limit == 128
    assert model.fingerprint.endswith("-float32")
    other = LocalModel(write_tiny_subject(tmp_path / "other", seed=1), device="cpu")
    assert other.fingerprint != model.fingerprint
    (reply,) = _ask(model, Request(prompt="the", max_tokens=1, top_logprobs=1))
    assert (reply.model, reply.fingerprint) == ("judge", model.fingerprint)
    (expected,) = _ask(_local(), Request(prompt="the", max_tokens=1, top_logprobs=1))
    assert reply.logprobs[0].token == expected.logprobs[0].token
    half = LocalModel(path, device="cpu", dtype="bfloat16")
    assert half.fingerprint.endswith("-bfloat16")


def test_what_cannot_be_loaded_is_an_endpoint_error(tmp_path) -> None:
    path = write_tiny_subject(tmp_path / "pickled")
    weights = path / "model.safetensors"
    weights.rename(path / "pytorch_model.bin")
    with pytest.raises(EndpointError, match="no weights as safetensors"):
        LocalModel(path, device="cpu")
    with pytest.raises(EndpointError, match="no such folder"):
        LocalModel(tmp_path / "nowhere")
    with pytest.raises(EndpointError, match="there is no precision 'int8'"):
        LocalModel(write_tiny_subject(tmp_path / "whole"), device="cpu", dtype="int8")


@pytest.mark.parametrize("text", ["é😀 the ☃", "naïve — ‘ring’ 日本", " two  spaces\n\n\ttab ", "�"])
def test_offsets_point_at_the_characters_of_tokens(text: str) -> None:
    (reply,) = _ask(_local(), Request(prompt=text, max_tokens=0, echo=True))
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(reply.logprobs) == len(ids)
    assert "".join(token.token for token in reply.logprobs) == text
    offsets = [token.offset for token in reply.logprobs]
    assert offsets == sorted(offsets)
    # Independent of the tokenizer's offsets: bytes before a token, as whole characters.
    sizes = [len(bytes_of(tokenizer, index)) for index in ids]
    starts = np.cumsum([0, *sizes[:-1]])
    begins = np.cumsum([0, *(len(character.encode()) for character in text)])[:-1]
    assert offsets == [int(np.searchsorted(begins, start, side="right")) - 1 for start in starts]


def bytes_of(tokenizer, index: int) -> bytes:
    """A byte-level token's own bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(256 + n): byte for n, byte in enumerate(b for b in range(256) if b not in printable)}
    return bytes(table[character] for character in tokenizer.convert_ids_to_tokens(index))


def test_reply_offsets_go_on_from_the_prompt() -> None:
    (reply,) = _ask(_local(), Request(prompt="the ring", max_tokens=6, echo=True, top_logprobs=0))
    new = [token for token in reply.logprobs if token.offset >= len("the ring")]
    assert len(new) == reply.usage.completion_tokens
    assert new[0].offset == len("the ring")
    assert reply.usage.prompt_tokens == len(reply.logprobs) - len(new)


def test_chat_without_a_template_is_asked_in_plain_words() -> None:
    chat = Request(
        messages=(Message("system", "Judge."), Message("user", "Is it?")), max_tokens=4, may_cut=True
    )
    plain = Request(prompt="System: Judge.\n\nUser: Is it?\n\nAssistant:", max_tokens=4, may_cut=True)
    one, other = _ask(_local(), chat, plain)
    assert one.text == other.text
