import dataclasses
import json
import math
import xml.etree.ElementTree as ElementTree

import pytest
from report_examples import density_observations

from autointerp.reporting.chart_data import charts_of
from autointerp.reporting.charts import LIGHT_COLORS, chart_png, chart_svg, log_ticks, vega_lite_specs


@pytest.fixture(scope="module")
def charts(realistic):
    return {chart.name: chart for chart in charts_of(realistic, density_observations(realistic))}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 2.0, [0.01, 0.1, 1.0]),
        (0.045, 1.1, [0.05, 0.1, 0.2, 0.5, 1.0]),
        (13.0, 80.0, [15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]),
    ],
)
def test_logarithmic_ticks_are_round_and_at_least_three(low, high, expected):
    assert log_ticks(low, high) == expected


def test_ticks_lie_in_their_range_at_every_magnitude():
    for exponent in range(-12, 12):
        low = 3.3 * 10.0**exponent
        ticks = log_ticks(low, 40 * low)
        assert 3 <= len(ticks) <= 10
        assert all(low <= tick <= 40 * low for tick in ticks)


def test_every_chart_says_in_words_what_it_shows(charts):
    for chart in charts.values():
        for spec in vega_lite_specs(chart):
            assert chart.title in spec["description"]


def test_all_numbers_of_the_scatter_chart_are_in_its_data(charts):
    (spec,) = vega_lite_specs(charts["sparsity-reconstruction"])
    text = json.dumps(spec, ensure_ascii=False)
    for point in charts["sparsity-reconstruction"].points:
        assert json.dumps(point.y) in text and json.dumps(point.label, ensure_ascii=False) in text


def test_nulls_are_grey_crosses_and_take_no_color_from_others(charts):
    (spec,) = vega_lite_specs(charts["sparsity-reconstruction"])
    marks = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "point")
    color, shape = marks["encoding"]["color"]["scale"], marks["encoding"]["shape"]["scale"]
    place = color["domain"].index("null")
    assert color["range"][place] == "var(--null)"
    assert shape["range"][place] == "cross"
    assert color["range"][:place] == [f"var(--series-{i + 1})" for i in range(place)]


def test_no_entry_of_a_legend_is_left_out_however_many(charts):
    (spec,) = vega_lite_specs(charts["sparsity-reconstruction"])
    many = {
        **spec,
        "data": {"values": [{"a": i, "b": f"entry-{i}-"} for i in range(40)]},
        "layer": [{"mark": "point", "encoding": {"x": {"field": "a"}, "color": {"field": "b"}}}],
    }
    text = chart_svg(many)
    assert all(f">entry-{i}-<" in text for i in range(40))


def test_long_names_get_a_legend_of_fewer_columns(charts):
    chart = charts["sparsity-reconstruction"]
    (spec,) = vega_lite_specs(chart)
    long = tuple(
        dataclasses.replace(point, series=f"{point.series} · a site far away") for point in chart.points
    )
    (other,) = vega_lite_specs(dataclasses.replace(chart, points=long))
    assert spec["config"]["legend"]["columns"] > other["config"]["legend"]["columns"] >= 1
    assert spec["usermeta"]["legendEntry"] < other["usermeta"]["legendEntry"] < 300


def test_histograms_share_their_axes(charts):
    specs = vega_lite_specs(charts["density"])
    assert len(specs) == 8
    domains = {
        json.dumps([spec["layer"][0]["encoding"][axis]["scale"]["domain"] for axis in "xy"]) for spec in specs
    }
    assert len(domains) == 1


def test_pictures_for_a_page_less_place_use_the_light_colors(charts):
    (spec,) = vega_lite_specs(charts["sparsity-reconstruction"])
    svg = chart_svg(spec)
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "var(" not in svg
    assert LIGHT_COLORS["--series-1"] in svg
    assert chart_png(spec, scale=0.5).startswith(b"\x89PNG")


def test_light_colors_are_those_of_the_page():
    from importlib import resources

    style = (resources.files("autointerp.reporting") / "templates" / "report.css").read_text()
    for name, color in LIGHT_COLORS.items():
        assert f"{name}: light-dark({color}," in style


@pytest.mark.parametrize("theme", [0, 1])
def test_text_and_series_stand_out_from_the_page(theme):
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for graphics."""
    import re
    from importlib import resources

    style = (resources.files("autointerp.reporting") / "templates" / "report.css").read_text()
    found = re.findall(r"(--[\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    colors = {name: pair[theme] for name, *pair in found}
    for name, color in colors.items():
        if name in {"--paper", "--wash", "--line"} or name.endswith("-wash"):
            continue
        if name.startswith("--heat-"):
            continue  # one scale, whose strengths are compared in test_heatmap
        least = 3.0 if name.startswith(("--series", "--null")) else 4.5
        assert _contrast(color, colors["--paper"]) >= least, name
    assert _contrast(colors["--good"], colors["--good-wash"]) >= 4.5
    assert _contrast(colors["--bad"], colors["--bad-wash"]) >= 4.5
    assert _contrast(colors["--ink-2"], colors["--wash"]) >= 4.5


def _contrast(one, other):
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else math.pow((p + 0.055) / 1.055, 2.4) for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
