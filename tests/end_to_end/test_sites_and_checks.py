"""Two-site dictionaries, the nulls, and what stops a checkpoint before its numbers are nonsense."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
import safetensors.torch
import torch

import autointerp
from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.load import read_checkpoint, write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.config import CorpusSection, load_suite
from autointerp.errors import CheckpointError, CorpusError, SuiteError
from autointerp.reporting.json_file import read_report
from autointerp.sampling.activation_pass import ActivationPass
from autointerp.sampling.corpus import open_corpus
from autointerp.subject.subject_model import SubjectModel

SITE = "blocks.1.hook_resid_post"
TEXT = CorpusSection(context_length=16, calibration_tokens=300, calibration_fraction=0.3)
NMSE, DELTA = "reconstruction.normalized_mse", "downstream.delta_ce_nats"


def headline(report, checkpoint, metric):
    [found] = [
        r.outcome
        for r in report.results
        if (r.checkpoint, r.metric, dict(r.slice)) == (checkpoint, metric, {})
    ]
    return found


def summary(report, name):
    [found] = [checkpoint for checkpoint in report.checkpoints if checkpoint.name == name]
    return found


@pytest.fixture
def unchecked_annotations(monkeypatch):
    """As for users: annotations are not checked at run time, so our own checks must do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def subject(tiny_suite):
    return SubjectModel.load(tiny_suite.parent / "subject")


@pytest.fixture(scope="module")
def corpus(tiny_suite):
    return open_corpus("jsonl", path=tiny_suite.parent / "text.jsonl")


def suite_with(tiny_suite, *overrides, checkpoints=()):
    return load_suite(tiny_suite, overrides=["checkpoints=[]", *overrides], checkpoints=checkpoints)


@pytest.fixture
def saved(tiny_suite, tmp_path):
    """The ReLU dictionary of the suite, changed and stored anew."""
    relu = read_checkpoint(tiny_suite.parent / "relu").sae

    def save(name, **changes):
        write_checkpoint(replace(relu, **changes), tmp_path / name, format="saelens")
        return str(tmp_path / name)

    return save


def linear_transcoder(subject):
    """What attention's projection is given -> what it returns: linear, so a skip connection can be exact."""
    projection = dict(subject.model.named_modules())["model.layers.1.self_attn.o_proj"].weight.detach()
    generator = torch.Generator().manual_seed(0)
    return SparseAutoencoder(
        encoder_weight=torch.randn(40, 32, generator=generator),
        encoder_bias=torch.full((40,), -1.0),
        decoder_weight=torch.zeros(40, 32),
        decoder_bias=torch.zeros(32),
        pre_bias=None,
        activation=ReLU(),
        skip_weight=projection.clone(),
        metadata=CheckpointMetadata(site="blocks.1.attn.hook_z", output_site="blocks.1.hook_attn_out"),
    )


def test_a_transcoder_reads_one_site_and_is_judged_at_another(subject, corpus):
    exact = linear_transcoder(subject)
    wrong = replace(exact, skip_weight=torch.zeros(32, 32))
    found = {"exact": exact, "wrong": wrong}
    report = autointerp.evaluate_autoencoders(subject, found, corpus, text=TEXT)
    assert headline(report, "exact", NMSE).estimate.value == pytest.approx(0, abs=1e-9)
    assert headline(report, "exact", DELTA).estimate.value == pytest.approx(0, abs=1e-5)
    assert headline(report, "wrong", NMSE).estimate.value > 0.5
    shown = summary(report, "exact")
    assert (shown.input_site, shown.site) == ("blocks.1.attn.hook_z", "blocks.1.hook_attn_out")
    assert shown.architecture == "relu transcoder + skip"
    null = summary(report, "random dictionary 1")
    assert (null.input_site, null.site) == (shown.input_site, shown.site)
    # Its scale is fitted in raw space, where it can do no worse than the mean; here tokens weigh the same.
    assert headline(report, "random dictionary 1", "reconstruction.normalized_mse_raw").estimate.value < 1.05


