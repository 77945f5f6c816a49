"""One thread that does all writes to an SQLite file: what waits together is committed together."""

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future

__all__ = ["SqliteWriter", "Write"]

Write = Callable[[sqlite3.Connection], bool]
"""Executes statements, commits nothing; its value is handed to whoever asked."""

_MOST_AT_ONCE = 256


class SqliteWriter:
    """Writes in the order they were handed in; a write is done when it is committed.

    An event loop does not wait for the disk or for another process's lock, and a burst of answers costs one
    commit.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Start the thread; it opens its own connection."""
        self._queue: queue.SimpleQueue[tuple[Write, Future[bool]] | None] = queue.SimpleQueue()
        self._connect = connect
        self._thread = threading.Thread(target=self._work, name="llm-replies", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> Future[bool]:
        """Hand in a write."""
        done: Future[bool] = Future()
        self._queue.put((write, done))
        return done

    def close(self) -> None:
        """Do what is still waiting, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            connection = self._connect()
        except sqlite3.Error as error:
            self._refuse(error)
            return
        try:
            while (batch := self._next_batch()) is not None:
                _commit(connection, batch)
        finally:
            connection.close()

    def _refuse(self, error: sqlite3.Error) -> None:
        """Nothing can be written: whoever waits is told."""
        while (batch := self._next_batch()) is not None:
            for _, done in batch:
                if done.set_running_or_notify_cancel():
                    done.set_exception(error)

    def _next_batch(self) -> list[tuple[Write, "Future[bool]"]] | None:
        """All that waits; None at the end."""
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < _MOST_AT_ONCE:
            try:
                found = self._queue.get_nowait()
            except queue.Empty:
                break
            if found is None:
                self._queue.put(None)
                break
            batch.append(found)
        return batch


def _commit(connection: sqlite3.Connection, batch: list[tuple[Write, "Future[bool]"]]) -> None:
    """All in one go; if one of them fails, each by itself, so that the others are kept.

    Whoever asked may have gone meanwhile; an answer is kept all the same.
    """
    waiting = [done.set_running_or_notify_cancel() for _, done in batch]
    try:
        results = _executed(connection, [write for write, _ in batch])
    except Exception as error:
        if len(batch) == 1:
            if waiting[0]:
                batch[0][1].set_exception(error)
            return
        results = None
    if results is None:
        _commit_singly(connection, batch, waiting)
        return
    for (_, done), is_waited_for, result in zip(batch, waiting, results, strict=True):
        if is_waited_for:
            done.set_result(result)


def _commit_singly(
    connection: sqlite3.Connection, batch: list[tuple[Write, "Future[bool]"]], waiting: list[bool]
) -> None:
    for (write, done), is_waited_for in zip(batch, waiting, strict=True):
        try:
            (result,) = _executed(connection, [write])
        except Exception as error:
            if is_waited_for:
                done.set_exception(error)
        else:
            if is_waited_for:
                done.set_result(result)


def _executed(connection: sqlite3.Connection, writes: list[Write]) -> list[bool]:
    """One transaction."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [write(connection) for write in writes]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results
