"""What a suite asks of its studies that cannot be done, found before anything is computed."""

from typing import Any

from autointerp.config import Suite
from autointerp.errors import SuiteError
from autointerp.probing.catalogue import refuse_unknown_tasks

__all__ = ["named_filler", "refuse_unusable"]


def refuse_unusable(suite: Suite, tokenizer: Any) -> None:
    """Refuse probe tasks that do not exist, and a filler that is no single token.

    Raises:
        SuiteError: there is one; or a task's file is bad.
    """
    if "probe" in suite.metrics.families:
        refuse_unknown_tasks(suite.probes.tasks)
    if "n2g" in suite.metrics.families and suite.graphs.filler is not None:
        named_filler(suite.graphs.filler, tokenizer)


def named_filler(named: str, tokenizer: Any) -> int:
    """The token that a suite names to stand for a replaced one.

    Raises:
        SuiteError: the text is no single token of this subject.
    """
    ids = tokenizer.encode(named, add_special_tokens=False)
    if len(ids) != 1:
        raise SuiteError(
            f"graphs.filler {named!r} is {len(ids)} tokens of the subject",
            where="suite",
            remedy="name a text that is one token, or leave it out",
        )
    return int(ids[0])
