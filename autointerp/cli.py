"""The command line: one short function a verb. The only module that prints or exits."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from autointerp.errors import AutointerpError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Evaluates sparse autoencoders trained on language models: one comparative report, every number "
    "with its interval and beside a null.\n\nExit codes: 0 done · 2 bad input · 4 a metric failed (the "
    "report says which) · 130 interrupted (run it again to go on).",
)

DEMO_FOLDER = Path("reports/demo")

OutOption = Annotated[Path | None, typer.Option("--out", help="Run directory; running again on it resumes.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ...; default: the suite's.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override: section.key=value (e.g. corpus.evaluation_tokens=50000)."),
]
CheckpointOption = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        help="A further checkpoint, beside the suite's: a file, a folder, a pattern ('sweep/**' finds all "
        "below), hf:owner/name/path@revision, or your own package.module:factory. Repeatable.",
    ),
]


@app.command()
def demo(out: OutOption = DEMO_FOLDER, overrides: SetOption = None) -> None:
    """Evaluate the embedded checkpoints on the standard library: no network, no key, no GPU."""
    from autointerp.bundled import bundled_path

    # An upgrade changes what the numbers depend on; the demo's own folder then holds nothing worth keeping.
    suite = bundled_path("suites", "demo.toml")
    _evaluate(suite, out, overrides=overrides, replace_other=out == DEMO_FOLDER)


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
    overrides: SetOption = None,
) -> None:
    """Evaluate a suite's checkpoints and write report.html and report.json.

    A killed run goes on where it was when it is started again with the same --out.
    """
    settings = [*(overrides or []), *([f"subject.device={device}"] if device else [])]
    settings += ["checks.allow_mismatch=true"] if allow_mismatch else []
    _evaluate(suite, out, overrides=settings, checkpoints=checkpoint)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory, or its report.json.")],
    form: Annotated[
        Literal["html", "json", "md", "csv"], typer.Option("--format", help="What to write.")
    ] = "html",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: beside the run's report.")
    ] = None,
) -> None:
    """Write a finished run's report again, in any format; nothing is recomputed."""
    from autointerp.reporting.rewrite import rewrite_report

    _say(str(rewrite_report(run, form=form, out=out)))


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

    _find_own_modules()
    with _progress() as progress:
        sources = find_sources(checkpoint, progress=progress)
    failed: AutointerpError | None = None
    for source in sources:
        try:
            loaded = source.read(ROOM_BYTES)
        except AutointerpError as error:
            if len(sources) == 1:
                raise
            failed = error
            _complain(error)
        else:
            _print_pairs({"checkpoint": source.shown} | inspection(loaded))
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
        _say(latent_json(found))
        return
    console = Console(width=width)
    has_colors = console.color_system is not None and not console.no_color
    _print_table(console, rendered(found, width=console.width, is_marked=not has_colors))


@app.command()
def train(
    subject: Annotated[str, typer.Option("--subject", help="Folder or hub name of the language model.")],
    site: Annotated[str, typer.Option("--site", help="e.g. blocks.8.hook_resid_post.")],
    out: Annotated[Path, typer.Option("--out", help="Where the checkpoint goes; running again resumes.")],
    corpus: Annotated[str, typer.Option("--corpus", help="Text: a file, a folder, or `stdlib`.")] = "stdlib",
    kind: Annotated[
        Literal["stdlib", "text", "jsonl", "parquet", "datasets", "auto"],
        typer.Option("--corpus-kind", help="`auto` goes by the name."),
    ] = "auto",
    text_field: Annotated[
        str,
        typer.Option("--text-field", help="Field or column that holds the text (jsonl, parquet, datasets)."),
    ] = "text",
    separator: Annotated[
        str | None,
        typer.Option(
            "--separator",
            help="Of kind text: what stands between documents of one file. \\n is a line break: '\\n\\n' for "
            "a blank line.",
        ),
    ] = None,
    no_bos: Annotated[
        bool, typer.Option("--no-bos", help="Contexts do not begin with the tokenizer's BOS token.")
    ] = False,
    architecture: Annotated[Literal["topk", "multi_topk", "relu"], typer.Option("--architecture")] = "topk",
    latents: Annotated[int, typer.Option("--latents", help="Number of latents.", min=2)] = 1024,
    k: Annotated[int, typer.Option("--k", help="Active latents a token (TopK).", min=1)] = 32,
    l1: Annotated[float, typer.Option("--l1", help="L1 coefficient (ReLU).", min=0)] = 0.13,
    tokens: Annotated[int, typer.Option("--tokens", help="Training tokens.", min=1)] = 2_000_000,
    context_length: Annotated[int, typer.Option("--context-length", min=2)] = 64,
    form: Annotated[
        Literal["openai", "saelens", "sparsify", "dictionary_learning"],
        typer.Option("--format", help="On-disk format."),
    ] = "saelens",
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1)] = 0,
    device: Annotated[str, typer.Option("--device")] = "auto",
) -> None:
    """Train a sparse autoencoder by the recipe of Gao et al. (2024): what the demo's were made with."""
    from autointerp.training.command import train_checkpoint

    with _progress() as progress:
        record = train_checkpoint(
            subject=subject,
            site=site,
            out=out,
            corpus=corpus,
            kind=kind,
            architecture=architecture,
            latent_count=latents,
            k=k,
            l1_coefficient=l1,
            token_count=tokens,
            context_length=context_length,
            form=form,
            seed=seed,
            device=device,
            text_field=text_field,
            separator=None if separator is None else separator.replace("\\n", "\n"),
            prepend_bos=not no_bos,
            progress=progress,
        )
    _print_pairs({"checkpoint": out, "tokens": record["tokens"], **record["held_out"]})


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

        _say(json.dumps(Suite.model_json_schema(), indent=2))
        return
    from autointerp.reporting.json_file import schema_json

    _say(schema_json())


