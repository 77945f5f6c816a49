"""Runs the subject once over the texts of probe tasks and keeps the token vectors that probes read."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.errors import SubjectError
from autointerp.metrics.probe_pooling import ItemTable
from autointerp.probe_records import ProbeText
from autointerp.progress import Advance
from autointerp.subject.subject_model import SubjectModel

__all__ = ["read_vectors"]


def read_vectors(
    subject: SubjectModel,
    texts: Sequence[ProbeText],
    table: ItemTable,
    sites: Sequence[str],
    *,
    batch_tokens: int,
    advance: Advance,
) -> dict[str, Float[Tensor, "token d_model"]]:
    """The table's token vectors at each site, float32, in memory of the processor.

    Texts of about one length are run together, the longest first, and no further than the deepest site.

    Raises:
        SubjectError: an activation is not finite.
    """
    found = {site: torch.empty(len(table.text), subject.width(site)) for site in sites}
    for group in _batches(texts, np.unique(table.text), batch_tokens):
        tokens, mask = _padded([texts[text].tokens for text in group])
        read = subject.read(tokens.to(subject.device), sites, mask.to(subject.device))
        for row, text in enumerate(group):
            first, last = np.searchsorted(table.text, [text, text + 1]).tolist()
            position = torch.from_numpy(table.position[first:last])
            for site, x in read.items():
                found[site][first:last] = x[row, position.to(x.device)].to("cpu", torch.float32)
        advance(int(mask.sum()))
    for site, x in found.items():
        if not bool(torch.isfinite(x).all()):
            raise SubjectError(
                "activations on a probe task's text are not finite",
                where=f"site {site}",
                remedy="load the subject in float32 or bfloat16, or look for a damaged weight file",
            )
    return found


def _batches(texts: Sequence[ProbeText], used: np.ndarray, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of texts, longest first, at most so many positions together."""
    order = sorted(used.tolist(), key=lambda text: (-len(texts[text].tokens), text))
    first = 0
    while first < len(order):
        count = max(1, batch_tokens // len(texts[order[first]].tokens))
        yield order[first : first + count]
        first += count


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids with padding on the right (any id would do), and where there is none."""
    width = len(rows[0])
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = True
    return tokens, mask
