"""A run directory -> rows of its `latents/*.parquet`, checked: one clear line where they cannot be used."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors as cs

from autointerp.errors import BadInputError
from autointerp.sampling.latents.tables import MATCHES, TABLES

__all__ = ["LatentTableError", "LatentTables", "nearest_name_remedy", "open_latent_tables"]

_KNOWN = TABLES | {"matches": MATCHES}
_AGAIN = "run the evaluation again, which makes its tables anew"


class LatentTableError(BadInputError):
    """A run has no tables of latents, they are damaged, or they do not hold what was asked for."""


@dataclass(frozen=True)
class LatentTables:
    """The tables of one run. Only the columns and rows that are asked for are read."""

    run: Path
    """The run directory."""

    def file(self, name: str) -> Path:
        """Where a table lies."""
        return self.run / "latents" / f"{name}.parquet"

    def has(self, name: str) -> bool:
        """Whether the run has a table that a run may lack (`matches`)."""
        return self.file(name).is_file()

    def rows(self, name: str, where: pl.Expr | None = None, *, columns: Sequence[str] = ()) -> pl.DataFrame:
        """Rows of a table, in its order; a number that is not finite is null.

        Args:
            name: of the table.
            where: which rows; default: all.
            columns: which columns; default: all that `tables.py` names.

        Raises:
            LatentTableError: the file is missing, damaged, or lacks a column.
        """
        return self.query(name, *([] if where is None else [where]), columns=columns)

    def query(self, name: str, *where: pl.Expr, columns: Sequence[str] = ()) -> pl.DataFrame:
        """As `rows`, for several conditions that must all hold."""
        path = self.file(name)
        try:
            frame = pl.scan_parquet(path)
            self._require_columns(name, frame.collect_schema())
            found = frame.filter(*where).select(columns or list(_KNOWN[name])).collect()
        # A panic is how polars ends on some damaged files.
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise self.damaged(name, f"cannot be read ({_first_line(error)})") from None
        return found.with_columns(pl.when(cs.float().is_finite()).then(cs.float()))

    def damaged(self, name: str, what: str) -> LatentTableError:
        """The error that says what is wrong with a table."""
        return LatentTableError(what, where=self.file(name), remedy=_AGAIN)

    def _require_columns(self, name: str, found: Mapping[str, Any]) -> None:
        wanted = _KNOWN[name]
        wrong = [column for column, kind in wanted.items() if found.get(column) != kind]
        if wrong:
            what = f"column {wrong[0]} is missing or not {wanted[wrong[0]]}: damaged, or of another version"
            raise self.damaged(name, what)

    def checkpoint(self, name: str | None) -> str:
        """The dictionary that is meant: `name`, or without it the only one that was sampled and is no null.

        Raises:
            LatentTableError: there is none of that name, or without a name there are several.
        """
        found = self.rows("coverage", columns=["checkpoint", "status"])
        names = found["checkpoint"].to_list()
        if name is None:
            return self._only_checkpoint(found)
        if name not in names:
            raise LatentTableError(
                f"the run has no checkpoint {name!r}",
                where=self.run,
                remedy=nearest_name_remedy(name, names),
            )
        return name

    def _only_checkpoint(self, found: pl.DataFrame) -> str:
        names = found["checkpoint"].to_list()
        nulls: set[str] = set()
        if (self.run / "report.json").exists():
            from autointerp.reporting.json_file import read_report  # not needed where a name is given

            summaries = read_report(self.run).checkpoints
            nulls = {summary.name for summary in summaries if summary.role == "null"}
        sampled = found.filter(pl.col("status") == "measured")["checkpoint"].to_list()
        for candidates in ([name for name in sampled if name not in nulls], names):
            if len(candidates) == 1:
                return candidates[0]
        raise LatentTableError(
            f"the run has {len(names)} checkpoints",
            where=self.run,
            remedy=f"name one with --checkpoint: {_listed(names)}",
        )


def open_latent_tables(run: Path) -> LatentTables:
    """The tables of a run; nothing but their presence is looked at.

    Args:
        run: the run directory, or its report.json.

    Raises:
        LatentTableError: there is no such run, or it has no tables of latents.
    """
    folder = run.parent if run.name == "report.json" else run
    if not folder.is_dir():
        raise LatentTableError(
            "no such run directory", where=run, remedy="name the folder that `autointerp evaluate` wrote"
        )
    tables = LatentTables(folder)
    missing = [name for name in TABLES if not tables.file(name).is_file()]
    if len(missing) == len(TABLES):
        raise LatentTableError(
            "the run has no tables of latents",
            where=run,
            remedy="run `autointerp evaluate` with sampling on (`enabled = true` under [sampling])",
        )
    if missing:
        raise tables.damaged(missing[0], "the file is missing")
    return tables


def nearest_name_remedy(name: str, names: Iterable[str]) -> str:
    """What to say where a name is unknown: those that look like it, else all."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {_listed(close)}?" if close else f"there are {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
