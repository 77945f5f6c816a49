"""The command line: one short function a verb. The only module that prints or exits."""

import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from autointerp.cli_options import (
    BaselineOption,
    CheckpointOption,
    DeviceOption,
    DollarOption,
    OfflineOption,
    OtherJudgeOption,
    OutOption,
    SetOption,
    TokenOption,
)
from autointerp.cli_runs import Judging, find_own_modules, run_suite
from autointerp.cli_train import train
from autointerp.console import complain, note, print_pairs, print_rows, print_table, printable, progress, say
from autointerp.errors import AutointerpError, PolicyError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Evaluates sparse autoencoders trained on language models: one comparative report, every number "
    "with its interval and beside a null.\n\nExit codes: 0 done, pass · 1 gate: fail · 2 bad input · 3 gate: "
    "undecided · 4 a metric failed (the report says which) · 5 the LLM budget is used up (a larger one goes "
    "on) · 130 interrupted (run it again "
    "to go on).",
)

DEMO_FOLDER = Path("reports/demo")


@app.command()
def demo(out: OutOption = DEMO_FOLDER, overrides: SetOption = None) -> None:
    """Evaluate the embedded checkpoints on the standard library: no network, no key, no GPU.

    Ends with a gate's verdict on the checkpoints, and on the null, which fails.
    """
    from autointerp.bundled import bundled_path

    # An upgrade changes what the numbers depend on; the demo's own folder then holds nothing worth keeping.
    suite = bundled_path("suites", "demo.toml")
    folder = out or DEMO_FOLDER
    judging = Judging("release", nulls_too=True)
    run_suite(suite, folder, overrides=overrides, replace_other=folder == DEMO_FOLDER, judging=judging)


@app.command()
def evaluate(
    suite: Annotated[
        Path, typer.Argument(help="A suite in TOML; `autointerp schema --suite` says what it may hold.")
    ],
    out: OutOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    allow_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch",
            help="Measure checkpoints that say of themselves that they belong to another subject or site.",
        ),
    ] = False,
    offline: OfflineOption = False,
    budget_usd: DollarOption = None,
    budget_tokens: TokenOption = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="Gate the run by this policy at its end: the exit code is the gate's."),
    ] = None,
    baseline: BaselineOption = None,
    overrides: SetOption = None,
) -> None:
    """Evaluate a suite's checkpoints and write report.html and report.json.

    A killed run goes on where it was when it is started again with the same --out. With --policy the run is
    gated too: the verdict stands on the report's first screen, its files in the run's `gate` folder. With
    --set llm.model=... (and llm.base_url=...) an LLM explains latents and judges the explanations; the key
    is taken from OPENAI_API_KEY.
    """
    given = {"subject.device": device, "llm.budget_usd": budget_usd, "llm.budget_tokens": budget_tokens}
    settings = [*(overrides or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    settings += ["checks.allow_mismatch=true"] if allow_mismatch else []
    settings += ["llm.offline=true"] if offline else []
    if baseline is not None and policy is None:
        raise PolicyError("is only compared with by a gate", where="--baseline", remedy="add --policy")
    judging = None if policy is None else Judging(policy, baseline)
    run_suite(suite, out, overrides=settings, checkpoints=checkpoint, judging=judging)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory, or its report.json.")],
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="What others published, shown beside (html): SAEBench JSON, delphi folders."),
    ] = None,
    form: Annotated[
        Literal["html", "json", "md", "csv", "parquet", "model-card", "neuronpedia", "svg", "png"],
        typer.Option("--format", help="What to write."),
    ] = "html",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: beside the run's report.")
    ] = None,
    without_text: Annotated[
        bool, typer.Option("--without-text", help="Leave out explanations and all that quotes the corpus.")
    ] = False,
) -> None:
    """Write a finished run's report again, in any format; nothing is recomputed."""
    from autointerp.reporting.rewrite import rewrite_report

    say(str(rewrite_report(run, form=form, out=out, results=results or (), without_text=without_text)))


