"""A suite's `[llm]` section -> the models of its roles, sharing limits, budget and the kept answers."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autointerp.explanation_sections import LlmSection
from autointerp.llm.language_model import LanguageModel

__all__ = ["ROLES", "OpenModels", "Role", "open_models"]

Role = Literal["explainer", "simulator", "judge"]

ROLES: tuple[Role, ...] = ("explainer", "simulator", "judge")


@dataclass(frozen=True, eq=False)
class OpenModels(Mapping[Role, LanguageModel]):
    """Models by role: `models["judge"].ask(request)`. They share one budget and one file of answers."""

    models: Mapping[Role, LanguageModel]

    def __getitem__(self, role: Role) -> LanguageModel:
        """The model that plays a role."""
        return self.models[role]

    def __iter__(self) -> Iterator[Role]:
        """Roles, in order."""
        return iter(self.models)

    def __len__(self) -> int:
        """How many roles are played."""
        return len(self.models)

    def cost_report(self) -> dict[str, Any]:
        """What was asked and paid so far, earlier sittings included; JSON-able."""
        raise NotImplementedError

    def judges(self) -> list[dict[str, Any]]:
        """Who answered: a row per role and answering model with its fingerprints and settings; JSON-able."""
        raise NotImplementedError


@contextlib.asynccontextmanager
async def open_models(
    section: LlmSection,
    cache_path: Path,
    *,
    roles: Sequence[Role] = ROLES,
    device: str = "auto",
    listen: Callable[[Any], None] | None = None,
) -> AsyncIterator[OpenModels]:
    """Open the models of a run; leaving waits for the answers that are under way, and keeps them.

    Args:
        section: whom to ask; its `model` or every role's must be given.
        cache_path: the run's `llm_replies.sqlite`; made if it is not there.
        roles: those that will be asked; only theirs is measured.
        device: for `base_url = "local"`.
        listen: called after each answer with how far the run is (calls, spend, rate).

    Raises:
        SuiteError: no model is named, or a budget in dollars without a price.
        EndpointError: it cannot be used, or, offline, was never measured.
        RunStoreError: `cache_path` is no file of answers, or is damaged.
    """
    del section, cache_path, roles, device, listen
    raise NotImplementedError
    yield OpenModels({})
