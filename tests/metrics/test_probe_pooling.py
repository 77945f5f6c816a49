"""Values of latents on items against the dictionary itself, token by token."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.metrics.probe_activations import PooledActivations
from autointerp.metrics.probe_pooling import (
    ChannelBank,
    DictionaryBank,
    DirectionBank,
    ItemTable,
    PooledInputs,
    item_table,
)
from autointerp.probe_records import ProbeData, ProbeTask, ProbeText, TaskExamples
from autointerp.testing.planted_autoencoder import planted_autoencoder

LENGTHS = (9, 4, 12, 2, 9, 30)
POOLINGS = ("last", "mean", "max", "marked")


def task(name: str, pooling: str, texts: list[int], positions: list[int] | None = None) -> TaskExamples:
    count = len(texts)
    described = ProbeTask(name, "?", "rule", "made up", "CC0-1.0", "none", pooling)
    return TaskExamples(
        described,
        np.array(texts, dtype=np.int64),
        np.array(positions or [-1] * count, dtype=np.int64),
        np.arange(count) % 2 == 0,
        np.zeros(count, dtype=bool),
    )


def data(*tasks: TaskExamples, first_scored: int = 1) -> ProbeData:
    texts = tuple(
        ProbeText(str(index), tuple(range(length)), str(index)) for index, length in enumerate(LENGTHS)
    )
    return ProbeData(texts, tasks, first_scored=first_scored)


TASKS = (
    task("a/last", "last", [0, 1, 2, 3]),
    task("a/mean", "mean", [0, 1, 5, 3, 4]),
    task("a/max", "max", [5, 4, 3, 2, 1, 0]),
    task("a/marked", "marked", [0, 0, 2, 3], [3, 8, 11, 1]),
)


def vectors(table: ItemTable, d_model: int = 6) -> torch.Tensor:
    """A vector for each token, which depends on text and position alone."""
    found = torch.empty(len(table.text), d_model)
    for row, (text, position) in enumerate(zip(table.text.tolist(), table.position.tolist(), strict=True)):
        generator = torch.Generator().manual_seed(1000 * text + position)
        found[row] = 2.0 * torch.randn(d_model, generator=generator) + 0.5
    return found


def dictionary(normalization: str = "layer_norm") -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(5)
    sae = planted_autoencoder(6, 17, k=3, generator=generator)
    return replace(
        sae,
        normalization=InputNormalization(normalization, scale=0.7),
        encoder_bias=torch.randn(17, generator=generator),
        pre_bias=torch.randn(6, generator=generator),
        latent_scale=torch.rand(17, generator=generator) + 0.5,
    )


def pooled_by_hand(per_token: dict[tuple[int, int], torch.Tensor], task: TaskExamples) -> torch.Tensor:
    """(latent, example), from each token's values."""
    columns = []
    for text, position in zip(task.text.tolist(), task.position.tolist(), strict=True):
        last = LENGTHS[text] - 1
        values = torch.stack([per_token[text, place] for place in range(1, last + 1)])
        match task.task.pooling:
            case "last":
                columns.append(per_token[text, last])
            case "marked":
                columns.append(per_token[text, position])
            case "mean":
                columns.append(values.mean(dim=0))
            case _:
                columns.append(values.amax(dim=0))
    return torch.stack(columns, dim=1)


def whole() -> tuple[ItemTable, torch.Tensor, dict[tuple[int, int], int]]:
    table = item_table(data(*TASKS), TASKS)
    places = zip(table.text.tolist(), table.position.tolist(), strict=True)
    return table, vectors(table), {place: row for row, place in enumerate(places)}


@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm", "scale"])
def test_pre_activations_of_items_are_pooled_over_tokens(normalization: str) -> None:
    table, x, rows = whole()
    sae = dictionary(normalization)
    dense = sae.pre_activations(x)
    values = PooledInputs(DictionaryBank(sae), x, table.items).of(torch.arange(17))
    for one, items in zip(TASKS, table.of_task, strict=True):
        expected = pooled_by_hand({place: dense[row] for place, row in rows.items()}, one)
        assert torch.allclose(values[:, items], expected, atol=1e-5), one.task.name


def test_activations_of_items_are_pooled_over_tokens() -> None:
    table, x, rows = whole()
    sae = dictionary()
    dense = sae.encode(x)
    pooled = PooledActivations.encoded(sae, x, table.items)
    values = pooled.of(torch.arange(17))
    for one, items in zip(TASKS, table.of_task, strict=True):
        # a latent that fires on no token of a text has a maximum of 0, as encode has it
        expected = pooled_by_hand({place: dense[row] for place, row in rows.items()}, one)
        assert torch.allclose(values[:, items], expected, atol=1e-5), one.task.name
        assert torch.equal(pooled.only(items).of(torch.tensor([3, 11])), values[[3, 11]][:, items])


