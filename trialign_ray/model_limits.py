"""What a model can take: how long a sequence, and whether candidates may come as a tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trialign_ray.errors import DataError

WHOLE_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")


@dataclass(frozen=True)
class ModelLimits:
    """max_length: most tokens of prompt and answer, None: no limit known. window: a tree's mask
    replaces the layers' own, so a longer path must be a row by itself; None: no such layers.
    no_trees: why candidates are never packed as a tree; empty: they may be."""

    max_length: int | None
    window: int | None = None
    no_trees: str = ""

    def require_length(self, prompt: int, answer: int, most: str = "") -> None:
        """Raises: DataError if prompt and answer exceed the limit; nothing is ever cut."""
        if self.max_length is not None and prompt + answer > self.max_length:
            raise DataError(
                f"prompt of {prompt} and answer of {most}{answer} tokens exceed the model's "
                f"{self.max_length} positions ({prompt + answer} in all); shorten them, raise "
                "model.max_length if it is set, or use a model with a longer context"
            )

    def takes_tree(self, paths: Sequence[int]) -> bool:
        """Whether candidates may be packed, given the tokens of prompt and candidate of each."""
        return not self.no_trees and (self.window is None or max(paths) <= self.window)


def config_limits(config: Any, max_length: int | None = None) -> ModelLimits:
    """Limits by a model's configuration alone.

    Args: max_length: the user's own limit. Raises: DataError if the model takes less.
    """
    config = config.get_text_config()
    own = getattr(config, "max_position_embeddings", None)
    if max_length is not None and own is not None and max_length > own:
        raise DataError(
            f"model.max_length is {max_length}, but the model has {own} positions; lower it"
        )
    limit = max_length or own
    window = _window(config)
    if window is not None and limit is not None and window >= limit:
        window = None
    return ModelLimits(limit, window, _no_trees(config))


def _window(config: Any) -> int | None:
    """The narrowest window of a model's sliding or chunked layers; None if all see everything."""
    sliding = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is None:
        return sliding if getattr(config, "use_sliding_window", True) else None
    chunk = getattr(config, "attention_chunk_size", None)
    sizes = [sliding for t in types if "sliding" in t] + [chunk for t in types if "chunked" in t]
    return min((size for size in sizes if size), default=None)


def _no_trees(config: Any) -> str:
    if getattr(config, "quantization_config", None) is not None:
        return "its weights are quantised"
    if getattr(config, "alibi", False):
        return "its attention is biased by distance (ALiBi)"
    other = set(getattr(config, "layer_types", None) or ()) - set(WHOLE_ATTENTION)
    if other:
        return f"it has layers of other kinds than attention ({', '.join(sorted(other))})"
    return ""
