"""A subject and a dictionary whose latents fire on chosen words and nowhere else, and texts of such words.

Every word is one token, with and without the space before it; both have the same embedding. The dictionary
reads the embeddings (`blocks.0.hook_resid_pre`), so what a latent means is known beforehand, to the token.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.activation_functions import JumpReLU
from autointerp.checkpoints.load import write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.subject.quiet import quiet_transformers
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import tiny_subject

__all__ = [
    "FILLERS",
    "PLANTED",
    "SITE",
    "PlantedWords",
    "explain_words",
    "planted_documents",
    "planted_words",
    "write_planted_words",
]

SITE = "blocks.0.hook_resid_pre"

PLANTED: tuple[tuple[str, ...], ...] = (
    ("harbour",),
    ("quickly",),
    ("red", "blue", "green"),
    ("seven",),
    ("garden",),
    ("whispered",),
    ("Monday", "Tuesday", "Friday"),
    ("because",),
    ("silver",),
    ("mother", "father", "sister", "brother"),
    ("under",),
    ("bread",),
)
"""The words of each latent that is meant to be explained."""

FILLERS: tuple[str, ...] = tuple(
    """a and she he it was to of in on at with then when old new small large day night road house river stone
    walked looked came went took gave found left door window table light rain wind tree field horse town ship
    letter book song face hand year hour voice winter summer water fire corner market bridge forest""".split()  # noqa: SIM905 - a list of 60 strings reads worse
)
"""Words between them; each has a latent too, behind those of PLANTED."""

_BOS, _EOS, _PAD = "<|bos|>", "<|endoftext|>", "<|pad|>"
_THRESHOLD = 0.85
_MOST_ALIKE = 0.8


@dataclass(frozen=True, eq=False)
class PlantedWords:
    """What was planted."""

    subject: SubjectModel
    sae: SparseAutoencoder
    site: str
    words: Mapping[int, tuple[str, ...]]
    """On which words each latent fires, fillers' latents included."""
    explanations: Mapping[int, str]
    """The right text for each latent of `PLANTED`, its words in quotation marks."""

    def fires_on(self, latent: int, token: str) -> bool:
        """Whether a latent fires on a token, by its text."""
        return token.removeprefix(" ") in self.words[latent]


def planted_words(
    words: Sequence[Sequence[str]] = PLANTED, *, fillers: Sequence[str] = FILLERS, seed: int = 0
) -> PlantedWords:
    """A tiny Llama with embeddings as they must be, and the dictionary that reads them.

    A latent's activation is 1 on its word; on the words of a group it falls evenly from 1 to 0.95, in their
    order. The decoder has the same directions, so that a text of known words is reconstructed well.

    Args:
        words: of each latent; no word twice.
        fillers: further words, a latent each.
        seed: of all weights.

    Raises:
        ValueError: a word occurs twice, or two words' embeddings are too much alike for a threshold between.
    """
    groups = [tuple(group) for group in words] + [(word,) for word in fillers]
    every = [word for group in groups for word in group]
    if len(set(every)) < len(every) or any(" " in word or not word for word in every):
        raise ValueError("a word occurs twice, or is none")
    tokenizer = _tokenizer(every)
    base = tiny_subject("llama", seed=seed, vocab_size=len(tokenizer), hidden_size=64, head_dim=16)
    directions = _place_words(base.model, tokenizer, groups, seed=seed)
    subject = SubjectModel(base.model, tokenizer, name=f"planted-words-{seed}")
    return PlantedWords(
        subject,
        _dictionary(directions),
        SITE,
        dict(enumerate(groups)),
        {latent: explain_words(group) for latent, group in enumerate(groups[: len(words)])},
    )


def explain_words(words: Sequence[str]) -> str:
    """The explanation of a latent that fires on these words."""
    quoted = ", ".join(f'"{word}"' for word in words)
    return f"The word {quoted}" if len(words) == 1 else f"One of the words {quoted}"