def test_some_latents_and_some_items_have_the_same_values() -> None:
    table, x, _ = whole()
    bank = DictionaryBank(dictionary())
    values = PooledInputs(bank, x, table.items).of(torch.arange(17))
    chosen = np.array([len(table.items.pooling) - 1, 0, 3])
    part = PooledInputs(bank, x, table.items.only(chosen)).of(torch.tensor([16, 2]))
    assert torch.allclose(part, values[[16, 2]][:, chosen], atol=1e-6)


def test_a_vector_is_kept_once_for_all_tasks_that_read_it() -> None:
    table, _, rows = whole()
    assert len(rows) == len(table.text) == sum(length - 1 for length in LENGTHS)
    assert len(table.items.pooling) == len(
        {
            (k, s, e)
            for k, s, e in zip(
                table.items.pooling, table.items.start.tolist(), table.items.stop.tolist(), strict=True
            )
        }
    )
    # marked tokens 8 of text 0, 11 of text 2, 1 of text 3 are also those texts' last ones
    assert table.of_task[3][1:].tolist() == table.of_task[0][[0, 2, 3]].tolist()


def test_texts_begin_after_what_is_not_scored() -> None:
    one = task("a/mean", "mean", [0])
    assert item_table(data(one, first_scored=0), [one]).position.tolist() == list(range(9))
    assert item_table(data(one, first_scored=3), [one]).position.tolist() == list(range(3, 9))


@pytest.mark.parametrize(
    "one",
    [task("a/b", "marked", [0], [9]), task("a/b", "marked", [0], [-1]), task("a/b", "mean", [3])],
)
def test_refuses_an_example_without_a_token(one: TaskExamples) -> None:
    with pytest.raises(ValueError, match=r"a/b: a text of . tokens has none"):
        item_table(data(one, first_scored=2), [one])


def test_channels_are_the_site_itself() -> None:
    table, x, _ = whole()
    values = PooledInputs(ChannelBank(6), x, table.items).of(torch.arange(6))
    single = np.flatnonzero(table.items.is_single)
    assert torch.equal(values[:, single], x[torch.from_numpy(table.items.start[single])].T)


def test_random_directions_read_standardised_channels_and_do_not_depend_on_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=generator) * torch.tensor([1.0, 10.0, 100.0, 0.1, 0.0]) + 7.0
    few = DirectionBank(x, 600, seed=3, site="a")
    h = few.inputs(x)
    assert torch.allclose(h.mean(dim=0), torch.zeros(5), atol=1e-4)
    assert torch.allclose(h.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), atol=1e-4)
    rows = few.rows(torch.arange(600)).weight
    many = DirectionBank(x, 5000, seed=3, site="a")
    assert torch.equal(many.rows(torch.tensor([599, 0, 511, 512])).weight, rows[[599, 0, 511, 512]])
    assert abs(float(rows.mean())) < 0.06 and float(rows.std()) == pytest.approx(1.0, abs=0.05)
    for other in (DirectionBank(x, 600, seed=4, site="a"), DirectionBank(x, 600, seed=3, site="b")):
        assert not torch.equal(other.rows(torch.arange(2)).weight, rows[:2])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.15)])
def test_a_dictionary_computes_in_its_own_precision(dtype: torch.dtype, tolerance: float) -> None:
    table, x, _ = whole()
    sae = dictionary()
    exact = PooledInputs(DictionaryBank(sae), x, table.items).of(torch.arange(17))
    other = PooledInputs(DictionaryBank(sae.to(dtype=dtype)), x, table.items).of(torch.arange(17))
    assert other.dtype == dtype
    assert torch.allclose(other.float(), exact, atol=tolerance)
    pooled = PooledActivations.encoded(sae.to(dtype=dtype), x, table.items)
    assert pooled.matrix.dtype == np.float32


def test_matrices_that_stay_in_another_precision_are_read_by_block() -> None:
    table, x, _ = whole()
    sae = dictionary()
    half = replace(sae, encoder_weight=sae.encoder_weight.half(), is_streamed=True)
    rounded = replace(sae, encoder_weight=sae.encoder_weight.half().float())
    one, other = (
        PooledInputs(DictionaryBank(dictionary), x, table.items).of(torch.arange(5))
        for dictionary in (half, rounded)
    )
    assert torch.equal(one, other)
