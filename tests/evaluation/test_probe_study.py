"""The study of probes on a tiny subject: planted answers, scikit-learn, resumed, failing, in other blocks."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from sklearn.linear_model import LogisticRegression

from autointerp.config import suite_from_mapping
from autointerp.errors import SuiteError
from autointerp.estimates import estimate_all
from autointerp.evaluation.inputs import in_memory, placed_all
from autointerp.evaluation.studies import probing, probing_examples
from autointerp.evaluation.studies.probing import PROBES, observe_probes
from autointerp.evaluation.work import Clock, Work
from autointerp.metrics.probe_loss import PROBE_METRICS
from autointerp.probe_records import ProbeData, ProbeTask, ProbeText, SkippedTask, TaskExamples
from autointerp.progress import SILENT
from autointerp.records import Failed, Measured, Skipped, Undefined
from autointerp.run_store import MemoryStore
from autointerp.sampling.corpus import document_of
from autointerp.testing.planted_autoencoder import perfect_autoencoder, planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject

SITE, PLANTED, TEXTS = "blocks.1.hook_resid_post", 23, 72


class NoTexts:
    """The study reads no corpus."""

    def documents(self):
        yield document_of("nothing", name="nothing")


@cache
def subject():
    return tiny_subject("llama", seed=5)


@cache
def dictionaries():
    generator = torch.Generator().manual_seed(1)
    return {
        "planted": planted_autoencoder(32, 80, k=6, generator=generator),
        "channels": perfect_autoencoder(32, activation="relu"),
    }


@cache
def texts():
    rng = np.random.default_rng(0)
    drawn = [tuple(rng.integers(3, 290, 6 + index % 9).tolist()) for index in range(TEXTS)]
    return tuple(ProbeText(f"t{index}", (0, *ids), f"g{index // 2}") for index, ids in enumerate(drawn))


@cache
def vectors():
    """(text, position) -> activation, each text run alone."""
    return [subject().read(torch.tensor([text.tokens]), [SITE])[SITE][0] for text in texts()]


def described(name: str, pooling: str, *, is_lexical: bool = False) -> ProbeTask:
    return ProbeTask(name, "?", "rule", "made up", "CC0-1.0", "by group", pooling, is_lexical=is_lexical)


def pooled(values: torch.Tensor, pooling: str) -> torch.Tensor:
    """Of one text, (token, latent) -> (latent)."""
    if pooling == "mean":
        return values[1:].mean(dim=0)
    return values[1:].amax(dim=0) if pooling == "max" else values[-1]


def features(values_of, pooling: str) -> np.ndarray:
    """(text, latent)."""
    return torch.stack([pooled(values_of(x), pooling) for x in vectors()]).numpy()


def examples(name: str, pooling: str, label: np.ndarray, *, is_lexical: bool = False) -> TaskExamples:
    position = [len(text.tokens) - 1 if pooling == "marked" else -1 for text in texts()]
    return TaskExamples(
        described(name, pooling, is_lexical=is_lexical),
        np.arange(TEXTS),
        np.array(position),
        label,
        np.arange(TEXTS) // 2 % 3 == 0,
    )


def planted_label(pooling: str) -> np.ndarray:
    """Whether the planted latent's pre-activation is above its median."""
    values = features(dictionaries()["planted"].pre_activations, pooling)[:, PLANTED]
    return values > np.median(values)


def data() -> ProbeData:
    odd = np.random.default_rng(1).random(TEXTS) < 0.5
    one_label = np.zeros(TEXTS, dtype=bool)
    return ProbeData(
        texts(),
        (
            *(
                examples(f"a/{pooling}", pooling, planted_label(pooling))
                for pooling in ("last", "mean", "max")
            ),
            examples("a/marked", "marked", planted_label("last")),
            examples("a/odd", "last", odd),
            examples("a/lexical", "last", planted_label("last"), is_lexical=True),
            examples("a/one label", "last", one_label),
        ),
        (SkippedTask(described("b/absent", "last"), "the package `datasets` is not installed"),),
    )


def begun(store: MemoryStore | None = None, *, batch_tokens: int = 128, saes=None, **section):
    """A run and its dictionaries."""
    suite = suite_from_mapping(
        {
            "name": "probing",
            "site": SITE,
            "subject": {"model": "tiny"},
            "metrics": {"families": ("probe",)},
            "probes": {"sparse_counts": (1, 3, 50), **section},
            "runtime": {"batch_tokens": batch_tokens},
            "checks": {"allow_mismatch": True},
        },
        folder=Path(),
        where="test",
    )
    entries = [in_memory(name, sae, suite) for name, sae in (saes or dictionaries()).items()]
    store = store or MemoryStore()
    work = Work(suite, subject(), NoTexts(), store, Clock(store), SILENT)
    return work, placed_all(entries, subject(), suite)


