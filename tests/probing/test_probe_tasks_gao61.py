import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from autointerp.demo import demo_subject
from autointerp.errors import CorpusError
from autointerp.probing.catalogue import catalogue_names, load_probe_data
from autointerp.probing.hub_rows import HubReader
from autointerp.sampling.contexts import ContextOptions

FIXTURES = Path(__file__).parent / "fixtures" / "gao61"
OCCUPATIONS = ("journalist", "athlete", "actor", "politician", "singer", "researcher")
PHRASES = ("high-school", "living-room", "social-security", "credit-card", "blood-pressure", "prime-factors")
PHRASES += ("social-media", "gene-expression", "control-group", "magnetic-field", "cell-lines", "trial-court")
PHRASES += ("second-derivative", "north-america", "human-rights", "side-effects", "public-health")
PHRASES += ("federal-government", "third-party", "clinical-trials", "mental-health")
ETHICS = ("justice", "virtue", "utilitarianism", "deontology")
PAPER = [
    *("amazon", "sciq", "truthfulqa", "mc_taco", "piqa", "quail", "quartz", *ETHICS),
    *("commonsense_qa", "openbookqa", "base64", "wikidata_isalive", "wikidata_sex_or_gender"),
    *(f"wikidata_occupation_is{one}" for one in OCCUPATIONS),
    *(f"phrase_{one}" for one in PHRASES),
    *("social_iqa", "wic", "cola", "gpt2disc"),
    *(f"ag_news_{one}" for one in ("world", "sports", "business", "scitech")),
    *(f"europarl_{one}" for one in ("es", "en", "fr", "nl", "it", "el", "de", "pt", "sv")),
    "jigsaw",
]
OPTIONS = ContextOptions(context_length=64)
LOCAL = ("stdlib", "json", "by-hand")


class FixtureReader:
    """Gives a data set's invented rows many times over, each time with another number in them."""

    def __init__(self, missing=()):
        self.missing = missing
        self.read = []
        self.asked = []

    def revision(self, source):
        self.asked.append(source.dataset)
        if source.dataset in self.missing:
            raise CorpusError("the data set cannot be read (no network)", where=source.dataset)
        return "" if source.dataset in LOCAL else f"commit-of-{source.dataset}"

    def rows(self, source, revision):
        assert revision == ("" if source.dataset in LOCAL else f"commit-of-{source.dataset}")
        self.read.append(source)
        path = FIXTURES / f"{source.dataset.replace('/', '__')}.jsonl"
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if source.config and row.pop("@config", source.config) != source.config:
                continue
            if row.pop("@data_files", "") in (source.data_files or ""):
                kept.append(json.dumps(row))
        assert kept, source
        for number in range(100, 170):
            for row in kept:
                yield json.loads(row.replace("#", str(number)))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(demo_subject())


@pytest.fixture(scope="module")
def loaded(tokenizer):
    reader = FixtureReader()
    data = load_probe_data(
        ["gao61"], tokenizer=tokenizer, options=OPTIONS, examples=40, seed=0, reader=reader
    )
    return data, reader


def shown(data, name, tokenizer):
    examples = next(one for one in data.tasks if one.task.name == f"gao61/{name}")
    texts = [tokenizer.decode(data.texts[index].tokens[1:]) for index in examples.text]
    return dict(zip(texts, examples.label.tolist(), strict=True)), examples


def test_the_catalogue_has_the_61_tasks_of_the_paper():
    names = [name.partition("/")[2] for name in catalogue_names() if name.startswith("gao61/")]
    assert len(PAPER) == 61
    assert sorted(names) == sorted(PAPER)


def test_every_task_is_made_from_its_data_sets_rows(loaded):
    data, _reader = loaded
    assert [one.task.name for one in data.skipped] == []
    assert {one.task.name for one in data.tasks} == {f"gao61/{name}" for name in PAPER}
    for one in data.tasks:
        assert one.label.sum() * 2 == len(one.label) == 40, one.task.name
        for side in (True, False):
            assert one.label[one.is_test == side].any()
            assert (~one.label[one.is_test == side]).any()
        assert one.task.single_token_auroc is not None
        assert one.task.licence and one.task.choices and one.task.split_rule
        sides = {}
        for index, is_test in zip(one.text.tolist(), one.is_test.tolist(), strict=True):
            assert sides.setdefault(data.texts[index].group, is_test) == is_test, one.task.name


def test_the_commit_that_was_read_is_recorded(loaded):
    data, _reader = loaded
    revisions = {one.task.name: one.task.revision for one in data.tasks}
    assert revisions["gao61/sciq"] == "commit-of-allenai/sciq"
    assert revisions["gao61/europarl_sv"] == "commit-of-Helsinki-NLP/europarl"
    assert revisions["gao61/gpt2disc"] == ""


