"""Tree batches against separate rows: time of a scored forward and backward pass, as a ratio.

    python -m tests.bench.tree_batch

The peer is a padded batch of separate rows, as most trainers build it, on the same random Llama,
candidates and machine. Median of five.
"""

import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees

SHAPES = ((128, 16, 8), (256, 32, 8), (128, 64, 4))
VOCABULARY = 8192


def main() -> None:
    """Prints one row per shape: prompt P, answer L, candidates K."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=512,
    )
    model = LlamaForCausalLM(config)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{millions:.0f} M parameters, fp32, {torch.get_num_threads()} threads")
    print("| P | L | K | tree s | separate rows s | ratio | largest difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for prompt, length, num in SHAPES:
        tree = Tree(
            torch.randint(VOCABULARY, (prompt,)).tolist(),
            torch.randint(VOCABULARY, (num, length)).tolist(),
        )
        of_tree, tree_s = timed(model, lambda t=tree: by_tree(model, t))
        of_rows, rows_s = timed(model, lambda t=tree: by_rows(model, t))
        difference = float((of_tree - of_rows).abs().max())
        print(
            f"| {prompt} | {length} | {num} | {tree_s:.3f} | {rows_s:.3f} | {rows_s / tree_s:.1f} "
            f"| {difference:.0e} |"
        )


def timed(model: LlamaForCausalLM, logprobs) -> tuple[torch.Tensor, float]:
    """Log-probabilities, and the median seconds of forward and backward."""
    seconds = []
    value = torch.zeros(())
    for _ in range(5):
        model.zero_grad()
        start = time.perf_counter()
        value = logprobs()
        value.sum().backward()
        seconds.append(time.perf_counter() - start)
    return value.detach(), statistics.median(seconds)


def by_tree(model: LlamaForCausalLM, tree: Tree) -> torch.Tensor:
    return candidate_logprobs(model, pack_trees([tree], 0, 512))[0][0]


def by_rows(model: LlamaForCausalLM, tree: Tree) -> torch.Tensor:
    rows = torch.tensor([[*tree.prompt, *c] for c in tree.candidates])
    start = len(tree.prompt) - 1
    logits = model(input_ids=rows, use_cache=False).logits[:, start:-1]
    chosen = logits.log_softmax(-1).gather(-1, rows[:, start + 1 :].unsqueeze(-1))
    return chosen.squeeze(-1).sum(-1)


if __name__ == "__main__":
    main()
