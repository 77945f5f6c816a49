"""Makes the example beside it again, and the golden numbers that the tests hold every run against.

    python reports/examples/regenerate.py

It evaluates and gates two small dictionaries whose latents are known beforehand, one of them damaged, and
takes under a minute; no network, no language model.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXAMPLE = HERE / "planted"
GOLDEN = HERE.parents[1] / "tests" / "end_to_end" / "golden" / "planted.json"
POLICY = HERE / "policy.toml"
KEPT = ("report.html", "report.json", "report.md", "gate/verdict.json", "gate/verdict.md", "gate/badge.svg")

_SETTINGS = """
[[checkpoints]]
path = "damaged"
[metrics]
families = ["reconstruction", "downstream", "n2g"]
[graphs]
latent_count = 6
[explanations]
explainers = ["token_statistics"]
judged_examples = 4
"""


def write_suite(folder: Path) -> Path:
    """The example's subject, texts and two dictionaries; returns the path of the suite that names them."""
    import torch

    from autointerp.checkpoints.load import write_checkpoint
    from autointerp.testing.planted_words import planted_words, write_planted_words

    suite = write_planted_words(folder, documents=80)
    whole = planted_words().sae
    noise = torch.randn(whole.decoder_weight.shape, generator=torch.Generator().manual_seed(7))
    encoder = whole.encoder_weight.clone()
    encoder[-12:] *= 0.5  # below the threshold for ever
    damaged = replace(whole, encoder_weight=encoder, decoder_weight=0.7 * whole.decoder_weight + 0.03 * noise)
    write_checkpoint(damaged, folder / "damaged", format="saelens")
    text = suite.read_text(encoding="utf-8").replace("resamples = 200\n", "resamples = 2000\n")
    suite.write_text(text.replace("examples = 8\n", "examples = 5\n") + _SETTINGS, encoding="utf-8")
    return suite


def make_run(folder: Path) -> Path:
    """Evaluate and gate the example's suite; returns the run's directory."""
    import autointerp
    from autointerp.config import load_suite
    from autointerp.gating.files import write_verdict
    from autointerp.gating.verdict import gate
    from autointerp.reporting.rewrite import rewrite_report

    suite, run = write_suite(folder / "suite"), folder / "run"
    autointerp.evaluate(load_suite(suite), out=run)
    write_verdict(gate(run, POLICY), run / "gate")
    rewrite_report(run, form="html")
    rewrite_report(run, form="md")
    return run


def golden(report: dict[str, Any]) -> dict[str, Any]:
    """What of a report.json must stay: every number, and which keys there are."""
    versions = report["provenance"]
    return {
        "recorded_with": {
            "python": _minor(versions["python_version"]),
            "torch": _minor(versions["package_versions"]["torch"]),
        },
        # Resampling takes latents in the order of these hashes, and the last bits of made weights hang on the
        # processor.
        "weights": [{"sha256": checkpoint.get("sha256")} for checkpoint in report["checkpoints"]],
        "results": [_sorted(row) for row in report["results"]],
        "comparisons": [_sorted(row) for row in report["comparisons"]],
        "coverage": [_sorted(row) for row in report["coverage"]],
        "metrics": [row["name"] for row in report["metrics"]],
        # How long it took and on what is another matter.
        "keys": keys_of({k: v for k, v in report.items() if k not in ("cost", "provenance")}),
    }


def keys_of(value: Any) -> Any:
    """A JSON value without its numbers and texts: keys of objects; of a list, those of all its items."""
    if isinstance(value, dict):
        return {key: keys_of(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        found: dict[str, Any] = {}
        for item in value:
            found |= keys_of(item) if isinstance(item, dict) else {}
        return [found] if found else "list"
    return "null" if value is None else "value"


def write_golden(content: dict[str, Any], file: Path) -> None:
    """As JSON, a row a line, so that a change shows which rows it changed."""
    parts = []
    for key, value in content.items():
        lines = ",\n".join(map(json.dumps, value)) if isinstance(value, list) else ""
        parts.append(f"{json.dumps(key)}: " + (f"[\n{lines}\n]" if lines else json.dumps(value)))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def publish(run: Path) -> None:
    """Put what the repository keeps of a run where it is kept."""
    shutil.rmtree(EXAMPLE, ignore_errors=True)
    for name in KEPT:
        (EXAMPLE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, EXAMPLE / name)
    write_golden(golden(json.loads((run / "report.json").read_text(encoding="utf-8"))), GOLDEN)


def _sorted(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in sorted(row)}


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        publish(make_run(Path(place)))
    sys.stdout.write(f"{EXAMPLE}\n{GOLDEN}\n")
