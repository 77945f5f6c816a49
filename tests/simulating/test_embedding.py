"""Embedding: the value is the cosine, whoever encodes; an encoder of transformers pools as it should."""

import importlib.util

import numpy as np
import pytest
import torch

from autointerp.errors import SuiteError
from autointerp.explanation_records import Judgement, Passage, Refusal
from autointerp.simulating.embedding import (
    ENCODER_PACKAGE,
    EmbeddingJudge,
    SentenceEncoder,
    TransformersEncoder,
    load_default_encoder,
)
from autointerp.simulating.simulator import PassageJudge

TEXTS = ["the dog ran", "a red house", "", "dog dog dog ran here and there and everywhere", "x"]


class Letters:
    """Counts of letters: a vector that can be worked out by hand."""

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked.append(list(texts))
        return np.array(
            [[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz("] for text in texts], dtype=float
        )


def test_value_is_the_cosine_of_explanation_and_passage(kit):
    judge = EmbeddingJudge(Letters())
    passages = [Passage("p0", ("ab", "b")), Passage("p1", ("c",)), Passage("p2", ("a", "b", "b"))]
    found = kit.run(judge.judge(kit.explanation("abb"), passages))
    assert [j.passage for j in found] == ["p0", "p1", "p2"]
    assert [j.value for j in found] == pytest.approx([1.0, 0.0, 1.0])
    assert isinstance(judge, PassageJudge) and not judge.is_probability and not judge.needs


def test_a_passage_without_direction_is_refused_alone(kit):
    found = kit.run(
        EmbeddingJudge(Letters()).judge(kit.explanation("abb"), [Passage("p", ("1",)), Passage("q", ("a",))])
    )
    assert isinstance(found[0], Refusal) and isinstance(found[1], Judgement)


def test_an_explanation_without_text_stands_as_such(kit):
    encoder = Letters()
    kit.run(EmbeddingJudge(encoder).judge(kit.explanation("  "), kit.passages("a")))
    assert encoder.asked == [["(no explanation)", "a"]]


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "dog", "red", "house", "ran", "x"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(vocab={word: n for n, word in enumerate(words)}, model_max_length=16).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_transformers_encoder_is_the_mean_over_the_tokens_of_each_text_by_itself(tiny_encoder):
    from transformers import AutoModel, AutoTokenizer

    encoder = TransformersEncoder(tiny_encoder)
    assert isinstance(encoder, SentenceEncoder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    model = AutoModel.from_pretrained(tiny_encoder).eval()
    found = encoder.encode(TEXTS * 30)
    assert found.shape == (150, 8)
    for text, vector in zip(TEXTS, found, strict=False):
        with torch.no_grad():
            hidden = model(
                **tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
            ).last_hidden_state
        mean = hidden[0].double().mean(0)
        np.testing.assert_allclose(vector, mean / mean.norm(), atol=1e-5)
    np.testing.assert_allclose(found[-5:], found[:5], atol=1e-5)
    assert encoder.encode([]).shape == (0, 8)


def test_values_hang_on_no_order(kit, tiny_encoder):
    judge = EmbeddingJudge(TransformersEncoder(tiny_encoder))
    passages = kit.passages(*TEXTS)
    there = kit.run(judge.judge(kit.explanation("the dog"), passages))
    back = kit.run(judge.judge(kit.explanation("the dog"), passages[::-1]))
    assert [j.value for j in there] == pytest.approx([j.value for j in reversed(back)], abs=1e-6)
    assert all(-1 - 1e-9 <= j.value <= 1 + 1e-9 for j in there)


def test_a_folder_without_an_encoder_is_one_line(tmp_path):
    with pytest.raises(SuiteError, match="no sentence encoder"):
        TransformersEncoder(tmp_path)


def test_without_the_extra_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SuiteError, match="pip install"):
        load_default_encoder()


def test_the_real_encoder_tells_cats_from_revenue(kit):
    if importlib.util.find_spec(ENCODER_PACKAGE) is None:
        pytest.skip("no sentence encoder")
    passages = [Passage("kitten", ("a", " kitten", " sleeps")), Passage("revenue", ("quarterly", " revenue"))]
    found = kit.run(EmbeddingJudge().judge(kit.explanation("texts about cats"), passages))
    assert found[0].value > found[1].value + 0.2
