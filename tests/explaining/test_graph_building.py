"""The builder: hand-made latents with known graphs, and a plain loop as the paper describes it."""

import random

import numpy as np
import pytest
import torch

from autointerp.explaining.graph_trie import ANY, START, graph_of
from autointerp.explaining.graph_trie import Path as TokenPath
from autointerp.explaining.neuron_to_graph import GraphExample, GraphOptions, build_graphs
from autointerp.sampling.fragment_runs import FragmentRuns
from autointerp.sampling.readings import Checkpoint
from autointerp.testing.planted_autoencoder import perfect_autoencoder, planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject

A, B, C, X, Y = 1, 2, 3, 8, 9
OPTIONS = GraphOptions(fillers=(X, Y))
SITE = "blocks.1.hook_resid_post"


def graph_from(latent, *texts, options=OPTIONS, act=None):
    """The graph of a hand-made latent: a function of a text's tokens to its activation on the last one."""
    examples = [GraphExample("d", 0, text, act or latent(text)) for text in texts]
    built = build_graphs(
        examples, lambda asks: np.array([ask.sign * latent(ask.fragment) for ask in asks]), options
    )
    return built["d", 0]


def paths_of(built):
    return [(tokens, needs_start, value) for (tokens, needs_start, value), _ in built.graph.paths]


def b_after_a(text):
    return 2.0 if len(text) >= 3 and text[-1] == B and text[-3] == A else 0.0


def test_b_behind_a_with_any_token_between():
    built = graph_from(b_after_a, (C, A, C, B), (A, Y, B))
    assert paths_of(built) == [((B, ANY, A), False, 2.0)]
    assert built.examples == 2 and built.unreached == 0
    assert built.graph.predict([A, 5, B, B]) == [0, 0, 2.0, 0]


def test_a_latent_of_one_token_is_one_node():
    assert paths_of(graph_from(lambda text: 3.0 * (text[-1] == A), (B, C, A))) == [((A,), False, 3.0)]


def test_half_of_the_activation_is_enough_and_its_strength_stays():
    def grows(text):
        return {1: 0.4, 2: 0.5, 3: 1.0}.get(len(text), 1.0) if text[-1] == B and A in (*text, A) else 0.0

    assert paths_of(graph_from(grows, (A, A, A, B)))[0][0][0] == B
    assert paths_of(graph_from(grows, (A, A, A, B)))[0][2] == 0.5


def test_the_first_position_needs_a_start_mark():
    built = graph_from(lambda text: 1.0 if len(text) == 1 else 0.0, (A,), (B,))
    assert paths_of(built) == [((ANY,), True, 1.0)], "which token it is does not matter"
    assert [node.token for node in built.graph.nodes] == [ANY, START]
    assert built.graph.predict([C, C, C]) == [1.0, 0, 0]


def test_an_activation_that_no_suffix_reaches_takes_the_whole_text_with_its_own_strength():
    built = graph_from(lambda text: 0.3 * (text[-1] == B), (A, B), act=1.0)
    assert built.unreached == 1
    assert paths_of(built) == [((B, A), True, 1.0)]


def test_one_that_needs_longer_text_than_allowed_gives_no_path():
    def far(text):
        return 1.0 * (text[-1] == B and text[0] == A and len(text) == 6)

    text = (A, C, C, C, C, B)
    short = graph_from(far, text, options=GraphOptions(fillers=(X, Y), prefix_tokens=5))
    assert short.graph.nodes == () and short.examples == short.unreached == 1
    assert paths_of(graph_from(far, text))[0][0] == (B, C, C, C, C, A)[:1] + (ANY,) * 4 + (A,)


def test_of_activations_with_one_path_the_last_ones_strength_stays():
    strength = {(A, B): 1.0, (C, B): 4.0}

    def either(text):
        return strength.get(text[-2:], 0.9 if text == (B,) else 0.0) if len(text) > 1 else 0.0

    built = graph_from(either, (A, B), (C, B), (A, B))
    assert [(tokens, count) for (tokens, _, _), count in built.graph.paths] == [((B, A), 2), ((B, C), 1)]


def test_a_token_that_is_the_filler_itself_is_replaced_by_the_next_one():
    built = graph_from(lambda text: 1.0 * (text[-1] == X), (A, X))
    assert paths_of(built) == [((X,), False, 1.0)], "with itself in its place it would seem unimportant"


def test_the_threshold_and_the_match_are_options():
    def partly(text):  # without a it keeps 40 %: saliency .6
        return 0.0 if text[-1] != B or len(text) < 2 else 1.0 if text[-2] == A else 0.4

    assert paths_of(graph_from(partly, (C, A, B)))[0][0] == (B, A)
    foote = GraphOptions(fillers=(X, Y), saliency_threshold=0.75, match="longest")
    built = graph_from(partly, (C, A, B), options=foote)
    assert paths_of(built)[0][0] == (B, ANY)
    assert built.graph.match == "longest"


def test_of_several_fillers_the_mean_counts():
    def but_for_x(text):  # fires on b behind anything but x
        return 1.0 * (len(text) >= 2 and text[-1] == B and text[-2] != X)

    one = graph_from(but_for_x, (C, A, B), options=GraphOptions(fillers=(X, Y)))
    assert paths_of(one)[0][0] == (B, A)
    mean = GraphOptions(fillers=(X, Y, C, 7), filler_count=3)
    assert paths_of(graph_from(but_for_x, (C, A, B), options=mean))[0][0] == (B, ANY)


def test_a_negative_activation_counts_by_its_size():
    built = graph_from(lambda text: -2.0 * (text[-1] == B), (A, B))
    assert paths_of(built) == [((B,), False, 2.0)]