def planted_documents(
    count: int,
    *,
    words: Sequence[Sequence[str]] = PLANTED,
    fillers: Sequence[str] = FILLERS,
    lengths: tuple[int, int] = (24, 48),
    planted_share: float = 0.2,
    seed: int = 0,
) -> list[str]:
    """Texts of random words.

    Args:
        count: how many.
        words: as for `planted_words`.
        fillers: words between them.
        lengths: of a text, in words, least and most.
        planted_share: of the words; every latent is as frequent as every other.
        seed: of the choice.
    """
    chance = random.Random(seed)
    texts = []
    for _ in range(count):
        chosen = [
            chance.choice(chance.choice(words)) if chance.random() < planted_share else chance.choice(fillers)
            for _ in range(chance.randint(*lengths))
        ]
        texts.append(" ".join(chosen))
    return texts


def write_planted_words(
    folder: str | Path, *, documents: int = 300, words: Sequence[Sequence[str]] = PLANTED, seed: int = 0
) -> Path:
    """Write subject, dictionary, texts and a suite that names them; returns the suite's path.

    Args:
        folder: where to; made if it is not there.
        documents: how many texts.
        words: as for `planted_words`.
        seed: of weights and texts.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    planted = planted_words(words, seed=seed)
    with quiet_transformers():
        planted.subject.model.save_pretrained(folder / "subject")
        planted.subject.tokenizer.save_pretrained(folder / "subject")
    write_checkpoint(planted.sae, folder / "planted", format="saelens")
    texts = planted_documents(documents, words=words, seed=seed)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "text.jsonl").write_text(lines, encoding="utf-8")
    suite = folder / "suite.toml"
    suite.write_text(_SUITE.format(latents=list(range(len(words)))), encoding="utf-8")
    return suite


_SUITE = f"""name = "planted"
site = "{SITE}"
[subject]
model = "subject"
device = "cpu"
[corpus]
kind = "jsonl"
path = "text.jsonl"
context_length = 24
calibration_tokens = 300
calibration_fraction = 0.1
[estimates]
resamples = 200
[sampling]
latents = {{latents}}
examples = 8
strata = 2
least_documents = 1
duplicate_similarity = 1.0
[[checkpoints]]
path = "planted"
"""


def _tokenizer(words: Sequence[str]) -> Any:
    """Bytes, and each word as one token where it stands whole; every text can be said."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = dict.fromkeys([_BOS, _EOS, _PAD, *alphabet, *(f"Ġ{word}" for word in words), *words])
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    model = models.BPE(vocab=vocabulary, merges=[], ignore_merges=True)  # whole words are looked up
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=_BOS, eos_token=_EOS, pad_token=_PAD)


def _place_words(
    model: Any, tokenizer: Any, groups: Sequence[tuple[str, ...]], *, seed: int
) -> Float[Tensor, "latent d_model"]:
    """Give every token a unit embedding, the words of a group nearly the same one; returns those."""
    generator = torch.Generator().manual_seed(seed + 1)
    weight = model.get_input_embeddings().weight
    rows = torch.nn.functional.normalize(torch.randn(weight.shape, generator=generator), dim=1)
    directions = torch.nn.functional.normalize(
        torch.randn(len(groups), weight.shape[1], generator=generator), dim=1
    )
    for group, direction in zip(groups, directions, strict=True):
        for place, word in enumerate(group):
            strength = 1 - 0.05 * place / max(len(group) - 1, 1)
            for text in (word, f" {word}"):
                (index,) = tokenizer.encode(text, add_special_tokens=False)
                rows[index] = strength * direction
    alike = rows @ directions.T
    if bool(((alike > _MOST_ALIKE) & (alike < 0.94)).any()):
        raise ValueError("two words' embeddings are too much alike; another seed, or fewer words")
    with torch.no_grad():
        weight.copy_(rows)
    return directions


def _dictionary(directions: Float[Tensor, "latent d_model"]) -> SparseAutoencoder:
    count, width = directions.shape
    return SparseAutoencoder(
        encoder_weight=directions,
        encoder_bias=torch.zeros(count),
        decoder_weight=directions.clone(),
        decoder_bias=torch.zeros(width),
        pre_bias=None,
        activation=JumpReLU(torch.full((count,), _THRESHOLD)),
        metadata=CheckpointMetadata(site=SITE),
    )
