"""The subject's texts: Python sources of the installed packages, and the standard library.

The demo evaluates on the standard library of the running interpreter, so nothing
copied from it may be trained on. A file is dropped when eight consecutive
non-blank lines of it also occur, stripped, anywhere in the standard library.
"""

from __future__ import annotations

import hashlib
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
NOT_HELD_OUT = frozenset({"test", "tests", "idlelib", "lib2to3", "encodings"})
WINDOW_LINES = 8
# Windows with less text than this are brackets, blank docstrings and the like.
WINDOW_CHARACTERS = 120
INSTALLED_FOLDERS = frozenset({"site-packages", "dist-packages"})
OWN_DISTRIBUTION = "autointerp"


@dataclass(frozen=True)
class Document:
    """One Python file of one distribution, named relative to site-packages."""

    package: str
    path: str
    text: str


@dataclass
class PackageCount:
    """What was taken from one distribution; `bytes` counts the files kept."""

    name: str
    version: str
    kept: int = 0
    standard_library_copies: int = 0
    duplicates: int = 0
    unreadable: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class TrainingText:
    """The documents in a fixed order (package, then path) and their manifest."""

    documents: list[Document]
    packages: list[PackageCount]
    dropped_as_copies: list[str]

    def manifest(self) -> dict[str, object]:
        """Return the counts per distribution as JSON-ready values, without local paths."""
        return {
            "rule": f"drop a file sharing {WINDOW_LINES} consecutive non-blank lines "
            f"({WINDOW_CHARACTERS} characters or more) with the standard library",
            "files": len(self.documents),
            "bytes": sum(package.bytes for package in self.packages),
            "packages": [asdict(package) for package in self.packages],
            "dropped_as_copies": self.dropped_as_copies,
        }


def read_source(path: Path) -> str | None:
    """Return a file's text, or None when it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def line_windows(text: str) -> Iterator[int]:
    """Yield a hash of every run of `WINDOW_LINES` non-blank lines with enough text.

    The hashes are Python's own and hold within one process only.
    """
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    for start in range(len(lines) - WINDOW_LINES + 1):
        window = "\n".join(lines[start : start + WINDOW_LINES])
        if len(window) >= WINDOW_CHARACTERS:
            yield hash(window)


def standard_library_files(skip: frozenset[str] = frozenset()) -> list[Path]:
    """Return the interpreter's own Python files, sorted by their path in the library.

    Args:
        skip: folder names to leave out, at any depth; installed packages always are.
    """
    root = Path(sysconfig.get_path("stdlib"))
    unwanted = skip | INSTALLED_FOLDERS
    files = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / path for path in sorted(files) if unwanted.isdisjoint(path.parts)]


def standard_library_windows() -> set[int]:
    """Return the window hashes of the whole standard library, its tests included."""
    windows: set[int] = set()
    for path in standard_library_files():
        windows.update(line_windows(read_source(path) or ""))
    return windows


def distribution_sources(distribution: Distribution) -> list[str]:
    """Return a distribution's Python files inside site-packages, sorted."""
    names = {file.as_posix() for file in distribution.files or [] if file.suffix == ".py"}
    return sorted(name for name in names if not name.startswith(("..", "/")))


def installed_distributions() -> list[Distribution]:
    """Return the distributions in site-packages by name, this project's own left out."""
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    found = {each.name.lower(): each for each in distributions(path=folders)}
    found.pop(OWN_DISTRIBUTION, None)
    return [found[name] for name in sorted(found)]


def collect_training_text() -> TrainingText:
    """Read every installed Python source that shares no passage with the standard library."""
    held_out = standard_library_windows()
    collected = TrainingText([], [], [])
    seen: set[bytes] = set()
    for distribution in installed_distributions():
        _collect_package(distribution, held_out, seen, collected)
    return collected


def _collect_package(
    distribution: Distribution, held_out: set[int], seen: set[bytes], collected: TrainingText
) -> None:
    count = PackageCount(distribution.name.lower(), distribution.version)
    for path in distribution_sources(distribution):
        text = read_source(Path(str(distribution.locate_file(path))))
        digest = hashlib.sha256((text or "").encode()).digest()
        if not text:
            count.unreadable += text is None
        elif digest in seen:
            count.duplicates += 1
        elif not held_out.isdisjoint(line_windows(text)):
            count.standard_library_copies += 1
            collected.dropped_as_copies.append(path)
        else:
            count.kept += 1
            count.bytes += len(text.encode())
            collected.documents.append(Document(count.name, path, text))
        seen.add(digest)
    if count.kept or count.standard_library_copies or count.duplicates:
        collected.packages.append(count)


def train_tokenizer(
    texts: list[str], vocabulary: int, sample_bytes: int, seed: int
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on a sample; token 0 begins, ends and pads; it adds nothing itself."""
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    sample, size = [], 0
    for index in order:
        if size < sample_bytes:
            sample.append(texts[index])
            size += len(texts[index].encode())
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(sample, trainer)
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    kept = {"clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **kept, **special)


def write_token_stream(texts: list[str], tokenizer: PreTrainedTokenizerFast, path: Path) -> int:
    """Write the texts' tokens as uint16, token 0 after each text; return how many there are."""
    count = 0
    with path.open("wb") as file:
        for start in range(0, len(texts), 256):
            for encoding in tokenizer.backend_tokenizer.encode_batch(texts[start : start + 256]):
                ids = np.array([*encoding.ids, 0], dtype=np.uint16)
                ids.tofile(file)
                count += len(ids)
    return count


@dataclass(frozen=True)
class Windows:
    """The token stream cut into windows, each behind one token 0, in a seeded order per epoch."""

    stream: np.ndarray
    context: int
    batch_size: int
    seed: int
    orders: dict[int, np.ndarray] = field(default_factory=dict)

    def batch(self, step: int) -> Tensor:
        """Return the windows of one step: a fixed function of the seed and the step."""
        length = self.context - 1
        count = len(self.stream) // length
        first = step * self.batch_size
        rows = []
        for index in range(first, first + self.batch_size):
            window = self._order(index // count, count)[index % count]
            rows.append(np.concatenate([[0], self.stream[window * length :][:length]]))
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    def _order(self, epoch: int, count: int) -> np.ndarray:
        if epoch not in self.orders:
            generator = np.random.default_rng([self.seed, epoch])
            self.orders[epoch] = generator.permutation(count)
        return self.orders[epoch]


def held_out_contexts(tokenizer: PreTrainedTokenizerFast, limit: int, length: int = 128) -> Tensor:
    """Return a fixed sample of standard-library contexts, each behind token 0.

    Every file is a document of its own; what is left after its last full context is dropped.
    """
    rows = []
    for path in standard_library_files(NOT_HELD_OUT):
        ids = tokenizer.backend_tokenizer.encode(read_source(path) or "").ids
        starts = range(0, len(ids) - length + 2, length - 1)
        rows.extend([0, *ids[start : start + length - 1]] for start in starts)
    chosen = random.Random(0).sample(range(len(rows)), min(limit, len(rows)))
    return torch.tensor([rows[index] for index in sorted(chosen)])