@pytest.mark.parametrize(
    ("examples", "options"),
    [
        ([GraphExample("d", 0, (A,), 0.0)], OPTIONS),
        ([GraphExample("d", 0, (), 1.0)], OPTIONS),
        ([GraphExample("d", 0, (A,), 1.0)], GraphOptions(fillers=(X,))),
        ([GraphExample("d", 0, (A,), 1.0)], GraphOptions(fillers=(X, X, X))),
    ],
)
def test_what_no_graph_can_be_made_of_is_a_mistake(examples, options):
    with pytest.raises(ValueError, match=r"filler|example"):
        build_graphs(examples, lambda asks: np.zeros(len(asks)), options)


def test_no_examples_give_no_graphs():
    assert build_graphs([], lambda asks: np.zeros(len(asks)), OPTIONS) == {}


# ---- a model -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subject():
    return tiny_subject()


def dictionaries(subject):
    generator = torch.Generator().manual_seed(1)
    return {
        "topk": planted_autoencoder(subject.d_model, 48, k=6, generator=generator),
        "relu": perfect_autoencoder(subject.d_model, activation="relu"),
        "identity": perfect_autoencoder(subject.d_model),
    }


def plain_activation(subject, sae, front, fragment, latent):
    """One sequence, one encoding of everything, as the paper's model_fn."""
    tokens = torch.tensor([[*front, *fragment]])
    x = subject.read(tokens, [SITE])[SITE][0]
    return float(sae.encode(x)[-1, latent])


def plain_graph(act, texts, *, share, threshold, fillers, match, longest):
    """Steps 1 to 4, one activation and one sequence after the other."""
    paths = []
    for text in texts:
        original = act(text)
        sign = 1 if original > 0 else -1
        suffix, strength = None, abs(original)
        for length in range(1, min(len(text), longest) + 1):
            here = sign * act(text[-length:])
            if here >= share * abs(original):
                suffix, strength = text[-length:], here
                break
        if suffix is None:
            if len(text) > longest:
                continue
            suffix = text
        needs_start = sign * act((fillers[0], *suffix)) < share * abs(original)
        tokens = []
        for place, token in enumerate(suffix):
            filler = next(each for each in fillers if each != token)
            changed = sign * act((*suffix[:place], filler, *suffix[place + 1 :]))
            tokens.append(token if 1 - changed / strength >= threshold else ANY)
        paths.append(TokenPath(tuple(tokens[::-1]), needs_start, strength))
    return graph_of(paths, match=match)


def examples_of(subject, saes, front, *, seed, count=8):
    """Texts on whose last token latents fire."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        text = tuple(chance.randrange(3, 60) for _ in range(chance.randint(2, 9)))
        for name, sae in saes.items():
            z = sae.encode(subject.read(torch.tensor([[*front, *text]]), [SITE])[SITE][0])[-1]
            drawn = chance.sample(z.nonzero()[:, 0].tolist(), 2)
            found += [GraphExample(name, latent, text, float(z[latent])) for latent in drawn]
    return found


def close(one, other):
    """Equal but for what different batches do to the last digits."""
    paths = list(zip(one.paths, other.paths, strict=True))
    return all(a[0][:2] == b[0][:2] and a[1] == b[1] for a, b in paths) and [
        a[0].value for a, _ in paths
    ] == pytest.approx([b[0].value for _, b in paths], rel=1e-4)


@pytest.mark.parametrize("front", [(0,), ()])
@pytest.mark.parametrize("match", ["first", "longest"])
def test_all_together_are_the_plain_loop_over_each_alone(subject, front, match):
    saes = dictionaries(subject)
    checkpoints = {name: Checkpoint(name, sae, SITE) for name, sae in saes.items()}
    examples = examples_of(subject, saes, front, seed=len(match))
    options = GraphOptions(fillers=(7, 11), match=match, prefix_tokens=6)
    runs = FragmentRuns(subject, checkpoints, front=front, batch_tokens=64)
    built = build_graphs(examples, runs.strengths, options)
    assert set(built) == {example.owner for example in examples}
    for (name, latent), own in built.items():
        texts = [example.tokens for example in examples if example.owner == (name, latent)]
        plain = plain_graph(
            lambda fragment, name=name, latent=latent: plain_activation(
                subject, saes[name], front, fragment, latent
            ),
            texts,
            share=0.5,
            threshold=0.5,
            fillers=(7, 11),
            match=match,
            longest=6,
        )
        assert close(own.graph, plain), (name, latent)


def test_neither_batches_nor_other_latents_nor_sharing_change_a_graph(subject):
    saes = dictionaries(subject)
    checkpoints = {name: Checkpoint(name, sae, SITE) for name, sae in saes.items()}
    examples = examples_of(subject, saes, (0,), seed=5, count=4)
    options = GraphOptions(fillers=(7, 11))
    first = build_graphs(
        examples, FragmentRuns(subject, checkpoints, front=(0,), batch_tokens=512).strengths, options
    )
    alone = FragmentRuns(subject, checkpoints, front=(0,), batch_tokens=24, is_shared=False)
    for owner, own in first.items():
        part = [example for example in examples if example.owner == owner]
        assert close(build_graphs(part, alone.strengths, options)[owner].graph, own.graph)
    shuffled = sorted(examples, key=lambda example: (example.dictionary, example.latent))
    again = build_graphs(shuffled, FragmentRuns(subject, checkpoints, front=(0,)).strengths, options)
    assert all(close(again[owner].graph, own.graph) for owner, own in first.items())