def test_a_transcoder_that_does_not_say_what_it_predicts_is_refused_until_told(tiny_suite, saved, tmp_path):
    folder = Path(saved("silent"))
    configuration = json.loads((folder / "cfg.json").read_text())
    configuration |= {"architecture": "transcoder", "d_out": 32, "apply_b_dec_to_input": False}
    (folder / "cfg.json").write_text(json.dumps(configuration))
    configuration["metadata"]["hook_name"] = "blocks.1.mlp.hook_in"
    (folder / "cfg.json").write_text(json.dumps(configuration))
    section = f'path="{folder}"'
    suite = load_suite(tiny_suite, overrides=[f"checkpoints=[{{{section}}}]"])
    with pytest.raises(CheckpointError, match=r"does not say what it predicts.*output_site"):
        autointerp.evaluate(suite, out=tmp_path / "run")
    told = f'checkpoints=[{{{section}, output_site="blocks.1.hook_mlp_out"}}]'
    suite = load_suite(tiny_suite, overrides=[told])
    entry = summary(autointerp.evaluate(suite, out=tmp_path / "run"), "silent")
    assert (entry.input_site, entry.site) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    assert entry.architecture == "relu transcoder"


def test_the_report_of_a_transcoder_survives_its_file(subject, corpus, tmp_path):
    from autointerp.reporting.html_file import report_html
    from autointerp.reporting.json_file import report_json

    report = autointerp.evaluate_autoencoders(subject, {"t": linear_transcoder(subject)}, corpus, text=TEXT)
    (tmp_path / "report.json").write_text(report_json(report), encoding="utf-8")
    assert summary(read_report(tmp_path), "t") == summary(report, "t")
    assert "blocks.1.attn.hook_z → blocks.1.hook_attn_out" in report_html(report)


def test_every_null_goes_through_the_same_pipeline(tiny_suite, tmp_path):
    options = [f"nulls.{name}=true" for name in ("channels", "principal_components", "shuffled_decoder")]
    suite = load_suite(tiny_suite, overrides=options)
    report = autointerp.evaluate(suite, out=tmp_path / "run")
    nulls = {entry.name: entry for entry in report.checkpoints if entry.role == "null"}
    assert set(nulls) == {
        "random dictionary 1", "channels 1", "principal components 1", "topk, decoder shuffled",
    }  # fmt: skip
    value = {name: headline(report, name, NMSE).estimate.value for name in (*nulls, "topk")}
    assert nulls["channels 1"].architecture == "abstopk(k=4)"
    # The best four directions of a fixed basis cannot be worse than four channels of the same vectors, much.
    assert value["principal components 1"] < value["channels 1"] < 1
    assert value["topk, decoder shuffled"] > value["topk"]
    again = autointerp.evaluate(suite, out=tmp_path / "again")
    assert [r.outcome for r in again.results] == [r.outcome for r in report.results]


def test_a_basis_that_keeps_everything_is_skipped_with_the_reason(tiny_suite, saved, tmp_path):
    """Its ReLU fires on half of its 128 latents, more than the site has channels."""
    rows = torch.nn.functional.normalize(
        torch.randn(128, 32, generator=torch.Generator().manual_seed(4)), dim=1
    )
    zeros = torch.zeros(128)
    path = saved("dense", encoder_weight=rows, encoder_bias=zeros, decoder_weight=rows * 0.25)
    options = ["nulls.channels=true", "nulls.principal_components=true"]
    report = autointerp.evaluate(suite_with(tiny_suite, *options, checkpoints=[path]), out=tmp_path / "run")
    for name in ("channels 1", "principal components 1"):
        outcome = headline(report, name, NMSE)
        assert outcome.status == "skipped" and "k is 32, all of its directions" in outcome.reason
    assert not report.failures


def test_a_null_does_not_depend_on_what_else_is_measured(tiny_suite, saved, tmp_path):
    path = saved("lower", metadata=CheckpointMetadata(site="blocks.0.hook_resid_post"))
    alone = autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "alone")
    together = autointerp.evaluate(load_suite(tiny_suite, checkpoints=[path]), out=tmp_path / "together")
    same = next(e.name for e in together.checkpoints if e.role == "null" and e.site == SITE)
    assert headline(together, same, NMSE) == headline(alone, "random dictionary 1", NMSE)


def test_every_checkpoint_that_cannot_be_used_is_named_at_once(tiny_suite, saved, tmp_path):
    broken = [Path(saved(name)) for name in ("one", "two")]
    for folder in broken:
        (folder / "sae_weights.safetensors").write_bytes(b"no weights")
    suite = load_suite(tiny_suite, checkpoints=[str(folder) for folder in broken])
    with pytest.raises(CheckpointError, match=r"2 of 4 checkpoints cannot be used: .*one.* \| .*two"):
        autointerp.evaluate(suite, out=tmp_path / "run")