def main() -> None:
    """Run the command line; every failure is one line on standard error and its exit code."""
    try:
        app()
    except AutointerpError as error:
        _complain(error)
        sys.exit(error.exit_code)


def _complain(error: AutointerpError) -> None:
    line = _printable(str(error))
    _errors().print(line, style="red", markup=False, emoji=False, highlight=False, soft_wrap=True)


def _evaluate(
    suite_path: Path,
    out: Path | None,
    *,
    overrides: list[str] | None = None,
    checkpoints: list[str] | None = None,
    replace_other: bool = False,
) -> None:
    from autointerp.config import load_suite

    _find_own_modules()
    suite = load_suite(suite_path, overrides=overrides or [], checkpoints=checkpoints or [])
    from autointerp.evaluation import default_run_directory, evaluate
    from autointerp.reporting.failures import failure_lines
    from autointerp.reporting.terminal import summary_table

    directory = out or default_run_directory(suite)
    with _progress() as progress:
        report = evaluate(suite, out=directory, progress=progress, replace_other=replace_other)
    console = Console()
    _print_table(console, summary_table(report, width=console.width))
    for line in failure_lines(report):
        console.print(_printable(line), style="red", markup=False, emoji=False, highlight=False)
    _say(f"{directory / 'report.html'}\n{directory / 'report.json'}")
    if report.failures:
        raise typer.Exit(4)


def _find_own_modules() -> None:
    """Let `package.module:factory` name a module in the working directory; installed ones go first."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


class _Bars:
    """Draws a progress bar with rate and time left for every step."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    @contextmanager
    def step(self, name: str, *, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        """Show one step until the block ends."""
        task = self._bars.add_task(name, total=total, unit=unit)
        yield lambda amount: self._bars.advance(task, amount)
        self._bars.update(task, total=self._bars.tasks[task].completed)


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        """Blank until there is a rate."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="dim")


@contextmanager
def _progress() -> Iterator[_Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TaskProgressColumn(), _Rate())
    console = _errors()
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    # A log file wants no bars; the run's events are in run.jsonl.
    with Progress(*columns, *times, console=console, disable=not console.is_terminal) as bars:
        yield _Bars(bars)


def _print_pairs(pairs: Mapping[str, object]) -> None:
    table = Table(show_header=False, box=None)
    for key, value in pairs.items():
        table.add_row(Text(_printable(key), style="bold"), Text(_printable(_words(value)), overflow="fold"))
    Console().print(table)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value)) if _is_shape(value) else ", ".join(map(_words, value)) or "none"
    if value is None:
        return "not said"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_shape(value: list[object] | tuple[object, ...]) -> bool:
    return bool(value) and all(isinstance(part, int) for part in value)


def _print_table(console: Console, table: RenderableType) -> None:
    """Names of checkpoints come from outside; styles stay apart from texts until drawn."""
    segments = console.render(table)
    console.print(Segments(Segment(_printable(text), style) for text, style, _ in segments), end="")


def _printable(text: str) -> str:
    """What a file says may hold terminal escapes; they are shown as U+FFFD, never sent."""
    return "".join(c if c.isprintable() or c in "\n\u00a0\u202f" else "\ufffd" for c in text)


def _say(text: str) -> None:
    sys.stdout.write(_printable(text) + "\n")


def _errors() -> Console:
    return Console(stderr=True)