@cache
def studied():
    work, entries = begun()
    return observe_probes(work, entries, data())


def outcomes(observations: pl.DataFrame):
    found = estimate_all(observations, PROBE_METRICS, resamples=200)
    return {(r.checkpoint, r.metric, json.dumps(r.slice)): r.outcome for r in found}


def test_the_planted_latent_is_found_and_solves_its_tasks() -> None:
    facts = studied().facts["checkpoints"]["planted"]
    for pooling in ("last", "mean", "max", "marked"):
        chosen = facts["chosen"][f"a/{pooling}"]
        assert (chosen["latent"], chosen["direction"]) == (PLANTED, 1)
        assert chosen["train_loss_nats"] < 0.25  # what the penalty and values near the median leave
        assert facts["kinds"]["own"]["loss_nats_by_task"][f"a/{pooling}"] < 0.3


def _model(x: np.ndarray, task: TaskExamples) -> float:
    """Test loss of scikit-learn's probe."""
    train = x[~task.is_test]
    z = (x - train.mean(0)) / train.std(0)
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-6)
    logit = model.fit(z[~task.is_test], task.label[~task.is_test]).decision_function(z[task.is_test])
    return float(np.logaddexp(0, np.where(task.label[task.is_test], -logit, logit)).mean())


def test_losses_are_scikit_learns() -> None:
    facts = studied().facts["checkpoints"]
    for task in data().tasks[:4]:
        pooling, name = task.task.pooling, task.task.name
        for checkpoint, sae in dictionaries().items():
            told, x = facts[checkpoint], features(sae.pre_activations, pooling)
            latent = told["chosen"][name]["latent"]
            own = told["kinds"]["own"]["loss_nats_by_task"][name]
            assert own == pytest.approx(_model(x[:, [latent]], task), abs=2e-5)
            train = x[~task.is_test]
            label = task.label[~task.is_test]
            apart = np.abs(train[label].mean(0) - train[~label].mean(0)) / train.std(0)
            best = np.argsort(-apart)[:3]
            k3 = told["kinds"]["k=3"]["loss_nats_by_task"][name]
            assert k3 == pytest.approx(_model(x[:, best], task), abs=2e-5)
        site = features(lambda x: x, pooling)
        full = facts["planted"]["kinds"]["all_channels"]["loss_nats_by_task"][name]
        assert full == pytest.approx(_model(site, task), abs=2e-5)


def test_baselines_of_the_site_are_the_same_for_all_and_directions_as_many_as_latents() -> None:
    facts = studied().facts["checkpoints"]
    for kind in ("chance", "channels", "all_channels", "all_channels_tuned"):
        assert facts["planted"]["kinds"][kind] == facts["channels"]["kinds"][kind]
    kinds = facts["planted"]["kinds"]
    assert set(kinds) == {
        *("own", "random_labels", "chance", "channels", "all_channels", "all_channels_tuned"),
        *("random_directions", "k=1", "k=3", "k=50"),
    }
    alone, entries = begun(saes={"channels": dictionaries()["channels"]})
    found = observe_probes(alone, entries, data()).facts["checkpoints"]["channels"]
    assert found["kinds"]["random_directions"] == facts["channels"]["kinds"]["random_directions"]
    # a relu dictionary of both signs of every channel does what channels do
    own = found["kinds"]["own"]["loss_nats_by_task"]
    last = found["kinds"]["channels"]["loss_nats_by_task"]
    assert own["a/last"] == pytest.approx(last["a/last"], abs=1e-5)


def test_observations_become_estimates_at_every_slice() -> None:
    found = outcomes(studied().observations)
    frame = studied().observations
    for name, (metric, functional) in {
        "own": ("probe.loss_nats", "loss_nats_mean"),
        "auroc": ("probe.auroc", "auroc_mean"),
        "right": ("probe.accuracy", "accuracy_mean"),
    }.items():
        outcome = found["planted", metric, "{}"]
        assert isinstance(outcome, Measured), name
        mean = studied().facts["checkpoints"]["planted"]["kinds"]["own"][functional]
        assert outcome.estimate.value == pytest.approx(mean, abs=2e-6)
        assert outcome.estimate.n == 5 * 24  # test examples of the five tasks that are not lexical
    loss = frame.filter(pl.col("metric") == "probe.loss_nats")
    assert "a/lexical" not in loss.filter(pl.col("slice") == "{}")["group"]
    assert isinstance(found["planted", "probe.loss_nats", '{"task": "a/lexical"}'], Measured)
    for settings in ({"k": 3}, {"baseline": "random_labels"}, {"baseline": "all_channels_tuned"}):
        assert isinstance(found["planted", "probe.loss_nats", json.dumps(settings)], Measured)
    chance = found["planted", "probe.loss_nats", '{"baseline": "chance"}']
    assert chance.estimate.value == pytest.approx(np.log(2), abs=0.02)
    assert isinstance(found["planted", "probe.known_feature_f1", "{}"], Measured)
    yes = found["planted", "probe.known_feature_f1", '{"baseline": "always_yes"}']
    assert yes.estimate.value == pytest.approx(2 / 3, abs=0.06)


