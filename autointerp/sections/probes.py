"""Settings of probe loss and of known features."""

from pydantic import Field

from autointerp.sections.section import Section

__all__ = ["ProbeSection"]


class ProbeSection(Section):
    """Which tasks are probed, and how. Used where `metrics.families` has `probe`."""

    tasks: tuple[str, ...] = Field(default=("stdlib",), min_length=1)
    """Sets (`stdlib`, `gao61`), single tasks (`stdlib/in_docstring`), or folders of your own with `task.toml`
    and `examples.jsonl`."""
    examples: int = Field(default=1000, ge=20)
    """Of each task, at most; as many of either label."""
