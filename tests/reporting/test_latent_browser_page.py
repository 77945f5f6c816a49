"""The latent browser in a real browser: found, sorted, opened by hand and by keyboard, harmless, printed."""

import shutil

import explanation_examples
import latent_examples
import polars as pl
import pytest
from browser_visits import Visit, running_browser
from latent_examples import CHECKPOINTS, LIVE

from autointerp.reporting.explanation_rows import explained_rows
from autointerp.reporting.html_page import write_html_page
from autointerp.reporting.latent_browser import BrowserLimits

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}"
ATTACKS = (
    ATTACK,
    "\u202egnp.exe\u2066",
    "a\x00b",
    "M" * 1_000_000,
    "--><style>*{display:none}</style>",
    "\x1b]8;;http://x\x07",
    "__proto__",
    "</p><base href=//evil.example/>",
)


def written(folder, *, name="report.html", attack=False, explained=True, **options):
    """A page of a small run; of hostile texts where it is an attack."""
    checkpoints = (f"a{ATTACK}", "__proto__") if attack else CHECKPOINTS
    run = latent_examples.write_run(folder / "run", checkpoints=checkpoints)
    text = "".join(ATTACKS[:3]) if attack else "fires on brackets, latent"
    if explained:
        lines = explanation_examples.lines(checkpoints[0], range(3, 14), text=text)
        for line in lines[1]:
            for score in line["scores"]:
                score["judge"] += ATTACK if attack and score["judge"] != "constant" else ""
        explanation_examples.write_lines(run.folder, *lines)
    if attack:
        vocabulary = run.tables["vocabulary"]
        texts = [ATTACKS[token % len(ATTACKS)] for token in vocabulary["token"]]
        run.rewrite("vocabulary", vocabulary.with_columns(text=pl.Series(texts)))
    report = explanation_examples.explained_report(latent_examples.report_of(checkpoints))
    target = folder / name
    write_html_page(target, run.folder, report, explained=explained_rows(run.folder), **options)
    return target


