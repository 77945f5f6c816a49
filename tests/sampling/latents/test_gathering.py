"""From firings on disk to statistics and examples: equal to brute force, however it was cut up."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import spilled_runs
from spilled_runs import LATENTS, checkpoints, chunked, dense, passed

from autointerp.errors import RunStoreError
from autointerp.run_store import MemoryStore
from autointerp.sampling.latents.choice import Choice
from autointerp.sampling.latents.examples import WindowOptions
from autointerp.sampling.latents.gathering import Gathered, GatherOptions
from autointerp.sampling.latents.shared_ngrams import leaks
from autointerp.sampling.latents.store import table_of, write_tables
from autointerp.sampling.latents.tables import TABLES
from autointerp.sampling.samplers.sampler import SPLITS
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.token_chunks import random_chunk, random_documents

ALL = GatherOptions(choice=Choice(latents="all", least_documents=1), examples=6, strata=3)
SILENT = ("silent", "same_token", "neighbours", "similar", "near_misses")
ACTIVATING = ("uniform", "top", "importance", "quantiles")


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return spilled_runs.subject()


@pytest.fixture(scope="module")
def chunks(subject: SubjectModel) -> list:
    return chunked(subject.vocabulary_size, document_count=36)


@pytest.fixture(scope="module")
def run(subject: SubjectModel, chunks: list) -> spilled_runs.Run:
    return passed(subject, chunks, checkpoints())


@pytest.fixture(scope="module", params=[0, 1], ids=["topk", "jumprelu"])
def case(request: pytest.FixtureRequest, subject: SubjectModel, chunks: list, run: spilled_runs.Run):
    checkpoint = checkpoints()[request.param]
    return run.gathered(checkpoint, ALL), dense(subject, chunks, checkpoint)


def test_totals_equal_brute_force(case: tuple) -> None:
    gathered, truth = case
    frame = gathered.latents
    assert frame["latent"].to_list() == list(range(LATENTS))
    np.testing.assert_array_equal(frame["tokens_fired"], (truth.z != 0).sum(axis=0))
    np.testing.assert_allclose(frame["mass"], np.abs(truth.z).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(frame["density"], (truth.z != 0).mean(axis=0))
    for latent in range(LATENTS):
        fires = np.flatnonzero(truth.z[:, latent])
        row = frame.row(latent, named=True)
        if not len(fires):
            assert row["status"] == "dead" and row["mean"] is None and row["first_context"] is None
            continue
        values = truth.z[fires, latent]
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-5)
        assert row["maximum"] == pytest.approx(values.max(), rel=1e-5)
        for end, place in (("first", fires[0]), ("last", fires[-1])):
            assert row[f"{end}_context"] == truth.context[place]
            assert row[f"{end}_position"] == truth.position[place]


def test_quantiles_are_within_one_percent(case: tuple) -> None:
    gathered, truth = case
    for row in gathered.latents.filter(pl.col("is_sampled")).iter_rows(named=True):
        values = np.sort(truth.z[truth.z[:, row["latent"]] != 0, row["latent"]])
        for level in (5, 25, 50, 75, 95):
            exact = values[int(np.ceil(level / 100 * len(values))) - 1]
            assert row[f"q{level:02d}"] == pytest.approx(exact, rel=0.0101)


def _peaks(truth: spilled_runs.Dense, latent: int) -> dict[int, tuple[int, float]]:
    found: dict[int, tuple[int, float]] = {}
    for token in np.flatnonzero(truth.z[:, latent]):
        context, value = int(truth.context[token]), float(truth.z[token, latent])
        if context not in found or value > found[context][1]:
            found[context] = (int(truth.position[token]), value)
    return found


def test_top_contexts_equal_a_stable_descending_sort(
    subject: SubjectModel, run: spilled_runs.Run, chunks: list
) -> None:
    """Before anything is left out for leaks, which random tokens of a tiny vocabulary never cause."""
    checkpoint = checkpoints()[0]
    gathered, truth = run.gathered(checkpoint, ALL), dense(subject, chunks, checkpoint)
    assert gathered.coverage["dropped_for_leaks"] == 0
    split_of = dict(gathered.contexts.select("context", "split").iter_rows())
    every = run.spilled()
    for chunk in every.chunk_names:
        frame = every.contexts(chunk).frame
        split_of |= {c: SPLITS[s] for c, s in frame.select("context", "split").iter_rows()}
    top = gathered.examples.filter(sampler="top")
    checked = 0
    for latent in range(LATENTS):
        peaks = _peaks(truth, latent)
        for number, split in enumerate(SPLITS):
            mine = top.filter(latent=latent, split=number).sort("rank")
            here = [
                (-value, context, place)
                for context, (place, value) in peaks.items()
                if split_of[context] == split
            ]
            expected = sorted(here)[: ALL.examples]
            if gathered.latents["status"][latent] != "live":
                assert mine.is_empty()
                continue
            np.testing.assert_allclose(mine["value"], [-value for value, _, _ in expected], rtol=1e-5)
            assert mine["context"].to_list() == [context for _, context, _ in expected]
            assert mine["position"].to_list() == [place for _, _, place in expected]
            checked += len(expected)
    assert checked > 200


def test_examples_hold_what_fires_in_them(case: tuple) -> None:
    gathered, truth = case
    values = {
        (int(truth.context[token]), int(truth.position[token]), int(latent)): float(truth.z[token, latent])
        for token, latent in zip(*truth.z.nonzero(), strict=True)
    }
    samplers = set()
    for row in gathered.examples.iter_rows(named=True):
        samplers.add(row["sampler"])
        inside = [
            position
            for position in range(row["begin"], row["end"])
            if (row["context"], position, row["latent"]) in values
        ]
        assert row["fired"] == inside
        expected = [values[row["context"], position, row["latent"]] for position in inside]
        assert row["activations"] == pytest.approx(expected, rel=1e-4)
        assert row["begin"] <= row["position"] < row["end"]
        if row["sampler"] in SILENT:
            assert row["value"] is None and not inside
        else:
            assert row["value"] == pytest.approx(
                values[row["context"], row["position"], row["latent"]], rel=1e-4
            )
    assert samplers == {*SILENT, *ACTIVATING}


def test_silent_text_is_silent_in_the_whole_context(case: tuple) -> None:
    gathered, truth = case
    silent = gathered.examples.filter(pl.col("sampler").is_in(SILENT))
    assert silent.height > 500
    fires = {(int(c), int(latent)) for c, latent in _pairs(truth)}
    assert not any(pair in fires for pair in silent.select("context", "latent").iter_rows())


def _pairs(truth: spilled_runs.Dense) -> list[tuple[int, int]]:
    token, latent = truth.z.nonzero()
    return list(zip(truth.context[token], latent, strict=True))


def test_same_token_examples_have_a_token_of_the_peaks(case: tuple) -> None:
    gathered, _ = case
    tokens = dict(gathered.contexts.select("context", "tokens").iter_rows())
    at = gathered.tokens.filter(pl.col("place") == "at", pl.col("rank") < 3)
    wanted = set(at.select("latent", "token").iter_rows())
    rows = gathered.examples.filter(sampler="same_token")
    assert rows.height
    for row in rows.iter_rows(named=True):
        assert (row["latent"], tokens[row["context"]][row["position"]]) in wanted


def test_splits_share_no_document_and_no_passage(case: tuple) -> None:
    gathered, _ = case
    assert gathered.contexts.group_by("document").agg(pl.col("split").n_unique())["split"].max() == 1
    found = gathered.examples.rename({"position": "focus"})
    assert leaks(found, gathered.contexts).is_empty()


ARRANGEMENTS = [{"per_chunk": 4}, {"per_chunk": 36}, {"rows_per_batch": 1}, {"rows_per_batch": None}]


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_nothing_depends_on_chunks_and_batches(
    subject: SubjectModel, run: spilled_runs.Run, arrangement: dict
) -> None:
    other = passed(subject, chunked(subject.vocabulary_size, document_count=36, **arrangement), checkpoints())
    _same(run.gathered(checkpoints()[1], ALL), other.gathered(checkpoints()[1], ALL))


def _same(mine: Gathered, theirs: Gathered) -> None:
    for name in ("latents", "tokens", "neighbours", "examples"):
        a, b = getattr(mine, name), getattr(theirs, name)
        if name == "examples":
            # A rounding may move a peak to the next bin, hence to another stratum.
            # It may turn two that are alike but for it: passages that begin alike, near their beginning.
            place = pl.struct("context", "position").rank("ordinal").over("latent", "split", "sampler")
            rank = pl.when(pl.col("sampler").is_in(("top", "near_misses"))).then(place).otherwise("rank")
            a, b = (
                frame.filter(pl.col("sampler") != "quantiles")
                .with_columns(rank.alias("rank"))
                .sort("latent", "sampler", "split", "stratum", "rank")
                for frame in (a, b)
            )
            assert a.height > 1000
        assert a.height == b.height, name
        for column in a.columns:
            if a[column].dtype in (pl.Float32, pl.Float64):
                np.testing.assert_allclose(a[column], b[column], rtol=1e-3, err_msg=f"{name}.{column}")
            elif a[column].dtype != pl.List(pl.Float32):
                assert a[column].equals(b[column]), f"{name}.{column}"


def test_the_order_of_chunks_matters_only_to_first_and_last(run: spilled_runs.Run) -> None:
    turned = spilled_runs.Run(run.store, run.cost, run.token_count)
    usual = run.gathered(checkpoints()[0], ALL)
    turned.cost.chunk_names = run.cost.chunk_names[::-1]
    try:
        other = turned.gathered(checkpoints()[0], ALL)
    finally:
        turned.cost.chunk_names = run.cost.chunk_names[::-1]
    ends = ["first_context", "first_position", "last_context", "last_position"]
    assert usual.examples.drop("activations").equals(other.examples.drop("activations"))
    assert usual.histograms.equals(other.histograms) and usual.tokens.equals(other.tokens)
    same = usual.latents.drop(ends, "mass", "mean", "square_sum")
    assert same.equals(other.latents.drop(ends, "mass", "mean", "square_sum"))
    forward, backward = (
        each.latents.filter(tokens_fired=pl.col("tokens_fired").max()) for each in (usual, other)
    )
    assert forward.height and not forward.select(ends).equals(backward.select(ends))


def test_another_seed_draws_other_examples(run: spilled_runs.Run) -> None:
    usual = run.gathered(checkpoints()[0], ALL)
    other = run.gathered(checkpoints()[0], GatherOptions(ALL.choice, ALL.examples, ALL.strata, seed=1))
    assert not usual.examples["context"].equals(other.examples["context"])
    assert usual.latents["tokens_fired"].equals(other.latents["tokens_fired"])


@pytest.mark.parametrize("centring", ["focus", "random"])
def test_windows_have_their_length_and_hold_the_focus(run: spilled_runs.Run, centring: str) -> None:
    options = GatherOptions(ALL.choice, 6, 3, WindowOptions(5, centring))
    found = run.gathered(checkpoints()[1], options)
    lengths = found.examples.join(found.contexts, on="context")
    room = lengths.select(pl.col("tokens").list.len() - pl.col("first_scored")).to_series()
    width = (lengths["end"] - lengths["begin"]).to_numpy()
    np.testing.assert_array_equal(width, np.minimum(room.to_numpy(), 5))
    place = (lengths["position"] - lengths["begin"]).to_numpy()
    inner = (lengths["position"] >= 6) & (lengths["position"] < lengths["tokens"].list.len() - 5)
    seen = set(place[inner.to_numpy()])
    assert seen == ({2} if centring == "focus" else {0, 1, 2, 3, 4})
    assert (lengths["begin"] >= lengths["first_scored"]).all()


def test_a_weight_counts_what_a_row_stands_for(case: tuple) -> None:
    gathered, truth = case
    uniform = gathered.examples.filter(sampler="uniform")
    by_latent = uniform.group_by("latent").agg(pl.col("weight").sum()).sort("latent")
    fired = (truth.z != 0).sum(axis=0)
    np.testing.assert_allclose(by_latent["weight"], fired[by_latent["latent"].to_numpy()], rtol=1e-9)


@pytest.mark.parametrize(("examples", "strata"), [(7, 5), (3, 5), (6, 3)])
def test_no_sampler_gives_more_than_it_is_asked_for(
    run: spilled_runs.Run, examples: int, strata: int
) -> None:
    found = run.gathered(checkpoints()[1], GatherOptions(ALL.choice, examples, strata)).examples
    assert found.group_by("sampler", "latent", "split").len()["len"].max() == examples
    assert found.filter(sampler="quantiles").group_by("latent", "split").len()["len"].max() <= examples


def test_ranks_have_no_gaps_where_examples_went(subject: SubjectModel) -> None:
    """A vocabulary of four, in contexts of two tokens of text: much is said on both sides."""
    documents = random_documents([8] * 60, vocabulary_size=7, seed=1)
    entry = checkpoints()[0]
    made = passed(subject, [random_chunk(documents, context_length=3)], [entry])
    found = made.gathered(entry, ALL)
    assert found.coverage["dropped_for_leaks"] > 0
    for _, rows in found.examples.group_by("sampler", "latent", "split", "stratum"):
        assert sorted(rows["rank"]) == list(range(rows.height))
    top = found.examples.filter(sampler="top").sort("latent", "split", "rank")
    rises = top.select(pl.col("value").abs().diff().over("latent", "split") > 0).to_series()
    assert top.height and not rises.any()


def test_too_rare_latents_have_a_row_and_no_examples(run: spilled_runs.Run) -> None:
    choice = Choice(latents="all", least_documents=8)
    found = run.gathered(checkpoints()[1], GatherOptions(choice, 6, 3))
    rare = found.latents.filter(status="undefined")
    assert rare.height and found.latents.filter(status="live").height
    assert (rare["reason"] != "").all()
    assert found.examples.join(rare, on="latent", how="semi").is_empty()
    assert rare["is_sampled"].all()


def test_where_nothing_fires_there_are_no_examples(subject: SubjectModel, chunks: list) -> None:
    from dataclasses import replace

    silent = spilled_runs.jump_relu()
    silent = replace(silent, encoder_bias=silent.encoder_bias - 1e6)
    entry = spilled_runs.Checkpoint("silent", silent, spilled_runs.SITE)
    found = passed(subject, chunks, [entry]).gathered(entry, ALL)
    assert found.examples.is_empty() and found.tokens.is_empty() and found.histograms.is_empty()
    assert set(found.latents["status"]) == {"dead"}
    assert found.coverage["live_count"] == 0


class Files:
    def __init__(self) -> None:
        self.tables: dict[str, pl.DataFrame] = {}

    def write_table(self, name: str, frame: pl.DataFrame) -> None:
        self.tables[name] = frame


def _tables(gathered: Gathered) -> dict[str, pl.DataFrame]:
    split = pl.col("split").replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String)
    examples = gathered.examples.rename({"position": "focus"}).with_columns(split)
    empty = {name: pl.DataFrame(schema=schema) for name, schema in TABLES.items()}
    return empty | {"examples": table_of("examples", examples, checkpoint="x"), "contexts": gathered.contexts}


def test_the_store_writes_every_table_in_its_columns(case: tuple) -> None:
    files = Files()
    write_tables(files, _tables(case[0]))
    assert set(files.tables) == {f"latents/{name}.parquet" for name in TABLES}
    for name, schema in TABLES.items():
        assert dict(files.tables[f"latents/{name}.parquet"].schema) == schema


def test_the_store_refuses_a_context_on_two_sides(case: tuple) -> None:
    tables = _tables(case[0])
    moved = pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("score")).otherwise("split")
    swapped = tables["examples"].sort("split").with_columns(split=moved)
    files = Files()
    with pytest.raises(RunStoreError, match="another side"):
        write_tables(files, tables | {"examples": swapped})
    assert not files.tables


def test_the_store_refuses_a_passage_that_is_explained_and_scored(case: tuple) -> None:
    tables = _tables(case[0])
    contexts, examples = tables["contexts"], tables["examples"]
    assert examples["split"].n_unique() == 3
    longest = contexts.sort(pl.col("tokens").list.len())["tokens"][-1].to_list()
    leaking = contexts.with_columns(tokens=pl.lit(longest, dtype=pl.List(pl.Int32)))
    with pytest.raises(RunStoreError, match="scored"):
        write_tables(Files(), tables | {"contexts": leaking})


def test_a_missing_shard_is_never_passed_over(subject: SubjectModel, chunks: list, tmp_path: Path) -> None:
    run = passed(subject, chunks, checkpoints())
    assert isinstance(run.store, MemoryStore)
    key = run.store.keys("firings/jump")[0]
    del run.store._frames[key]
    with pytest.raises(RunStoreError, match="missing or damaged"):
        run.gathered(checkpoints()[1], ALL)
