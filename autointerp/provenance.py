"""What a run was made with: versions, machine, commit. No user name, no host name, no path."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["git_state", "provenance"]

_PACKAGES = ("numpy", "polars", "safetensors", "scikit-learn", "scipy", "torch", "transformers")


def provenance(*, seed: int, accelerator: str | None = None) -> dict[str, Any]:
    """Date, versions, processor and commit as a JSON-able mapping; what is not known is None.

    Args:
        seed: the run's root seed.
        accelerator: name of the GPU if one was used; asked for because this module does not import torch.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "autointerp_version": _version("autointerp-suite"),
        "python_version": platform.python_version(),
        "package_versions": {name: _version(name) for name in _PACKAGES},
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpu_count": _cpu_count(),
        "accelerator": accelerator,
        "seed": seed,
        "git": git_state(Path(__file__).parent.parent),
    }


def git_state(checkout: Path) -> dict[str, Any] | None:
    """Commit of a source checkout and whether tracked files were changed since; None if it is no checkout.

    A package installed inside somebody's repository must not report that repository's commit, so only a
    repository whose root is `checkout` itself counts.
    """
    if not (checkout / ".git").exists():
        return None
    commit = _git(checkout, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    changes = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "has_changes": None if changes is None else bool(changes)}


def _git(checkout: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    """Model of the processor; Linux tells it in a file only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def _cpu_count() -> int | None:
    """Cores that this process may use, which in a container are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
