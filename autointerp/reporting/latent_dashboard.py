"""LatentView or LatentList -> what a terminal shows of it; no text is taken for markup or an escape."""

import itertools
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autointerp.records import LatentCoverage
from autointerp.reporting import numbers
from autointerp.reporting.example_groups import Example, ExampleGroup
from autointerp.reporting.example_lines import SHADES, example_lines
from autointerp.reporting.latent_explanations import LatentExplanation
from autointerp.reporting.latent_list import LatentList, ListedLatent
from autointerp.reporting.latent_panels import frequency, panel_lines, share, strength
from autointerp.reporting.latent_view import LatentView
from autointerp.reporting.token_text import cut, quoted, visible

__all__ = ["latent_dashboard", "latent_table", "rendered"]

_NARROWEST = 40
_SPLIT_WIDTH, _VALUE_WIDTH = 8, 7
_LIST = {"latent": 0, "fires on": 0, "documents": 64, "examples": 52, "at the peak": 0, "promotes": 78}
"""Columns of the list, and from how many columns of the terminal on each is shown."""
_LIST_TEXTS = ("at the peak", "promotes")
_LIST_GAP = 3
_MARGIN = 2 + _SPLIT_WIDTH + 1 + _VALUE_WIDTH + 2
_BLIND = frozenset({"silent", "similar"})
"""Samplers that draw a context, and then any place in it: that place is not marked."""
_OF_FIRINGS = frozenset({"uniform"})
"""Samplers that draw firings, of which a context may have many; the others draw contexts."""


def rendered(found: LatentView | LatentList, *, width: int, is_marked: bool) -> RenderableType:
    """What a terminal of `width` columns shows of a latent, or of the list of those that were sampled."""
    if isinstance(found, LatentList):
        return latent_table(found, width=width)
    return latent_dashboard(found, width=width, is_marked=is_marked)


def latent_dashboard(view: LatentView, *, width: int, is_marked: bool) -> RenderableType:
    """Everything about one latent, no line wider than `width` columns (at least 40).

    Args:
        view: the latent.
        width: of the terminal.
        is_marked: brackets around the tokens on which it fires, where there are no colours to shade them.
    """
    width = max(width, _NARROWEST)
    lines = [_title(view), Text(_in_words(view))]
    lines += [Text(remark, "yellow") for remark in _remarks(view)]
    for explanation in view.explanations:
        lines += [Text(), *_explanation_lines(explanation)]
    if view.status != "dead":
        lines += [Text(), *panel_lines(view, width=width)]
    if view.groups:
        lines += [Text(), _legend(is_marked=is_marked)]
    for _name, groups in itertools.groupby(view.groups, key=lambda group: group.sampler):
        lines += _sampler_lines(view, list(groups), width=width, is_marked=is_marked)
    return Group(*lines, Text(), Text(_coverage_words(view.coverage), "dim"))


def latent_table(listing: LatentList, *, width: int) -> RenderableType:
    """The sampled latents of a dictionary, one a row, and how to look at one of them."""
    width = max(width, _NARROWEST)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, _LIST_GAP - 1, 0, 0))
    names = [name for name, least in _LIST.items() if width >= least]
    for name in names:
        table.add_column(name, justify="left" if name in _LIST_TEXTS else "right", no_wrap=True)
    figures = [_list_figures(latent) for latent in listing.latents]
    used = sum(
        _LIST_GAP + max([len(name), *(row[name].cell_len for row in figures)])
        for name in names
        if name not in _LIST_TEXTS
    )
    for latent, cells in zip(listing.latents, figures, strict=True):
        texts = _list_texts(latent, width=width - used, has_promoted="promotes" in names)
        table.add_row(*((cells | texts)[name] for name in names))
    shown, total = len(listing.latents), listing.sampled_count
    more = f"the first {numbers.count(shown)} of {numbers.count(total)}" if shown < total else f"all {total}"
    title = Text("sampled latents of ").append(visible(listing.checkpoint), "bold").append(f", {more}")
    hint = "--latent I shows one of them, --latent random any" + (
        f"; --examples {total} lists all" if shown < total else ""
    )
    coverage = Text(_coverage_words(listing.coverage), "dim")
    return Group(title, Text(), table, Text(), Text(hint, "dim"), coverage)


def _list_figures(latent: ListedLatent) -> dict[str, Text]:
    has_examples = latent.status == "live" or latent.example_count
    return {
        "latent": Text(str(latent.latent), "bold"),
        "fires on": Text(frequency(latent.density)),
        "documents": Text(numbers.count(latent.documents_fired)),
        "examples": Text(numbers.count(latent.example_count) if has_examples else latent.status),
    }


