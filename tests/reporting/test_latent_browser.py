"""The latent browser's data against the tables that it is made from, sizes, and what must not be in it."""

import base64
import dataclasses
import json
import zlib

import explanation_examples
import latent_examples
import numpy as np
import polars as pl
import pytest
from latent_examples import CHECKPOINTS, HOSTILE, LIVE

from autointerp.reporting.explanation_rows import explained_rows
from autointerp.reporting.html_page import write_html_page
from autointerp.reporting.latent_browser import BrowserLimits, latent_browser
from autointerp.reporting.latent_browser_examples import QUOTAS, with_window
from autointerp.reporting.latent_browser_facts import graph_lines
from autointerp.reporting.latent_browser_mistakes import judged_wrong
from autointerp.reporting.latent_browser_packing import (
    TokenCode,
    code_text,
    packed,
    shown_text,
    three_digits,
    unpacked,
)
from autointerp.reporting.latent_browser_scores import disagreement
from autointerp.reporting.latent_tables import LatentTables
from autointerp.scoring.auroc import auroc
from autointerp.scoring.predictions import PREDICTIONS

ORDER = list(QUOTAS)
SPLITS = ("explain", "validate", "score")


def decoded(page, number):
    """The texts of a context, as the page's script reads it."""
    codes = [ord(character) for character in page["contexts"][number]]
    return [page["texts"][(code if code < 0xD800 else code - 0x800) - 0x23] for code in codes]


