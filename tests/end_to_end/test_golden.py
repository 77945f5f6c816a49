"""A fixed run, held against numbers recorded before; and the committed example, held against its page.

`python reports/examples/regenerate.py` records both anew: do so where a change of numbers is meant, and say
in the commit which and why.
"""

import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from autointerp.gating.verdict import gate

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "reports" / "examples"
EXAMPLE = EXAMPLES / "planted"
ABSOLUTE, RELATIVE = 1e-6, 1e-4
"""Sums of float32 differ in their last digits between processors and numbers of threads."""
SHARES = 3e-3
"""Of 2,000 resamples some few may change sides for a last digit; adjusting multiplies."""
ENDS = ("ci_low", "ci_high")
P_VALUES = ("p_value", "adjusted_p_value")
NAMES = ("checkpoint", "reference", "metric", "slice", "status", "sampled", "unit", "better", "functional")


def regenerate():
    spec = importlib.util.spec_from_file_location("regenerate", EXAMPLES / "regenerate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return regenerate().make_run(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def found(run):
    return regenerate().golden(json.loads((run / "report.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def recorded():
    return json.loads(regenerate().GOLDEN.read_text(encoding="utf-8"))


def named(rows):
    """By what a row is about, all that must be the same everywhere."""
    return [{key: row[key] for key in NAMES if key in row} | {"keys": sorted(row)} for row in rows]


def is_close(key, mine, theirs, *, has_same_weights):
    if mine == theirs or (key in (*ENDS, *P_VALUES) and not has_same_weights):
        return True
    if key == "value" or key in ENDS:
        return mine == pytest.approx(theirs, rel=RELATIVE, abs=ABSOLUTE)
    if key in P_VALUES:
        return mine == pytest.approx(theirs, abs=SHARES)
    if key == "reason":  # numbers in it are rounded for people
        return re.sub(r"[\d.]+", "0", str(mine)) == re.sub(r"[\d.]+", "0", str(theirs))
    return False


def differences(found, recorded, *, has_same_weights=True):
    """A line for every number that moved, and for every other value that changed."""
    lines = []
    for mine, theirs in zip(found, recorded, strict=True):
        about = [mine.get(key) for key in ("checkpoint", "reference", "metric", "slice")]
        for key, value in theirs.items():
            if not is_close(key, mine.get(key), value, has_same_weights=has_same_weights):
                lines.append(f"{about}: {key} was {value}, is {mine.get(key)}")
    return lines


def test_names_statuses_slices_and_units_are_those_recorded(found, recorded):
    assert found["metrics"] == recorded["metrics"]
    assert found["keys"] == recorded["keys"]
    for part in ("results", "comparisons", "coverage"):
        assert named(found[part]) == named(recorded[part])


def test_numbers_are_those_recorded(found, recorded):
    if found["recorded_with"] != recorded["recorded_with"]:
        pytest.skip(f"recorded with {recorded['recorded_with']}, this is {found['recorded_with']}")
    same = found["weights"] == recorded["weights"]  # else every value is compared, and no end of an interval
    for part in ("results", "comparisons", "coverage"):
        assert differences(found[part], recorded[part], has_same_weights=same) == []


def test_a_metric_that_changes_by_a_thousandth_is_noticed(recorded):
    rows = [dict(row) for row in recorded["results"]]
    place = next(n for n, row in enumerate(rows) if row["metric"] == "downstream.kl_nats")
    rows[place]["value"] *= 1.001
    (line,) = differences(rows, recorded["results"])
    assert "downstream.kl_nats" in line


# ---- the committed example --------------------------------------------------------------------------


class Outline(HTMLParser):
    """Of a page: headings, ids of sections, captions and column heads of tables."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.sections, self._open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "section" and "id" in given:
            self.sections.append(given["id"])
        if tag in ("h1", "h2", "h3", "caption", "th"):
            self._open.append(tag)
            self.texts.append([tag, ""])

    def handle_endtag(self, tag):
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def handle_data(self, data):
        if self._open:
            self.texts[-1][1] += data

    @property
    def structure(self):
        words = [(tag, " ".join(text.split())) for tag, text in self.texts]
        return self.sections, [each for each in words if not any(char.isdigit() for char in each[1])]


def test_the_example_is_the_page_that_this_version_writes(run):
    """Sections, captions and columns; numbers are another test's."""
    mine, theirs = (Outline((place / "report.html").read_text("utf-8")) for place in (run, EXAMPLE))
    assert mine.structure == theirs.structure, "python reports/examples/regenerate.py"
    assert len(mine.sections) > 3


def test_the_example_says_in_markdown_what_this_version_says(run):
    mine, theirs = ((place / "report.md").read_text("utf-8").splitlines() for place in (run, EXAMPLE))
    heads = [[line for line in text if line.startswith(("#", "| ---"))] for text in (mine, theirs)]
    assert heads[0] == heads[1]


def test_the_examples_verdict_is_that_of_its_own_report():
    written = json.loads((EXAMPLE / "gate" / "verdict.json").read_text(encoding="utf-8"))
    verdict = gate(EXAMPLE, EXAMPLES / "policy.toml")
    assert written["verdict"] == verdict.outcome
    assert [each["outcome"] for each in written["checks"]] == [each.outcome for each in verdict.checks]
    assert {"pass", "undecided"} <= {each.outcome for each in verdict.checks}


def test_the_example_is_small_and_names_no_place_of_a_disk():
    files = [file for file in EXAMPLE.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1_700_000
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not any(place in text for place in ('"/tmp/', '"/home/', '"/Users/', "/private/var"))