@app.command()
def inspect(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A file, a folder, a pattern ('sweep/**'), hf:owner/name/path@revision, demo:NAME or "
            "package.module:factory."
        ),
    ],
) -> None:
    """Show what a checkpoint is: format, architecture, shapes, site, norms, what is missing."""
    from autointerp.checkpoints.inspect import inspection
    from autointerp.checkpoints.load import ROOM_BYTES
    from autointerp.evaluation.sources import find_sources

    find_own_modules()
    with progress() as bars:
        sources = find_sources(checkpoint, progress=bars)
    failed: AutointerpError | None = None
    for source in sources:
        try:
            loaded = source.read(ROOM_BYTES)
        except AutointerpError as error:
            if len(sources) == 1:
                raise
            failed = error
            complain(error)
        else:
            print_pairs({"checkpoint": source.shown} | inspection(loaded))
    if failed is not None:
        raise typer.Exit(failed.exit_code)


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run directory, or its report.json.")],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Its name in the report; needed if there are several.")
    ] = None,
    latent: Annotated[
        str | None,
        typer.Option("--latent", help="Index, or `random`; default: a list of the sampled latents."),
    ] = None,
    sampler: Annotated[
        list[str] | None, typer.Option("--sampler", help="Examples of this sampler only. Repeatable.")
    ] = None,
    split: Annotated[
        Literal["explain", "validate", "score"] | None,
        typer.Option("--split", help="Examples of this split only."),
    ] = None,
    examples: Annotated[
        int | None, typer.Option("--examples", help="Of each group: 5; rows of the list: 20.", min=1)
    ] = None,
    width: Annotated[
        int | None, typer.Option("--width", help="Columns; default: the terminal's.", min=40)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of `--latent random`.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show one latent: how often and where it fires, what it promotes, examples; or list the sampled ones."""
    from autointerp.reporting.latent_dashboard import rendered
    from autointerp.reporting.latent_json import latent_json
    from autointerp.reporting.latent_lookup import look_up

    found = look_up(
        run,
        checkpoint=checkpoint,
        latent=latent,
        samplers=tuple(sampler or ()),
        split=split,
        examples=examples,
        seed=seed,
    )
    if as_json:
        say(latent_json(found))
        return
    from rich.console import Console

    console = Console(width=width)
    has_colors = console.color_system is not None and not console.no_color
    print_table(console, rendered(found, width=console.width, is_marked=not has_colors))


@app.command(name="check-endpoint")
def check_endpoint(
    base_url: Annotated[
        str, typer.Argument(help="Of a server that speaks OpenAI's protocol, e.g. http://localhost:8000/v1.")
    ] = "https://api.openai.com/v1",
    model: Annotated[str, typer.Option("--model", help="Its name there.")] = "gpt-4o-mini",
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", help="Environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Ask an LLM's endpoint what it really can do, with a handful of tiny calls, and print a table.

    A row that says no is no failure: `evaluate` refuses the methods that need it before it spends anything.
    """
    import asyncio

    from autointerp.config import llm_section
    from autointerp.llm.open_models import check_endpoint as check

    section = llm_section(base_url=base_url, model=model, api_key_env=api_key_env)
    rows = asyncio.run(check(section, roles=("judge",)))
    if as_json:
        import json

        say(json.dumps(rows, indent=2))
        return
    print_rows([(row["capability"], row["given"], row["evidence"]) for row in rows])


@app.command()
def compare(
    run: Annotated[Path, typer.Argument(help="A: a finished run's directory.")],
    reference: Annotated[Path, typer.Argument(help="B: the run that it is compared with.")],
    form: Annotated[
        Literal["table", "json", "md"], typer.Option("--format", help="What to print.")
    ] = "table",
    latents: Annotated[
        bool,
        typer.Option(
            "--latents",
            help="Also match the latents of both: kept, lost, gained, split. Needs the checkpoints.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write it to this file, to be looked at: .html, .json or .md."),
    ] = None,
    allow_other_judge: OtherJudgeOption = False,
) -> None:
    """Compare two finished runs: A minus B, checkpoint by checkpoint, metric by metric.

    Documents and tasks are paired; scores of latents are compared as independent samples. p-values are
    adjusted for all rows (Benjamini and Hochberg), and apart from them for single probe tasks. Nothing is
    run again.
    """
    from autointerp.reporting.difference_files import (
        differences_text,
        require_known_suffix,
        write_differences,
    )
    from autointerp.reporting.difference_tasks import task_lines
    from autointerp.reporting.run_differences import compare_runs, differences_table
    from autointerp.reporting.terminal import plain_table

    if out is not None:
        require_known_suffix(out)
    found = compare_runs(run, reference, allow_other_judge=allow_other_judge)
    matched, lines = None, []
    if latents:
        from autointerp.evaluation.matching import match_runs, matching_json, matching_lines

        find_own_modules()
        with progress() as bars:
            matched = matching_json(match_runs(run, reference, found.pairs, progress=bars))
        lines = matching_lines(matched)
    if form == "table":
        from rich.console import Console

        print_table(Console(), plain_table(differences_table(found)))
        for line in (*task_lines(found), *lines):
            say(printable(line))
        for line in found.notes:
            note(line)
    else:
        say(differences_text(found, matched, lines, suffix=f".{form}").removesuffix("\n"))
    if out is not None:
        write_differences(found, out, matched, lines)
        typer.echo(printable(str(out)), err=form != "table")  # what reads the JSON wants nothing else


@app.command()
def gate(
    run: Annotated[Path, typer.Argument(help="A finished run's directory, or its report.json.")],
    policy: Annotated[
        str,
        typer.Option("--policy", help="A TOML file, or the name of one that is shipped: `release`."),
    ] = "release",
    baseline: BaselineOption = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint", help="Judge these instead of the policy's: a name or pattern. Repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for verdict.json, junit.xml, verdict.md and badge.svg."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON, for programs.")] = False,
    allow_other_judge: OtherJudgeOption = False,
) -> None:
    """Decide whether a run's checkpoints may be released: pass (0), fail (1) or undecided (3).

    Every rule is decided on the ends of intervals. What was not measured fails; what is undefined is
    undecided. Within GitHub Actions annotations and the step summary are written too.
    """
    if "numpy" not in sys.modules:
        # A gate's products are small: threads, on a busy machine, wait for one another longer than they save.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from autointerp.gating.files import policy_path, write_verdict
    from autointerp.gating.verdict import gate as decided
    from autointerp.gating.verdict import verdict_json
    from autointerp.gating.words import verdict_lines

    verdict = decided(
        run,
        policy_path(policy),
        baseline=baseline,
        checkpoints=tuple(checkpoint or ()),
        allow_other_judge=allow_other_judge,
    )
    if as_json:
        import json

        # Names come from files of others; `##[` is a command to a CI runner wherever it stands.
        say(json.dumps(verdict_json(verdict), indent=2).replace("##[", "#\\u0023["))
    for line in write_verdict(verdict, out):
        typer.echo(printable(line), err=as_json)  # what reads the JSON wants nothing else
    if not as_json:
        say("\n".join(verdict_lines(verdict)))
    raise typer.Exit(verdict.exit_code)


app.command()(train)


@app.command()
def schema(
    suite: Annotated[
        bool, typer.Option("--suite", help="The suite's schema instead of report.json's.")
    ] = False,
) -> None:
    """Print the JSON schema of report.json (or of a suite)."""
    if suite:
        import json

        from autointerp.config import Suite

        say(json.dumps(Suite.model_json_schema(), indent=2))
        return
    from autointerp.reporting.json_file import schema_json

    say(schema_json())


def main() -> None:
    """Run the command line; every failure is one line on standard error and its exit code."""
    if sys.argv[1:2] == ["gate"]:
        gc.disable()  # it lives for a moment, and keeps all it reads: looking for garbage only walks that
    try:
        app()
    except AutointerpError as error:
        complain(error)
        sys.exit(error.exit_code)
    finally:
        gc.enable()
