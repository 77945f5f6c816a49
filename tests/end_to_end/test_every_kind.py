"""One run over every recorded checkpoint, of every format and architecture: all of them are measured."""

import json
from pathlib import Path

import pytest
import safetensors

import autointerp
from autointerp.config import suite_from_mapping
from autointerp.testing.tiny_subject import write_tiny_subject

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"
CASES = sorted(path.parent for path in FIXTURES.glob("*/*/fixture.json"))
WIDTHS = {8: "blocks.{}.hook_resid_post", 6: "blocks.{}.mlp.hook_post", 10: "blocks.{}.attn.hook_z"}
LAYERS = 12


def widths_of(case):
    with safetensors.safe_open(case / "expected.safetensors", framework="pt") as expected:
        return tuple(expected.get_slice(name).get_shape()[1] for name in ("x", "reconstruction"))


def section(index, case):
    """Where it is measured has its widths; what its files say of their own sites may differ."""
    facts = json.loads((case / "fixture.json").read_text())
    read, judged = (WIDTHS[width].format(index % LAYERS) for width in widths_of(case))
    return {
        "path": str(case / facts["checkpoint"]),
        "name": f"{case.parent.name}/{case.name}",
        "site": read,
        "output_site": judged,
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny_suite):
    folder = tmp_path_factory.mktemp("kinds")
    write_tiny_subject(
        folder / "subject",
        hidden_size=8,
        intermediate_size=6,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=10,
        num_hidden_layers=LAYERS,
    )
    content = {
        "name": "every kind",
        "subject": {"model": "subject", "device": "cpu"},
        "corpus": {
            "kind": "jsonl",
            "path": str(tiny_suite.parent / "text.jsonl"),
            "context_length": 16,
            "evaluation_tokens": 300,
            "calibration_tokens": 200,
            "calibration_fraction": 0.3,
        },
        "nulls": {"random_dictionaries": 0},
        "checks": {"allow_mismatch": True, "largest_normalized_mse": 1e300},
        "estimates": {"resamples": 100},
        "sampling": {"enabled": False},
        "checkpoints": [section(index, case) for index, case in enumerate(CASES)],
    }
    suite = suite_from_mapping(content, folder=folder)
    return autointerp.evaluate(suite, out=folder / "run")


def test_every_kind_is_measured(report):
    measured = {
        result.checkpoint
        for result in report.results
        if result.metric == "downstream.delta_ce_nats"
        and not result.slice
        and result.outcome.status == "measured"
    }
    assert measured == {f"{case.parent.name}/{case.name}" for case in CASES}
    assert not report.failures


def test_every_format_and_architecture_is_among_them(report):
    formats = {entry.format for entry in report.checkpoints}
    assert formats >= {"openai", "saelens", "sparsify", "gemma_scope", "gemma_scope_2", "dictionary_learning"}
    architectures = {entry.architecture.split("(")[0].split()[0] for entry in report.checkpoints}
    assert architectures >= {
        "relu", "identity", "topk", "abstopk", "groupmax", "jumprelu", "gated", "matching_pursuit",
    }  # fmt: skip
