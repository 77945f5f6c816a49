"""What `huggingface_hub` raises -> one line that says what is wrong and what to do.

The library's own texts are not quoted: they hold addresses and what the server said, which may be a token.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from autointerp.errors import CheckpointError

__all__ = ["connection_errors", "hub_errors_in_words"]

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_AGAIN = "run it again: what is complete already is not fetched twice"
_BROKEN_OFF = ("the download broke off", _AGAIN)
_NO_CONNECTION = (
    "the Hugging Face hub cannot be reached, and not all of it is in the cache",
    "check the connection and HF_ENDPOINT, or download it while there is a connection",
)
_OFFLINE = (
    "HF_HUB_OFFLINE is set, and this is not in the cache",
    "run once with a connection, or name a revision that is in the cache",
)
_NO_REPOSITORY = (
    "there is no such model repository, or it is private",
    f"check the name: of a repository, not of a SAELens release; if it is private, {_LOG_IN}",
)


def connection_errors() -> tuple[type[Exception], ...]:
    """What is raised when no answer came at all, or none was asked for."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    return (httpx2.TransportError, OfflineModeIsEnabled)


@contextmanager
def hub_errors_in_words(where: object) -> Iterator[None]:
    """Raise a CheckpointError for what the hub's library raises; keep the library quiet while open."""
    import httpx2
    from huggingface_hub.errors import RevisionResolutionError

    # A reply that is no hub's makes the library raise what a wrong type or key does; hf_xet a RuntimeError.
    faults = (
        *(httpx2.HTTPError, httpx2.InvalidURL, RevisionResolutionError, OSError, ValueError),
        *(RuntimeError, KeyError, TypeError, AttributeError, AssertionError),
    )
    try:
        with _quiet_hub():
            yield
    except CheckpointError as error:
        raise (
            error if error.where else CheckpointError(error.what, where=where, remedy=error.remedy)
        ) from error
    except faults as error:
        what, remedy = _words(error)
        raise CheckpointError(what, where=where, remedy=remedy) from error


def _words(error: Exception) -> tuple[str, str]:
    """What is wrong, and what to do."""
    import httpx2
    from huggingface_hub import is_offline_mode
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, RevisionResolutionError

    # The library raises its own error from that of the hub once it has looked into its cache in vain.
    chain = [error, *([error.__cause__] if error.__cause__ else [])]
    refusal = next((each for each in chain if isinstance(each, HfHubHTTPError)), None)
    unreachable = (RevisionResolutionError, *connection_errors())
    if refusal is not None:
        words = _words_for_a_refusal(refusal)
    elif isinstance(error, (httpx2.ReadError, httpx2.ReadTimeout, httpx2.RemoteProtocolError)):
        words = _BROKEN_OFF
    elif is_offline_mode():
        words = _OFFLINE
    elif any(isinstance(each, unreachable) for each in chain):
        words = _NO_CONNECTION
    elif not isinstance(error, OSError) or any(isinstance(each, FileMetadataError) for each in chain):
        words = f"what answers is no Hugging Face hub ({type(error).__name__})", "check HF_ENDPOINT"
    elif error.errno is not None:
        words = f"the cache cannot be used ({error.strerror})", "set HF_HUB_CACHE to a folder that can be"
    else:
        words = _BROKEN_OFF
    return words


def _words_for_a_refusal(error: Any) -> tuple[str, str]:
    """Of an answer with an HTTP error status, by what the hub says of its cause in headers."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    cases: tuple[tuple[bool, tuple[str, str]], ...] = (
        (
            isinstance(error, GatedRepoError),
            ("access to this repository is restricted", f"accept its licence on the hub and {_LOG_IN}"),
        ),
        (
            isinstance(error, RevisionNotFoundError),
            ("it has no such revision", "check it; it stands last, as in hf:owner/name/path@main"),
        ),
        (
            isinstance(error, DisabledRepoError),
            ("the hub has disabled this repository", "name another one"),
        ),
        (isinstance(error, RepositoryNotFoundError) or status == 401, _NO_REPOSITORY),
        (isinstance(error, EntryNotFoundError), ("the hub lacks a file that it lists", _AGAIN)),
        (status == 403, ("the hub refuses access", f"{_LOG_IN} with a token that may read it")),
        (status == 404, _NO_REPOSITORY),
        (status == 429, ("the hub asks for fewer requests", f"wait some minutes, or {_LOG_IN}")),
    )
    fault = (f"the hub answers with error {status}", "try again later, or check HF_ENDPOINT")
    return next((words for applies, words in cases if applies), fault)


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Silence progress bars, log lines and warnings of the hub's library while open, and only then."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    verbosity, had_bars = hub_logging.get_verbosity(), not are_progress_bars_disabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            disable_progress_bars()
            hub_logging.set_verbosity(hub_logging.CRITICAL)
            yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if had_bars:
            enable_progress_bars()
