"""Laws of explaining, over HTTP: the right explanation wins, a borrowed one does not, a coin is a coin.

The oracle behind the server sees the body of each request and nothing else. What fires where is known from
the planted words; scores are scikit-learn's and SciPy's, not the package's.
"""

import asyncio
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import roc_auc_score

from autointerp.explaining.contrastive import Contrastive
from autointerp.explaining.highlighted import Highlighted
from autointerp.explaining.prompted import PromptOptions
from autointerp.explaining.token_activation_pairs import TokenActivationPairs
from autointerp.explanation_records import Example, Explanation, Judgement, LatentEvidence, TokenPrediction
from autointerp.explanation_sections import LlmSection
from autointerp.llm.open_models import open_models
from autointerp.simulating.all_at_once import AllAtOnceSimulator
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.detection import DetectionJudge
from autointerp.simulating.fuzzing import FuzzingJudge
from autointerp.simulating.generation import TextGenerator, measured_arrays
from autointerp.simulating.intruder import IntruderJudge, intruder_trial
from autointerp.simulating.steering import SteeringJudge, SteeringTrial
from autointerp.simulating.structured import StructuredSimulator
from autointerp.simulating.surprisal import SurprisalJudge
from autointerp.simulating.token_by_token import TokenByTokenSimulator
from autointerp.testing.planted_words import PLANTED, explain_words, planted_documents
from autointerp.testing.tiny_chat_server.oracle_backend import OracleBackend
from autointerp.testing.tiny_chat_server.oracle_habits import Habits
from autointerp.testing.tiny_chat_server.restricted_backend import RestrictedBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

LATENTS = range(len(PLANTED))
WIDTH = 14
SIMULATORS = {
    "all_at_once": AllAtOnceSimulator,
    "structured": StructuredSimulator,
    "token_by_token": TokenByTokenSimulator,
}
JUDGES = {"detection": DetectionJudge, "fuzzing": FuzzingJudge}
EVERY_JUDGE = JUDGES | {"surprisal": SurprisalJudge}


@dataclass(frozen=True)
class Latent:
    """A planted latent's examples, half of them firing."""

    index: int
    examples: tuple[Example, ...]

    def explanation(self, text: str) -> Explanation:
        return Explanation("planted", self.index, "highlighted", text)

    @property
    def right(self) -> Explanation:
        return self.explanation(explain_words(PLANTED[self.index]))

    @property
    def borrowed(self) -> Explanation:
        return self.explanation(explain_words(PLANTED[(self.index + 1) % len(PLANTED)]))


