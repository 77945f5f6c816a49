"""A tiny subject, two tiny checkpoints and a text on disk, and a suite that names them."""

import json
from pathlib import Path

import pytest
import torch

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.load import write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.testing.tiny_subject import write_tiny_subject

SITE = "blocks.1.hook_resid_post"
WORDS = """the red fox and a dog ran over three hills then he said hello to them in the morning""".split()  # noqa: SIM905


def tiny_dictionary(*, latent_count: int, activation, normalization: str, site: str | None, seed: int):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(latent_count, 32, generator=generator), dim=1)
    return SparseAutoencoder(
        encoder_weight=rows,
        encoder_bias=torch.zeros(latent_count),
        decoder_weight=rows * 0.5,  # better than the mean, so that it is measured
        decoder_bias=torch.zeros(32),
        pre_bias=torch.zeros(32),
        activation=activation,
        normalization=InputNormalization(normalization),
        metadata=CheckpointMetadata(site=site),
    )


def write_text(path: Path, *, count: int = 60) -> None:
    lines = [
        " ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(12 + i % 20)) + f" {i}"
        for i in range(count)
    ]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    write_tiny_subject(folder / "subject")
    topk = tiny_dictionary(latent_count=64, activation=TopK(4), normalization="layer_norm", site=None, seed=1)
    relu = tiny_dictionary(latent_count=48, activation=ReLU(), normalization="none", site=SITE, seed=2)
    write_checkpoint(topk, folder / "topk.pt", format="openai")
    write_checkpoint(relu, folder / "relu", format="saelens")
    write_text(folder / "text.jsonl")
    (folder / "suite.toml").write_text(
        f"""name = "tiny"
site = "{SITE}"
[subject]
model = "subject"
device = "cpu"
[corpus]
kind = "jsonl"
path = "text.jsonl"
context_length = 16
calibration_tokens = 300
calibration_fraction = 0.3
[estimates]
resamples = 200
[runtime]
batch_tokens = 64
chunk_tokens = 128
[sampling]
enabled = false
[[checkpoints]]
path = "topk.pt"
[[checkpoints]]
path = "relu"
""",
        encoding="utf-8",
    )
    return folder / "suite.toml"


@pytest.fixture(scope="session")
def sampled_suite(tiny_suite) -> Path:
    """The same suite with latents sampled, a few of each."""
    sampled = (
        "[sampling]\nlatent_count = 12\nexamples = 3\nstrata = 2\nleast_documents = 1\n"
        "duplicate_similarity = 1.0\n"  # all texts are made of the same few words
        "[explanations]\nlatent_count = 4\njudged_examples = 3\npassage_tokens = 12\n"
    )
    path = tiny_suite.with_name("sampled.toml")
    text = tiny_suite.read_text(encoding="utf-8").replace("[sampling]\nenabled = false\n", sampled)
    path.write_text(text, encoding="utf-8")
    return path
