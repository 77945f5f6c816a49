"""Options refuse in words what cannot be trained, and fill in what depends on the budget."""

import pytest

from autointerp.errors import BadInputError
from autointerp.training.options import Level, TrainingOptions


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "k must lie between"),
        ({"k": 0}, "k must lie between"),
        ({"k": 65}, "k must lie between"),
        ({"k": 4, "architecture": "relu", "l1_coefficient": 0.1}, "no meaning for relu"),
        ({"architecture": "relu"}, "not sparse"),
        ({"k": 4, "l1_coefficient": 0.1}, "belongs to relu"),
        ({"k": 4, "further_levels": (Level(8, 1.0),)}, "belong to multi_topk"),
        ({"k": 4, "architecture": "multi_topk", "further_levels": (Level(80, 1.0),)}, "every k"),
        ({"k": 4, "token_budget": 100}, "less than one batch"),
        ({"k": 4, "learning_rate": 0.0}, "learning_rate"),
        ({"k": 4, "ema_decay": 1.0}, "ema_decay"),
        ({"k": 4, "aux_k": -1}, "must not be negative"),
    ],
)
def test_what_cannot_be_trained_is_refused(given, complaint):
    with pytest.raises(BadInputError, match=complaint):
        TrainingOptions(64, **given)


@pytest.mark.parametrize(
    ("field", "value"), [("architecture", "topkk"), ("normalization", "unit"), ("product_dtype", "float16")]
)
def test_an_unknown_choice_is_refused_with_the_known_ones(field, value):
    options = TrainingOptions(64, k=4)
    object.__setattr__(options, field, value)  # past the type checks that tests switch on
    with pytest.raises(BadInputError, match=f"{field} '{value}' is not known; choose one of"):
        options.__post_init__()


def test_learning_rate_falls_with_the_root_of_the_latents():
    rates = [TrainingOptions(latents, k=8).peak_learning_rate for latents in (256, 1024, 4096)]
    assert rates == pytest.approx([3e-3, 3e-3, 1.5e-3])
    assert TrainingOptions(4096, k=8, learning_rate=0.1).peak_learning_rate == 0.1


def test_average_reaches_back_over_five_percent_of_a_short_run():
    assert TrainingOptions(64, k=8, batch_tokens=1, token_budget=1000).average_decay == pytest.approx(0.98)
    assert TrainingOptions(64, k=8, batch_tokens=1, token_budget=10**6).average_decay == 0.999
    assert TrainingOptions(64, k=8, batch_tokens=1, token_budget=10).average_decay == 0.0


def test_multi_topk_adds_the_papers_second_term():
    options = TrainingOptions(64, architecture="multi_topk", k=8)
    assert options.levels == (Level(8, 1.0), Level(32, 1 / 8))
    assert TrainingOptions(64, k=8).levels == (Level(8, 1.0),)


@pytest.mark.parametrize(("width", "count"), [(768, 512), (192, 128), (16, 8), (1, 1)])
def test_aux_count_is_the_power_of_two_nearest_to_half_the_width(width, count):
    """The paper's example: 512 at a width of 768 (384 is nearer to 512 than to 256 by ratio)."""
    assert TrainingOptions(64, k=8).aux_count(width) == count


def test_dead_threshold_scales_with_the_budget_up_to_the_papers_ten_million():
    assert TrainingOptions(64, k=8, token_budget=2_000_000).dead_threshold == 50_000
    assert TrainingOptions(64, k=8, token_budget=10**9).dead_threshold == 10_000_000
    assert TrainingOptions(64, k=8, dead_after_tokens=7).dead_threshold == 7


def test_learning_rate_warms_up_stays_and_decays():
    options = TrainingOptions(
        64, k=8, batch_tokens=1, token_budget=100, warmup_fraction=0.1, decay_fraction=0.2
    )
    scales = [options.learning_rate_scale(step) for step in range(100)]
    assert scales[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert set(scales[10:80]) == {1.0}
    assert scales[80:] == pytest.approx([step / 20 for step in range(20, 0, -1)])


def test_l1_weight_warms_up():
    options = TrainingOptions(
        64, architecture="relu", l1_coefficient=0.5, batch_tokens=1, token_budget=100, l1_warmup_fraction=0.05
    )
    assert [options.l1_at(step) for step in (0, 4, 99)] == pytest.approx([0.1, 0.5, 0.5])