def make_latents(indices=LATENTS, *, count: int = 16, seed: int = 0) -> list[Latent]:
    """Half of the examples fire. Activations are 1 on the words, less on a group's later ones."""
    texts = [text.split() for text in planted_documents(12 * count, lengths=(WIDTH, WIDTH), seed=seed)]
    return [make_latent(index, texts, count // 2) for index in indices]


def make_latent(index: int, texts: list[list[str]], half: int) -> Latent:
    words, kinds = PLANTED[index], {True: [], False: []}
    strength = {word: 1 - 0.05 * place / max(len(words) - 1, 1) for place, word in enumerate(words)}
    for number, text in enumerate(texts):
        tokens = tuple(f" {word}" if place else word for place, word in enumerate(text))
        values = tuple(strength.get(word, 0.0) for word in text)
        name, focus = f"{index}-{number}", int(np.argmax(values))
        kinds[any(values)].append(
            Example(name, f"d{number}", "score", "quantiles", 0, tokens, (0,) * WIDTH, values, focus)
        )
    assert min(len(kind) for kind in kinds.values()) >= half
    return Latent(index, tuple(kinds[True][:half] + kinds[False][:half]))


@pytest.fixture(scope="module")
def latents():
    return make_latents()


def with_models(backend, folder, work):
    """Run `work(models)` with all roles played by a backend behind HTTP."""

    async def run():
        with tiny_chat_server(backend) as server:
            section = LlmSection(base_url=server.base_url, model=backend.model)
            async with open_models(section, folder / "llm_replies.sqlite") as models:
                return await work(models)

    return asyncio.run(run())


def passages(latent, name):
    """As judges see them; for fuzzing what fires is marked, and of silent ones as many other tokens."""
    if name != "fuzzing":
        return [example.passage() for example in latent.examples]
    chance = random.Random(latent.index)
    found = []
    for example in latent.examples:
        firing = tuple(place for place, value in enumerate(example.activations) if value)
        found.append(example.passage(marked=firing or tuple(sorted(chance.sample(range(WIDTH), 2)))))
    return found


def judged(backend, folder, name, latents, explanations, *, together=10):
    """AUROC of each latent with its explanation."""

    async def work(models):
        judge = EVERY_JUDGE[name](models["judge"], AskOptions(passages_per_prompt=together))
        asked = zip(latents, explanations, strict=True)
        return await asyncio.gather(*(judge.judge(said, passages(latent, name)) for latent, said in asked))

    scores = []
    for latent, answers in zip(latents, with_models(backend, folder, work), strict=True):
        assert all(isinstance(answer, Judgement) for answer in answers), answers
        truth = [example.fires for example in latent.examples]
        scores.append(roc_auc_score(truth, [answer.value for answer in answers]))
    return np.array(scores)


def simulated(backend, folder, name, latents, explanations):
    """Correlation of each latent with its explanation on half of its passages; 0 if nothing is predicted."""
    latents = [replace(latent, examples=latent.examples[::2]) for latent in latents]

    async def work(models):
        simulator = SIMULATORS[name](models["simulator"])
        asked = zip(latents, explanations, strict=True)
        return await asyncio.gather(
            *(
                simulator.simulate(said, [each.passage() for each in latent.examples])
                for latent, said in asked
            )
        )

    scores = []
    for latent, answers in zip(latents, with_models(backend, folder, work), strict=True):
        assert all(isinstance(answer, TokenPrediction) for answer in answers), answers
        predicted = np.concatenate([answer.values for answer in answers])
        truth = np.concatenate([example.activations for example in latent.examples])
        assert not np.isnan(predicted).any()
        scores.append(pearsonr(predicted, truth).statistic if np.ptp(predicted) > 0 else 0.0)
    return np.array(scores)


def beats(right, borrowed):
    """AUROC over latents of telling right explanations from borrowed ones by their scores."""
    truth = [1] * len(right) + [0] * len(borrowed)
    return roc_auc_score(truth, np.concatenate([right, borrowed]))


@pytest.mark.parametrize(("has_logprobs", "together"), [(True, 10), (False, 10), (True, 1)])
@pytest.mark.parametrize("name", sorted(JUDGES))
def test_the_right_explanation_is_judged_right_and_a_borrowed_one_is_not(
    latents, tmp_path, name, has_logprobs, together
):
    hidden = () if has_logprobs else ("logprobs", "top_logprobs")
    backend = RestrictedBackend(OracleBackend(), ignores=hidden)
    said, other = [latent.right for latent in latents], [latent.borrowed for latent in latents]
    right = judged(backend, tmp_path, name, latents, said, together=together)
    borrowed = judged(backend, tmp_path, name, latents, other, together=together)
    assert (right == 1).all()
    assert (borrowed < 0.75).all()
    assert beats(right, borrowed) >= 0.9


@pytest.mark.parametrize("name", sorted(SIMULATORS))
def test_the_right_explanation_simulates_and_a_borrowed_one_does_not(latents, tmp_path, name):
    latents = latents[::2]
    right = simulated(OracleBackend(), tmp_path, name, latents, [latent.right for latent in latents])
    borrowed = simulated(OracleBackend(), tmp_path, name, latents, [latent.borrowed for latent in latents])
    assert (right > 0.99).all()
    assert (abs(borrowed) < 0.2).all()
    assert beats(right, borrowed) >= 0.9


def test_the_right_explanation_takes_surprise_away_and_a_borrowed_one_does_not(latents, tmp_path):
    few = latents[::2]
    right = judged(OracleBackend(), tmp_path, "surprisal", few, [latent.right for latent in few])
    borrowed = judged(OracleBackend(), tmp_path, "surprisal", few, [latent.borrowed for latent in few])
    assert (right == 1).all() and (borrowed < 0.75).all()


def test_texts_written_by_the_right_explanation_fire_and_by_a_borrowed_one_do_not(latents, tmp_path):
    async def measure(explanation, texts):
        words = PLANTED[explanation.latent]
        return [float(any(word in words for word in text.split())) for text in texts]

    async def work(models):
        writer = TextGenerator(models["judge"], measure, texts=4)
        return [
            await writer.rows([getattr(latent, kind) for latent in latents]) for kind in ("right", "borrowed")
        ]

    scores = []
    for rows_of_all in with_models(OracleBackend(), tmp_path, work):
        assert all(row.refusal is None for rows in rows_of_all for row in rows)
        found = [measured_arrays(rows) for rows in rows_of_all]
        scores.append(np.array([roc_auc_score(truth, activation) for activation, truth in found]))
    right, borrowed = scores
    assert (right == 1).all() and (borrowed == 0.5).all()


def test_intruders_are_found_by_what_is_marked(latents, tmp_path):
    single = [latent for latent in latents if len(PLANTED[latent.index]) == 1]
    asked = []
    for latent in single:
        shown = passages(latent, "fuzzing")
        firing = [passage for passage, example in zip(shown, latent.examples, strict=True) if example.fires]
        silent = [
            passage for passage, example in zip(shown, latent.examples, strict=True) if not example.fires
        ]
        asked += [intruder_trial(f"{latent.index}-{n}", firing[n : n + 4], silent[n]) for n in range(4)]

    async def work(models):
        return await IntruderJudge(models["judge"]).find([trial for trial, _ in asked])

    for (_, answer), found in zip(asked, with_models(OracleBackend(), tmp_path, work), strict=True):
        assert int(np.argmax(found.probabilities)) == answer and max(found.probabilities) > 0.8
    coins = with_models(OracleBackend(Habits(manner="coin"), model="coin"), tmp_path, work)
    hits = sum(
        int(np.argmax(found.probabilities)) == answer for (_, answer), found in zip(asked, coins, strict=True)
    )
    assert abs(hits - len(asked) / 5) < 4 * np.sqrt(len(asked) * 0.2 * 0.8)


def test_steered_continuations_are_told_by_the_right_explanation_alone(latents, tmp_path):
    def trials(latent):
        firing = [example for example in latent.examples if example.fires]
        silent = [example for example in latent.examples if not example.fires]
        pairs = zip(firing, silent, strict=True)
        return [SteeringTrial("so it was", b.passage().text, a.passage().text) for a, b in pairs]

    async def work(models):
        judge = SteeringJudge(models["judge"])
        return [
            [await judge.judge(getattr(latent, kind), trials(latent)) for latent in latents]
            for kind in ("right", "borrowed")
        ]

    right, borrowed = (
        [answer for answers in found for answer in answers]
        for found in with_models(OracleBackend(), tmp_path, work)
    )
    assert all((answer.probability > 0.5) == answer.truth for answer in right)
    assert abs(np.mean([(answer.probability > 0.5) == answer.truth for answer in borrowed]) - 0.5) < 0.25


@pytest.mark.parametrize("manner", ["always_no", "always_yes"])
def test_who_always_says_the_same_knows_nothing(latents, tmp_path, manner):
    backend = OracleBackend(Habits(manner=manner))
    for name in JUDGES:
        scores = judged(backend, tmp_path, name, latents[:3], [latent.right for latent in latents[:3]])
        assert (scores == 0.5).all()


def test_a_coin_knows_nothing_within_its_interval(tmp_path):
    # Under chance the variance of an AUROC is (m + n + 1) / (12 m n) (Mann and Whitney 1947).
    count = 60
    latents = make_latents(count=count, seed=100)
    rights = [latent.right for latent in latents]
    deviation = np.sqrt((count + 1) / (12 * (count / 2) ** 2))
    for name in JUDGES:
        scores = judged(OracleBackend(Habits(manner="coin")), tmp_path, name, latents, rights)
        assert abs(scores.mean() - 0.5) < 3 * deviation / np.sqrt(len(scores))
        assert (abs(scores - 0.5) < 4 * deviation).all()


@pytest.mark.parametrize("name", [*sorted(JUDGES), *sorted(SIMULATORS)])
def test_the_more_skill_the_higher_the_score(latents, tmp_path, name):
    few = [latents[index] for index in (0, 2, 6, 9)]
    rights = [latent.right for latent in few]
    score, skills = (judged, (0, 0.25, 0.5, 0.75, 1)) if name in JUDGES else (simulated, (0, 0.5, 1))
    oracles = [OracleBackend(Habits(skill=float(skill)), model=f"oracle-{skill}") for skill in skills]
    means = [score(oracle, tmp_path, name, few, rights).mean() for oracle in oracles]
    assert means == sorted(means), means
    assert means[0] + 0.1 < means[len(means) // 2] < means[-1] - 0.05, means


EXPLAINERS = {
    "highlighted": Highlighted,
    "contrastive": Contrastive,
    "token_activation_pairs": TokenActivationPairs,
}


@pytest.mark.parametrize("thinks", [False, True])
def test_explanations_from_examples_are_judged_right(latents, tmp_path, thinks):
    options = PromptOptions(chain_of_thought=thinks)

    async def work(models):
        return {
            name: await asyncio.gather(
                *(explainer(models["explainer"], options).explain(evidence(latent)) for latent in latents)
            )
            for name, explainer in EXPLAINERS.items()
        }

    said = with_models(OracleBackend(), tmp_path, work)
    for name, explanations in said.items():
        assert all(isinstance(each, Explanation) and each.model == "oracle" for each in explanations), name
        fresh = make_latents(seed=500)
        assert judged(OracleBackend(), tmp_path, "detection", fresh, explanations).mean() > 0.97, name


def evidence(latent: Latent) -> LatentEvidence:
    examples = [replace(example, split="explain") for example in latent.examples]
    return LatentEvidence(
        "planted",
        latent.index,
        f"id-{latent.index}",
        0.02,
        1.0,
        {
            "quantiles": tuple(example for example in examples if example.fires),
            "silent": tuple(example for example in examples if not example.fires),
        },
    )