def test_a_data_set_is_read_once_for_all_tasks_on_it(loaded):
    _data, reader = loaded
    assert len(reader.read) == len(set(reader.read))
    assert len([one for one in reader.read if one.dataset == "monology/pile-uncopyrighted"]) == 1
    assert len([one for one in reader.read if one.dataset == "fancyzhx/ag_news"]) == 1
    assert reader.asked.count("Helsinki-NLP/europarl") == 1


@pytest.mark.parametrize(
    ("name", "positive", "negative"),
    [
        ("amazon", "boils well", "leaked"),
        ("mc_taco", "minutes", "years"),
        ("justice", "owed", "rained"),
        ("virtue", "generous", "lazy"),
        ("deontology", "cloth", "Monday"),
        ("commonsense_qa", "bricks", "house"),
        ("wic", "bank", "seal"),
        ("cola", "dogs bark", "Dogs the"),
        ("gpt2disc", "walking miles", "We walked"),
        ("ag_news_sports", "team won", "countries met"),
        ("ag_news_scitech", "probe", "team won"),
        ("europarl_de", "schläft", "sover"),
        ("europarl_el", "κοιμάται", "sleeps"),
        ("jigsaw", "fools", "Thank you"),
        ("wikidata_isalive", "Lindqvist", "Ekman"),
        ("sciq", "A: water", "A: iron"),
        ("truthfulqa", "they hop", "they fly"),
        ("quail", "A: the cat", "A: the dog"),
        ("quartz", "A: slowly", "A: fast"),
        ("openbookqa", "A: heat", "A: wind"),
        ("social_iqa", "A: thankful", "A: angry"),
    ],
)
def test_labels_say_what_the_rule_says(loaded, tokenizer, name, positive, negative):
    texts, _examples = shown(loaded[0], name, tokenizer)
    assert {label for text, label in texts.items() if positive in text} == {True}
    assert {label for text, label in texts.items() if negative in text} == {False}


def test_right_solutions_of_piqa_are_positive(loaded, tokenizer):
    texts, _examples = shown(loaded[0], "piqa", tokenizer)
    right = ("Hang them up", "tin opener")
    assert all(label == any(one in text for one in right) for text, label in texts.items())


def test_the_pleasanter_scenario_stands_first_where_the_label_says_so(loaded, tokenizer):
    texts, _examples = shown(loaded[0], "utilitarianism", tokenizer)
    assert {text.startswith("I found") == label for text, label in texts.items()} == {True}


def test_base64_is_base64(loaded, tokenizer):
    texts, _examples = shown(loaded[0], "base64", tokenizer)
    assert {(" " not in text) == label for text, label in texts.items()} == {True}


def test_a_phrase_is_marked_at_its_last_token_and_the_text_ends_there(loaded, tokenizer):
    data, _reader = loaded
    texts, examples = shown(data, "phrase_high-school", tokenizer)
    for index, position in zip(examples.text.tolist(), examples.position.tolist(), strict=True):
        assert position == len(data.texts[index].tokens) - 1
    ends = {(text.endswith("a high school"), label) for text, label in texts.items()}
    assert ends == {(True, True), (False, False)}
    negatives = {text.split()[-2] + " " + text.split()[-1] for text, label in texts.items() if not label}
    assert negatives == {"high wall", "other school"}


def test_a_data_set_that_cannot_be_had_is_skipped_with_the_reason_and_the_others_are_not(tokenizer):
    reader = FixtureReader(missing=["allenai/sciq", "Helsinki-NLP/europarl"])
    data = load_probe_data(
        ["gao61/sciq", "gao61/cola", "gao61/europarl_es"],
        tokenizer=tokenizer,
        options=OPTIONS,
        examples=40,
        seed=0,
        reader=reader,
    )
    assert reader.asked.count("Helsinki-NLP/europarl") == 1
    assert [one.task.name for one in data.tasks] == ["gao61/cola"]
    assert [one.task.name for one in data.skipped] == ["gao61/sciq", "gao61/europarl_es"]
    assert all("no network" in one.reason for one in data.skipped)


def test_a_column_that_is_not_there_is_told_not_raised(tokenizer):
    class Renamed(FixtureReader):
        def rows(self, source, revision):
            for row in super().rows(source, revision):
                row["prompt_text"] = row.pop("sentence")
                yield row

    data = load_probe_data(
        ["gao61/cola"], tokenizer=tokenizer, options=OPTIONS, examples=40, seed=0, reader=Renamed()
    )
    assert "no column 'sentence'" in data.skipped[0].reason
    assert "prompt_text" in data.skipped[0].reason


def test_the_same_seed_draws_the_same_examples_whatever_is_asked_beside(loaded, tokenizer):
    data, _reader = loaded
    alone = load_probe_data(
        ["gao61/cola"], tokenizer=tokenizer, options=OPTIONS, examples=40, seed=0, reader=FixtureReader()
    )
    texts, examples = shown(data, "cola", tokenizer)
    again, repeated = shown(alone, "cola", tokenizer)
    assert texts == again
    assert np.array_equal(examples.label, repeated.label)


def test_the_readers_meet_the_protocol():
    assert isinstance(FixtureReader(), HubReader)
