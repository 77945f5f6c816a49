"""LatentView -> the upper half of its dashboard: histogram, statistics, tokens, neighbours, side by side."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from autointerp.reporting import numbers
from autointerp.reporting.example_lines import SHADES, shade_of
from autointerp.reporting.latent_view import (
    Firing,
    HistogramBar,
    LatentView,
    Neighbour,
    TokenCount,
    TokenLogit,
)
from autointerp.reporting.token_text import cut, quoted

__all__ = ["frequency", "panel_lines", "share", "strength"]

_GAP = 3
_BLOCK_WIDTH = 23
_BLOCK_ROWS = 8
_CHART_WIDTH = 40
_LEAST_BESIDE = 17
_CHART_HEIGHT = 5
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_FREQUENT = 0.1
"""From this density on, `23 % of tokens` says more than `1 in 4 tokens`."""


@dataclass(frozen=True)
class _Block:
    title: str
    rows: tuple[tuple[str, str], ...]
    """Label, value."""


def panel_lines(view: LatentView, *, width: int) -> list[Text]:
    """The panels in rows of as many as fit, each at most `width` columns wide; related ones stay together."""
    chart = _chart(view.histogram, view.firing)
    facts = [_activation_block(view.firing), _place_block(view)]
    beside = min((width - _CHART_WIDTH - 2 * _GAP) // 2, _BLOCK_WIDTH)
    if chart and beside >= _LEAST_BESIDE:
        lines = _side_by_side([chart, *(_block_lines(block, beside) for block in facts)])
    else:
        below = min((width - _GAP) // 2, _BLOCK_WIDTH)
        stacked = _side_by_side([_block_lines(block, below) for block in facts])
        lines = [*chart, Text(), *stacked] if chart else stacked
    if not view.is_sampled:
        return lines
    return [*lines, Text(), *_blocks(_families(view), width)]


def strength(value: float | None) -> str:
    """An activation with three significant digits; `–` where there is none."""
    return "–" if value is None else numbers.plain(float(f"{value:.3g}"))


def share(value: float) -> str:
    """`41 %`; below 10 % with one digit behind the point; what is not quite all never reads as 100 %."""
    percent = 100 * value
    if percent >= 9.95:
        return f"{min(round(percent), 99) if value < 1 else 100} %"
    return f"{percent:.1f} %" if percent >= 0.05 or percent == 0 else "< 0.1 %"


def frequency(density: float) -> str:
    """`1 in 812`, or `23 %` where it is often."""
    if density >= _FREQUENT:
        return share(density)
    return f"1 in {numbers.count(round(1 / density))}" if density > 0 else "none"


def _activation_block(firing: Firing) -> _Block:
    names = {"q05": "5 %", "q25": "25 %", "q50": "median", "q75": "75 %", "q95": "95 %"}
    quantiles = [(names[name], strength(value)) for name, value in firing.quantiles.items()]
    rows = [("mean", strength(firing.mean)), *quantiles, ("maximum", strength(firing.maximum))]
    return _Block("activation", tuple(rows))


def _place_block(view: LatentView) -> _Block:
    firing = view.firing
    rows = [
        ("tokens", numbers.count(firing.tokens_fired)),
        ("documents", numbers.count(firing.documents_fired)),
    ]
    rows += [(f"· {split}", numbers.count(count)) for split, count in firing.split_documents.items()]
    if view.sampling_weight is not None:
        rows.append(("stands for", strength(view.sampling_weight)))
    if view.stratum:
        rows.append(("stratum", view.stratum))
    return _Block("fires on", tuple(rows))


def _families(view: LatentView) -> list[list[_Block]]:
    titles = {"before": "before the peak", "at": "at the peak", "after": "after the peak"}
    return [
        [_Block(titles[place], tuple(map(_token_row, tokens))) for place, tokens in view.tokens.items()],
        [
            _Block("promotes", tuple(map(_logit_row, view.promoted))),
            _Block("demotes", tuple(map(_logit_row, view.demoted))),
        ],
        [
            _Block("nearest direction", tuple(map(_nearest_row, view.nearest))),
            _Block("fires together with", tuple(map(_co_firing_row, view.co_firing))),
        ],
    ]


def _token_row(found: TokenCount) -> tuple[str, str]:
    return quoted(found.text), f"{'≥ ' if found.undercount else ''}{share(found.share)}"


def _logit_row(found: TokenLogit) -> tuple[str, str]:
    return quoted(found.text), numbers.signed(found.logit, 2 if abs(found.logit) >= 0.1 else 4)


def _nearest_row(found: Neighbour) -> tuple[str, str]:
    return f"latent {found.latent}", "–" if found.value is None else numbers.fixed(found.value, 2)


def _co_firing_row(found: Neighbour) -> tuple[str, str]:
    lift = "" if found.lift is None else f" ×{numbers.plain(float(f'{found.lift:.2g}'))}"
    return f"latent {found.latent}", f"{'–' if found.value is None else share(found.value)}{lift}"


def _blocks(families: Sequence[Sequence[_Block]], width: int) -> list[Text]:
    """Families one behind the other, a new row where the next does not fit into this one."""
    most = max((width + _GAP) // (_BLOCK_WIDTH + _GAP), 1)
    rows: list[list[_Block]] = []
    for family in families:
        parts = [family[start : start + most] for start in range(0, len(family), most)]
        for part in parts:
            if rows and len(rows[-1]) + len(part) <= most:
                rows[-1].extend(part)
            else:
                rows.append(list(part))
    widest = max(map(len, rows))
    block_width = min((width + _GAP) // widest - _GAP, _BLOCK_WIDTH + 7)
    drawn = [_side_by_side([_block_lines(block, block_width) for block in row]) for row in rows]
    return list(itertools.chain.from_iterable(_separated(drawn)))


def _separated(parts: Iterable[list[Text]]) -> list[list[Text]]:
    return [[*([Text()] if index else []), *part] for index, part in enumerate(parts)]


def _block_lines(block: _Block, width: int) -> list[Text]:
    lines = [Text(cut(block.title, width), "bold")]
    for label, value in block.rows[:_BLOCK_ROWS]:
        room = width - cell_len(value) - 1
        line = _padded(Text(cut(label, max(room, 1))), max(room, 1)).append(" ")
        lines.append(line.append(value, "dim"))
    if not block.rows:
        lines.append(Text("none", "dim"))
    return [_padded(line, width) for line in lines]


def _padded(text: Text, width: int) -> Text:
    text.pad_right(max(width - text.cell_len, 0))
    return text


def _side_by_side(columns: Sequence[Sequence[Text]]) -> list[Text]:
    """The n-th lines of all columns as one line; each column is as wide as its widest line."""
    widths = [max(line.cell_len for line in column) for column in columns]
    lines = []
    for row in itertools.zip_longest(*columns):
        line = Text(no_wrap=True)
        for index, (part, width) in enumerate(zip(row, widths, strict=True)):
            line.append(" " * _GAP if index else "")
            line.append_text(_padded((part or Text()).copy(), width))
        line.rstrip()
        lines.append(line)
    return lines


def _chart(bars: Sequence[HistogramBar], firing: Firing) -> list[Text]:
    """Counts as columns of blocks, in the colours that these activations have in the text below."""
    if not bars:
        return []
    wide = max(_CHART_WIDTH // len(bars), 1)
    most = max(bar.count for bar in bars)
    levels = [math.ceil(bar.count / most * _CHART_HEIGHT * 8) for bar in bars]
    lines = [Text("firings by activation, log scale", "bold")]
    for height in reversed(range(_CHART_HEIGHT)):
        line = Text(no_wrap=True)
        for bar, level in zip(bars, levels, strict=True):
            shade = shade_of(bar.high, firing.maximum or 0.0)
            block = _EIGHTHS[min(max(level - 8 * height, 0), 8)]
            line.append(block * wide, SHADES[shade] if shade is not None else "")
        lines.append(_padded(line, _CHART_WIDTH))
    return [*lines, _axis(bars, firing, wide)]


def _axis(bars: Sequence[HistogramBar], firing: Firing, wide: int) -> Text:
    """Where the bars begin and end, and a mark below the median, where there is room for it."""
    width = wide * len(bars)
    low, high = strength(bars[0].low), strength(bars[-1].high)
    if len(low) + len(high) + 1 > width:
        return Text(f"{low} to {high}", "dim")
    labels = f"{low}{' ' * (width - len(low) - len(high))}{high}"
    median = firing.quantiles.get("q50")
    if median is not None:
        column = wide * sum(bar.high < median for bar in bars) + wide // 2
        mark = f"▲ {strength(median)}"
        if len(low) < column and column + len(mark) < width - len(high):
            labels = f"{labels[:column]}{mark}{labels[column + len(mark) :]}"
    return Text(labels, "dim")
