"""What both sides of the comparison are given: GPT-2 small's shapes, random TopK dictionaries, random text.

Everything is made on the spot from seeds; nothing is read from disk or network.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.metrics.calibration import calibrate, own_space_mean
from autointerp.sampling.contexts import CorpusChunk
from autointerp.sampling.readings import Checkpoint, SiteCalibration
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import tiny_tokenizer
from autointerp.testing.token_chunks import random_chunk, random_documents

SITE = "blocks.8.hook_resid_post"
LAYER = 8
CONTEXT_LENGTH = 64
"""Positions, the beginning-of-text token included."""
CONTEXTS_PER_DOCUMENT = 4


@dataclass(frozen=True)
class Workload:
    """How much of what; the same for both sides."""

    token_count: int = 4096
    latent_count: int = 32768
    k: int = 32
    batch_tokens: int = 2048
    chunk_tokens: int = 4096
    device: str = "cpu"

    def shortened(self, token_count: int) -> "Workload":
        """The same subject and calibration with less text."""
        short = replace(self, token_count=token_count, chunk_tokens=token_count)
        # Neither is a field, so `replace` leaves them behind; made once, they are worth keeping.
        short.__dict__.update(subject=self.subject, calibration=self.calibration)
        return short

    @property
    def chunk_count(self) -> int:
        """Whole chunks, at least one."""
        return max(1, self.token_count // self.chunk_tokens)

    @cached_property
    def subject(self) -> SubjectModel:
        """124 million random weights: `GPT2Config()` as it is, initialised as transformers does."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = GPT2LMHeadModel(GPT2Config(use_cache=False))
        return SubjectModel(
            model.to(self.device), tiny_tokenizer(), name="gpt2-small-shapes", sha256="0" * 64
        )

    @cached_property
    def calibration(self) -> Mapping[str, SiteCalibration]:
        """Means over a few contexts of their own; made once, and given to both sides."""
        return calibrate(self.subject, [SITE], [self._chunk(0, seed=1_000_003, token_count=1024)])

    def checkpoints(self, count: int) -> list[Checkpoint]:
        """Random dictionaries: unit directions, encoder and decoder alike but each in its own memory."""
        return [Checkpoint(f"dictionary {seed}", self._dictionary(seed), SITE) for seed in range(count)]

    def _dictionary(self, seed: int) -> SparseAutoencoder:
        generator = torch.Generator().manual_seed(seed)
        normalization = InputNormalization("layer_norm")
        directions = torch.randn(self.latent_count, self.subject.d_model, generator=generator)
        directions = torch.nn.functional.normalize(directions, dim=1)
        bias = own_space_mean(self.calibration[SITE], normalization).float()
        sae = SparseAutoencoder(
            encoder_weight=directions,
            encoder_bias=torch.zeros(self.latent_count),
            decoder_weight=directions.clone(),
            decoder_bias=bias,
            pre_bias=bias,
            activation=TopK(self.k),
            normalization=normalization,
        )
        return sae.to(self.device)

    def chunks(self) -> Iterator[CorpusChunk]:
        """The text, made chunk by chunk; the same every time."""
        for index in range(self.chunk_count):
            yield self._chunk(index, seed=index, token_count=min(self.chunk_tokens, self.token_count))

    def _chunk(self, index: int, *, seed: int, token_count: int) -> CorpusChunk:
        room = CONTEXT_LENGTH - 1
        document_tokens = CONTEXT_LENGTH * CONTEXTS_PER_DOCUMENT
        lengths = [room * CONTEXTS_PER_DOCUMENT] * max(1, token_count // document_tokens)
        vocabulary_size = self.subject.vocabulary_size
        chunk = random_chunk(
            random_documents(lengths, vocabulary_size=vocabulary_size, seed=seed),
            context_length=CONTEXT_LENGTH,
            rows_per_batch=max(1, self.batch_tokens // CONTEXT_LENGTH),
            index=index,
        )
        return replace(chunk, sha256=f"{seed:064d}")


def mean_vector(workload: Workload) -> Tensor:
    """What mean ablation puts in, as a plain tensor."""
    return workload.calibration[SITE].mean.to(workload.device, torch.float32)
