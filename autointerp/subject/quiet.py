"""Keeps the Hugging Face libraries from talking while they load something."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL, getLogger

__all__ = ["quiet_transformers"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars, log lines and warnings of the hub's libraries while open, and only then."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from huggingface_hub.utils import disable_progress_bars as disable_hub_bars
    from huggingface_hub.utils import enable_progress_bars as enable_hub_bars
    from transformers.utils import logging

    verbosity, bars, hub_bars = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        not are_progress_bars_disabled(),
    )
    accelerate = getLogger("accelerate")
    level = accelerate.level
    accelerate.setLevel(CRITICAL)
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    disable_hub_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        accelerate.setLevel(level)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            enable_hub_bars()
