"""Numbers -> how they look. The one module that decides on digits, signs, separators and units.

| what                     | looks like                |
|--------------------------|---------------------------|
| value and interval       | `0.0521 [0.0498, 0.0544]` |
| value, symmetric         | `0.0521 ± 0.0023`         |
| difference               | `+0.012 [−0.001, +0.025]` |
| count                    | `32 768` (narrow no-break space) |
| duration                 | `850 ms`, `12.4 s`, `3 min 20 s`, `2 h 05 min` |
| bytes                    | `4.5 MB` (powers of 1000) |
| p-value                  | `0.034`, `< 0.001`        |

How many digits a value has follows from its interval: as many as show the interval's width with two
significant digits, or with one where the first is 4 or more. A digit beyond that is noise, one fewer
hides what was measured.
"""

import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "byte_count",
    "count",
    "decimals_for",
    "duration",
    "fixed",
    "interval",
    "p_value",
    "plain",
    "plus_minus",
    "signed",
    "slice_words",
    "value_with_interval",
]

Real = float | int
"""Shape checks under tests tell the two apart."""
MINUS = "−"
"""U+2212: as wide as a digit, unlike the hyphen."""
NARROW_SPACE = "\u202f"
"""Between groups of three digits: cannot be mistaken for a decimal mark, and does not break lines."""
_ONE_DIGIT_FROM = 3.55
"""An interval's width whose leading digits are above this is told well enough by one of them."""
_PLAIN_DIGITS = 4
"""Significant digits of a number that has no interval."""
_MOST_DECIMALS = 8
_SMALLEST_P = 0.001
"""Resampling with a few thousand draws says no more about a smaller p-value than that it is smaller."""


def decimals_for(low: Real, high: Real) -> int:
    """Decimals that show the width of `[low, high]`; where it has none, those that `low` needs."""
    width = abs(high - low)
    if width == 0.0:
        most = _decimals(abs(low), _PLAIN_DIGITS)
        return len(f"{low:.{most}f}".rstrip("0").partition(".")[2])
    mantissa = width / 10.0 ** math.floor(math.log10(width))
    return _decimals(width, 2 if mantissa < _ONE_DIGIT_FROM else 1)


def _decimals(magnitude: Real, digits: int) -> int:
    """Decimals at which a number of this magnitude has so many significant digits, within [0, 8]."""
    if magnitude == 0.0:
        return 0
    return min(max(digits - 1 - math.floor(math.log10(magnitude)), 0), _MOST_DECIMALS)


def fixed(value: Real, decimals: int) -> str:
    """`1234.5` -> `1 234.50`: grouped, with a real minus sign and no negative zero."""
    text = f"{abs(value):,.{decimals}f}".replace(",", NARROW_SPACE)
    is_zero = not any(digit in text for digit in "123456789")
    return text if value >= 0 or is_zero else f"{MINUS}{text}"


def plain(value: Real) -> str:
    """A number without an interval: four significant digits, powers of ten when extreme."""
    if value == 0.0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        mantissa, exponent = f"{abs(value):.2e}".split("e")
        return f"{MINUS if value < 0 else ''}{mantissa}e{int(exponent)}".replace("e-", f"e{MINUS}")
    text = fixed(value, _decimals(abs(value), _PLAIN_DIGITS))
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(value: Real, decimals: int) -> str:
    """With its sign always written: `+0.012`, `−0.003`; zero has none."""
    text = fixed(value, decimals)
    is_zero = not any(digit in text for digit in "123456789")
    return text if text.startswith(MINUS) or is_zero else f"+{text}"


def interval(low: Real, high: Real, *, decimals: int | None = None, show_sign: bool = False) -> str:
    """`[0.0498, 0.0544]`."""
    digits = decimals_for(low, high) if decimals is None else decimals
    write = signed if show_sign else fixed
    return f"[{write(low, digits)}, {write(high, digits)}]"


def value_with_interval(value: Real, low: Real, high: Real, *, show_sign: bool = False) -> str:
    """`0.0521 [0.0498, 0.0544]`, or with `show_sign`, for differences, `+0.012 [−0.001, +0.025]`."""
    digits = decimals_for(low, high)
    write = signed if show_sign else fixed
    return f"{write(value, digits)} {interval(low, high, decimals=digits, show_sign=show_sign)}"


def plus_minus(value: Real, low: Real, high: Real) -> str:
    """`0.0521 ± 0.0023` where both sides round to the same, else as `value_with_interval`."""
    digits = decimals_for(low, high)
    below, above = fixed(value - low, digits), fixed(high - value, digits)
    if below == above:
        return f"{fixed(value, digits)} ± {above}"
    return value_with_interval(value, low, high)


def count(number: int) -> str:
    """`32768` -> `32 768`."""
    return fixed(number, 0)


def p_value(p: Real) -> str:
    """`0.034`, `0.2`; below a thousandth only `< 0.001`."""
    if p < _SMALLEST_P:
        return f"< {_SMALLEST_P}"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: Real) -> str:
    """Two units at most: `850 ms`, `12.4 s`, `3 min 20 s`, `2 h 05 min`."""
    if round(seconds, 1) < 1:
        return f"{round(seconds * 1000)} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{count(hours)} h {minutes:02d} min"


def byte_count(number: int) -> str:
    """`768 B`, `4.5 kB`, `1.2 GB`, in powers of 1000."""
    amount, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if round(amount, 1) < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{count(round(amount))} {unit}" if unit == "B" else f"{fixed(amount, 1)} {unit}"


def slice_words(settings: Mapping[str, Any]) -> str:
    """`{"position": "4-15"}` -> `position 4–15`; the headline slice is `all`."""
    if not settings:
        return "all"
    return ", ".join(f"{key} {_range_words(value)}" for key, value in sorted(settings.items()))


def _range_words(value: object) -> str:
    first, dash, last = str(value).partition("-")
    is_range = dash and first.isdigit() and last.isdigit()
    return f"{first}–{last}" if is_range else str(value)
