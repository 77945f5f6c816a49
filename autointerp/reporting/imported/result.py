"""One number that somebody else's program found."""

from dataclasses import dataclass

__all__ = ["ImportedResult"]


@dataclass(frozen=True)
class ImportedResult:
    """What was published, and how far it may be set beside our own."""

    source: str
    """Whose program: `SAEBench core`, `delphi`."""
    name: str
    """Of the dictionary, as the source calls it."""
    metric: str
    """As the source calls it."""
    value: float | None
    """None where the source has none: it writes -1 or null for what failed or was not run."""
    reason: str = ""
    """Why there is no value."""
    low: float | None = None
    high: float | None = None
    """An interval, where the source's own examples let one be made; made by us."""
    n: int | None = None
    sampled: str = ""
    ours: str = ""
    """The metric of ours that means the same, up to the text it was measured on; empty where none does."""
    caution: str = ""
    """What differs, or why no metric of ours may be set beside it."""
