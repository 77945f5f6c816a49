"""What a best single latent is set against: no input at all, labels at random, directions at random."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from autointerp.metrics.probe_search import ProbedTask
from autointerp.sampling.samplers.hashing import text_hash

__all__ = ["chance_logits", "shuffled_labels"]


def chance_logits(task: ProbedTask) -> Float[np.ndarray, " probe_example"]:
    """Logit of the share of positive train examples, for every test example: a probe that sees nothing."""
    share = float(task.label[~task.is_test].mean())
    return np.full(int(task.is_test.sum()), np.log(share) - np.log1p(-share))


def shuffled_labels(
    task: ProbedTask, groups: Sequence[str], *, seed: int
) -> Bool[np.ndarray, " probe_example"]:
    """The labels at random: shuffled within train and within test, each by itself.

    Groups all of whose examples (of a side) have one label keep having one: these labels are shuffled among
    such groups, so that what makes examples of a group alike is still there. All other examples exchange
    labels with one another. The shares of positives stay about the same, and exactly so where groups are of
    one size.
    """
    found = task.label.copy()
    names, group = np.unique(np.array(groups, dtype=object), return_inverse=True)
    for side, is_side in (("train", ~task.is_test), ("test", task.is_test)):
        generator = np.random.default_rng(text_hash(f"{seed}\0{task.name}\0shuffled labels\0{side}"))
        size = np.bincount(group[is_side], minlength=len(names))
        positive = np.bincount(group[is_side & task.label], minlength=len(names))
        is_pure = (size > 0) & ((positive == 0) | (positive == size))
        pure = np.flatnonzero(is_pure)
        by_group = np.zeros(len(names), dtype=bool)
        by_group[pure] = generator.permutation(positive[pure] > 0)
        mine = is_side & is_pure[group]
        found[mine] = by_group[group[mine]]
        rest = np.flatnonzero(is_side & ~is_pure[group])
        found[rest] = task.label[generator.permutation(rest)]
    return found
