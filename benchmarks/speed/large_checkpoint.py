"""A dictionary of 1,048,576 latents evaluated in little memory: how much of its own the process needs.

    python benchmarks/speed/large_checkpoint.py [--latents 1048576] [--dtype bfloat16] [--folder DIR]

Makes a TopK dictionary of random directions, d_model 768, in bfloat16 (3.2 GB on disk, sparsify's format;
--dtype float32 doubles it), a random GPT-2 of that width, and evaluates it with all metrics and a random
dictionary of the same size beside it. Prints the largest anonymous memory seen (resident memory that no file
backs), the file-backed part, and what went through. Linux only. Needs three times the dictionary's size on
disk.
"""

import argparse
import json
import re
import struct
import tempfile
import threading
import time
from pathlib import Path

import torch

WIDTH = 768
TEXT_TOKENS = 4096
MIB = 2**20
CODES = {torch.bfloat16: "BF16", torch.float32: "F32"}


def memory() -> tuple[int, int]:
    """(anonymous, file-backed) resident bytes of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = {key: int(re.search(rf"{key}:\s+(\d+)", status)[1]) for key in ("RssAnon", "RssFile", "RssShmem")}
    return kib["RssAnon"] * 1024, (kib["RssFile"] + kib["RssShmem"]) * 1024


class Watch(threading.Thread):
    """Looks at the memory every 20 ms and keeps the largest values."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.mapped = 0

    def run(self) -> None:
        while True:
            anonymous, mapped = memory()
            self.anonymous, self.mapped = max(self.anonymous, anonymous), max(self.mapped, mapped)
            time.sleep(0.02)


def write_dictionary(folder: Path, latent_count: int, dtype: torch.dtype = torch.bfloat16) -> None:
    """Written block by block, so that making it needs no more memory than using it."""
    folder.mkdir(parents=True)
    configuration = {"activation": "topk", "k": 32, "d_in": WIDTH, "num_latents": latent_count}
    (folder / "cfg.json").write_text(json.dumps(configuration), encoding="utf-8")
    shapes = {
        "W_dec": [latent_count, WIDTH],
        "encoder.weight": [latent_count, WIDTH],
        "encoder.bias": [latent_count],
        "b_dec": [WIDTH],
    }
    header, end = {}, 0
    for name, shape in shapes.items():
        size = dtype.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "sae.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in ("W_dec", "encoder.weight"):
            generator = torch.Generator().manual_seed(0)  # the same directions: encoder = decoder
            for first in range(0, latent_count, 16_384):
                rows = torch.randn(min(16_384, latent_count - first), WIDTH, generator=generator)
                scaled = torch.nn.functional.normalize(rows, dim=1) * (0.1 if name == "W_dec" else 1.0)
                file.write(scaled.to(dtype).view(torch.uint8).numpy().tobytes())
        file.write(bytes(dtype.itemsize * (latent_count + WIDTH)))


def suite_of(folder: Path) -> Path:
    path = folder / "suite.toml"
    path.write_text(
        f"""name = "large"
site = "blocks.0.hook_resid_post"
[subject]
model = "subject"
device = "cpu"
[corpus]
kind = "stdlib"
max_contexts_per_document = 4
evaluation_tokens = {TEXT_TOKENS}
calibration_tokens = 1024
[checks]
largest_normalized_mse = 1e9
[[checkpoints]]
path = "layers.0"
""",
        encoding="utf-8",
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, default=2**20)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()

    import autointerp
    from autointerp.config import load_suite
    from autointerp.testing.tiny_subject import write_tiny_subject

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_dictionary(folder / "layers.0", arguments.latents, getattr(torch, arguments.dtype))
        write_tiny_subject(folder / "subject", "gpt2", n_embd=WIDTH, n_layer=2)
        suite = load_suite(suite_of(folder))
        watch, begun = Watch(), time.perf_counter()
        watch.start()
        before = memory()[0]
        report = autointerp.evaluate(suite, out=folder / "run")
        seconds = time.perf_counter() - begun
        file_bytes = (folder / "layers.0" / "sae.safetensors").stat().st_size
    measured = sum(result.outcome.status == "measured" for result in report.results)
    on_disk = f"{file_bytes / 1e9:.2f} GB on disk"
    print(f"dictionary             {arguments.latents:,} latents, {arguments.dtype}, {on_disk}")
    print(
        f"text                   {report.cost['evaluated_token_count']:,} tokens, {measured} results measured"
    )
    print(f"anonymous memory       {watch.anonymous / MIB:,.0f} MiB at most ({before / MIB:,.0f} before)")
    print(f"file-backed memory     {watch.mapped / MIB:,.0f} MiB at most")
    print(f"time                   {seconds:,.0f} s on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
