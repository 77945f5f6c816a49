"""Fragments run together against each run alone, for every kind of activation function."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import Gated, Identity, JumpReLU, ReLU
from autointerp.checkpoints.matching_pursuit import MatchingPursuit
from autointerp.checkpoints.topk_functions import AbsTopK, GroupMax, TopK
from autointerp.sampling.fragment_runs import Ask, FragmentRuns
from autointerp.sampling.readings import Checkpoint
from autointerp.testing.planted_autoencoder import planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject

DEEP, SHALLOW = "blocks.1.hook_resid_post", "blocks.0.hook_resid_post"
COUNT = 24


@pytest.fixture(scope="module")
def subject():
    return tiny_subject()


def dictionary(subject, activation, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sae = planted_autoencoder(subject.d_model, COUNT, k=4, generator=generator)
    return replace(sae, activation=activation)


FUNCTIONS = {
    "relu": ReLU(),
    "identity": Identity(),
    "jumprelu": JumpReLU(torch.linspace(0, 0.2, COUNT)),
    "gated": Gated(torch.linspace(-0.1, 0.1, COUNT), torch.ones(COUNT), torch.linspace(-0.1, 0.1, COUNT)),
    "topk": TopK(4),
    "topk weighted": TopK(4, weight=torch.linspace(0.5, 2, COUNT)),
    "topk identity": TopK(20, postact="identity"),
    "abstopk": AbsTopK(4),
    "groupmax": GroupMax(4, COUNT),
}


def fragments(seed, count=12):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (count,), generator=generator).tolist()
    return [tuple(torch.randint(3, 60, (length,), generator=generator).tolist()) for length in lengths]


def alone(subject, sae, site, ask, front=()):
    x = subject.read(torch.tensor([[*front, *ask.fragment]]), [site])[site][0]
    return ask.sign * float(sae.encode(x)[-1, ask.latent])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_last_tokens_latents_are_those_of_the_dictionary(subject, name):
    sae = dictionary(subject, FUNCTIONS[name])
    runs = FragmentRuns(subject, {"d": Checkpoint("d", sae, DEEP)}, front=(0,), batch_tokens=16)
    asks = [
        Ask(fragment, "d", latent, sign)
        for fragment in fragments(1)
        for latent in range(COUNT)
        for sign in (1, -1)
    ]
    found = runs.strengths(asks)
    expected = [alone(subject, sae, DEEP, ask, front=(0,)) for ask in asks]
    positive = np.maximum(expected, 0)
    assert np.maximum(found, 0) == pytest.approx(positive, abs=1e-5)
    assert positive.max() > 0, "some of them fire"


def test_a_function_that_needs_all_latents_gets_them(subject):
    sae = dictionary(subject, TopK(4))
    directions = sae.decoder_weight
    pursuit = replace(sae, activation=MatchingPursuit(directions @ directions.T, 3))
    runs = FragmentRuns(subject, {"d": Checkpoint("d", pursuit, DEEP)})
    asks = [Ask(fragment, "d", latent) for fragment in fragments(3) for latent in range(COUNT)]
    expected = [alone(subject, pursuit, DEEP, ask) for ask in asks]
    assert runs.strengths(asks) == pytest.approx(expected, abs=1e-5)
    assert np.count_nonzero(expected)


def test_strengths_below_what_matters_may_be_left_out_and_no_others(subject):
    sae = dictionary(subject, TopK(4))
    runs = FragmentRuns(subject, {"d": Checkpoint("d", sae, DEEP)})
    plain = [Ask(fragment, "d", latent) for fragment in fragments(2) for latent in range(COUNT)]
    exact = runs.strengths(plain)
    least = float(np.median(exact[exact > 0]))
    encoded = runs.counts.encoded
    found = runs.strengths([ask._replace(least=least) for ask in plain])
    large = exact >= least
    assert found[large] == pytest.approx(exact[large])
    assert (found[~large] < least).all()
    assert runs.counts.encoded - encoded <= encoded


def test_equal_fragments_are_run_once_for_all_dictionaries_and_sites(subject):
    deep, shallow = dictionary(subject, TopK(4)), dictionary(subject, ReLU(), seed=3)
    checkpoints = {
        "deep": Checkpoint("deep", deep, DEEP),
        "second": Checkpoint("second", shallow, DEEP),
        "shallow": Checkpoint("shallow", shallow, SHALLOW),
    }
    some = fragments(4)
    asks = [Ask(fragment, name, latent) for name in checkpoints for fragment in some for latent in (1, 2, 3)]
    runs = FragmentRuns(subject, checkpoints)
    found = runs.strengths(asks)
    sae = {"deep": deep, "second": shallow, "shallow": shallow}
    site = {name: each.site for name, each in checkpoints.items()}
    expected = [alone(subject, sae[ask.dictionary], site[ask.dictionary], ask) for ask in asks]
    assert found == pytest.approx(expected, abs=1e-5)
    assert runs.counts.fragments == len(set(some))
    assert runs.counts.asked == len(asks)
    apart = FragmentRuns(subject, checkpoints, is_shared=False)
    assert apart.strengths(asks) == pytest.approx(found, abs=1e-5)
    assert apart.counts.fragments == len(asks)


def test_the_order_of_asks_and_the_size_of_batches_do_not_matter(subject):
    sae = dictionary(subject, TopK(4))
    asks = [Ask(fragment, "d", latent) for fragment in fragments(5, 30) for latent in range(4)]
    order = np.random.default_rng(0).permutation(len(asks))
    one = FragmentRuns(subject, {"d": Checkpoint("d", sae, DEEP)}, batch_tokens=7)
    other = FragmentRuns(subject, {"d": Checkpoint("d", sae, DEEP)}, batch_tokens=500)
    assert one.strengths(asks)[order] == pytest.approx(other.strengths([asks[i] for i in order]), abs=1e-5)


def test_nothing_asked_is_nothing_run(subject):
    runs = FragmentRuns(subject, {})
    assert runs.strengths([]).shape == (0,)
    assert runs.counts.fragments == 0
