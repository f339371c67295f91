"""Memory of 1, 4 and 8 group actors on one base: it is paid once per node.

    python -m tests.bench.actor_memory

A random Llama of 50 M parameters in bfloat16. Every actor is a real `GroupAgent` that loads the
base, scores candidates under it, and makes one AdamW update of its own LoRA, so that all pages of
the base were read. Proportional set size (PSS, a shared page divided by those who map it) comes
from /proc/PID/smaps_rollup, the part that is the weights' file from /proc/PID/smaps.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, cast

import ray
import torch

from tests.bench.random_base import WORDS, save_random_base
from trialign_ray.actors.group_agent import GroupAgent, GroupAgentSpec
from trialign_ray.config_sections import CloneConfig

MIB = 2**20
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 11264,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
TINY = SIZES | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


class MeasuredAgent(GroupAgent):
    """A group's agent that also makes one update, on a prompt of 64 and 4 answers of 16 tokens."""

    def update(self) -> int:
        """Scores, trains once; returns the process id."""
        from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees

        self.score("behaviour", [" ".join(WORDS[:64])], [[" ".join(WORDS[:16])]])
        model = self._adapter.with_own()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained)
        tree = Tree(list(range(10, 74)), [[10 + k] * 16 for k in range(4)])
        candidate_logprobs(model, pack_trees([tree], 0, None))[0].sum().backward()
        optimizer.step()
        return self.state()["pid"]


def main(arguments: list[str] | None = None) -> list[dict[str, float]]:
    """Prints one row per number of actors, in MiB, and returns them."""
    options = argparse.ArgumentParser()
    options.add_argument("--actors", type=int, nargs="+", default=[1, 4, 8])
    options.add_argument("--tiny", action="store_true", help="a small base, to see that it runs")
    parsed = options.parse_args(arguments)
    if not ray.is_initialized():
        ray.init(num_cpus=max(parsed.actors), include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        count = save_random_base(base, "llama", TINY if parsed.tiny else SIZES, torch.bfloat16)
        file = base / "model.safetensors"
        print(f"{count / 1e6:.1f} M parameters, {file.stat().st_size / MIB:.1f} MiB in bfloat16")
        print("| actors | PSS of all | of it the base's file | other PSS per actor | RSS of all |")
        print("| --- | --- | --- | --- | --- |")
        return [_measured(number, base, Path(folder)) for number in parsed.actors]


def _measured(number: int, base: Path, folder: Path) -> dict[str, float]:
    remote = ray.remote(num_cpus=0.1)(MeasuredAgent)
    actors = [remote.remote(_spec(f"g{i}", base, folder)) for i in range(number)]
    pids = ray.get([actor.update.remote() for actor in actors], timeout=600)
    memory = [_memory(pid, base / "model.safetensors") for pid in pids]
    for actor in actors:
        ray.kill(cast(Any, actor))
    total = {key: sum(m[key] for m in memory) / MIB for key in memory[0]}
    other = (total["pss"] - total["file"]) / number
    print(
        f"| {number} | {total['pss']:.0f} | {total['file']:.1f} | {other:.0f} "
        f"| {total['rss']:.0f} |",
        flush=True,
    )
    return {"actors": number, "other": other, **total}


def _spec(group: str, base: Path, folder: Path) -> GroupAgentSpec:
    return GroupAgentSpec(
        group=group,
        models={"behaviour": str(base)},
        rows_file=None,
        checkpoint_dir=str(folder / group / "checkpoints"),
        adapter_dir=str(folder / group / "adapter"),
        training_file=str(folder / group / "training.json"),
        clone=CloneConfig(lora_rank=8),
        seed=0,
        identity={},
    )


def _memory(pid: int, file: Path) -> dict[str, int]:
    """Bytes: proportional and resident size of a process, and of the file in it."""
    found: dict[str, Any] = {"pss": 0, "rss": 0, "file": 0, "file_rss": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in ("Pss", "Rss"):
            found[key.lower()] = int(rest.split()[0]) * 1024
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            inside = line.endswith(str(file))
        elif inside and line.startswith(("Pss:", "Rss:")):
            key = "file" if line.startswith("P") else "file_rss"
            found[key] += int(line.split()[1]) * 1024
    return found


if __name__ == "__main__":
    main()