def _list_texts(latent: ListedLatent, *, width: int, has_promoted: bool) -> dict[str, Text]:
    """The columns of text in what the figures leave of the width."""
    room = width - _LIST_GAP
    peak_width = min((room - _LIST_GAP) // 2, 24) if has_promoted else room
    peak = Text("–", "dim")
    if latent.peak_token is not None:
        part = f" {share(latent.peak_share or 0.0)}"
        peak = Text(cut(quoted(latent.peak_token), peak_width - len(part))).append(part, "dim")
    promoted = "  ".join(map(quoted, latent.promoted))
    return {"at the peak": peak, "promotes": Text(cut(promoted, room - _LIST_GAP - peak_width))}


def _title(view: LatentView) -> Text:
    title = Text(f"latent {view.latent}", "bold").append(" of ", "not bold")
    title.append(visible(view.checkpoint))
    tags = [view.status] if view.status != "live" else []
    tags += ["ultra-dense"] if view.is_ultra_dense else []
    tags += [] if view.is_sampled else ["not sampled"]
    return title.append("".join(f" · {tag}" for tag in tags), "not bold yellow")


def _in_words(view: LatentView) -> str:
    firing = view.firing
    if not firing.tokens_fired:
        text = f"of the {numbers.count(firing.token_count)} tokens" if firing.token_count else "of the tokens"
        return f"fires on none {text} of this run"
    if (median := firing.quantiles.get("q50")) is not None:
        typical = f"{strength(median)} in the median"
    else:
        typical = f"{strength(firing.mean)} in the mean"
    return (
        f"fires on {frequency(firing.density)}{' of' if firing.density >= 0.1 else ''} tokens, in "
        f"{numbers.count(firing.documents_fired)} of {numbers.count(firing.document_count)} documents; "
        f"its activation is {typical}, at most {strength(firing.maximum)}"
    )


def _remarks(view: LatentView) -> list[str]:
    remarks = []
    if view.reason:
        remarks.append(f"{view.status}: {visible(view.reason)}")
    if not view.is_sampled and view.status != "dead":
        others = numbers.count(view.coverage.sampled_count or 0)
        remarks.append(
            f"It was not among the {others} sampled latents, so there is no more of it. To sample it: "
            f"autointerp evaluate ... --set sampling.latents=[{view.latent}]"
        )
    return remarks


def _explanation_lines(explanation: LatentExplanation) -> list[Text]:
    name = visible(explanation.explainer)
    if explanation.text is None:
        return [Text(f"no explanation by {name}: {visible(explanation.refusal or '')}", "yellow")]
    lines = [Text(visible(explanation.text), "italic").append(f"  ({name})", "not italic dim")]
    for score in explanation.scores:
        words = numbers.value_with_interval(score.value, score.low, score.high)
        lines.append(Text(f"  {score.title} {words}", "dim"))
        if score.borrowed is not None:
            digits = numbers.decimals_for(score.low, score.high)
            lines[-1].append(f", with another latent's {numbers.fixed(score.borrowed, digits)}")
    lines += [
        Text(f"    {visible(line)}", "dim", no_wrap=True, overflow="ellipsis") for line in explanation.graph
    ]
    return lines


def _legend(*, is_marked: bool) -> Text:
    legend = Text().append("Examples", "bold")
    if is_marked:
        return legend.append("   «drawn» token, ‹others› on which it fires", "dim")
    legend.append("   up to", "dim")
    for index, shade in enumerate(SHADES):
        legend.append(" ").append(f" {20 * (index + 1)} % ", f"black on {shade}")
    return legend.append(" of its maximum; ", "dim").append("drawn", "underline")


def _sampler_lines(
    view: LatentView, groups: Sequence[ExampleGroup], *, width: int, is_marked: bool
) -> list[Text]:
    head = groups[0]
    heading = Text("\n").append(visible(head.sampler), "bold")
    if not any(group.kept for group in groups):
        where = f" in split {head.split}" if head.split else ""
        why = f"none of this latent{where}" if head.is_in_run else "none in this run"
        return [Text(f"\n{visible(head.sampler)}: {why}", "dim")]
    if head.meaning:
        heading.append(f"  {head.meaning}", "not bold")
    if head.stratum_count == 1:
        heading.append(f" {_drawn_words(head)}", "dim")
    lines = [heading]
    for group in groups:
        if group.stratum_count > 1:
            lines.append(Text(f"  {_stratum_words(group)}: {_drawn_words(group)}", "dim"))
        for example in group.examples:
            lines += _example_rows(view, group, example, width=width, is_marked=is_marked)
    return lines


def _stratum_words(group: ExampleGroup) -> str:
    ends = {0: ", the weakest", group.stratum_count - 1: ", the strongest"}
    return f"range {group.stratum + 1} of {group.stratum_count}{ends.get(group.stratum, '')}"


def _drawn_words(group: ExampleGroup) -> str:
    shown, kept = numbers.count(len(group.examples)), numbers.count(group.kept)
    unit = "firing" if group.sampler in _OF_FIRINGS else "context"
    unit += "" if group.population == 1 else "s"
    return f"{shown} of {kept}, drawn from {numbers.count(group.population)} {unit}"


def _example_rows(
    view: LatentView, group: ExampleGroup, example: Example, *, width: int, is_marked: bool
) -> list[Text]:
    margin = Text(no_wrap=True).append(f"  {example.split:<{_SPLIT_WIDTH}} ", "dim")
    value = "silent" if example.value is None else strength(example.value)
    margin.append(f"{value:>{_VALUE_WIDTH}}  ", "dim" if example.value is None else "")
    texts = example_lines(
        example,
        width=width - _MARGIN,
        maximum=view.firing.maximum or 0.0,
        is_marked=is_marked,
        shows_focus=group.sampler not in _BLIND,
    )
    indent = Text(" " * _MARGIN, no_wrap=True)
    return [(indent if index else margin).copy().append_text(text) for index, text in enumerate(texts)]


def _coverage_words(coverage: LatentCoverage) -> str:
    total, live = coverage.latent_count or 0, coverage.live_count or 0
    scorable, sampled = coverage.scorable_count or 0, coverage.sampled_count or 0
    of_all = "" if coverage.scorable_fraction is None else f" ({share(coverage.scorable_fraction)})"
    mass = coverage.scorable_mass_fraction
    of_mass = "" if mass is None else f"; these hold {share(mass)} of all activation"
    return (
        f"Of {numbers.count(total)} latents {numbers.count(live)} fire, "
        f"{numbers.count(scorable)}{of_all} of them in enough documents to be explained and scored{of_mass}. "
        f"{numbers.count(sampled)} are sampled. What scores of these say holds for the scorable ones alone."
    )