def test_what_is_no_autoencoder_or_no_text_is_refused_in_one_line(subject, corpus, unchecked_annotations):
    sae = linear_transcoder(subject)
    for found, text, words in (
        ({1000: sae}, corpus, "name is no text"),
        ({"a": torch.zeros(3)}, corpus, "is a Tensor"),
        ({"a": sae}, ["some text"], "no documents"),
        ({}, corpus, "no autoencoder"),
    ):
        with pytest.raises((CheckpointError, CorpusError), match=words):
            autointerp.evaluate_autoencoders(subject, found, text, text=TEXT)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (
            CheckpointMetadata(site=SITE, subject="openai-community/gpt2"),
            "trained on 'openai-community/gpt2'",
        ),
        (CheckpointMetadata(site="blocks.0.hook_resid_post"), r"reads blocks\.0\.hook_resid_post"),
    ],
)
def test_a_checkpoint_that_belongs_elsewhere_is_refused_or_noted(
    tiny_suite, saved, tmp_path, metadata, words
):
    path = saved("other", metadata=metadata)
    given = [f'checkpoints=[{{path="{path}", site="{SITE}"}}]']
    with pytest.raises(CheckpointError, match=words) as caught:
        autointerp.evaluate(load_suite(tiny_suite, overrides=given), out=tmp_path / "run")
    assert "--allow-mismatch" in str(caught.value)
    allowed = load_suite(tiny_suite, overrides=[*given, "checks.allow_mismatch=true"])
    report = autointerp.evaluate(allowed, out=tmp_path / "run")
    assert any(re.search(words, note) for note in summary(report, "other").notes)


@pytest.mark.parametrize("name", ["subject", "Subject", "someone/subject"])
def test_owners_and_case_make_no_other_subject(tiny_suite, saved, tmp_path, name):
    path = saved("same", metadata=CheckpointMetadata(site=SITE, subject=name))
    report = autointerp.evaluate(suite_with(tiny_suite, checkpoints=[path]), out=tmp_path / "run")
    assert not any("trained on" in note for note in summary(report, "same").notes)


def test_the_input_of_a_block_is_the_output_of_the_one_before(tiny_suite, saved, tmp_path):
    path = saved("edge", metadata=CheckpointMetadata(site="blocks.2.hook_resid_pre"))
    given = [f'checkpoints=[{{path="{path}", site="{SITE}"}}]']
    report = autointerp.evaluate(load_suite(tiny_suite, overrides=given), out=tmp_path / "run")
    assert not any("run has it" in note for note in summary(report, "edge").notes)


def test_a_width_that_is_not_the_sites_is_refused_even_when_mismatches_are_allowed(
    tiny_suite, autoencoder_of_width_8, tmp_path
):
    suite = suite_with(tiny_suite, "checks.allow_mismatch=true", checkpoints=[autoencoder_of_width_8])
    with pytest.raises(CheckpointError, match=r"has width 8, the site .* has 32"):
        autointerp.evaluate(suite, out=tmp_path / "run")


@pytest.fixture
def autoencoder_of_width_8(tmp_path):
    sae = SparseAutoencoder(torch.ones(4, 8), torch.zeros(4), torch.ones(4, 8), torch.zeros(8), None, ReLU())
    write_checkpoint(sae, tmp_path / "narrow", format="saelens")
    return str(tmp_path / "narrow")


def test_a_checkpoint_worse_than_the_mean_is_stopped_and_the_others_go_on(tiny_suite, saved, tmp_path):
    relu = read_checkpoint(tiny_suite.parent / "relu").sae
    path = saved("nonsense", decoder_weight=relu.decoder_weight * 50)
    out = tmp_path / "run"
    report = autointerp.evaluate(load_suite(tiny_suite, checkpoints=[path]), out=out)
    for metric in (NMSE, DELTA, "reconstruction.dead_fraction", "downstream.kl_nats"):
        outcome = headline(report, "nonsense", metric)
        assert outcome.status == "failed"
        assert "normalised MSE" in outcome.reason and "likely causes" in outcome.reason
        assert headline(report, "relu", metric).status == "measured"
    assert report.failures
    written = (out / "report.json").stat().st_mtime_ns
    again = autointerp.evaluate(load_suite(tiny_suite, checkpoints=[path]), out=out)
    assert [r.outcome for r in again.results] == [r.outcome for r in report.results]
    assert (out / "report.json").stat().st_mtime_ns == written  # nothing could come out differently


