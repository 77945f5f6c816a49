"""The subject's family -> autointerp/demo/curve.json: each member's cost and its loss on the demo's text.

    python benchmarks/demo/measure_curve.py [--build benchmarks/demo/build]

The members are `<build>/members/*`, made by train_subject.py: one recipe at several budgets. Each is measured
through the demo's own pipeline (same documents, contexts, positions), so that the curve and the demo's losses
can be compared.
"""

import argparse
import json
import platform
from pathlib import Path

from autointerp.config import load_suite
from autointerp.evaluation.inputs import context_options, opened_corpus
from autointerp.metrics.catalogue import families
from autointerp.metrics.compute_equivalent import clean_loss
from autointerp.run_store import MemoryStore
from autointerp.sampling.activation_pass import ActivationPass, read_observations
from autointerp.sampling.contexts import corpus_chunks
from autointerp.subject.subject_model import SubjectModel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def demo_loss(member: Path) -> float:
    """Mean cross entropy in nats on the demo's evaluation split, positions >= 1."""
    suite = load_suite(ROOT / "benchmarks" / "suites" / "demo.toml")
    subject = SubjectModel.load(member)
    chunks = corpus_chunks(
        opened_corpus(suite.corpus),
        subject.tokenizer,
        context_options(suite.corpus),
        batch_tokens=suite.runtime.batch_tokens,
        chunk_tokens=suite.runtime.chunk_tokens,
        max_tokens=suite.corpus.evaluation_tokens,
        split="evaluation",
        calibration_fraction=suite.corpus.calibration_fraction,
    )
    store = MemoryStore()
    cost = ActivationPass(subject, [], families(["downstream"]), {}).run(chunks, store)
    loss = clean_loss(read_observations(store, cost.chunk_names))
    if loss is None:
        raise SystemExit(f"{member.name}: nothing was predicted")
    return loss


def main() -> None:
    """Measure every member and write the curve."""
    parser = argparse.ArgumentParser(description="Measure the losses of the demo subject's family.")
    parser.add_argument("--build", type=Path, default=HERE / "build")
    folders = sorted((parser.parse_args().build / "members").iterdir(), key=lambda path: int(path.name))
    members = []
    for folder in folders:
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        loss = round(demo_loss(folder), 5)
        members.append(
            {
                "training_tokens": record["tokens"],
                "training_flops": record["training_flops"],
                "loss_nats": loss,
                "bits_per_byte": record["held_out"]["bits_per_byte"],
            }
        )
        print(f"{record['tokens']:>10} tokens  {loss:.4f} nats/token")
    content = {
        "text": f"Python {platform.python_version()} standard library, the demo suite's evaluation split",
        "members": members,
    }
    target = ROOT / "autointerp" / "demo" / "curve.json"
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