def test_what_cannot_be_probed_says_why() -> None:
    found = outcomes(studied().observations)
    absent = found["planted", "probe.loss_nats", '{"task": "b/absent"}']
    assert isinstance(absent, Skipped) and "datasets" in absent.reason
    one = found["channels", "probe.known_feature_f1", '{"task": "a/one label"}']
    assert isinstance(one, Undefined) and "both labels" in one.reason
    work, entries = begun(sparse_counts=(1, 65))
    found = outcomes(observe_probes(work, entries, data()).observations)
    lacking = found["channels", "probe.loss_nats", '{"k": 65}']
    assert isinstance(lacking, Undefined) and "64 latents" in lacking.reason
    assert isinstance(found["planted", "probe.loss_nats", '{"k": 65}'], Measured)


@pytest.mark.parametrize("kind", ["lexical", "none", "unusable"])
def test_without_a_task_that_counts_the_headline_is_undefined(kind: str) -> None:
    every = data()
    tasks = {"lexical": every.tasks[5:6], "none": (), "unusable": every.tasks[6:]}[kind]
    work, entries = begun()
    found = outcomes(observe_probes(work, entries, replace(every, tasks=tasks)).observations)
    words = {"lexical": "lexical", "none": "datasets", "unusable": "both labels"}[kind]
    for metric in PROBE_METRICS:
        outcome = found["planted", metric.name, "{}"]
        assert isinstance(outcome, Undefined) and words in outcome.reason


def test_facts_are_json_and_name_every_task() -> None:
    facts = json.loads(json.dumps(studied().facts))
    status = {task["name"]: task["status"] for task in facts["tasks"]}
    assert status["a/last"] == "probed" and status["b/absent"] == "skipped"
    assert status["a/one label"] == "undefined"
    last = facts["tasks"][0]
    assert (last["train_count"], last["test_count"], last["licence"]) == (48, 24, "CC0-1.0")
    assert set(facts["checkpoints"]["planted"]["known_features"]) == set(status) - {"a/one label", "b/absent"}


def test_known_features_count_what_fires() -> None:
    facts = studied().facts["checkpoints"]["channels"]["known_features"]
    task = data().tasks[4]
    fires = features(dictionaries()["channels"].encode, "last")
    told = facts["a/odd"]
    says, label = fires[:, told["latent"]] > told["threshold"], task.label
    for side, key in ((~task.is_test, "train_f1"), (task.is_test, "test_f1")):
        true = (says & label)[side].sum()
        assert told[key] == pytest.approx(2 * true / (says[side].sum() + label[side].sum()), abs=1e-6)


