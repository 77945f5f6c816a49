"""Constraints, the weight average and the silence counter, each against its closed form."""

import pytest
import torch

from autointerp.training.constraints import project_out_rows, rescale_to_unit_rows
from autointerp.training.dead_latents import SilenceCounter
from autointerp.training.weight_average import WeightAverage


def unit_rows(seed=0):
    rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def test_projected_gradient_has_no_parallel_component_and_keeps_the_rest():
    rows, gradient = unit_rows(), torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    projected = project_out_rows(gradient, rows)
    torch.testing.assert_close((projected * rows).sum(1), torch.zeros(8), atol=1e-6, rtol=0)
    removed = gradient - projected
    torch.testing.assert_close(removed, (removed * rows).sum(1, keepdim=True) * rows, atol=1e-6, rtol=0)


def test_rows_are_rescaled_in_place_and_zero_rows_stay():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    rescale_to_unit_rows(rows)
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_average_is_the_normalised_weighted_sum_of_all_steps():
    history = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    average = WeightAverage.of([history[0]], 0.9)
    for weights in history:
        average.observe([weights])
    weights = 0.9 ** torch.arange(6, -1, -1)
    torch.testing.assert_close(average.values()[0], (weights / weights.sum()) @ history)


def test_average_of_constant_weights_is_that_constant_from_the_first_step():
    average = WeightAverage.of([torch.zeros(2)], 0.999)
    average.observe([torch.tensor([2.0, -3.0])])
    torch.testing.assert_close(average.values()[0], torch.tensor([2.0, -3.0]))


def test_without_decay_the_last_weights_are_kept():
    average = WeightAverage.of([torch.zeros(1)], 0.0)
    for value in (1.0, 5.0):
        average.observe([torch.tensor([value])])
    assert average.values()[0].item() == 5.0


def test_average_of_nothing_does_not_exist():
    with pytest.raises(ValueError, match="no steps"):
        WeightAverage.of([torch.zeros(1)], 0.9).values()


def test_silence_is_counted_in_tokens_and_ends_with_firing():
    counter = SilenceCounter.new(3)
    counter.observe(torch.tensor([True, False, False]), 10)
    counter.observe(torch.tensor([False, False, True]), 10)
    assert counter.tokens_since_fired.tolist() == [10, 20, 0]
    assert counter.dead(20).tolist() == [False, True, False]
    assert counter.dead(10).tolist() == [True, True, False]
