"""Probes against scikit-learn and SciPy, and on values that are hard for Newton's method."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from autointerp.metrics.probe_newton import fit_joint_probe, fit_probes, standardised


def examples(count: int, *, share: float = 0.4, seed: int = 0) -> np.ndarray:
    label = np.random.default_rng(seed).random(count) < share
    label[:2] = [True, False]
    return label


def latents(label: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Weak, strong and heavy-tailed latents."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((count, len(label)))
    values += rng.choice([0.0, 0.1, 1.0, 4.0], (count, 1)) * label
    values[::5] = values[::5] ** 3
    return 3.0 * values + 50.0


def loss_of(logit: np.ndarray, label: np.ndarray) -> float:
    return float(np.logaddexp(0.0, np.where(label, -logit, logit)).mean())


@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0, 100.0])
def test_equals_scikit_learn_in_float64(inverse_penalty: float) -> None:
    label = examples(150)
    values = latents(label, 25)
    known = standardised(torch.tensor(values))
    (probes,) = fit_probes(known, [torch.tensor(label)], inverse_penalty=inverse_penalty)
    for latent, row in enumerate(values):
        z = ((row - row.mean()) / row.std())[:, None]
        model = LogisticRegression(C=inverse_penalty, solver="newton-cholesky", tol=1e-9).fit(z, label)
        assert probes.loss[latent].item() == pytest.approx(
            loss_of(model.decision_function(z), label), abs=1e-6
        )
        assert probes.weight[latent].item() == pytest.approx(model.coef_[0, 0], rel=1e-3, abs=1e-4)
        assert probes.bias[latent].item() == pytest.approx(model.intercept_[0], rel=1e-3, abs=1e-4)


def test_joint_probe_equals_scikit_learn() -> None:
    label = examples(90)
    for count in (1, 7, 200):  # fewer and more latents than examples
        values = latents(label, count)
        known = standardised(torch.tensor(values))
        probe = fit_joint_probe(known, torch.tensor(label), inverse_penalty=0.5)
        z = ((values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)).T
        model = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-9).fit(z, label)
        assert np.allclose(probe.weight.numpy(), model.coef_[0], atol=1e-5)
        assert np.allclose(probe.logits(known.z).numpy(), model.decision_function(z), atol=1e-4)


def test_one_latent_jointly_is_its_own_probe() -> None:
    label = examples(60)
    known = standardised(torch.tensor(latents(label, 1)))
    (probes,) = fit_probes(known, [torch.tensor(label)])
    joint = fit_joint_probe(known, torch.tensor(label))
    assert joint.weight[0].item() == pytest.approx(probes.weight[0].item(), abs=1e-5)
    assert joint.bias == pytest.approx(probes.bias[0].item(), abs=1e-5)


HARD = {
    "the label itself": lambda label, rng: label + 0.0,
    "separable": lambda label, rng: label + 0.3 * rng.random(len(label)),
    "hardly ever other than 0": lambda label, rng: (np.arange(len(label)) == np.argmax(label)) * 1.0,
    "Cauchy": lambda label, rng: rng.standard_cauchy(len(label)),
    "separable Cauchy": lambda label, rng: np.abs(rng.standard_cauchy(len(label))) * np.where(label, 1, -1),
    "one far on the wrong side": lambda label, rng: np.where(np.arange(len(label)) == 1, 1e4, label * 1.0),
    "lognormal": lambda label, rng: np.exp(3 * rng.standard_normal(len(label)) + label),
}


@pytest.mark.parametrize("kind", list(HARD))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inverse_penalty", [1.0, 1e5])
def test_reaches_the_minimum_whatever_the_values(
    kind: str, dtype: torch.dtype, inverse_penalty: float
) -> None:
    label = examples(300)
    known = standardised(torch.tensor(HARD[kind](label, np.random.default_rng(1)), dtype=dtype)[None])
    (probes,) = fit_probes(known, [torch.tensor(label)], inverse_penalty=inverse_penalty)
    z, sign, ridge = (
        known.z[0].double().numpy(),
        np.where(label, 1.0, -1.0),
        1 / (inverse_penalty * len(label)),
    )

    def objective(place: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (place[0] * z + place[1])
        slope = -sign / (1 + np.exp(np.clip(margin, -700, 700)))
        value = np.logaddexp(0, -margin).mean() + ridge * place[0] ** 2 / 2
        return value, np.array([(slope * z).mean() + ridge * place[0], slope.mean()])

    found = np.array([probes.weight[0].item(), probes.bias[0].item()])
    starts = (np.zeros(2), found, np.array([1.0, 0.0]))
    least = min(minimize(objective, start, jac=True, method="BFGS").fun for start in starts)
    assert objective(found)[0] <= least + 1e-6
    assert probes.loss[0].item() == pytest.approx(loss_of(found[0] * z + found[1], label), abs=3e-6)


def test_float32_tells_the_losses_of_float64() -> None:
    label = examples(500)
    values = torch.tensor(latents(label, 200) - 50.0)
    (single,) = fit_probes(standardised(values.float()), [torch.tensor(label)])
    (double,) = fit_probes(standardised(values), [torch.tensor(label)])
    assert torch.allclose(single.loss.double(), double.loss, atol=2e-6)


@pytest.mark.parametrize("level", [0.0, -7.0, 1e6])
def test_a_constant_latent_has_the_intercept_alone(level: float) -> None:
    label = examples(80, share=0.3)
    known = standardised(torch.full((1, 80), level))
    (probes,) = fit_probes(known, [torch.tensor(label)])
    share = label.mean()
    assert probes.weight.tolist() == [0.0]
    assert probes.bias[0].item() == pytest.approx(np.log(share / (1 - share)), abs=1e-5)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert probes.loss[0].item() == pytest.approx(entropy, abs=1e-6)
    assert probes.mean_difference.tolist() == [0.0]


def test_neither_order_nor_company_nor_units_matter() -> None:
    label, rng = examples(120), np.random.default_rng(3)
    values = latents(label, 40)
    (probes,) = fit_probes(standardised(torch.tensor(values)), [torch.tensor(label)])
    order = rng.permutation(120)
    (shuffled,) = fit_probes(standardised(torch.tensor(values[:, order])), [torch.tensor(label[order])])
    assert torch.allclose(probes.loss, shuffled.loss, atol=1e-9)
    (alone,) = fit_probes(standardised(torch.tensor(values[17:18])), [torch.tensor(label)])
    assert alone.loss[0].item() == pytest.approx(probes.loss[17].item(), abs=1e-9)
    (scaled,) = fit_probes(standardised(torch.tensor(values * -1000.0 + 3)), [torch.tensor(label)])
    assert torch.allclose(scaled.loss, probes.loss, atol=1e-9)
    assert torch.allclose(scaled.weight, -probes.weight, atol=1e-5)
    other, (again, _) = ~label, fit_probes(standardised(torch.tensor(values)), [torch.tensor(label)] * 2)
    assert torch.equal(again.loss, probes.loss)
    (flipped,) = fit_probes(standardised(torch.tensor(values)), [torch.tensor(other)])
    assert torch.allclose(flipped.loss, probes.loss, atol=1e-9)


def test_mean_difference_is_in_standard_deviations() -> None:
    label = examples(100)
    values = latents(label, 10)
    (probes,) = fit_probes(standardised(torch.tensor(values)), [torch.tensor(label)])
    expected = (values[:, label].mean(1) - values[:, ~label].mean(1)) / values.std(1)
    assert np.allclose(probes.mean_difference.numpy(), expected)


def test_refuses_one_label_no_examples_and_what_is_not_finite() -> None:
    known = standardised(torch.randn(3, 10))
    for label in (torch.zeros(10, dtype=torch.bool), torch.ones(10, dtype=torch.bool)):
        with pytest.raises(ValueError, match="both classes"):
            fit_probes(known, [label])
        with pytest.raises(ValueError, match="both classes"):
            fit_joint_probe(known, label)
    with pytest.raises(ValueError, match="no examples"):
        standardised(torch.zeros(3, 0))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            standardised(torch.tensor([[0.0, 1.0, bad]]))
    (none,) = fit_probes(standardised(torch.zeros(0, 4)), [torch.tensor([True, False, True, False])])
    assert none.loss.shape == (0,)
