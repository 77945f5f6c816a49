"""The flat configuration that SAELens wrote before version 6, said in the words of version 6.

Old files name the site, the subject and the training beside the dictionary's own settings, call the
activation function by name, and say whether the input is normalised by true or false. What they mean is taken
from SAELens 2.1.3, 3.23.4, 4.4.5 and 5.11.0, which wrote them, and from what 6.54.12 makes of them.
"""

import re
from typing import Any

from autointerp.checkpoints.stored_values import Configuration
from autointerp.errors import CheckpointError

__all__ = ["in_todays_words", "is_before_6"]

_RENAMED = {
    "activation_fn_str": "activation_fn",
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
}
_OF_THE_ORIGIN = (
    "context_size", "dataset_path", "hook_head_index", "hook_head_index_out", "hook_name", "hook_name_out",
    "model_class_name", "model_from_pretrained_kwargs", "model_name", "neuronpedia_id", "prepend_bos",
    "sae_lens_training_version", "sae_lens_version", "seqpos_slice",
)  # fmt: skip
_WITHOUT_EFFECT = {
    "activation_fn", "activation_fn_kwargs", "dataset_trust_remote_code", "hook_eval", "hook_layer",
    "hook_point_eval", "hook_point_layer",
}  # fmt: skip
_OLD_NAMES = {*_RENAMED, "activation_fn", "activation_fn_kwargs", "finetuning_scaling_factor", "hook_name"}
_VERSION = re.compile(r"(\d+)\.")
_FIRST_VERSION_IN_TODAYS_WORDS = 6


def is_before_6(configuration: Configuration) -> bool:
    """By its version; without one, by its names, or because the origin has no section of its own."""
    origin = configuration.section("metadata")
    version = configuration.text("sae_lens_version") or (origin and origin.text("sae_lens_version"))
    if version and (numbered := _VERSION.match(version)):
        return int(numbered[1]) < _FIRST_VERSION_IN_TODAYS_WORDS
    return origin is None or not _OLD_NAMES.isdisjoint(configuration.values)


def in_todays_words(configuration: Configuration) -> Configuration:
    """The configuration as SAELens 6 would write it: itself, unless it is an old one.

    An old file without `architecture` is a `standard` one, or `topk` by its activation function.

    Raises:
        CheckpointError: an activation function that version 6 does not have, or one that contradicts the
            architecture.
    """
    if not is_before_6(configuration):
        return configuration
    named = dict(configuration.values)
    for old, new in _RENAMED.items():
        if old in named:
            named.setdefault(new, named.pop(old))
    if "architecture" not in named and _OLD_NAMES.isdisjoint(named):
        raise CheckpointError("says no architecture", where=configuration.where)
    old_one = Configuration(configuration.where, named)
    architecture, k = _architecture(old_one)
    origin = {key: named.pop(key) for key in _OF_THE_ORIGIN if key in named}
    section = old_one.section("metadata")
    todays: dict[str, Any] = {
        **named,
        "architecture": architecture,
        "normalize_activations": _normalization(named.get("normalize_activations")),
        "metadata": {**origin, **(section.values if section else {})},
    }
    if k is not None:
        todays["k"] = k
    return Configuration(
        configuration.where,
        {key: value for key, value in todays.items() if key not in _WITHOUT_EFFECT},
    )


def _architecture(old: Configuration) -> tuple[str, int | None]:
    """Architecture and k: an activation function `topk` makes a `standard` dictionary a `topk` one."""
    architecture, function = old.text("architecture") or "standard", old.text("activation_fn")
    if function not in {None, "relu", "topk"}:
        raise CheckpointError(f"activation function {function!r} is not supported", where=old.where)
    settings = old.section("activation_fn_kwargs") or Configuration(old.where, {})
    if unknown := sorted(settings.values.keys() - {"k"}):
        raise CheckpointError(f"activation_fn_kwargs {', '.join(unknown)} are not supported", where=old.where)
    is_topk = function == "topk"
    if is_topk and architecture == "standard":
        architecture = "topk"
    if function is not None and is_topk != (architecture == "topk"):
        raise CheckpointError(
            f"architecture {architecture!r} with activation function {function!r} is not supported",
            where=old.where,
        )
    return architecture, (settings.whole_number("k") if is_topk else None)


def _normalization(value: Any) -> Any:
    """The two that there were at first were called true and false."""
    if isinstance(value, bool):
        return "expected_average_only_in" if value else "none"
    return value