def judged(latent, context, *, method, fires, value, **more):
    row = dict.fromkeys(PREDICTIONS)
    row |= {"checkpoint": CHECKPOINTS[0], "latent": latent, "explainer": "highlighted", "explanation": "own"}
    row |= {"method": method, "judge": "gpt", "passage": f"{context:016x}:1-9", "fires": fires}
    return row | {"value": value, "is_probability": True, "status": "measured"} | more


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with explanations, predictions, matches and a graph."""
    folder = tmp_path_factory.mktemp("browsed") / "run"
    run = latent_examples.write_run(folder)
    explanation_examples.write_lines(
        folder, *explanation_examples.lines(CHECKPOINTS[0], range(3, 14), text="fires \u202e<b>on</b>")
    )
    run.predicted = predictions(run)
    (folder / "predictions").mkdir()
    pl.DataFrame(run.predicted, schema=PREDICTIONS).write_parquet(folder / "predictions" / "000.parquet")
    matches = {"checkpoint": [CHECKPOINTS[0]], "latent": [LIVE], "other_checkpoint": [CHECKPOINTS[1]]}
    kinds = {"latent": pl.UInt32, "other_latent": pl.UInt32}
    pl.DataFrame(matches | {"other_latent": [7], "cosine": [0.81234]}, schema_overrides=kinds).write_parquet(
        folder / "latents" / "matches.parquet"
    )
    nodes = [[-1, 5, None, 0], [0, 3, 2.5, 3], [0, -1, None, 0], [2, -2, 0.5, 1]]
    data = {"kind": "neuron_graph", "version": 1, "match": "first", "nodes": nodes}
    graph = {"checkpoint": [CHECKPOINTS[0]], "latent": [LIVE], "status": ["built"], "reason": [""]}
    graph["data"] = [json.dumps(data | {"texts": [[5, " if"], [3, "\n"]]})]
    pl.DataFrame(graph, schema_overrides=kinds).write_parquet(folder / "latents" / "graphs.parquet")
    return run


def predictions(run):
    """Detection right, missed and falsely alarmed, and a simulation, on contexts of latent LIVE."""
    own = run.rows("examples", checkpoint=CHECKPOINTS[0], latent=LIVE, split="score")
    fired = own.filter(pl.col("value").is_not_null())["context"].unique().sort().to_list()
    silent = own.filter(pl.col("value").is_null())["context"].unique().sort().to_list()
    rows = [judged(LIVE, fired[0], method="detection", fires=True, value=0.9)]
    rows += [judged(LIVE, fired[1], method="detection", fires=True, value=0.1)]
    rows += [judged(LIVE, context, method="detection", fires=False, value=v)
             for context, v in zip(silent, (0.5, 0.2, 0.8), strict=False)]  # fmt: skip
    near, far = ([0.0] * 7 + [1.0], [0.1] * 8), ([3.0] + [0.0] * 7, [0.0] * 7 + [float("nan")])
    for context, (truth, said) in zip(fired, (near, far), strict=False):
        rows.append(
            judged(LIVE, context, method="simulation", fires=True, value=None, truth=truth, predicted=said)
        )
    others = {"judge": "constant"}, {"explanation": "borrowed"}, {"status": "refused"}, {"passage": "text 3"}
    return rows + [rows[1] | other for other in others]


@pytest.fixture(scope="module")
def browser(run):
    report = explanation_examples.explained_report(latent_examples.report_of(CHECKPOINTS))
    return latent_browser(run.folder, report, explained_rows(run.folder))


@pytest.fixture(scope="module")
def index(browser):
    return unpacked(browser.index)


@pytest.fixture(scope="module")
def page(browser):
    return unpacked(browser.embedded)


def entry_of(index, page, latent, checkpoint=0):
    places = [(row["c"], row["i"]) for row in index["rows"]]
    return page["latents"][places.index((checkpoint, latent))]


def test_every_sampled_latent_is_listed_in_the_order_of_the_report(run, index, browser):
    sampled = run.rows("latents", is_sampled=True)
    expected = [
        (number, latent)
        for number, name in enumerate(CHECKPOINTS)
        for latent in sorted(sampled.filter(checkpoint=name)["latent"].to_list())
    ]
    assert [(row["c"], row["i"]) for row in index["rows"]] == expected
    assert [each["null"] for each in index["checkpoints"]] == [False, True]
    assert index["files"] == [] and browser.files == {} and browser.trouble == ""
    assert f"{len(expected)} sampled latents of 2 dictionaries" in browser.lead


def test_examples_are_random_then_by_strength_then_the_strongest_then_silent(run, index, page):
    for row in index["rows"]:
        groups = page["latents"][index["rows"].index(row)].get("groups", [])
        order = [(group[0], group[1]) for group in groups]
        assert order == sorted(order)
        for sampler, stratum, strata, kept, population, entries in groups:
            name = ORDER[sampler]
            own = run.rows("examples", checkpoint=CHECKPOINTS[row["c"]], latent=row["i"], sampler=name)
            own = own.filter(stratum=stratum)
            assert kept == own.height and len(entries) == min(kept, QUOTAS[name])
            assert strata == (latent_examples.STRATA if name == "quantiles" else 1)
            by_split = own.group_by("split").agg(pl.col("population").max())
            assert population == by_split["population"].sum()
            for each, expected in zip(entries, expected_examples(own, name), strict=False):
                assert_same_example(run, page, each, expected)


def expected_examples(own, name):
    """In the order in which `autointerp show` deals them: the strongest of top, else by rank and split."""

    def key(row):
        strength = -abs(row["value"]) if name == "top" else 0.0
        return strength, row["rank"], SPLITS.index(row["split"])

    return sorted(own.iter_rows(named=True), key=key)


def assert_same_example(run, page, each, expected):
    number, begin, end, focus, split, *fired = each
    context = run.rows("contexts", context=expected["context"]).row(0, named=True)
    texts = dict(run.tables["vocabulary"].iter_rows())
    window = context["tokens"][expected["begin"] : expected["end"]]
    assert decoded(page, number)[begin:end] == [shown_text(texts[token]) for token in window]
    assert focus == expected["focus"] - expected["begin"]
    assert SPLITS[split] == expected["split"]
    places, values = fired or ([], [])
    assert [place + expected["begin"] for place in places] == expected["fired"]
    np.testing.assert_allclose(values, expected["activations"], rtol=0.00501)


def test_a_long_window_is_cut_around_its_focus():
    rows = pl.DataFrame(
        {"begin": [1, 1, 1, 1, 50], "end": [2000, 2000, 2000, 90, 2000], "focus": [1, 1000, 1999, 80, 60]},
        schema=dict.fromkeys(("begin", "end", "focus"), pl.UInt32),
    )
    found = with_window(rows)
    assert found["begin"].to_list() == [1, 904, 1872, 1, 50]
    assert found["end"].to_list() == [129, 1032, 2000, 90, 178]
    assert found.select(
        ((pl.col("begin") <= pl.col("focus")) & (pl.col("focus") < pl.col("end"))).all()
    ).item()


def test_what_was_judged_wrong_is_shown_the_worst_first(run, index, page):
    detection, simulation = entry_of(index, page, LIVE)["mistakes"]
    silent = sum(row["method"] == "detection" and row["fires"] is False for row in run.predicted)
    assert silent == 3
    assert detection["asked"] == 5 and detection["wrong"] == 3
    assert [(fires, said) for fires, said, *_ in detection["passages"]] == [(0, 0.8), (0, 0.5), (1, 0.1)]
    for _fires, _said, shown in detection["passages"]:
        assert shown[2] - shown[1] == 8 and SPLITS[shown[4]] == "score"
    assert simulation["asked"] == 2 and "wrong" not in simulation
    assert [passage[3] for passage in simulation["passages"]] == [[0] * 8, [0.1] * 8]
    assert not any("mistakes" in each for each in page["latents"] if each is not entry_of(index, page, LIVE))


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_that_is_no_probability_is_wrong_where_it_tells_nothing(run, tmp_path, seed):
    """Against shares counted pair by pair; their mean is the AUROC."""
    rng = np.random.default_rng(seed)
    contexts = run.rows("examples", checkpoint=CHECKPOINTS[0], latent=LIVE)["context"].unique().to_list()
    rows = [
        judged(LIVE, context, method="embedding", fires=bool(rng.integers(2)), value=float(rng.integers(4)))
        | {"is_probability": False}
        for context in contexts[:14]
    ]
    shares = []
    for row in rows:
        others = [other["value"] for other in rows if other["fires"] != row["fires"]]
        sign = 1 if row["fires"] else -1
        below = [np.sign(sign * (row["value"] - other)) / 2 + 0.5 for other in others]
        shares.append(float(np.mean(below)) if below else np.nan)
    (tmp_path / "predictions").mkdir()
    pl.DataFrame(rows, schema=PREDICTIONS).write_parquet(tmp_path / "predictions" / "0.parquet")
    firings = run.rows("examples", checkpoint=CHECKPOINTS[0], latent=LIVE).unique("context")
    found = judged_wrong(LatentTables(tmp_path), CHECKPOINTS[0], [LIVE], firings)
    wrong = [(share, row) for share, row in zip(shares, rows, strict=True) if share <= 0.5]
    if any(row["fires"] for row in rows) and not all(row["fires"] for row in rows):
        fires = np.array([row["fires"] for row in rows])
        score = auroc(np.array([row["value"] for row in rows]), fires).value
        assert np.mean(np.array(shares)[fires]) == pytest.approx(score)
        assert np.mean(np.array(shares)[~fires]) == pytest.approx(score)
    assert found["wrong"].to_list() == [len(wrong)] * found.height
    for fires in (False, True):
        worst = sorted(share for share, row in wrong if row["fires"] == fires)[:3]
        by_context = {int(row["passage"][:16], 16): share for share, row in wrong}
        shown = [by_context[context] for context in found.filter(fires=fires)["context"]]
        assert shown == pytest.approx(worst)


def test_a_passage_shows_where_the_latent_really_fires(run, index, page):
    passage = entry_of(index, page, LIVE)["mistakes"][1]["passages"][1][2]
    context = int(next(row for row in run.predicted if row["method"] == "simulation")["passage"][:16], 16)
    rows = run.rows("examples", checkpoint=CHECKPOINTS[0], latent=LIVE, context=context)
    expected = [place - 1 for place in rows["fired"][0].to_list() if 1 <= place < 9]
    assert (passage[5] if len(passage) > 5 else []) == expected


def test_scores_stand_beside_those_of_another_latents_explanation(index, page):
    row = next(row for row in index["rows"] if (row["c"], row["i"]) == (0, 4))
    assert [metric["key"] for metric in index["metrics"]] == ["explanation.detection_auroc"]
    assert row["v"] == [[0.84, 0.74, 0.94, 0.6]]
    said, refused = entry_of(index, page, 4)["explanations"]
    by_kind = {tuple(index["kinds"][kind][:2]): rest for kind, *rest in said["scores"]}
    title = index["metrics"][0]["title"]
    assert by_kind[title, ""] == [20, [0.84, 0.74, 0.94], [0.6, 0.5, 0.7], None]
    assert by_kind[title, "negatives hard"] == [20, [0.1, 0.0, 0.2], None, None]
    assert by_kind["Simulation, correlation", ""] == [0, "constant prediction", None, None]
    assert len(by_kind) == 3  # the judge that always says no is not among them
    assert refused["why"] == "cut_off" and "text" not in refused
    assert "x" not in row  # one scorer disagrees with nobody


def test_texts_are_made_visible(index, page):
    row = next(row for row in index["rows"] if (row["c"], row["i"]) == (0, 4))
    assert row["t"] == entry_of(index, page, 4)["explanations"][0]["text"] == "fires \ufffd<b>on</b> 4"
    for text in (*page["texts"], *index["texts"]):
        assert text.isprintable()
    assert "\ufffd[31m" in page["texts"]


def test_histograms_tokens_matches_and_graphs_are_those_of_the_tables(run, index, page):
    entry = entry_of(index, page, LIVE)
    counted = run.rows("histograms", checkpoint=CHECKPOINTS[0], latent=LIVE, unit="firing")["count"].sum()
    assert sum(entry["histogram"]["counts"]) == counted and len(entry["histogram"]["counts"]) <= 24
    at = run.rows("tokens", checkpoint=CHECKPOINTS[0], latent=LIVE, place="at").sort("rank").head(8)
    texts = dict(run.tables["vocabulary"].iter_rows())
    shown = [(page["texts"][number], value) for number, value, *_ in entry["at"]]
    assert [text for text, _ in shown] == [shown_text(texts[token]) for token in at["token"]]
    np.testing.assert_allclose([value for _, value in shown], at["share"], rtol=0.005)
    assert entry["matches"] == [[CHECKPOINTS[1], 7, 0.812]]
    assert entry["graph"] == ["␣if", "  ├ ⏎   2.5 ×3", "  └ * ← ⊢   0.5 ×1"]
    near = run.rows("neighbours", checkpoint=CHECKPOINTS[0], latent=LIVE, kind="decoder_cosine")
    assert [other for other, _ in entry["near"]] == near.sort("rank")["other"].to_list()


def test_a_graph_that_cannot_be_read_is_left_out(run, index, tmp_path):
    for name in ("matches", "graphs"):
        for content in ("{", "[]", '{"kind": "neuron_graph", "version": 1}'):
            folder = tmp_path / name / str(len(content))
            (folder / "latents").mkdir(parents=True)
            for file in (run.folder / "latents").iterdir():
                (folder / "latents" / file.name).write_bytes(file.read_bytes())
            broken = {"checkpoint": [CHECKPOINTS[0]], "latent": [LIVE], "data": [content], "cosine": ["x"]}
            pl.DataFrame(broken, schema_overrides={"latent": pl.UInt32}).write_parquet(
                folder / "latents" / f"{name}.parquet"
            )
            found = latent_browser(folder, latent_examples.report_of(CHECKPOINTS))
            assert found.trouble == ""
            entry = entry_of(index, unpacked(found.embedded), LIVE)
            assert ("graph" in entry) == (name != "graphs")
            assert ("matches" in entry) == (name != "matches")


def test_a_graph_of_many_paths_is_cut():
    from autointerp.explaining.graph_trie import Graph, Node

    nodes = tuple(Node(-1, token, 1.0, 1) for token in range(200))
    lines = graph_lines(Graph(nodes), {token: f"t{token}" for token in range(200)})
    assert len(lines) == 61 and lines[0] == "t0   1 ×1" and lines[-1] == "…"


def test_many_latents_go_to_files_named_by_what_they_hold(run, page, index):
    report = explanation_examples.explained_report(latent_examples.report_of(CHECKPOINTS))
    limits = BrowserLimits(embedded_latents=5, page_latents=6)
    found = latent_browser(
        run.folder, report, explained_rows(run.folder), folder="a b_latents", limits=limits
    )
    listed = unpacked(found.index)
    assert found.embedded == ""
    assert [name for name, _ in listed["files"]] == [
        f"a%20b_latents/{n:03}.css" for n in range(len(found.files))
    ]
    entries = []
    for (_, name), content in zip(listed["files"], found.files.values(), strict=True):
        opening, text, closing = content.split('"')
        assert opening == f"#latent-store{{{name}:" and closing == "}\n"
        assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
        entries.append(unpacked(text)["latents"])
    assert [len(part) for part in entries] == [
        sum(row["p"] == number for row in listed["rows"]) for number in range(len(entries))
    ]
    assert max(map(len, entries)) == 6
    for part in entries:
        assert all("firing" in entry for entry in part)
    flat = [entry for part in entries for entry in part]
    assert [entry["firing"] for entry in flat] == [entry["firing"] for entry in page["latents"]]
    assert [{**row, "p": 0} for row in listed["rows"]] == index["rows"]


def test_one_file_may_have_to_hold_all(run):
    report = latent_examples.report_of(CHECKPOINTS)
    small = BrowserLimits(embedded_latents=0, embedded_bytes=0)
    assert latent_browser(run.folder, report, limits=small).files
    alone = latent_browser(run.folder, report, limits=dataclasses.replace(small, needs_one_file=True))
    assert alone.files == {} and alone.embedded


def test_a_list_too_long_is_a_sample_and_says_so(run):
    report = latent_examples.report_of(CHECKPOINTS)
    found = latent_browser(run.folder, report, limits=BrowserLimits(listed_latents=7))
    rows = unpacked(found.index)["rows"]
    assert len(rows) == 7 == len({(row["c"], row["i"]) for row in rows})
    assert "drawn from" in found.lead
    more = unpacked(latent_browser(run.folder, report, limits=BrowserLimits(listed_latents=9)).index)["rows"]
    assert {(row["c"], row["i"]) for row in rows} < {(row["c"], row["i"]) for row in more}


def test_without_text_nothing_of_the_corpus_or_of_a_model_is_left(run):
    report = explanation_examples.explained_report(latent_examples.report_of(CHECKPOINTS))
    found = latent_browser(run.folder, report, explained_rows(run.folder), with_text=False)
    index, page = unpacked(found.index), unpacked(found.embedded)
    assert index["texts"] == page["texts"] == page["contexts"] == []
    assert not {"t", "k", "o"} & {key for row in index["rows"] for key in row}
    for entry in page["latents"]:
        assert not {"groups", "mistakes", "graph", "at", "promoted"} & entry.keys()
        assert all("text" not in each for each in entry.get("explanations", ()))
    text = json.dumps([index["rows"], page], ensure_ascii=False)
    words = [word for word in run.tables["vocabulary"]["text"].to_list() if word.strip().isalpha()]
    assert len(words) > 20
    assert not [word for word in words if f'"{word}"' in text]
    assert "fires \ufffd" not in text
    assert sum("v" in row for row in index["rows"]) == 11  # the numbers stay


@pytest.mark.parametrize("table", ["examples", "contexts", "histograms", "vocabulary"])
def test_a_damaged_table_leaves_a_report_that_says_so(run, tmp_path, table):
    folder = tmp_path / "run"
    (folder / "latents").mkdir(parents=True)
    for file in (run.folder / "latents").iterdir():
        (folder / "latents" / file.name).write_bytes(file.read_bytes())
    (folder / "latents" / f"{table}.parquet").write_bytes(b"PAR1 no table")
    found = latent_browser(folder, latent_examples.report_of(CHECKPOINTS))
    assert f"{table}.parquet" in found.trouble and "\n" not in found.trouble
    assert found.index == found.embedded == ""


def test_a_run_without_latents_has_no_browser(tmp_path):
    assert latent_browser(tmp_path, latent_examples.report_of(CHECKPOINTS)) is None


def test_files_of_an_earlier_page_do_not_stay_behind(run, tmp_path, monkeypatch):
    report = latent_examples.report_of(CHECKPOINTS)
    folder = tmp_path / "page_latents"
    monkeypatch.setattr(BrowserLimits, "__init__", _tiny(BrowserLimits.__init__))
    write_html_page(tmp_path / "page.html", run.folder, report)
    assert len(list(folder.iterdir())) > 2
    (folder / "999.css").write_text("of an earlier run")
    (folder / "mine.txt").write_text("not ours")
    write_html_page(tmp_path / "page.html", run.folder, report, with_text=False)
    assert not (folder / "999.css").exists() and (folder / "mine.txt").exists()
    for file in folder.glob("*.css"):
        assert unpacked(file.read_text().split('"')[1])["contexts"] == []
    write_html_page(tmp_path / "page.html", tmp_path, report)
    assert [file.name for file in folder.iterdir()] == ["mine.txt"]


def _tiny(make):
    def made(self, **options):
        make(self, **({"embedded_latents": 1, "page_latents": 4} | options))

    return made


def test_400_latents_with_20_contexts_of_128_tokens_fit_into_3_megabytes(tmp_path):
    """30,000 tokens as natural text has them: the frequency of a rank in proportion to its inverse."""
    rng = np.random.default_rng(0)
    latent_examples.write_run(tmp_path, checkpoints=("big",))
    weights = 1 / np.arange(1, 30_001)
    tokens = rng.choice(30_000, size=(8000, 129), p=weights / weights.sum())
    folder = tmp_path / "latents"
    read = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("latents", "contexts", "examples")}
    some = read["contexts"].head(1).drop("context", "tokens")
    contexts = some.join(pl.DataFrame({"context": np.arange(8000), "tokens": tokens}), how="cross")
    contexts.select(pl.col(name).cast(kind) for name, kind in read["contexts"].schema.items()).write_parquet(
        folder / "contexts.parquet"
    )
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    texts = ["".join(rng.choice(letters, size=5)) for _ in range(30_000)]
    pl.DataFrame({"token": pl.Series(range(30_000), dtype=pl.Int32), "text": texts}).write_parquet(
        folder / "vocabulary.parquet"
    )
    row = read["latents"].filter(latent=LIVE).drop("latent")
    numbers = pl.DataFrame({"latent": pl.Series(range(400), dtype=pl.UInt32)})
    row.join(numbers, how="cross").select(read["latents"].columns).write_parquet(folder / "latents.parquet")
    quota = [
        (name, rank)
        for name, count in QUOTAS.items()
        for rank in range(count * (5 if name == "quantiles" else 1))
    ]
    rows = []
    for latent in range(400):
        for place, (sampler, rank) in enumerate(quota[:20]):
            fired = sorted(rng.choice(np.arange(1, 129), size=4, replace=False).tolist())
            stratum, turn = (rank, 0) if sampler == "quantiles" else (0, rank)
            rows.append(
                {
                    "checkpoint": "big",
                    "latent": latent,
                    "sampler": sampler,
                    "split": "explain",
                    "stratum": stratum,
                }
                | {"rank": turn, "context": 20 * latent + place, "focus": fired[0], "value": 1.0, "begin": 1}
                | {"end": 129, "fired": fired, "activations": rng.gamma(2, size=4).tolist()}
                | {"population": 100, "weight": 1.0}
            )
    pl.DataFrame(rows, schema=read["examples"].schema).write_parquet(folder / "examples.parquet")
    explained = [
        {"checkpoint": "big", "latent": latent, "explainer": "e", "status": "explained",
         "text": " ".join(rng.choice(texts, size=20)), "scores": scores(rng)}
        for latent in range(400)
    ]  # fmt: skip
    report = latent_examples.report_of(("big",))
    found = latent_browser(tmp_path, report, explained)
    assert found.files == {}
    page = unpacked(found.embedded)
    assert len(page["contexts"]) == 8000
    assert sum(map(len, page["contexts"])) == 8000 * 128
    assert len(found.index) + len(found.embedded) <= 3_000_000, (len(found.index), len(found.embedded))
    write_html_page(tmp_path / "report.html", tmp_path, report, explained=explained)
    assert (tmp_path / "report.html").stat().st_size <= 3_100_000


def scores(rng):
    found = []
    for metric in ("detection_auroc", "fuzzing_auroc", "simulation_correlation"):
        for kind in ("own", "borrowed", "empty"):
            value = {"value": rng.random(), "ci_low": rng.random(), "ci_high": rng.random(), "n": 40}
            found.append({"metric": f"explanation.{metric}", "judge": "j", "explanation": kind} | value)
    return found


def test_contexts_are_code_points_that_a_browser_reads_back():
    numbers = [0, 1, 57, 92, 93, 2000, 0xD800 - 0x23 - 1, 0xD800 - 0x23, 0xD800, 0xFFFF, 0x10000, 250_000]
    text = code_text(numbers)
    assert len(text) == len(numbers) == len(text.encode("utf-8").decode("utf-8"))
    assert [(ord(c) if ord(c) < 0xD800 else ord(c) - 0x800) - 0x23 for c in text] == numbers
    assert '"' not in text


def test_scorers_disagree_by_how_far_they_are_apart_between_chance_and_perfect():
    names = ("detection_auroc", "fuzzing_auroc", "simulation_correlation", "detection_precision")
    metrics = [{"key": f"explanation.{name}"} for name in names]
    values = [[0.9, 0, 1, None], [0.5, 0, 1, None], [0.6, 0, 1, None], [0.0, 0, 1, None]]
    assert disagreement(values, metrics) == pytest.approx(
        0.8
    )  # 0.8, 0, 0.6; the last is no scorer of its own
    assert disagreement([values[0], None, values[2]], metrics) == pytest.approx(0.2)
    assert disagreement([None, values[1], None], metrics) is None


def test_common_tokens_get_small_numbers():
    code = TokenCode(TokenCode.counted([[7, 7, 3], [3, 3, 9]]), {7: "seven", 3: " "})
    assert code.texts == [" ", "seven", "[9]"]
    assert code.code([3, 7, 9]) == code_text([0, 1, 2]) and code.number(9) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1234.5, 1230), (0.0012345, 0.00123), (-7.996, -8), (0.0, 0), (5e-324, 5e-324), (1.2345e300, 1.23e300)],
)
def test_three_digits(value, expected):
    assert three_digits(value) == expected
    assert type(three_digits(value)) is (
        int if float(expected).is_integer() and abs(expected) < 1e6 else float
    )


@pytest.mark.parametrize("text", [*HOSTILE, "\x00", "a\nb", "\ud800", "x" * 1_000_000, "\u2066" * 500])
def test_no_text_is_long_or_has_a_character_without_a_look(text):
    shown = shown_text(text)
    assert shown.isprintable() and len(shown) <= 120
    assert shown_text(shown) == shown


def test_what_is_packed_is_deflated_json_in_base64():
    value = {"a": ["<script>", 1.5, None, "é\u2028"]}
    text = packed(value)
    assert json.loads(zlib.decompress(base64.b64decode(text, validate=True))) == value == unpacked(text)
    with pytest.raises(ValueError, match="JSON"):
        packed(float("nan"))
