"""The suite with the paper's settings is valid and measures everything, with an LLM and without."""

import re

from autointerp.bundled import bundled_path
from autointerp.config import load_suite
from autointerp.evaluation.studies import STUDIES
from autointerp.metrics.catalogue import FAMILIES


def test_it_asks_for_every_family_at_the_papers_numbers() -> None:
    suite = load_suite(bundled_path("suites", "paper.toml"))
    assert set(suite.metrics.families) >= {*FAMILIES, *(study.family for study in STUDIES)}
    assert suite.corpus.context_length == 64
    assert suite.ablation.horizon == 16
    assert (suite.graphs.graph_examples, suite.graphs.recall_sequences) == (16, 16)
    assert suite.sampling.examples >= suite.graphs.graph_examples
    assert suite.probes.tasks == ("gao61",)
    assert suite.explanations.latent_count == 400
    assert suite.llm.model is None


def test_its_commented_part_is_valid_too(tmp_path) -> None:
    head, _, tail = bundled_path("suites", "paper.toml").read_text(encoding="utf-8").partition("# explainers")
    uncommented = head + re.sub(r"^# ?", "", "# explainers" + tail, flags=re.MULTILINE)
    path = tmp_path / "paper.toml"
    path.write_text(uncommented, encoding="utf-8")
    suite = load_suite(path)
    assert suite.explanations.explainers == ("token_activation_pairs",)
    assert suite.explanations.methods == ("simulation",)
    assert suite.llm.model is not None and suite.llm.budget_tokens is not None
