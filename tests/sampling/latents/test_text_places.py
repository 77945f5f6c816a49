"""What is no text behind a context's first token: never a focus, never a passage, never counted."""

import numpy as np
import polars as pl
import pytest
import spilled_runs
from spilled_runs import checkpoints, passed

from autointerp.sampling.context_table import ContextTable
from autointerp.sampling.contexts import ContextOptions, corpus_chunks
from autointerp.sampling.corpus import document_of
from autointerp.sampling.latents.choice import Choice
from autointerp.sampling.latents.gathering import GatherOptions
from autointerp.sampling.latents.shared_ngrams import leaks
from autointerp.sampling.samplers.catalogue import SAMPLER_NAMES
from autointerp.sampling.samplers.text_places import TextPlaces
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import tiny_tokenizer

ALL = GatherOptions(choice=Choice(latents="all", least_documents=1), examples=6, strata=3)


def test_places_are_those_of_text() -> None:
    contexts = pl.DataFrame(
        {
            "tokens": [[0, 5, 9, 6], [], [0, 9], [7, 8]],
            "first_scored": [1, 0, 2, 0],
            "unscored": [[2], [], [], []],
        },
        schema_overrides={"tokens": pl.List(pl.Int32), "unscored": pl.List(pl.UInt32)},
    )
    places = TextPlaces.of(contexts)
    assert places.position.tolist() == [1, 3, 0, 1]
    assert places.token.tolist() == [1, 3, 6, 7]
    assert places.count.tolist() == [2, 0, 0, 2]
    rows, positions = np.array([0, 0, 0, 3]), np.array([0, 1, 3, 1])
    assert places.before(rows, positions).tolist() == [0, 0, 1, 1]
    assert TextPlaces.of(contexts.drop("unscored")).position.tolist() == [1, 2, 3, 0, 1]


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return spilled_runs.subject()


def template_chunks(subject: SubjectModel, packing: str) -> list:
    """Short documents, each in a chat template that is longer than an n-gram."""
    tokenizer = tiny_tokenizer()
    around = "{{ messages[0]['content'] }} And this the template adds to each and every document."
    tokenizer.chat_template = f"Said by somebody: {around}"
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("abcdefghijkl"), 22)) for _ in range(90)]

    class Texts:
        def documents(self):
            return map(document_of, texts)

    options = ContextOptions(context_length=120, chat_template=True, packing=packing)
    return list(corpus_chunks(Texts(), tokenizer, options, batch_tokens=500, chunk_tokens=3000))


@pytest.mark.parametrize("packing", ["document", "packed"])
def test_a_chat_template_is_no_text(subject: SubjectModel, packing: str) -> None:
    """Nobody looked whether latents fire on it, and it is no passage that gives a score away."""
    found = template_chunks(subject, packing)
    gathered = passed(subject, found, checkpoints()).gathered(checkpoints()[0], ALL)
    text: dict[int, set[int]] = {}
    for chunk in found:
        table = ContextTable.of(chunk)
        ids = table.frame["context"]
        for batch, numbers in zip(chunk.batches, table.numbers, strict=True):
            for row, number in enumerate(numbers.tolist()):
                text[ids[number]] = set(batch.is_scored[row].nonzero().flatten().tolist())
    assert gathered.examples.height > 300
    assert set(gathered.examples["sampler"]) == set(SAMPLER_NAMES)
    assert all(
        place in text[context] for context, place in gathered.examples.select("context", "position").rows()
    )
    assert gathered.coverage["dropped_for_leaks"] == 0
    assert leaks(gathered.examples.rename({"position": "focus"}), gathered.contexts).is_empty()


def test_a_passage_inside_a_template_is_still_found() -> None:
    """Short documents count as a whole, and the template behind them does not hide that."""
    contexts = pl.DataFrame(
        {
            "context": [1, 2],
            "first_scored": [1, 2],
            "tokens": [[0, 5, 6, 7, 9, 9], [0, 9, 5, 6, 7, 9]],
            "unscored": [[4, 5], [5]],
        }
    )
    rows = {"latent": [3, 3], "split": [0, 2], "context": [1, 2], "focus": [3, 4]}
    assert leaks(pl.DataFrame(rows), contexts)["context"].to_list() == [1]
    assert leaks(pl.DataFrame(rows), contexts.drop("unscored")).is_empty()