def test_running_it_again_reads_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = MemoryStore(), probing.probe_dictionary
    work, entries = begun(store)
    calls = []

    def killed(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(probing, "probe_dictionary", killed)
    with pytest.raises(KeyboardInterrupt):
        observe_probes(work, entries, data())
    observe_probes(*begun(store), data())
    assert len(calls) == 3  # the first dictionary was not probed again
    monkeypatch.setattr(probing, "read_vectors", None)
    again = observe_probes(*begun(store), data())
    assert_frame_equal(again.observations, studied().observations)
    assert again.facts == studied().facts
    turned = replace(data(), tasks=(replace(data().tasks[0], label=~data().tasks[0].label),))
    other, entries = begun(store)
    lost = observe_probes(other, entries, turned)  # other labels are other shards: there is something to read
    assert isinstance(outcomes(lost.observations)["planted", "probe.loss_nats", "{}"], Failed)


def test_a_dictionary_that_was_lost_and_comes_back_is_probed_as_if_it_had_been_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its width needs as many random directions, and its site smaller blocks."""
    monkeypatch.setattr(probing_examples, "_VECTOR_VALUES", 32 * sum(len(text.tokens) for text in texts()))
    work, entries = begun()
    observe_probes(work, entries[1:], data())
    again = observe_probes(work, entries, data())
    assert_frame_equal(again.observations, studied().observations)
    entry = entries[0]
    place = {"name": "lower", "site": "blocks.0.hook_resid_post"}
    lower = replace(
        entry, checkpoint=replace(entry.checkpoint, **place), summary=replace(entry.summary, **place)
    )
    both = observe_probes(work, [*entries, lower], data())
    theirs = both.observations.filter(pl.col("checkpoint") != "lower")
    order = ["checkpoint", "metric", "slice", "unit"]
    assert_frame_equal(theirs.sort(order), studied().observations.sort(order), abs_tol=2e-5)


def test_blocks_of_tasks_and_batches_of_texts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing_examples, "_VECTOR_VALUES", 1)
    work, entries = begun(batch_tokens=17)
    found = observe_probes(work, entries, data())
    assert len({key.split("/")[2] for key in work.store.keys("probe/")}) == 6
    order = ["checkpoint", "metric", "slice", "unit"]
    one, other = studied().observations.sort(order), found.observations.sort(order)
    assert_frame_equal(one, other, check_exact=False, abs_tol=2e-5)


def test_a_dictionary_that_fails_is_rows_and_leaves_the_others_alone() -> None:
    broken = dictionaries()["planted"]
    weight = broken.encoder_weight.clone()
    weight[3] = float("inf")
    saes = {"broken": replace(broken, encoder_weight=weight), **dictionaries()}
    work, entries = begun(saes=saes)
    found = observe_probes(work, entries, data())
    outcome = outcomes(found.observations)["broken", "probe.loss_nats", "{}"]
    assert isinstance(outcome, Failed) and "finite" in outcome.reason
    theirs = found.observations.filter(pl.col("checkpoint") != "broken")
    assert_frame_equal(theirs, studied().observations)


def test_activations_can_be_probed_instead() -> None:
    work, entries = begun(values="activations")
    found = observe_probes(work, entries, data()).facts["checkpoints"]["planted"]
    task = data().tasks[0]
    x = features(dictionaries()["planted"].encode, "last")
    latent = found["chosen"]["a/last"]["latent"]
    own = found["kinds"]["own"]["loss_nats_by_task"]["a/last"]
    assert own == pytest.approx(_model(x[:, [latent]], task), abs=2e-5)
    assert found["known_features"] == studied().facts["checkpoints"]["planted"]["known_features"]


def test_dictionaries_on_two_sites_are_read_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], probing.read_vectors

    def counted(model, texts, table, sites, **options):
        calls.append(sorted(sites))
        return real(model, texts, table, sites, **options)

    monkeypatch.setattr(probing, "read_vectors", counted)
    work, (entry, _) = begun()
    lower = replace(
        entry, checkpoint=replace(entry.checkpoint, name="lower", site="blocks.0.hook_resid_post")
    )
    lower = replace(lower, summary=replace(entry.summary, name="lower", site="blocks.0.hook_resid_post"))
    found = observe_probes(work, [entry, lower], data())
    assert calls == [["blocks.0.hook_resid_post", SITE]]
    kinds = {name: told["kinds"] for name, told in found.facts["checkpoints"].items()}
    assert kinds["planted"]["own"] == studied().facts["checkpoints"]["planted"]["kinds"]["own"]
    assert kinds["lower"]["channels"] != kinds["planted"]["channels"]


@pytest.mark.parametrize("harm", ["leak", "length", "text"])
def test_refuses_examples_that_contradict_themselves(harm: str) -> None:
    task = data().tasks[0]
    bad = {
        "leak": replace(task, is_test=np.arange(TEXTS) % 2 == 0),
        "length": replace(task),
        "text": replace(task, text=task.text + 1),
    }[harm]
    if harm == "length":
        object.__setattr__(bad, "label", task.label[:-1])
    words = {"leak": "both in train and in test", "length": "different length", "text": "not there"}[harm]
    work, entries = begun()
    with pytest.raises(SuiteError, match=words):
        observe_probes(work, entries, replace(data(), tasks=(bad,)))


def test_the_study_loads_the_tasks_of_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def load(tasks, **options):
        asked.update(tasks=tasks, **options)
        return data()

    monkeypatch.setattr(probing, "load_probe_data", load)
    work, entries = begun(tasks=("a", "b/c"), examples=40)
    found = PROBES.observe(work, entries)
    assert_frame_equal(found.observations, studied().observations)
    assert (asked["tasks"], asked["examples"], asked["seed"]) == (("a", "b/c"), 40, 0)
