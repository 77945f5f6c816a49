"""Token ids -> what each reads as in the midst of a text."""

from collections.abc import Sequence
from typing import Any

__all__ = ["token_texts"]


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token as it stands after other text, leading space and all.

    Tokenizers may leave a space out where a text begins, so each token is decoded behind another one, whose
    text is then taken off. A special token reads as its name; one that is part of a character as U+FFFD.
    """
    if not ids:
        return []
    anchor = _anchor(tokenizer)
    special = set(tokenizer.all_special_ids)
    options = {"clean_up_tokenization_spaces": False, "skip_special_tokens": False}
    before = tokenizer.decode([anchor], **options)
    pairs = tokenizer.batch_decode([[anchor, index] for index in ids], **options)
    texts = []
    for index, pair in zip(ids, pairs, strict=True):
        if index in special:
            texts.append(str(tokenizer.convert_ids_to_tokens(index)))
        elif pair.startswith(before):
            texts.append(pair[len(before) :])
        else:
            texts.append(tokenizer.decode([index], **options))
    return texts


def _anchor(tokenizer: Any) -> int:
    """A token that is one plain character, so that what stands behind it is not changed by it."""
    for character in ("a", ".", "1"):
        ids = tokenizer.encode(character, add_special_tokens=False)
        if ids and tokenizer.decode(ids[-1:]).strip() == character:
            return int(ids[-1])
    return next(index for index in range(len(tokenizer)) if index not in set(tokenizer.all_special_ids))
