"""A policy in TOML -> rules. Each has a name and a reason; what is misspelt is refused, never ignored."""

import difflib
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from autointerp.errors import PolicyError

__all__ = [
    "COVERAGES",
    "PROVENANCE",
    "Policy",
    "Rule",
    "RuleKind",
    "judging",
    "load_policy",
    "policy_from_mapping",
]

RuleKind = Literal["at_most", "at_least", "no_worse_than", "better_than_null", "coverage", "same"]

COVERAGES = ("scorable_fraction", "scorable_mass_fraction")
"""Of a dictionary's sampled latents, as in report.json's `coverage`; exact counts, without an interval."""
PROVENANCE = ("corpus", "subject", "judge", "code_version")
"""What `same` can ask to be as in the baseline."""

_POLICY_KEYS = ("name", "level", "checkpoints", "rules")
_RULE_KEYS = (
    "name", "reason", "metric", "slice", "at_most", "at_least", "no_worse_than", "margin",
    "better_than_null", "coverage", "same", "checkpoints",
)  # fmt: skip
_IDLE = {
    "at_most": ("margin",),
    "at_least": ("margin",),
    "coverage": ("margin", "slice"),
    "better_than_null": ("slice",),  # nulls are compared in the headline slice only
    "same": ("metric", "slice", "margin", "coverage"),
}
_LARGEST = sys.float_info.max
_DECIDING = ("at_most", "at_least", "no_worse_than", "better_than_null", "same")


@dataclass(frozen=True)
class Rule:
    """One condition that every judged checkpoint must meet."""

    name: str
    reason: str
    kind: RuleKind
    metric: str = ""
    slice: Mapping[str, Any] = field(default_factory=dict)
    limit: float | None = None
    """Of `at_most`, `at_least` and `coverage`, in the metric's unit."""
    is_upper: bool = True
    """Whether the limit may not be exceeded; else it must be reached."""
    margin: float = 0.0
    """Of `no_worse_than`: by how much worse than the baseline is still taken for as good, in the metric's
    unit. Of `better_than_null`: by how much it must be better."""
    coverage: str = ""
    same: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    """Patterns of names; empty: as the policy says."""


@dataclass(frozen=True)
class Policy:
    """Rules, and at which level each is decided."""

    name: str
    rules: tuple[Rule, ...]
    level: float = 0.95
    """One-sided, of each rule."""
    checkpoints: tuple[str, ...] = ("*",)
    """Patterns of the names of the checkpoints that are judged; nulls never are."""

    @property
    def needs_baseline(self) -> bool:
        """Whether a rule asks about another run."""
        return any(rule.kind in ("no_worse_than", "same") for rule in self.rules)