def test_weights_that_change_under_a_run_stop_it(tiny_suite, tmp_path, monkeypatch):
    shutil.copytree(tiny_suite.parent, tmp_path / "copy")
    monkeypatch.setattr("autointerp.evaluation.inputs._ROOM_FOR_ALL", 0)
    measure = ActivationPass.measure

    def measure_while_somebody_writes(self, chunk, cost=None):
        (tmp_path / "copy" / "relu" / "sae_weights.safetensors").touch()
        return measure(self, chunk, cost)

    monkeypatch.setattr(ActivationPass, "measure", measure_while_somebody_writes)
    with pytest.raises(CheckpointError, match="relu: was changed while the run read its weights"):
        autointerp.evaluate(load_suite(tmp_path / "copy" / "suite.toml"), out=tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*observations*.parquet"))


def test_the_limit_can_be_raised(tiny_suite, saved, tmp_path):
    relu = read_checkpoint(tiny_suite.parent / "relu").sae
    path = saved("nonsense", decoder_weight=relu.decoder_weight * 50)
    suite = load_suite(tiny_suite, checkpoints=[path], overrides=["checks.largest_normalized_mse=1e9"])
    report = autointerp.evaluate(suite, out=tmp_path / "run")
    assert headline(report, "nonsense", NMSE).estimate.value > 1.5


def test_a_missing_normalisation_is_named_as_the_cause(tiny_suite, saved, tmp_path):
    """A dictionary that is perfect on normalised inputs, with a file that says nothing of them.

    The subject's activations are made fifty times as large: beyond what such a dictionary has seen.
    """
    shutil.copytree(tiny_suite.parent / "subject", tmp_path / "loud")
    weights = safetensors.torch.load_file(tmp_path / "loud" / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] * 50
    safetensors.torch.save_file(weights, tmp_path / "loud" / "model.safetensors", {"format": "pt"})
    eye, most = torch.eye(32), 31**0.5  # no component of a normalised vector is larger
    path = saved(
        "unsaid",
        encoder_weight=torch.cat([eye, -eye, eye, -eye]),
        encoder_bias=torch.cat([torch.zeros(64), torch.full((64,), -most)]),
        decoder_weight=torch.cat([eye, -eye, -100 * eye, 100 * eye]),
    )
    loud = suite_with(tiny_suite, f"subject.model={tmp_path / 'loud'}", checkpoints=[path])
    report = autointerp.evaluate(loud, out=tmp_path / "run")
    assert "with layer_norm inputs" in headline(report, "unsaid", NMSE).reason


def test_all_stopped_is_a_report_too(tiny_suite, saved, tmp_path):
    relu = read_checkpoint(tiny_suite.parent / "relu").sae
    path = saved("nonsense", decoder_weight=relu.decoder_weight * 50)
    report = autointerp.evaluate(suite_with(tiny_suite, checkpoints=[path]), out=tmp_path / "run")
    assert [entry.name for entry in report.checkpoints] == ["nonsense"]
    assert headline(report, "nonsense", NMSE).status == "failed"


def test_a_pattern_finds_every_checkpoint_below(tiny_suite, saved, tmp_path):
    for name in ("sweep/layer_2", "sweep/layer_10"):
        saved(name)
    (tmp_path / "sweep" / "notes.txt").write_text("none")
    suite = suite_with(tiny_suite, checkpoints=[str(tmp_path / "sweep" / "**")])
    report = autointerp.evaluate(suite, out=tmp_path / "run")
    found = [entry for entry in report.checkpoints if entry.role == "checkpoint"]
    assert [entry.name for entry in found] == ["layer_2", "layer_10"]
    assert not any(str(tmp_path) in entry.path for entry in found)


def test_what_does_not_fit_into_memory_gives_the_same_numbers(tiny_suite, tmp_path, monkeypatch):
    in_memory = autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "memory")
    monkeypatch.setattr("autointerp.evaluation.inputs._ROOM_FOR_ALL", 0)
    from_files = autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "files")
    for name in ("topk", "relu", "random dictionary 1"):
        one, other = (headline(report, name, NMSE).estimate for report in (in_memory, from_files))
        assert other.value == pytest.approx(one.value, rel=1e-5)


def test_two_checkpoints_of_one_name_are_refused(tiny_suite, saved):
    one, two = saved("a/same"), saved("b/same")
    with pytest.raises(SuiteError, match="same"):
        suite_with(tiny_suite, checkpoints=[one, two])
