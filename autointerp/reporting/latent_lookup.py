"""What was asked for on the command line -> LatentView, or the LatentList where no latent was named."""

from pathlib import Path

from autointerp.reporting.example_groups import ExampleChoice
from autointerp.reporting.latent_list import LatentList, latent_list
from autointerp.reporting.latent_view import LatentView, find_latent, latent_view

__all__ = ["look_up"]

_EXAMPLES = 5
_LISTED = 20


def look_up(
    run: Path,
    *,
    checkpoint: str | None = None,
    latent: str | None = None,
    samplers: tuple[str, ...] = (),
    split: str | None = None,
    examples: int | None = None,
    seed: int = 0,
) -> LatentView | LatentList:
    """One latent of a run, or the list of those that were sampled.

    Args:
        run: the run directory, or its report.json.
        checkpoint: the dictionary's name; default: the only one that was sampled and is no null.
        latent: an index or `random`, see `find_latent`; None: the list.
        samplers: whose examples; empty: all.
        split: of which split; None: all three.
        examples: of each group, default 5; rows of the list, default 20.
        seed: of `random`.

    Raises:
        BadInputError: the run, the checkpoint, the latent or a sampler does not exist, or a table is damaged.
    """
    if latent is None:
        return latent_list(run, checkpoint=checkpoint, count=examples or _LISTED)
    return latent_view(
        run,
        checkpoint=checkpoint,
        latent=find_latent(run, latent, checkpoint=checkpoint, seed=seed),
        choice=ExampleChoice(samplers, split, examples or _EXAMPLES),
    )
