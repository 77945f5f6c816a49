import dataclasses
import io
import re

import pytest
from latent_examples import CHECKPOINTS, DEAD, LIVE, UNDEFINED, UNSAMPLED, write_run
from rich.console import Console

from autointerp.reporting.example_groups import ExampleChoice
from autointerp.reporting.latent_dashboard import latent_dashboard, latent_table, rendered
from autointerp.reporting.latent_list import latent_list
from autointerp.reporting.latent_panels import frequency, panel_lines, share, strength
from autointerp.reporting.latent_view import HistogramBar, Neighbour, TokenCount, latent_view

FIRST, SECOND = CHECKPOINTS
WIDTHS = (40, 60, 80, 100, 140, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture(scope="module")
def view(folder):
    return latent_view(folder, latent=LIVE)


def drawn(found, *, width=100, is_marked=True):
    colors = None if is_marked else "truecolor"
    console = Console(width=width, file=io.StringIO(), force_terminal=not is_marked, color_system=colors)
    console.print(rendered(found, width=width, is_marked=is_marked))
    return console.file.getvalue()


def with_firing(view, **changes):
    return dataclasses.replace(view, firing=dataclasses.replace(view.firing, **changes))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("latent", [DEAD, UNDEFINED, UNSAMPLED, LIVE])
def test_no_line_is_wider_than_the_terminal(folder, latent, width):
    view = latent_view(folder, checkpoint=SECOND, latent=latent)
    console = Console(width=400, file=io.StringIO())
    for renderable in latent_dashboard(view, width=width, is_marked=True).renderables:
        if renderable.no_wrap:
            assert renderable.cell_len <= width
    console.width = width
    for line in console.render_lines(latent_dashboard(view, width=width, is_marked=True), pad=False):
        assert sum(segment.cell_length for segment in line) <= width


def test_the_first_lines_say_it_in_words(view):
    view = with_firing(
        view,
        density=1 / 812,
        tokens_fired=146,
        documents_fired=93,
        document_count=258,
        maximum=4.1,
        quantiles={"q50": 0.8},
    )
    view = dataclasses.replace(view, latent=17, checkpoint="topk-4096-k32")
    lines = drawn(view, width=140).splitlines()
    assert lines[0] == "latent 17 of topk-4096-k32"
    assert lines[1] == (
        "fires on 1 in 812 tokens, in 93 of 258 documents; its activation is 0.8 in the median, at most 4.1"
    )


def test_a_frequent_latent_is_told_as_a_share(view):
    assert "fires on 73 % of tokens, in" in drawn(with_firing(view, density=0.73))


def test_a_dead_latent_says_so(folder):
    text = drawn(latent_view(folder, latent=DEAD))
    assert text.splitlines()[0] == f"latent {DEAD} of {FIRST} · dead · not sampled"
    assert "fires on none of the 1\u202f188 tokens" in text
    assert "--set" not in text


def test_a_latent_that_was_not_sampled_says_how_to_get_it(folder):
    text = " ".join(drawn(latent_view(folder, latent=UNSAMPLED)).split())
    assert "not among the 14 sampled latents" in text
    assert f"--set sampling.latents=[{UNSAMPLED}]" in text
    assert "in the mean" in text and "Examples" not in text


def test_an_undefined_latent_says_why(folder):
    text = drawn(latent_view(folder, latent=UNDEFINED))
    assert "undefined: fires in too few documents for three splits" in text


def test_a_sampler_without_examples_in_a_split_names_the_split(folder):
    view = latent_view(folder, latent=LIVE, choice=ExampleChoice(split="score"))
    assert "same_token: none of this latent in split score" in drawn(view).splitlines()


def test_a_sampler_without_examples_is_not_passed_over(view):
    lines = drawn(view).splitlines()
    assert "same_token: none of this latent" in lines
    assert "near_misses: none in this run" in lines


def test_every_example_stands_under_its_sampler_with_split_and_value(view):
    text = drawn(view, width=140)
    at = text.index("Examples")
    for group in view.groups:
        if group.examples:
            at = text.index(
                f"range {group.stratum + 1} of 3" if group.stratum_count > 1 else f"\n{group.sampler}  ", at
            )
            rows = re.findall(r"^  (explain|validate|score) +([\d.]+|silent)  ", text[at:], re.MULTILINE)
            found = [(split, value) for split, value in rows[: len(group.examples)]]
            assert found == [
                (item.split, "silent" if item.value is None else strength(item.value))
                for item in group.examples
            ]
            assert f"{len(group.examples)} of {group.kept}, drawn from {group.population}" in text[at:]


def test_the_drawn_token_of_firing_text_is_in_brackets_and_that_of_blindly_drawn_text_is_not(folder):
    for sampler in ("top", "silent", "similar", "neighbours"):
        view = latent_view(folder, latent=LIVE, choice=ExampleChoice(samplers=(sampler,), count=3))
        text = drawn(view).split("Examples")[1].split("\n", 1)[1]
        count = text.count("«")
        assert count == (0 if sampler in ("silent", "similar") else 3), sampler


def test_colours_stand_for_brackets_on_a_terminal(view):
    text = drawn(view, is_marked=False)
    assert "«" not in text and "‹" not in text
    assert "\x1b[1;4;30;48;2;255;140;26m" in text  # bold, underlined, on the strongest shade


@pytest.mark.parametrize("is_marked", [True, False])
def test_texts_and_names_send_no_escapes_and_no_markup(folder, is_marked):
    for latent in (3, 5, 15):
        view = latent_view(folder, checkpoint=SECOND, latent=latent)
        text = drawn(view, width=140, is_marked=is_marked)
        without_styles = re.sub(r"\x1b\[[\d;]*m", "", text)
        assert without_styles.startswith(f"latent {latent} of [bold]relu[/bold] :smile:")
        assert all(c.isprintable() or c in "\n\u202f" for c in without_styles)
        if is_marked:
            assert without_styles == text
    assert "[/]" in drawn(latent_list(folder, checkpoint=SECOND), width=140)


def test_a_count_that_may_fall_short_is_at_least(view):
    counts = (TokenCount(1, " a", 5, 0.25, 1), TokenCount(2, "\n", 2, 0.031, 0))
    view = dataclasses.replace(view, tokens={"before": counts, "at": (), "after": ()})
    text = drawn(view)
    assert re.search(r"␣a +≥ 25 %", text) and re.search(r"⏎ +3.1 %", text)
    assert "none" in text


def test_neighbours_are_told_by_number(view):
    near = (Neighbour(512, 0.834, None),)
    view = dataclasses.replace(view, nearest=near, co_firing=(Neighbour(7, 0.41, 33.3),))
    text = drawn(view)
    assert re.search(r"latent 512 +0\.83\b", text)
    assert re.search(r"latent 7 +41 % ×33\b", text)


def chart_of(view, bars, **firing):
    view = with_firing(dataclasses.replace(view, histogram=tuple(bars)), **firing)
    lines = [line.plain[:40].rstrip() for line in panel_lines(view, width=100)]
    return lines[1:7]


def test_the_chart_is_as_high_as_the_counts(view):
    bars = [HistogramBar(2.0**i, 2.0 ** (i + 1), count) for i, count in enumerate([0, 1, 40, 20])]
    lines = chart_of(view, bars, maximum=16.0, quantiles={"q50": 6.0})
    heights = [
        sum("▁▂▃▄▅▆▇█".find(line[column : column + 1] or " ") + 1 for line in lines[:5])
        for column in (0, 10, 20, 30)
    ]
    assert heights == [0, 1, 40, 20]
    assert lines[5] == "1" + " " * 24 + "▲ 6" + " " * 10 + "16"


def test_the_chart_of_one_bar(view):
    lines = chart_of(view, [HistogramBar(1.0, 1.02, 3)], maximum=1.01, quantiles={"q50": 1.01})
    assert lines[:5] == ["█" * 40] * 5
    assert lines[5].startswith("1 ") and lines[5].endswith("1.02")


def test_numbers_in_words():
    assert [frequency(value) for value in (0.0, 1 / 812, 1 / 12345, 0.25, 1.0)] == [
        "none",
        "1 in 812",
        "1 in 12\u202f345",
        "25 %",
        "100 %",
    ]
    assert [share(value) for value in (0.0, 0.0001, 0.031, 0.41, 0.9999, 1.0)] == [
        "0.0 %",
        "< 0.1 %",
        "3.1 %",
        "41 %",
        "99 %",
        "100 %",
    ]
    assert [strength(value) for value in (None, 4.1049, 1234.5, -0.01234)] == [
        "–",
        "4.1",
        "1\u202f230",
        "−0.0123",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_says_how_many_more_there_are(folder, width):
    listing = latent_list(folder, count=4)
    text = drawn(listing, width=width)
    assert "the first 4 of 14" in " ".join(text.split())
    assert "--examples 14" in " ".join(text.split())
    assert all(len(line) <= width for line in text.splitlines())
    assert ("promotes" in text) == (width >= 80)
    if width >= 80:
        for latent in listing.latents:
            assert re.search(
                rf"^ +{latent.latent} +{frequency(latent.density)} +{latent.documents_fired} ",
                text,
                re.MULTILINE,
            )


@pytest.mark.parametrize("width", WIDTHS)
def test_the_lists_figures_are_never_cut(folder, width):
    listing = latent_list(folder)
    wide = {"peak_token": "x" * 50, "peak_share": 1.0, "promoted": ("y" * 40,) * 3, "density": 1 / 7830}
    latents = tuple(dataclasses.replace(latent, **wide) for latent in listing.latents)
    text = drawn(dataclasses.replace(listing, latents=latents), width=width)
    assert all(len(line) <= width for line in text.splitlines())
    assert text.count(frequency(1 / 7830)) == len(latents)
    assert text.count("… 100 %") == len(latents)
    assert "undefi…" not in text and "fires…" not in text


def test_the_whole_list_has_no_more(folder):
    text = drawn(latent_list(folder))
    assert "all 14" in text and "lists all" not in text
    assert "undefined" in text


def test_an_empty_list(folder):
    listing = dataclasses.replace(latent_list(folder), latents=(), sampled_count=0)
    console = Console(width=80, file=io.StringIO())
    console.print(latent_table(listing, width=80))
    assert "all 0" in console.file.getvalue()
