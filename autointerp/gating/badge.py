"""A verdict -> a small SVG for a README."""

from html import escape

from autointerp.gating.verdict import Verdict

__all__ = ["badge_svg"]

_COLORS = {"pass": "#2c7a3f", "fail": "#b3261e", "undecided": "#6b6b6b"}
_LETTER = 6.6
_LABEL = "SAE gate"


def badge_svg(verdict: Verdict) -> str:
    """The badge: label and outcome, with a title that screen readers say."""
    left, right = (round(len(text) * _LETTER + 12) for text in (_LABEL, verdict.outcome))
    title = escape(f"{_LABEL}: {verdict.outcome}")
    text = 'fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<rect width="{left}" height="20" rx="3" fill="#444"/>'
        f'<rect x="{left}" width="{right}" height="20" rx="3" fill="{_COLORS[verdict.outcome]}"/>'
        f'<text x="{left / 2}" y="14" {text}>{_LABEL}</text>'
        f'<text x="{left + right / 2}" y="14" {text}>{verdict.outcome}</text></svg>\n'
    )
