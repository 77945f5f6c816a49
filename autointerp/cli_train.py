"""The verb `train`, whose options are many."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from autointerp.console import print_pairs, progress

__all__ = ["train"]


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
    revision: Annotated[
        str | None,
        typer.Option(
            "--corpus-revision",
            help="Commit, branch or tag of a data set. Only with a commit can training be resumed after the "
            "data set has moved on.",
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

    with progress() as bars:
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
            revision=revision,
            prepend_bos=not no_bos,
            progress=bars,
        )
    print_pairs({"checkpoint": out, "tokens": record["tokens"], **record["held_out"]})
