import json
import math
import shutil

import numpy as np
import polars as pl
import pytest
from latent_examples import (
    CHECKPOINTS,
    DEAD,
    FAILED,
    FIRING_SAMPLERS,
    LATENT_COUNT,
    LIVE,
    RATIO,
    SPLITS,
    STRATA,
    UNDEFINED,
    UNSAMPLED,
    without_null,
    write_run,
)

from autointerp.errors import BadInputError
from autointerp.reporting.example_groups import ExampleChoice
from autointerp.reporting.latent_json import latent_json
from autointerp.reporting.latent_list import latent_list
from autointerp.reporting.latent_tables import LatentTableError
from autointerp.reporting.latent_view import find_latent, latent_view
from autointerp.sampling.latents.tables import TABLES
from autointerp.sampling.samplers.catalogue import SAMPLER_NAMES

FIRST, SECOND = CHECKPOINTS
ALL = ExampleChoice(count=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def own_run(run, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(run.folder, tmp_path / "run")
    return type(run)(tmp_path / "run", run.tables)


def texts_of(run):
    return dict(run.tables["vocabulary"].iter_rows())


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("latent", range(LATENT_COUNT))
def test_every_latent_has_its_own_statistics(run, checkpoint, latent):
    view = latent_view(run.folder, checkpoint=checkpoint, latent=latent)
    row = run.rows("latents", checkpoint=checkpoint, latent=latent).row(0, named=True)
    assert (view.checkpoint, view.latent, view.status) == (checkpoint, latent, row["status"])
    assert view.is_sampled == row["is_sampled"] and view.reason == (row["reason"] or None)
    firing = view.firing
    assert (firing.tokens_fired, firing.documents_fired) == (row["tokens_fired"], row["documents_fired"])
    contexts = run.tables["contexts"]
    assert firing.token_count == contexts["tokens"].list.len().sum() - contexts.height
    assert firing.document_count == contexts["document"].n_unique()
    assert firing.density == pytest.approx(firing.tokens_fired / firing.token_count)
    assert firing.split_documents == {split: row[f"{split}_documents"] for split in SPLITS}
    assert (firing.mean, firing.maximum) == (row["mean"], row["maximum"])
    assert firing.quantiles == {
        name: row[name] for name in ("q05", "q25", "q50", "q75", "q95") if row["is_sampled"]
    }


def test_what_the_tables_hold_of_a_latent_is_in_the_view(run):
    view = latent_view(run.folder, latent=LIVE)
    texts = texts_of(run)
    assert view.checkpoint == FIRST
    for place in ("before", "at", "after"):
        rows = run.rows("tokens", checkpoint=FIRST, latent=LIVE, place=place).sort("rank")
        assert [found.count for found in view.tokens[place]] == rows["count"].to_list()
        assert [found.text for found in view.tokens[place]] == [texts[token] for token in rows["token"]]
    rows = run.rows("promoted", checkpoint=FIRST, latent=LIVE, sign="demoted").sort("rank")
    assert [(found.token, found.logit) for found in view.demoted] == list(
        rows.select("token", "logit").rows()
    )
    rows = run.rows("neighbours", checkpoint=FIRST, latent=LIVE, kind="co_firing").sort("rank")
    expected = list(rows.select("other", "value", "lift").rows())
    assert [(found.latent, found.value, found.lift) for found in view.co_firing] == expected
    assert len(view.nearest) == 4
    assert view.coverage.sampled_count == LATENT_COUNT - 2


def test_bars_hold_every_firing_at_its_strength(run):
    view = latent_view(run.folder, latent=LIVE)
    rows = run.rows("histograms", checkpoint=FIRST, latent=LIVE, unit="firing")
    middles = RATIO ** (rows["bin"].to_numpy() - 0.5)
    assert len(view.histogram) <= 40
    assert sum(bar.count for bar in view.histogram) == view.firing.tokens_fired
    for bar in view.histogram:
        inside = (middles > bar.low) & (middles <= bar.high)
        assert bar.count == rows["count"].to_numpy()[inside].sum()
    ratios = [np.log(bar.high / bar.low) for bar in view.histogram]
    assert np.allclose(ratios, ratios[0])
    assert [bar.high for bar in view.histogram[:-1]] == [bar.low for bar in view.histogram[1:]]


def test_groups_come_in_reading_order_and_strata_from_the_strongest(run):
    groups = latent_view(run.folder, latent=LIVE).groups
    names = list(dict.fromkeys(group.sampler for group in groups))
    assert names[:4] == list(FIRING_SAMPLERS)
    assert names[4:] == [name for name, entry in SAMPLER_NAMES.items() if entry.is_silent]
    strata = [group.stratum for group in groups if group.sampler == "quantiles"]
    assert strata == list(reversed(range(STRATA)))
    by_name = {group.sampler: group for group in groups}
    assert by_name["near_misses"].kept == 0 and not by_name["near_misses"].is_in_run
    assert by_name["same_token"].kept == 0 and by_name["same_token"].is_in_run


def test_every_example_is_there_with_its_text_and_its_activations(run):
    view = latent_view(run.folder, latent=LIVE, choice=ALL)
    texts = texts_of(run)
    contexts = {row["context"]: row for row in run.tables["contexts"].iter_rows(named=True)}
    rows = run.rows("examples", checkpoint=FIRST, latent=LIVE)
    assert sum(len(group.examples) for group in view.groups) == rows.height
    for group in view.groups:
        own = rows.filter(pl.col("sampler") == group.sampler, pl.col("stratum") == group.stratum)
        by_key = {(row["split"], row["rank"]): row for row in own.iter_rows(named=True)}
        assert group.kept == len(group.examples) == len(by_key)
        assert group.population == sum(dict(own.select("split", "population").unique().iter_rows()).values())
        for example in group.examples:
            row = by_key[example.split, example.rank]
            context = contexts[row["context"]]
            assert example.document == context["document"]
            assert example.position == context["start"] + row["begin"] - context["first_scored"]
            window = context["tokens"][row["begin"] : row["end"]]
            assert example.tokens == tuple(texts[token] for token in window)
            dense = np.zeros(len(window), np.float32)
            dense[np.array(row["fired"], int) - row["begin"]] = row["activations"]
            assert example.activations == tuple(dense.tolist())
            assert example.value == row["value"] and group.is_silent == (row["value"] is None)
            assert example.value is None or example.activations[example.focus] == example.value


def test_a_few_examples_are_dealt_to_the_splits_by_rank(run):
    groups = latent_view(run.folder, latent=LIVE, choice=ExampleChoice(count=5)).groups
    for group in groups:
        assert len(group.examples) == min(group.kept, 5)
        if group.sampler == "uniform":
            found = [(example.split, example.rank) for example in group.examples]
            assert found == [("explain", 0), ("explain", 1), ("validate", 0), ("validate", 1), ("score", 0)]
        if group.sampler == "top":
            rows = run.rows("examples", checkpoint=FIRST, latent=LIVE, sampler="top")
            strongest = sorted(rows["value"].to_list(), reverse=True)[:5]
            assert [example.value for example in group.examples] == strongest


def test_examples_of_one_split_and_sampler(run):
    choice = ExampleChoice(samplers=("top",), split="score", count=None)
    [group] = latent_view(run.folder, latent=LIVE, choice=choice).groups
    assert group.sampler == "top"
    rows = run.rows("examples", checkpoint=FIRST, latent=LIVE, sampler="top", split="score")
    assert [example.context for example in group.examples] == rows.sort("rank")["context"].to_list()
    assert group.population == rows["population"][0]


@pytest.mark.parametrize("latent", [DEAD, UNDEFINED, UNSAMPLED])
def test_a_latent_without_examples_has_no_groups(run, latent):
    view = latent_view(run.folder, latent=latent)
    assert view.groups == ()
    assert bool(view.histogram) == (latent == UNDEFINED)


def test_a_sampler_that_the_catalogue_does_not_know_is_shown_all_the_same(own_run):
    rows = own_run.tables["examples"]
    renamed = rows.with_columns(pl.col("sampler").replace("top", "mine"))
    own_run.rewrite("examples", renamed)
    groups = latent_view(own_run.folder, latent=LIVE).groups
    assert (groups[-1].sampler, groups[-1].meaning, groups[-1].is_silent) == ("mine", "", False)
    assert groups[-1].examples


def test_the_order_of_rows_in_the_files_does_not_matter(own_run):
    before = latent_view(own_run.folder, latent=LIVE), latent_list(own_run.folder)
    for name, frame in own_run.tables.items():
        if name != "coverage":
            own_run.rewrite(name, frame.sample(fraction=1.0, shuffle=True, seed=3))
    assert (latent_view(own_run.folder, latent=LIVE), latent_list(own_run.folder)) == before


def test_a_token_without_text_reads_as_its_number(own_run):
    own_run.rewrite("vocabulary", own_run.tables["vocabulary"].clear())
    view = latent_view(own_run.folder, latent=LIVE)
    assert view.tokens["at"][0].text == f"[{view.tokens['at'][0].token}]"
    assert all(text.startswith("[") for text in view.groups[0].examples[0].tokens)


def test_a_number_that_is_not_finite_is_absent(own_run):
    latents = own_run.tables["latents"].with_columns(mean=pl.lit(float("nan")), q50=pl.lit(float("inf")))
    own_run.rewrite("latents", latents)
    found = json.loads(latent_json(latent_view(own_run.folder, latent=LIVE)))
    assert "mean" not in found["firing"] and "q50" not in found["firing"]["quantiles"]
    assert "q25" in found["firing"]["quantiles"]


@pytest.mark.parametrize("latent", [DEAD, UNDEFINED, UNSAMPLED, LIVE])
def test_json_has_everything_and_no_null(run, latent):
    view = latent_view(run.folder, latent=latent, choice=ALL)
    text = latent_json(view)
    found = json.loads(text)
    assert text.isascii() and without_null(found)
    assert found["firing"]["tokens_fired"] == view.firing.tokens_fired
    examples = [example for group in found["groups"] for example in group["examples"]]
    own = [example for group in view.groups for example in group.examples]
    assert [tuple(example["tokens"]) for example in examples] == [example.tokens for example in own]
    assert sum("value" in example for example in examples) == sum(item.value is not None for item in own)


def test_the_list_has_the_sampled_latents(run):
    listing = latent_list(run.folder, checkpoint=SECOND)
    assert [latent.latent for latent in listing.latents] == [1, *range(3, LATENT_COUNT)]
    assert listing.sampled_count == LATENT_COUNT - 2
    for latent in listing.latents:
        view = latent_view(run.folder, checkpoint=SECOND, latent=latent.latent, choice=ALL)
        assert latent.density == view.firing.density
        assert latent.peak_token == view.tokens["at"][0].text
        assert latent.promoted == tuple(found.text for found in view.promoted[:3])
        assert latent.example_count == sum(group.kept for group in view.groups)
    assert latent_list(run.folder, checkpoint=SECOND, count=3).latents == listing.latents[:3]
    assert without_null(json.loads(latent_json(listing)))


def test_a_latent_by_word(run):
    assert find_latent(run.folder, "17") == 17
    drawn = [find_latent(run.folder, "random", seed=seed) for seed in range(40)]
    assert drawn == [find_latent(run.folder, "random", seed=seed) for seed in range(40)]
    live = run.rows("latents", checkpoint=FIRST, is_sampled=True, status="live")["latent"].to_list()
    assert set(drawn) <= set(live) and len(set(drawn)) > len(live) / 2
    for word in ("-1", "x", "1.5", "", "٣", "9" * 20):
        with pytest.raises(LatentTableError, match="is no latent"):
            find_latent(run.folder, word)


def test_the_report_json_stands_for_its_run(run):
    assert latent_view(run.folder / "report.json", latent=LIVE) == latent_view(run.folder, latent=LIVE)


def test_without_a_name_nulls_and_failed_dictionaries_are_not_meant(run, own_run):
    assert latent_view(run.folder, latent=LIVE).checkpoint == FIRST
    (own_run.folder / "report.json").unlink()
    with pytest.raises(LatentTableError) as caught:
        latent_view(own_run.folder, latent=LIVE)
    assert all(repr(name) in str(caught.value) for name in (*CHECKPOINTS, FAILED))
    coverage = own_run.tables["coverage"]
    own_run.rewrite("coverage", coverage.filter(pl.col("checkpoint") == FAILED))
    with pytest.raises(LatentTableError, match="were not sampled"):
        latent_view(own_run.folder, latent=LIVE)


REFUSED = {
    "no run": (lambda folder: {"run": folder / "nowhere"}, "no such run directory"),
    "no tables": (lambda folder: {"run": folder.parent}, r"\[sampling\]"),
    "unknown checkpoint": (lambda folder: {"checkpoint": "topk-16-k"}, "did you mean 'topk-16-k2'"),
    "no such name at all": (lambda folder: {"checkpoint": "%"}, "there are 'topk-16-k2'"),
    "failed checkpoint": (lambda folder: {"checkpoint": FAILED}, "not sampled .failed: its weights"),
    "out of range": (lambda folder: {"latent": 16}, "no latent 16; its latents are 0 to 15"),
    "far out of range": (lambda folder: {"latent": 2**70}, "its latents are 0 to 15"),
    "sampler": (
        lambda folder: {"choice": ExampleChoice(samplers=("tpo",))},
        "no sampler 'tpo'; did you mean",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there_is_one_clear_line(run, case):
    options, words = REFUSED[case]
    given = {"run": run.folder, "latent": LIVE, "checkpoint": FIRST} | options(run.folder)
    with pytest.raises(BadInputError, match=words) as caught:
        latent_view(given.pop("run"), **given)
    assert "\n" not in str(caught.value)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no parquet at all"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "other columns": lambda path: pl.DataFrame({"x": [1]}).write_parquet(path),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table_is_named(own_run, name, damage):
    path = own_run.folder / "latents" / f"{name}.parquet"
    DAMAGES[damage](path)
    with pytest.raises(LatentTableError) as caught:
        latent_view(own_run.folder, checkpoint=FIRST, latent=LIVE)
    line = str(caught.value)
    assert line.startswith(str(path)) and "run the evaluation again" in line and "\n" not in line


WRONG_EXAMPLES = {
    "focus beyond the window": {"focus": pl.col("end")},
    "window beyond its context": {"end": pl.lit(9999, dtype=pl.UInt32)},
    "firing beyond the window": {"fired": pl.col("fired").list.eval(pl.element() + 500)},
    "fewer activations than firings": {"activations": pl.col("activations").list.head(1)},
    "activations without end": {"activations": pl.col("activations").list.eval(pl.element() * float("inf"))},
    "unknown split": {"split": pl.lit("train")},
    "unknown context": {"context": pl.lit(3, dtype=pl.UInt64)},
}


@pytest.mark.parametrize("case", WRONG_EXAMPLES)
def test_examples_that_make_no_sense_are_refused(own_run, case):
    wrong = own_run.tables["examples"].with_columns(**WRONG_EXAMPLES[case]).cast(TABLES["examples"])
    own_run.rewrite("examples", wrong)
    with pytest.raises(LatentTableError, match=r"(examples|contexts)\.parquet: .*example"):
        latent_view(own_run.folder, latent=LIVE)


def test_a_bin_beyond_all_numbers_is_refused(own_run):
    wrong = own_run.tables["histograms"].with_columns(bin=pl.lit(2**31 - 1, dtype=pl.Int32))
    own_run.rewrite("histograms", wrong)
    with pytest.raises(LatentTableError, match="histograms"):
        latent_view(own_run.folder, latent=LIVE)


def test_what_a_dead_latent_has_not_is_none_and_never_zero(run):
    firing = latent_view(run.folder, checkpoint=FIRST, latent=DEAD).firing
    assert firing.maximum is None and firing.mean is None and not firing.quantiles
    assert firing.token_count > 0


@pytest.mark.parametrize("column", ["density", "document_density", "mass", "maximum"])
def test_a_number_that_is_missing_or_not_finite_is_damage(own_run, column):
    latents = own_run.tables["latents"]
    own_run.rewrite("latents", latents.with_columns(pl.lit(math.nan, dtype=pl.Float64).alias(column)))
    with pytest.raises(LatentTableError, match=r"latents\.parquet"):
        latent_view(own_run.folder, checkpoint=FIRST, latent=LIVE)
