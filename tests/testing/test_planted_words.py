"""Planted words: each latent fires on its words and nowhere else, in memory and from disk."""

import json

import polars as pl
import pytest
import torch

import autointerp
from autointerp.checkpoints.load import load_checkpoint
from autointerp.config import load_suite
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.planted_words import (
    PLANTED,
    SITE,
    planted_documents,
    planted_words,
    write_planted_words,
)

TEXT = "red harbour and the Redder harbours, because blueness — she whispered; Monday's bread under\nfather 7"


@pytest.fixture(scope="module")
def planted():
    return planted_words()


def firing(planted, subject, sae, text):
    ids = subject.tokenizer.encode(text, add_special_tokens=False)
    seen = subject.read(torch.tensor([ids]), [SITE])[SITE][0]
    return [subject.tokenizer.decode([index]) for index in ids], sae.encode(seen)


@pytest.mark.parametrize("text", [TEXT, *planted_documents(3, seed=5)])
def test_a_latent_fires_on_its_words_and_nowhere_else(planted, text):
    tokens, latents = firing(planted, planted.subject, planted.sae, text)
    assert "".join(tokens).replace("\ufffd", "") == text.replace("—", "")
    for latent in range(planted.sae.latent_count):
        expected = [planted.fires_on(latent, token) for token in tokens]
        assert (latents[:, latent] != 0).tolist() == expected
    assert (latents != 0).any()


def test_activations_are_one_and_in_a_group_a_little_less(planted):
    _, latents = firing(planted, planted.subject, planted.sae, " red blue green bread")
    assert latents[:3, 2].tolist() == pytest.approx([1, 0.975, 0.95], abs=1e-5)
    assert latents[3, 11].item() == pytest.approx(1, abs=1e-5)


def test_explanations_quote_the_words(planted):
    assert planted.explanations[2] == 'One of the words "red", "blue", "green"'
    assert len(planted.explanations) == len(PLANTED)


def test_words_that_occur_twice_are_refused():
    with pytest.raises(ValueError, match="twice"):
        planted_words([["red"], ["red"]])


def test_documents_are_seeded_and_every_latent_occurs():
    assert planted_documents(5, seed=1) == planted_documents(5, seed=1) != planted_documents(5, seed=2)
    words = {word for text in planted_documents(200) for word in text.split()}
    assert all(set(group) & words for group in PLANTED)


def test_what_is_written_is_read_back_and_evaluated(planted, tmp_path):
    suite = write_planted_words(tmp_path / "planted", documents=80)
    subject, sae = SubjectModel.load(suite.parent / "subject"), load_checkpoint(suite.parent / "planted")
    tokens, latents = firing(planted, subject, sae, TEXT)
    again, same = firing(planted, planted.subject, planted.sae, TEXT)
    assert tokens == again and torch.equal(latents, same)
    autointerp.evaluate(load_suite(suite), out=tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    (mse,) = [
        row["value"]
        for row in report["results"]
        if (row["metric"], row["checkpoint"], row["slice"])
        == ("reconstruction.normalized_mse", "planted", {})
    ]
    assert mse < 1e-6
    latents = pl.read_parquet(tmp_path / "run" / "latents" / "latents.parquet").filter(checkpoint="planted")
    assert latents.filter("is_sampled")["latent"].to_list() == list(range(len(PLANTED)))
    assert (latents.filter("is_sampled")["status"] == "live").all()
