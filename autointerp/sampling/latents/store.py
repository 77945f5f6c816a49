"""Tables of latents -> files of the run; what an explainer saw is never written beside what is scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import polars as pl

from autointerp.sampling.latents.shared_ngrams import refuse_leaks
from autointerp.sampling.latents.tables import TABLES

__all__ = ["TableStore", "table_of", "tables_are_whole", "write_tables"]


@runtime_checkable
class TableStore(Protocol):
    """Where final tables go; `run_store.RunStore` is one."""

    def write_table(self, name: str, frame: pl.DataFrame) -> Any:
        """Write a table, wholly or not at all."""
        ...


def table_of(name: str, frame: pl.DataFrame, *, checkpoint: str | None = None) -> pl.DataFrame:
    """A frame with just the columns of a table, in their order and types.

    Args:
        name: of the table.
        frame: holds all of its columns; further ones are left out.
        checkpoint: what to put in the column `checkpoint`, where the frame has none.
    """
    if checkpoint is not None:
        frame = frame.with_columns(checkpoint=pl.lit(checkpoint))
    return frame.select(pl.col(column).cast(kind) for column, kind in TABLES[name].items())


def write_tables(store: TableStore, tables: Mapping[str, pl.DataFrame]) -> None:
    """Write all tables of a run as `latents/NAME.parquet`.

    Raises:
        RunStoreError: an example for explaining lies in a document that is scored on, or shares 16 tokens
            around a scored focus; nothing is written then.
    """
    for _checkpoint, own in tables["examples"].group_by("checkpoint"):
        refuse_leaks(own, tables["contexts"])
    for name in TABLES:
        store.write_table(f"latents/{name}.parquet", table_of(name, tables[name]))


def tables_are_whole(folder: Path) -> bool:
    """Whether all tables lie in a folder and can be read, with the columns of this version."""
    try:
        return all(
            dict(pl.read_parquet(folder / f"{name}.parquet").schema) == schema
            for name, schema in TABLES.items()
        )
    # A panic is how polars ends on some damaged files.
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False