def few(monkeypatch_context):
    """Pages of four latents in a folder, for as long as the context lasts."""
    make = BrowserLimits.__init__

    def made(self, **options):
        make(self, **({"embedded_latents": 1, "page_latents": 4} | options))

    monkeypatch_context.setattr(BrowserLimits, "__init__", made)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages by name; `folder` has its data beside it."""
    folder = tmp_path_factory.mktemp("browsed pages")
    paths = {}
    for name, options in (("plain", {}), ("attack", {"attack": True}), ("mute", {"with_text": False})):
        paths[name] = written(folder / name, **options)
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        paths["folder"] = written(folder / "folder")
        paths["attacked folder"] = written(folder / "attacked", name="a b#c%41.html", attack=True)
    return paths


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


def visited(browser, path, **options):
    visit = Visit(browser, path, **options)
    visit.page.locator("#latents-app[data-ready]").wait_for()
    return visit


@pytest.fixture
def visit(browser, pages):
    with visited(browser, pages["plain"]) as opened:
        yield opened
        assert opened.incidents == []


def listed(page):
    """`checkpoint number latent` of the rows shown."""
    return [text.removeprefix("latent ") for text in page.locator(".latent-row .number").all_inner_texts()]


def opened(page):
    page.locator(".latent-main").wait_for()
    return page.locator("#latent-title").inner_text()


def test_latents_are_found_by_explanation_token_and_number(visit):
    search = visit.page.locator("#latent-search")
    search.fill("BRACKETS fires")
    assert listed(visit.page) == [str(latent) for latent in range(3, 14)]
    assert visit.page.locator("#latent-found").inner_text() == "11 of 28 latents"
    search.fill("12")
    assert listed(visit.page)[:2] == ["12", "12"]
    search.fill("")
    token = visit.page.locator(".latent-row .token").first.inner_text()
    search.fill(token)
    for row in visit.page.locator(".latent-row").all():
        assert token in row.inner_text()
    assert 0 < len(listed(visit.page)) < 20
    search.fill("no such thing")
    assert listed(visit.page) == []
    assert visit.page.locator("#latent-found").inner_text() == "No latent fits."


def test_checkpoints_are_filtered_and_nulls_marked(visit):
    visit.page.locator("#latent-checkpoint").select_option("1")
    assert visit.page.locator("#latent-found").inner_text() == "14 of 28 latents"
    assert set(visit.page.locator(".latent-row .where").all_inner_texts()) == {CHECKPOINTS[1]}
    assert visit.page.locator(".latent-row .badge.null").count() == 14


def test_latents_are_sorted_by_scores_with_those_without_last(visit):
    page = visit.page
    page.locator("#latent-sort").select_option(label="Detection, AUROC")
    scored = [str(latent) for latent in range(13, 2, -1)]
    assert listed(page)[:11] == scored
    page.locator("#latent-direction").click()
    assert listed(page)[:11] == scored[::-1]
    page.locator("#latent-sort").select_option(label="Density")
    assert listed(page)[:2] == ["15", "15"]
    page.locator("#latent-sort").select_option(label="Number")
    assert listed(page)[:4] == ["1", "1", "3", "3"]


def test_the_list_has_pages(visit):
    page = visit.page
    first = listed(page)
    page.locator("#latent-on").click()
    assert len(first) == 20 and len(listed(page)) == 8
    assert page.locator("#latent-page").inner_text() == "2 of 2"
    assert page.locator("#latent-on").is_disabled()
    page.locator("#latent-back").click()
    assert listed(page) == first


def test_an_opened_latent_shows_contexts_shaded_by_activation(visit):
    page = visit.page
    page.locator("#latent-search").fill(str(LIVE))
    page.locator(".latent-row").first.click()
    assert opened(page) == f"latent {LIVE} {CHECKPOINTS[0]}"
    titles = [text.split("\n")[0] for text in page.locator(".group h5").all_inner_texts()]
    assert titles[0].startswith("Random firings") and titles[1].startswith("From weak to strong")
    assert titles[2].startswith("Strongest") and titles[3].startswith("Silent, at random")
    shares = page.locator(".text .fires").evaluate_all(
        "all => all.map(x => [Number(x.style.getPropertyValue('--share')), Number(x.title)])"
    )
    most = max(value for _, value in shares)
    assert len(shares) > 20
    for share, value in shares:
        assert share * 255 == pytest.approx(round(255 * value / most), abs=1.5)
    assert page.locator(".tag.split-2").count() == 3
    assert "[0.75, 0.95]" in page.locator(".latent-scores").first.inner_text()


def test_a_context_opens_to_its_whole_with_numbers(visit):
    page = visit.page
    page.locator(".latent-row").nth(2).click()
    opened(page)
    toggle = page.locator(".example .value").first
    example = page.locator(".example").first
    assert example.locator("sub").count() == 0
    toggle.click()
    assert toggle.get_attribute("aria-expanded") == "true"
    assert example.locator("sub").count() == example.locator(".fires").count() > 0
    toggle.click()
    assert example.locator("sub").count() == 0


def test_everything_can_be_done_with_the_keyboard_alone(visit):
    page, press = visit.page, visit.page.keyboard.press
    page.locator("#latent-search").focus()
    press("ArrowDown")
    for _ in range(3):
        press("ArrowDown")
    press("ArrowUp")
    row = "document.activeElement.querySelector('.number').textContent"
    assert page.evaluate(row) == f"latent {listed(page)[2]}"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press("Enter")
    first = opened(page)
    assert first == f"latent {listed(page)[2]} {CHECKPOINTS[0]}"
    press("ArrowRight")
    assert opened(page) == f"latent {listed(page)[3]} {CHECKPOINTS[0]}"
    press("ArrowLeft")
    assert opened(page) == first
    for _ in range(3):
        press("Tab")
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    press("Escape")
    page.locator("#latent-dialog").wait_for(state="hidden")
    assert page.evaluate(row) == f"latent {listed(page)[2]}"
    press("End")
    assert page.evaluate(row) == f"latent {listed(page)[-1]}"
    press("ArrowDown")
    assert page.locator("#latent-page").inner_text() == "2 of 2"
    assert page.evaluate(row) == f"latent {listed(page)[0]}"
    press("PageUp")
    press("Tab")
    assert page.evaluate("document.activeElement.id") == "latent-on"


def test_a_neighbour_opens_in_its_turn(visit):
    page = visit.page
    page.locator("#latent-search").fill("3")
    page.locator(".latent-row").first.click()
    opened(page)
    link = page.locator(".others .link").first
    name = link.inner_text()
    link.click()
    assert opened(page) == f"{name} {CHECKPOINTS[0]}"
    assert page.evaluate("location.hash") == f"#latents/{CHECKPOINTS[0]}/{name.removeprefix('latent ')}"
    page.locator("#latent-close").click()
    page.locator(".latent-main").wait_for(state="detached")  # a dialog tells that it was closed a task later


def test_an_address_names_a_latent(browser, pages):
    with visited(browser, pages["plain"], address=f"#latents/{CHECKPOINTS[0]}/7") as visit:
        assert opened(visit.page) == f"latent 7 {CHECKPOINTS[0]}"
        assert visit.incidents == []


@pytest.mark.parametrize(("width", "scheme"), [(420, "dark"), (1280, "light")])
@pytest.mark.parametrize("name", ["attack", "attacked folder"])
def test_hostile_text_is_shown_and_does_nothing(browser, pages, name, width, scheme):
    with visited(browser, pages[name], width=width, scheme=scheme) as visit:
        page = visit.page
        page.locator(".latent-row").first.click()
        assert "<img src=x onerror=alert(2)>" in opened(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        dialog = "document.getElementById('latent-dialog')"
        assert page.evaluate(f"{dialog}.scrollWidth <= {dialog}.clientWidth")
        for toggle in page.locator(".example .value").all()[:6]:
            toggle.click()
        page.locator(".latent-body summary").first.click()
        assert page.locator("img, base, iframe, object").count() == 0
        assert page.locator("style").count() == 1
        assert page.locator("#latent-body script, #latents-app script").count() == 0
        text = page.locator("#latent-body").inner_text()
        assert "alert(1)" in text and "\x00" not in text and "\u202e" not in text
        assert len(text) < 200_000
        assert ({}).__class__ is dict and page.evaluate("({}).name === undefined")
        assert page.evaluate(f"{dialog}.scrollWidth <= {dialog}.clientWidth")
        assert visit.incidents == []


def test_what_latents_show_is_read_from_beside_the_page(browser, pages):
    with visited(browser, pages["folder"]) as visit:
        page = visit.page
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.locator(".latent-row").first.click()
        first = opened(page)
        assert page.locator(".example").count() > 5
        page.locator("#latent-next").click()
        assert opened(page) != first
        assert [url.rpartition("/")[2] for url in asked] == ["000.css"]
        assert page.locator("link[rel=stylesheet]").count() == 0
        assert visit.incidents == []


@pytest.mark.parametrize("harm", ["absent", "of another report", "script"])
def test_a_page_whose_folder_is_absent_or_changed_says_so(browser, pages, tmp_path, harm):
    shutil.copytree(pages["folder"].parent, tmp_path / "mailed")
    page_file = tmp_path / "mailed" / "report.html"
    for file in (tmp_path / "mailed" / "report_latents").iterdir():
        if harm == "absent":
            file.unlink()
        elif harm == "of another report":
            file.write_text('#latent-store{--latents-0123456789abcdef:"eJyrrgUAAXUA+Q=="}')
        else:
            file.write_text("alert(1)</style><script>alert(2)</script>")
    with visited(browser, page_file) as visit:
        page = visit.page
        page.locator(".latent-row").first.click()
        page.locator("#latent-body .callout").wait_for()
        told = page.locator("#latent-body").inner_text()
        assert "report_latents/000.css" in told and "autointerp show" in told
        page.keyboard.press("Escape")
        assert len(listed(page)) == 20
        # The browser itself tells of a file that is not there.
        assert len(visit.incidents) == (harm == "absent")


def test_without_text_the_numbers_stay(browser, pages):
    with visited(browser, pages["mute"]) as visit:
        page = visit.page
        page.locator("#latent-search").fill("brackets")
        assert listed(page) == []
        page.locator("#latent-search").fill("")
        page.locator("#latent-sort").select_option(label="Detection, AUROC")
        page.locator(".latent-row").first.click()
        assert opened(page) == f"latent 13 {CHECKPOINTS[0]}"
        assert page.locator(".example, .said, .token, .tokens").count() == 0
        assert page.locator(".latent-scores tbody tr").count() > 1
        assert page.locator(".histogram rect").count() > 3
        assert visit.incidents == []


def test_paper_has_the_report_and_not_the_latents(visit):
    page = visit.page
    page.locator(".latent-row").first.click()
    opened(page)
    page.emulate_media(media="print")
    page.locator("#latents-app").wait_for(state="hidden")
    assert page.locator("#latent-dialog").is_hidden()
    assert page.locator(".latents-print").is_visible()
    assert page.locator("table.checkpoints").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shaded_tokens_can_be_read(browser, pages, scheme):
    """The contrast of text on the strongest shade is that of WCAG's level AA."""
    with visited(browser, pages["plain"], scheme=scheme) as visit:
        page = visit.page
        page.locator(".latent-row").first.click()
        opened(page)
        ratio = page.evaluate(
            """() => {
              const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
              const light = (...colors) => {
                canvas.clearRect(0, 0, 1, 1);
                for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((x) => x / 255)
                  .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const mark = document.querySelector(".text .fires");
              mark.style.setProperty("--share", "1");
              const paper = getComputedStyle(document.getElementById("latent-dialog")).backgroundColor;
              const style = getComputedStyle(mark);
              const [a, b] = [light(style.color), light(paper, style.backgroundColor)];
              return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            }"""
        )
        assert ratio >= 4.5
        assert visit.incidents == []


def test_every_control_has_a_name(visit):
    page = visit.page
    page.locator("#latent-search").fill(str(LIVE))
    page.locator(".latent-row").first.click()
    opened(page)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('#latents button, #latents [role=img], #latents [role=region]')]"
        ".filter(x => !(x.getAttribute('aria-label') || x.textContent).trim()).length"
    )
    assert unnamed == 0
    controls = "[...document.querySelectorAll('#latents input, #latents select')]"
    assert page.evaluate(f"{controls}.every(x => x.labels[0].textContent.trim())")


def test_the_browser_has_no_plain_text_of_the_run_in_its_source(pages):
    """All of it is deflated, so that no mistake in escaping could let it become markup."""
    for name in ("attack", "attacked folder"):
        text = pages[name].read_text(encoding="utf-8")
        section = text[text.index('<section id="latents">') : text.index('<script type="text/plain"')]
        assert "alert(" not in section
