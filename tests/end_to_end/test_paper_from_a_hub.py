"""`paper.toml` as it is shipped, on a hub that holds small things under the names it asks for.

The subject, the text and the probes' data sets are fetched by the libraries that users have, in a process of
its own. The samples are made smaller, the filler is a token that the tiny tokenizer has, and the one task
whose files lie on a web server is left out.
"""

import collections
import io
import json
import os
import random
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest
import torch

from autointerp.bundled import bundled_folder, bundled_path
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.load import write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.testing.tiny_hub import TinyHub
from autointerp.testing.tiny_subject import write_tiny_subject

FIXTURES = Path(__file__).parents[1] / "probing" / "fixtures" / "gao61"
TASKS = sorted(path.parent for path in (bundled_folder("probes") / "gao61").glob("*/task.toml"))
ELSEWHERE = "gpt2disc"
"""The one whose files lie on a web server, which no test asks."""
WIDTH = 32
SMALLER = [
    "corpus.evaluation_tokens=6000",
    "corpus.calibration_tokens=1000",
    "sampling.latent_count=12",
    "explanations.latent_count=12",
    "probes.examples=60",
    "ablation.samples=12",
    "refinement.tokens=1500",
    "graphs.reconstruction_tokens=1500",
    "graphs.reconstruction_paths=2",
    'graphs.filler="e"',
    f"probes.tasks={json.dumps([f'gao61/{task.name}' for task in TASKS if task.name != ELSEWHERE])}",
]


def sources(task):
    return tomllib.loads((task / "task.toml").read_text(encoding="utf-8")).get("rows", [])


def rows_of(source):
    """A data set's invented rows, many times over, each time with another number in them."""
    path = FIXTURES / f"{source['dataset'].replace('/', '__')}.jsonl"
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        config, files = row.pop("@config", source.get("config")), row.pop("@data_files", "")
        if config == source.get("config") and files in source.get("data_files", ""):
            kept.append(json.dumps(row))
    return [json.loads(row.replace("#", str(number))) for number in range(100, 190) for row in kept]


def parquet(rows):
    content = io.BytesIO()
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(content)
    return content.getvalue()


def card(configurations):
    """A data set's README.md, whose head says which files are which split."""
    lines = ["---", "configs:"]
    for name, splits in configurations.items():
        lines += [f"- config_name: {name or 'default'}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    return "\n".join([*lines, "---", ""]).encode()


def add_data_sets(hub):
    """Those of Table 1, in the columns of their fixtures, at the revisions that the tasks name."""
    wanted = collections.defaultdict(list)
    for source in (source for task in TASKS for source in sources(task)):
        if "/" in source["dataset"]:
            wanted[source["dataset"]].append(source)
    for name, asked in wanted.items():
        files, configurations = {}, collections.defaultdict(dict)
        for source in asked:
            rows, config, split = rows_of(source), source.get("config"), source["split"]
            path = source.get("data_files", f"{config or 'data'}/{split}.jsonl").replace("*", "0000")
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            files[path] = parquet(rows) if path.endswith(".parquet") else lines
            configurations[config][split] = path
        if not any("data_files" in source for source in asked):
            files["README.md"] = card(configurations)
        for revision in {source.get("revision", "main") for source in asked}:
            hub.add(f"datasets/{name}", files, revision=revision)


def text(number):
    """Words of its own: texts that are alike would be taken for one document."""
    draw = random.Random(number)
    return " ".join("".join(draw.choices("aeinorst", k=draw.randint(1, 5))) for _ in range(14)) + f" {number}"


def dictionary(turns, seed):
    """Both ends of the axes of `turns` turned bases: the strongest ones rebuild most of any vector."""
    generator = torch.Generator().manual_seed(seed)
    bases = [torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q for _ in range(turns)]
    rows = torch.cat([torch.cat([base, -base]) for base in bases])
    return SparseAutoencoder(
        encoder_weight=rows,
        encoder_bias=torch.zeros(len(rows)),
        decoder_weight=rows / turns,
        decoder_bias=torch.zeros(WIDTH),
        pre_bias=torch.zeros(WIDTH),
        activation=TopK(16 * turns),
        normalization=InputNormalization("layer_norm"),
        metadata=CheckpointMetadata(),
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What came of it: the report, the hub's requests, and what the process said."""
    folder = tmp_path_factory.mktemp("paper")
    write_tiny_subject(folder / "subject", "gpt2", n_layer=10)
    (folder / "paper.toml").write_bytes(bundled_path("suites", "paper.toml").read_bytes())
    for turns, name in ((1, "32k"), (2, "128k")):
        path = folder / f"resid_post_mlp_v5_{name}_8.pt"
        write_checkpoint(dictionary(turns, seed=turns), path, format="openai")
    call = [sys.executable, "-m", "autointerp", "evaluate", "paper.toml", "--out", "run"]
    with TinyHub() as hub:
        hub.add("openai-community/gpt2", folder / "subject")
        shards = {
            f"plain_text/train-{i}.parquet": parquet([{"text": text(n)} for n in range(i, 300, 2)])
            for i in range(2)
        }
        head = card({"plain_text": {"train": "plain_text/train-*"}})
        hub.add("datasets/Skylion007/openwebtext", shards | {"README.md": head})
        add_data_sets(hub)
        environment = os.environ | hub.environment(folder / "cache") | {"HF_HOME": str(folder / "home")}
        ended = subprocess.run(
            [*call, *(word for each in SMALLER for word in ("--set", each))],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    report = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
    return report, hub.requests, said


def test_every_measure_of_the_paper_has_a_number(ran):
    report, _, said = ran
    measured = {
        each["metric"]
        for each in report["results"]
        if (each["status"], each["checkpoint"], each["slice"]) == ("measured", "v5_32k", {})
    }
    assert measured >= {
        "reconstruction.normalized_mse",
        "downstream.delta_ce_nats",
        "probe.loss_nats",
        "n2g.f1",
        "n2g.reconstruction_delta_ce_nats",
        "ablation.sparsity",
        "refinement.gain_normalized_mse",
        "explanation.simulation_correlation",
        "explanation.detection_auroc",
    }, said
    assert not [each for each in report["results"] if each["status"] == "failed"]


def test_every_task_is_measured_or_says_what_to_fetch(ran):
    report, _, _ = ran
    found = collections.defaultdict(set)
    for each in report["results"]:
        if each["metric"] == "probe.loss_nats" and each["checkpoint"] == "v5_32k":
            found[each["slice"].get("task")].add((each["status"], each.get("reason", "")))
    for task in (task for task in TASKS if task.name != ELSEWHERE):
        ((status, reason),) = found[f"gao61/{task.name}"]
        by_hand = {source["dataset"] for source in sources(task)} == {"by-hand"}
        assert status == ("skipped" if by_hand else "measured"), (task.name, reason)
        assert ("fetched by hand" in reason) == by_hand


def test_tasks_and_text_are_read_at_the_commit_that_the_report_names(ran):
    report, requests, _ = ran
    commits = {task["revision"] for task in report["studies"]["probe"]["tasks"]} - {""}
    listed = {re.search("/tree/([0-9a-f]+)", each.path)[1] for each in requests if "/tree/" in each.path}
    assert len(commits) > 15
    assert commits <= listed
    assert report["corpus"]["revision"] in listed
