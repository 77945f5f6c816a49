"""Charts -> pictures in files, for other pages, slides and papers: light colours on white."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from autointerp.atomic_files import write_atomically
from autointerp.errors import RunStoreError
from autointerp.reporting.charts import chart_png, chart_svg, vega_lite_specs
from autointerp.reporting.parts import Chart
from autointerp.reporting.token_text import harmless

__all__ = [
    "PICTURE_NAMES",
    "Picture",
    "PictureForm",
    "chart_pictures",
    "picture_name",
    "picture_title",
    "write_pictures",
]

PictureForm = Literal["svg", "png"]


PICTURE_NAMES = re.compile(
    r"(sparsity|width|quantiles|layers)-[a-z-]+|positions(-loss)?|(density|scaling)-\d+(-chart)?"
    r"|probe-heatmap|explanation-cost|refinement-gain|spectrum"
)
"""What pictures of this package are called, without the ending."""


class Picture(NamedTuple):
    """A file's name and what it holds."""

    name: str
    content: bytes


def chart_pictures(charts: Iterable[Chart], form: PictureForm) -> Iterator[Picture]:
    """A picture each chart; of histograms one a panel."""
    for chart in charts:
        for place, spec in enumerate(vega_lite_specs(chart)):
            titled: dict[str, Any] = {**spec, "title": picture_title(chart, place)}
            content = chart_svg(titled).encode() if form == "svg" else chart_png(titled)
            yield Picture(f"{picture_name(chart, place)}.{form}", content)


def write_pictures(charts: Iterable[Chart], form: PictureForm, folder: Path, *, clears: bool = False) -> None:
    """A file each picture, wholly or not at all; the folder is made, and what else it holds is left alone.

    Args:
        charts: what to draw.
        form: of the files.
        folder: where to.
        clears: delete pictures of this form, told by their names, that these charts do not have: an earlier
            report's.

    Raises:
        RunStoreError: there is no chart.
        OSError: something cannot be written.
    """
    pictures = list(chart_pictures(charts, form))
    if not pictures:
        raise RunStoreError("nothing that is drawn was measured in this run", where=f"--format {form}")
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        write_atomically(folder / picture.name, picture.content)
    if clears:
        made = {picture.name for picture in pictures}
        for file in folder.glob(f"*.{form}"):
            if file.name not in made and PICTURE_NAMES.fullmatch(file.stem):
                file.unlink(missing_ok=True)


def picture_name(chart: Chart, place: int) -> str:
    """A file's name without its ending; panels are numbered from 1, since their names may hold anything."""
    name = re.sub(r"[^a-z0-9]+", "-", chart.name.lower()).strip("-")
    return f"{name}-{place + 1}" if chart.kind == "histogram" else name


def picture_title(chart: Chart, place: int) -> str:
    """What stands above a picture that has left its page."""
    words = f"{chart.title}: {chart.panels[place].label}" if chart.kind == "histogram" else chart.title
    return harmless(words)
