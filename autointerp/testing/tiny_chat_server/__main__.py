"""Serves until interrupted: python -m autointerp.testing.tiny_chat_server --backend model --port 8000."""

import json
import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from autointerp.testing.tiny_chat_server.exchange import Backend
from autointerp.testing.tiny_chat_server.faults import FAULTS
from autointerp.testing.tiny_chat_server.faulty_backend import FaultyBackend
from autointerp.testing.tiny_chat_server.oracle_backend import OracleBackend
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

__all__ = ["BackendName", "main", "make_backend"]


class BackendName(StrEnum):
    """Who answers."""

    MODEL = "model"
    ORACLE = "oracle"
    SCRIPTED = "scripted"


def make_backend(name: BackendName, *, reply: str, faults: float, seed: int) -> Backend:
    """The backend of this name.

    Args:
        name: which.
        reply: what the scripted one says.
        faults: share of answers that are faulty.
        seed: of the faults.
    """
    backend: Backend
    if name is BackendName.MODEL:
        from autointerp.testing.tiny_chat_server.model_backend import ModelBackend  # torch takes seconds

        backend = ModelBackend()
    elif name is BackendName.ORACLE:
        backend = OracleBackend()
    else:
        backend = ScriptedBackend([reply])
    return FaultyBackend(backend, faults=faults, seed=seed) if faults else backend


def main(
    backend: Annotated[BackendName, typer.Option(help="who answers")] = BackendName.MODEL,
    port: Annotated[int, typer.Option(help="where; 0: any free port")] = 0,
    reply: Annotated[str, typer.Option(help="of the scripted backend")] = "hello",
    latency_ms: Annotated[float, typer.Option(help="how long every answer takes")] = 0.0,
    faults: Annotated[float, typer.Option(help=f"share of faulty answers, of {len(FAULTS)} kinds")] = 0.0,
    seed: Annotated[int, typer.Option(help="of the faults")] = 0,
) -> None:
    """Print the address, serve until interrupted, print what was asked."""
    made = make_backend(backend, reply=reply, faults=faults, seed=seed)
    try:
        _serve(made, latency_seconds=latency_ms / 1000, port=port)
    except OSError as error:
        sys.stderr.write(f"cannot listen on port {port}: {error}\n")
        raise SystemExit(2) from None


def _serve(backend: Backend, *, latency_seconds: float, port: int) -> None:
    with tiny_chat_server(backend, latency_seconds=latency_seconds, port=port) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            sys.stdout.write(json.dumps(server.log.summary()) + "\n")


if __name__ == "__main__":
    typer.run(main)
