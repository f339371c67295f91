"""Four groups on one GPU: tokens per second and memory, tree batch against separate rows.

    python -m tests.bench.gpu_throughput            # Qwen2 of 1.5 B random parameters, needs a GPU
    python -m tests.bench.gpu_throughput --tiny     # some thousand parameters, on a CPU

Every group is a Ray actor with its share of the GPU, its own copy of the base in bfloat16 and its
own LoRA; all train at once. An update is forward, backward and AdamW on the log-probabilities of
K candidates of B prompts. Tokens are those that candidates and prompts have (a prompt once, however
often separate rows repeat it), so that both ways are given the same work. Median of five updates.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
import torch

from tests.bench.random_base import save_random_base
from trialign_ray.adapters import add_adapter
from trialign_ray.config_models import ModelConfig
from trialign_ray.config_sections import CloneConfig
from trialign_ray.language_model import load_language_model
from trialign_ray.separate_rows import row_logprobs
from trialign_ray.tree_batch import Tree, pack_trees, tree_logprobs

QWEN2_1_5B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
TINY = QWEN2_1_5B | {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "vocab_size": 1200,
    "max_position_embeddings": 1024,
}


@dataclass(frozen=True)
class Shape:
    """B prompts of P tokens, K candidates of L tokens each."""

    B: int
    P: int
    L: int
    K: int


SHAPES = (Shape(4, 256, 32, 8), Shape(4, 512, 64, 4))
TINY_SHAPES = (Shape(2, 24, 6, 4),)


class Group:
    """One group's base and LoRA, on the GPU that Ray gave it."""

    def __init__(self, folder: str, checkpointing: bool):
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        options = ModelConfig(gradient_checkpointing=checkpointing)
        base = load_language_model(Path(folder), options, self._device)
        self._model = add_adapter(base, CloneConfig(lora_rank=8), seed=0).train()
        trained = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def measure(self, way: str, shape: Shape, repeats: int = 5) -> tuple[float, float]:
        """Median seconds of an update, and the most GPU memory that it held, in GiB."""
        trees = _trees(shape)
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = [self._update(way, trees) for _ in range(repeats + 1)][1:]
        peak = torch.cuda.max_memory_allocated() / 2**30 if self._device == "cuda" else 0.0
        return statistics.median(seconds), peak

    def _update(self, way: str, trees: list[Tree]) -> float:
        start = time.perf_counter()
        if way == "tree":
            logprob, _ = tree_logprobs(self._model, pack_trees(trees, 0, None))
        else:
            logprob, _ = row_logprobs(self._model, trees, 0)
        self._optimizer.zero_grad(set_to_none=True)
        (-logprob.mean()).backward()
        self._optimizer.step()
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def _trees(shape: Shape) -> list[Tree]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randint(10, 1000, size, generator=generator).tolist()  # noqa: E731
    return [Tree(draw(shape.P), draw(shape.K, shape.L)) for _ in range(shape.B)]


def main(arguments: list[str] | None = None) -> list[dict[str, float]]:
    """Prints one row per shape and way, and returns them."""
    options = argparse.ArgumentParser()
    options.add_argument("--tiny", action="store_true", help="a small model, on a CPU")
    options.add_argument("--groups", type=int, default=4)
    options.add_argument("--gradient-checkpointing", action="store_true")
    parsed = options.parse_args(arguments)
    on_gpu = torch.cuda.is_available()
    if not (on_gpu or parsed.tiny):
        raise SystemExit("no GPU is visible; use --tiny to see that this runs")
    if not ray.is_initialized():
        ray.init(num_cpus=parsed.groups, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        sizes = TINY if parsed.tiny else QWEN2_1_5B
        dtype = torch.bfloat16 if on_gpu else torch.float32
        count = save_random_base(Path(folder), "qwen2", sizes, dtype)
        where = torch.cuda.get_device_name() if on_gpu else "CPU"
        print(f"{count / 1e6:.4g} M parameters, {parsed.groups} groups at once, {where}")
        share = {"num_cpus": 0.1, "num_gpus": 1 / parsed.groups if on_gpu else 0}
        remote = ray.remote(**share)(Group)
        groups = [
            remote.remote(folder, parsed.gradient_checkpointing) for _ in range(parsed.groups)
        ]
        rows = _compared(groups, TINY_SHAPES if parsed.tiny else SHAPES)
        for group in groups:
            ray.kill(cast(Any, group))
        return rows


def _compared(groups: list, shapes: tuple[Shape, ...]) -> list[dict[str, float]]:
    print("| B | P | L | K | way | s per update | tokens/s, all groups | GPU GiB per group |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for shape in shapes:
        tokens = shape.B * (shape.P + shape.K * shape.L)
        for way in ("tree", "separate rows"):
            found = ray.get([g.measure.remote(way, shape) for g in groups], timeout=1800)
            rate = sum(tokens / seconds for seconds, _ in found)
            seconds, peak = max(s for s, _ in found), max(p for _, p in found)
            print(
                f"| {shape.B} | {shape.P} | {shape.L} | {shape.K} | {way} | {seconds:.3f} "
                f"| {rate:.0f} | {peak:.1f} |",
                flush=True,
            )
            rows.append({"seconds": seconds, "tokens_per_s": rate, "gib": peak})
    return rows


if __name__ == "__main__":
    main()
