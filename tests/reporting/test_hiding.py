"""Columns and rows that a reader hides, in a real browser and by keyboard alone."""

import pytest
from browser_visits import Visit, running_browser
from report_examples import HOSTILE, density_observations

from autointerp.reporting.html_file import report_html
from autointerp.reporting.parts import Cell, Column, Row, Table

SUMMARY = "details[data-hides='summary']"
HEADERS = (
    "[...document.querySelectorAll('table.summary thead th')].filter(x => x.offsetParent)"
    ".map(x => x.querySelector('.sort').firstChild.textContent.trim())"
)
NAMES = (
    "[...document.querySelectorAll('table.summary tbody tr')].filter(x => x.offsetParent)"
    ".map(x => x.querySelector('.main').textContent)"
)
WIDTHS = (
    "[...document.querySelectorAll('table.summary tr')]"
    ".map(x => [...x.cells].filter(y => y.offsetParent).length)"
)


@pytest.fixture(scope="module")
def pages(realistic, hostile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hiding")
    for name, report in (("realistic", realistic), ("hostile", hostile)):
        (folder / f"{name}.html").write_text(
            report_html(report, density_observations(report)), encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


@pytest.fixture
def visit(browser, pages):
    with Visit(browser, pages / "realistic.html") as opened:
        yield opened
        assert opened.incidents == []


class Keys:
    """A reader without a pointer: Tab until a control is met, then press."""

    def __init__(self, page):
        self.page = page

    def to(self, name, *, most=80):
        """Go on to the control whose text or label this is."""
        label = "(x => (x.labels?.[0] ?? x).textContent.trim())(document.activeElement)"
        for _ in range(most):
            self.page.keyboard.press("Tab")
            if self.page.evaluate(label).startswith(name):
                return self
        raise AssertionError(f"Tab does not lead to {name}")

    def press(self, key):
        self.page.keyboard.press(key)
        return self


def test_columns_are_hidden_and_brought_back_by_keyboard_alone(visit):
    keys, page = Keys(visit.page), visit.page
    assert not page.locator(f"{SUMMARY} input").first.is_visible()
    before = page.evaluate(HEADERS)
    keys.to("Columns, rows").press("Enter")
    keys.to("Normalised MSE").press("Space").to("KL").press("Space")
    assert page.evaluate(HEADERS) == [title for title in before if title not in ("Normalised MSE", "KL")]
    assert set(page.evaluate(WIDTHS)) == {len(before) - 2}
    assert page.locator("[data-found='summary']").inner_text() == "2 columns hidden"
    keys.to("Show all").press("Enter")
    assert page.evaluate(HEADERS) == before
    assert page.locator("[data-found='summary']").inner_text() == ""
    assert page.evaluate("document.activeElement.textContent") == "Show all"
    assert page.locator(f"{SUMMARY} input:not(:checked)").count() == 0


def test_nulls_go_with_one_box_and_rows_one_by_one_and_sorting_goes_on(visit):
    keys, page = Keys(visit.page), visit.page
    keys.to("Columns, rows").press("Enter").to("All nulls").press("Space").to("relu-8k").press("Space")
    left = page.evaluate(NAMES)
    assert "random-8k-k32" not in left and "relu-8k" not in left and len(left) == 6
    assert page.locator("[data-found='summary']").inner_text() == "6 of 8 rows"
    page.locator("table.summary th", has_text="KL").locator("button").focus()
    keys.press("Enter")
    assert page.evaluate(NAMES)[:2] == ["topk-8k-k64", "topk-8k-k32"]
    assert len(page.evaluate(NAMES)) == 6
    page.emulate_media(media="print")
    assert len(page.evaluate(NAMES)) == 6
    assert page.locator("[data-found='summary']").is_visible()
    assert page.locator(f"{SUMMARY}").is_hidden()
    page.emulate_media(media="screen")
    page.locator(f"{SUMMARY} button").focus()
    keys.press("Space")
    assert len(page.evaluate(NAMES)) == 8


def test_a_filtered_table_stays_filtered_and_show_all_takes_the_filter_off(visit):
    page = visit.page
    page.locator('input[data-filters="results"]').fill("position 4–15")
    place = page.locator("details[data-hides='results']")
    place.locator("summary").focus()
    Keys(page).press("Enter").to("topk-2k-k16").press("Space").to("random-8k-k32").press("Space")
    rows = page.locator("table.results tbody tr:visible")
    assert rows.count() == 6
    page.locator('input[data-filters="results"]').fill("")
    assert rows.count() == 81 - 2 * 10
    assert page.locator("[data-found='results']").inner_text() == "61 of 81 rows"
    page.locator('input[data-filters="results"]').fill("KL")
    place.locator("button").focus()
    Keys(page).press("Enter")
    assert rows.count() == 81
    assert page.locator('input[data-filters="results"]').input_value() == ""


def test_every_choice_has_a_name_and_stands_in_a_named_group(visit):
    page = visit.page
    page.locator(f"{SUMMARY} summary").focus()
    Keys(page).press("Enter")
    group = page.get_by_role("group", name="Columns", exact=True)
    assert group.get_by_role("checkbox", name="L0").is_checked()
    assert page.get_by_role("group", name="Rows", exact=True).get_by_role("checkbox").count() == 9


def test_names_that_attack_are_shown_as_text(browser, pages):
    with Visit(browser, pages / "hostile.html", width=420, scheme="dark") as visit:
        visit.page.locator(f"{SUMMARY} summary").click()
        texts = visit.page.locator(f"{SUMMARY} label").all_inner_texts()
        assert any(HOSTILE in text for text in texts)
        assert visit.page.locator("img").count() == 0
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 420
        assert visit.incidents == []


def test_small_tables_have_nothing_to_hide():
    def table(columns, rows):
        row = Row(tuple(Cell("x") for _ in range(columns)))
        return Table("t", "T", tuple(Column(str(n)) for n in range(columns)), (row,) * rows)

    assert not table(5, 12).is_large
    assert table(6, 1).is_large
    assert table(3, 13).is_large
    assert not table(2, 100).is_large
