"""The embedded demo, on a part of its text: it runs as shipped."""

import json
from pathlib import Path

import pytest

import autointerp
from autointerp.bundled import bundled_path
from autointerp.config import load_suite

NAMES = (
    "topk-1024-k8",
    "topk-1024-k32",
    "topk-4096-k8",
    "topk-4096-k32",
    "multi-topk-2048-k16",
    "relu-1024",
)
NULL = "random dictionary 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo on a tenth of its tokens, with few of its latents."""
    suite = load_suite(
        bundled_path("suites", "demo.toml"),
        overrides=[
            "corpus.evaluation_tokens=12000",
            "corpus.calibration_tokens=6000",
            "sampling.latent_count=20",
            "explanations.latent_count=8",
            'metrics.families=["reconstruction", "downstream"]',
            "estimates.resamples=400",
        ],
    )
    out = tmp_path_factory.mktemp("demo") / "run"
    autointerp.evaluate(suite, out=out)
    return out


@pytest.fixture(scope="module")
def run(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def result(run, checkpoint, metric):
    [found] = [
        entry
        for entry in run["results"]
        if (entry["checkpoint"], entry["metric"], entry["slice"]) == (checkpoint, metric, {})
    ]
    return found


def test_it_loads_four_formats_and_one_null(run):
    formats = {entry["name"]: entry["format"] for entry in run["checkpoints"]}
    assert set(formats) == {*NAMES, NULL}
    assert {formats[name] for name in NAMES} == {"openai", "saelens", "sparsify", "dictionary_learning"}


def test_it_says_which_were_trained_on_raw_activations(run):
    normalization = {entry["name"]: entry["normalization"] for entry in run["checkpoints"]}
    assert [name for name in NAMES if normalization[name] == "none"] == ["multi-topk-2048-k16", "relu-1024"]


def test_every_headline_number_is_measured(run):
    """But the precision of a judge that says yes to nothing, as can be with few latents on so little text."""
    missing = [entry for entry in run["results"] if not entry["slice"] and entry["status"] != "measured"]
    assert [entry for entry in missing if not entry["metric"].endswith("_precision")] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("reconstruction.normalized_mse", "lower"),
        ("reconstruction.explained_variance", "higher"),
        ("downstream.kl_nats", "lower"),
        ("downstream.delta_ce_nats", "lower"),
    ],
)
def test_trained_dictionaries_beat_the_null_with_intervals_that_do_not_touch(run, name, metric, better):
    trained, null = result(run, name, metric), result(run, NULL, metric)
    if better == "lower":
        assert trained["ci_high"] < null["ci_low"]
    else:
        assert trained["ci_low"] > null["ci_high"]


@pytest.mark.parametrize("name", NAMES)
def test_few_latents_are_silent_even_on_so_little_text(run, name):
    assert result(run, name, "reconstruction.dead_fraction")["value"] < 0.25


def test_no_path_of_a_machine_is_in_the_report(folder):
    places = {str(Path.home()), str(folder), str(bundled_path("suites", "demo.toml").parents[2])} - {"/"}
    for name in ("report.json", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert [place for place in places if place in text] == []