def load_policy(path: Path) -> Policy:
    """The policy in a TOML file.

    Raises:
        PolicyError: unreadable, no TOML, or a rule that cannot be meant so; one line says which and why.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolicyError("no such policy file", where=path, remedy="give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"is no TOML: {error}", where=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise PolicyError(f"cannot be read ({error})", where=path) from None
    return policy_from_mapping(content, where=str(path))


def judging(policy: Policy, checkpoints: tuple[str, ...]) -> Policy:
    """The same policy about other checkpoints: names or patterns; a null is judged where it is named."""
    rules = tuple(replace(rule, checkpoints=()) for rule in policy.rules)
    return replace(policy, checkpoints=checkpoints, rules=rules)


def policy_from_mapping(content: Mapping[str, Any], *, where: str = "policy") -> Policy:
    """The policy in plain values.

    Raises:
        PolicyError: it holds what no policy has, or lacks what it needs.
    """
    _refuse_unknown(content, _POLICY_KEYS, where)
    level = content.get("level", 0.95)
    if not _is_number(level) or not 0.5 < level < 1:
        raise PolicyError("`level` must lie between .5 and 1", where=where, remedy="e.g. level = 0.95")
    rules = content.get("rules")
    if not isinstance(rules, list) or not rules:
        raise PolicyError("has no [[rules]]", where=where, remedy="a gate without a rule would pass anything")
    made = tuple(_rule(rule, f"{where}, rule {place}") for place, rule in enumerate(rules, start=1))
    names = [rule.name for rule in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PolicyError(f"two rules are called {twice[0]!r}", where=where)
    return Policy(
        name=_text(content, "name", where),
        rules=made,
        level=float(level),
        checkpoints=_patterns(content, where) or ("*",),
    )


def _rule(given: Any, where: str) -> Rule:
    if not isinstance(given, dict):
        raise PolicyError("is no table", where=where, remedy="write [[rules]]")
    _refuse_unknown(given, _RULE_KEYS, where)
    name = _text(given, "name", where)
    where = f"{where} ({name})"
    deciding = [key for key in _DECIDING if key in given]
    if len(deciding) != 1:
        found = " and ".join(deciding) or "none of them"
        raise PolicyError(f"needs one of {', '.join(_DECIDING)}, has {found}", where=where)
    common: dict[str, Any] = {
        "name": name,
        "reason": _text(given, "reason", where),
        "checkpoints": _patterns(given, where),
    }
    key = deciding[0]
    _refuse_idle(given, key, where)
    if key == "same":
        return Rule(**common, kind="same", same=_same(given, where))
    if "coverage" in given:
        return Rule(**common, kind="coverage", coverage=_coverage(given, where), **_limit(given, key, where))
    common |= {"metric": _text(given, "metric", where), "slice": _slice(given, where)}
    if key == "no_worse_than":
        return Rule(**common, kind="no_worse_than", margin=_margin(given, where))
    if key == "better_than_null":
        if given[key] is not True:
            raise PolicyError("`better_than_null` can only be true", where=where, remedy="else leave it out")
        return Rule(**common, kind="better_than_null", margin=_margin(given, where))
    return Rule(**common, kind="at_most" if key == "at_most" else "at_least", **_limit(given, key, where))


def _refuse_idle(given: Mapping[str, Any], key: str, where: str) -> None:
    """A key that the rule's condition does not read would be taken for a part of it."""
    kind = "coverage" if "coverage" in given and key != "same" else key
    for each in _IDLE.get(kind, ()):
        if each in given:
            raise PolicyError(f"`{each}` does nothing beside `{kind}`", where=where, remedy="leave it out")


def _limit(given: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    if key not in ("at_most", "at_least"):
        raise PolicyError(f"`coverage` has no `{key}`", where=where, remedy="use at_most or at_least")
    if not _is_number(given[key]):
        raise PolicyError(f"`{key}` is no finite number", where=where)
    return {"limit": float(given[key]), "is_upper": key == "at_most"}


def _margin(given: Mapping[str, Any], where: str) -> float:
    if given.get("no_worse_than", "baseline") != "baseline":
        raise PolicyError('`no_worse_than` can only be "baseline"', where=where)
    margin = given.get("margin", 0.0)
    if not _is_number(margin) or margin < 0:
        raise PolicyError("`margin` must be a number from 0 on, in the metric's unit", where=where)
    return float(margin)


def _coverage(given: Mapping[str, Any], where: str) -> str:
    if given["coverage"] not in COVERAGES:
        raise PolicyError(f"`coverage` is one of {', '.join(COVERAGES)}", where=where)
    if "metric" in given:
        raise PolicyError("has both `metric` and `coverage`", where=where, remedy="make two rules of it")
    return str(given["coverage"])


def _same(given: Mapping[str, Any], where: str) -> tuple[str, ...]:
    wanted = given["same"]
    if not isinstance(wanted, list) or not wanted or any(word not in PROVENANCE for word in wanted):
        raise PolicyError(f"`same` is a list of {', '.join(PROVENANCE)}", where=where)
    return tuple(wanted)


def _slice(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = given.get("slice", {})
    if not isinstance(found, dict):
        raise PolicyError("`slice` is no table", where=where, remedy="e.g. slice = {k = 5}")
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise PolicyError("`slice` holds what no slice has", where=where, remedy="e.g. {k = 5}") from None
    return found


def _patterns(given: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = given.get("checkpoints", [])
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or any(not isinstance(each, str) for each in found):
        raise PolicyError("`checkpoints` is a list of names or patterns", where=where)
    return tuple(found)


def _text(given: Mapping[str, Any], key: str, where: str) -> str:
    found = given.get(key)
    if not isinstance(found, str) or not found.strip():
        raise PolicyError(f"lacks `{key}`", where=where, remedy=f'write {key} = "..."')
    return found


def _is_number(value: object) -> bool:
    # A TOML integer can be larger than any float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=2, cutoff=0.5) or known
            raise PolicyError(f"unknown key `{key}`, nearest: {', '.join(close)}", where=where)
