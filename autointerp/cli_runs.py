"""What `demo` and `evaluate` do: run a suite with bars, say its table, and the verdict where it is gated."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from autointerp.console import complain, print_table, printable, progress, say
from autointerp.errors import AutointerpError

if TYPE_CHECKING:
    from autointerp.gating.verdict import Verdict

__all__ = ["Judging", "find_own_modules", "run_suite"]


@dataclass
class Judging:
    """By what a run is gated at its end, and what came of it."""

    policy: str
    baseline: Path | None = None
    nulls_too: bool = False
    """Judge each null by itself as well, in words only, and say only the verdicts: for the demo."""
    verdict: "Verdict | None" = field(default=None, init=False)
    problem: AutointerpError | None = field(default=None, init=False)
    _annotations: list[str] = field(default_factory=list, init=False)

    def check(self) -> None:
        """Read the policy and the baseline before anything is computed.

        Raises:
            BadInputError: one of them cannot be used.
        """
        from autointerp.gating.evidence import read_evidence
        from autointerp.gating.files import policy_path
        from autointerp.gating.policy import load_policy

        load_policy(policy_path(self.policy))
        if self.baseline is not None:
            read_evidence(self.baseline)

    def __call__(self, run: Path) -> None:
        """Decide, and leave the verdict's files in `gate`; a problem is kept, since the page comes first."""
        from autointerp.gating.files import policy_path, write_verdict
        from autointerp.gating.verdict import gate

        try:
            self.verdict = gate(run, policy_path(self.policy), baseline=self.baseline)
            self._annotations = write_verdict(self.verdict, run / "gate")
        except AutointerpError as error:
            self.problem = error

    def judge_finished(self, run: Path) -> None:
        """The same for a run whose page is there already: it is drawn again where it shows another verdict.

        That is where the verdict is another than before, and where the page is older than the verdict: then
        `gate` wrote it, or the command was killed before the page was drawn.
        """
        from autointerp.reporting.rewrite import rewrite_report
        from autointerp.reporting.verdict_section import VERDICT_FILE

        file, page = run / VERDICT_FILE, run / "report.html"
        before = file.read_bytes() if file.is_file() else b""
        is_newer = bool(before) and page.stat().st_mtime_ns >= file.stat().st_mtime_ns
        self(run)
        if self.problem is None and not (is_newer and file.read_bytes() == before):
            rewrite_report(run, form="html")

    def say(self, run: Path) -> None:
        """Print the verdict.

        Raises:
            AutointerpError: that kept it from being reached.
        """
        from autointerp.gating.words import verdict_lines

        if self.problem is not None:
            raise self.problem
        assert self.verdict is not None
        for line in self._annotations:
            typer.echo(printable(line))
        lines = verdict_lines(self.verdict)
        say("\n".join([f"gate, {lines[0]}", *([] if self.nulls_too else lines[1:])]))
        if self.nulls_too:
            self._say_nulls(run)

    def _say_nulls(self, run: Path) -> None:
        from autointerp.gating.evidence import read_evidence
        from autointerp.gating.policy import judging
        from autointerp.gating.verdict import decide
        from autointerp.gating.words import verdict_lines

        assert self.verdict is not None
        evidence = read_evidence(run)
        for name in (name for name in evidence.checkpoints if name not in evidence.judged):
            of_null = decide(judging(self.verdict.policy, (name,)), evidence)
            say(printable(f"gate, the null {name}: {verdict_lines(of_null)[0]}"))


def run_suite(
    suite_path: Path,
    out: Path | None,
    *,
    overrides: list[str] | None = None,
    checkpoints: list[str] | None = None,
    replace_other: bool = False,
    judging: Judging | None = None,
) -> None:
    """Evaluate a suite, print its table, where the report is, and the verdict.

    Raises:
        AutointerpError: something cannot be used.
        typer.Exit: 4 where a metric failed; else the gate's code where there is a gate that must pass.
    """
    from rich.console import Console

    from autointerp.config import load_suite

    find_own_modules()
    if judging is not None:
        judging.check()
    suite = load_suite(suite_path, overrides=overrides or [], checkpoints=checkpoints or [])
    from autointerp.evaluation import default_run_directory, evaluate
    from autointerp.reporting.failures import failure_lines
    from autointerp.reporting.terminal import summary_table

    directory = out or default_run_directory(suite)
    with progress() as bars:
        report = evaluate(suite, out=directory, progress=bars, replace_other=replace_other, judge=judging)
    if judging is not None and judging.verdict is None and judging.problem is None:
        judging.judge_finished(directory)
    console = Console()
    print_table(console, summary_table(report, width=console.width))
    for line in failure_lines(report):
        console.print(printable(line), style="red", markup=False, emoji=False, highlight=False)
    say(f"{directory / 'report.html'}\n{directory / 'report.json'}")
    if judging is not None:
        _say_verdict(judging, directory, has_failures=bool(report.failures))
    if report.failures:
        raise typer.Exit(4)
    if judging is not None and judging.verdict is not None and not judging.nulls_too:
        raise typer.Exit(judging.verdict.exit_code)


def _say_verdict(judging: Judging, run: Path, *, has_failures: bool) -> None:
    """Print it; what kept it from being reached ends the command, unless metrics failed, which goes first."""
    try:
        judging.say(run)
    except AutointerpError as error:
        if not has_failures:
            raise
        complain(error)


def find_own_modules() -> None:
    """Let `package.module:factory` name a module in the working directory; installed ones go first."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
