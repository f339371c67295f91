"""One social group: the frozen base, its own LoRA, its optimizer and its rows.

A plain class: `actors/workers.py` makes it a Ray actor, or calls it directly without Ray. Every
constructor restores the newest complete checkpoint, because a restarted actor comes back empty.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from trialign_ray.checkpoint import file_sha256, newest_checkpoint, save_checkpoint
from trialign_ray.config import CloneConfig
from trialign_ray.engines import CandidateScore, Decoding, Generation
from trialign_ray.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupAgentSpec:
    """All that a group's actor needs to come up, or to come back.

    models: name -> folder of a base model; the adapter sits on "behaviour". rows_file,
    checkpoint_dir and adapter_dir belong to this group; training_file says what was exported.
    identity: entries that its checkpoints must carry.
    """

    group: str
    models: dict[str, str]
    rows_file: str
    checkpoint_dir: str
    adapter_dir: str
    training_file: str
    clone: CloneConfig
    seed: int
    identity: dict[str, str]
    num_threads: int = 1


@dataclass(frozen=True)
class CloneProgress:
    """Where the adapter stands: number of updates done, loss of each, step it had resumed at."""

    step: int
    losses: tuple[float, ...]
    resumed_at: int


class GroupAgent:
    """Verbs: generate, score, clone, export, state."""

    def __init__(self, spec: GroupAgentSpec):
        from trialign_ray.language_model import load_language_model

        torch.set_num_threads(spec.num_threads)
        self._spec = spec
        self._behaviour = load_language_model(Path(spec.models["behaviour"]))
        self._engines: dict[str, Any] = {}
        self._exported_loaded = False
        self._trainer: Any = None
        self._resumed_at = 0
        if Path(spec.rows_file).is_file():
            self._start_training()

    def __repr__(self) -> str:
        return f"GroupAgent(group={self._spec.group})"

    def generate(self, model: str, prompts: Sequence[str], decoding: Decoding) -> list[Generation]:
        """Utterances of "behaviour", "aligned" (the exported adapter) or another base model."""
        return self._with_engine(model, lambda engine: engine.generate(prompts, decoding))

    def score(
        self, model: str, prompts: Sequence[str], candidates: Sequence[Sequence[str]]
    ) -> list[list[CandidateScore]]:
        """Log-probabilities of candidates under the named model."""
        return self._with_engine(model, lambda engine: engine.score(prompts, candidates))

    def clone(self, until_step: int) -> CloneProgress:
        """Trains up to `until_step` updates in all. Calling it again changes nothing."""
        if self._trainer is None:
            self._start_training()
        trainer: Any = self._trainer
        if self._exported_loaded:
            raise DataError(f"group {self._spec.group} already serves its exported adapter")
        spec = self._spec
        while trainer.step < until_step:
            trainer.step_once()
            if trainer.step % spec.clone.checkpoint_every == 0 or trainer.step == spec.clone.steps:
                save_checkpoint(Path(spec.checkpoint_dir), trainer.checkpoint(self._identity()))
        return CloneProgress(trainer.step, tuple(trainer.losses), self._resumed_at)

    def export(self, folder: str) -> str:
        """Writes the adapter in PEFT's layout; returns the sha256 of its weights."""
        from trialign_ray.adapters import export_adapter

        if self._trainer is None:
            raise DataError(f"group {self._spec.group} has not been trained; call clone first")
        provenance = {"group": self._spec.group, "step": self._trainer.step, **self._identity()}
        export_adapter(self._adapted(), self._behaviour, Path(folder), provenance)
        return file_sha256(Path(folder) / "adapter_model.safetensors")

    def state(self) -> dict[str, Any]:
        """Group, step, the step at which this process resumed, and its process id."""
        return {
            "group": self._spec.group,
            "step": self._trainer.step if self._trainer else 0,
            "resumed_at": self._resumed_at,
            "pid": os.getpid(),
        }

    def _identity(self) -> dict[str, str]:
        return {**self._spec.identity, "rows_sha256": self._rows_sha256}

    def _start_training(self) -> None:
        from trialign_ray.clone import CloneTrainer

        spec = self._spec
        rows = read_clone_rows(Path(spec.rows_file), self._behaviour.tokenizer)
        self._rows_sha256 = file_sha256(Path(spec.rows_file))
        model = self._adapted()
        pad_id = self._behaviour.tokenizer.pad_token_id
        self._trainer = CloneTrainer(model, pad_id, rows, spec.clone, spec.seed)
        checkpoint = newest_checkpoint(Path(spec.checkpoint_dir), self._identity())
        if checkpoint is not None:
            self._trainer.restore(checkpoint)
            self._resumed_at = checkpoint.step
            logger.info("group %s resumes at step %d", spec.group, checkpoint.step)

    def _adapted(self) -> Any:
        if "aligned" not in self._engines:
            from trialign_ray.adapters import add_adapter
            from trialign_ray.engines.transformers import TransformersEngine

            self._peft = add_adapter(self._behaviour, self._spec.clone, self._spec.seed)
            self._engines["aligned"] = TransformersEngine(self._peft, self._behaviour.tokenizer)
        return self._peft

    def _load_exported(self) -> None:
        """What is evaluated is what was exported, whatever this process trained or restored."""
        from safetensors.torch import load_file

        from trialign_ray.adapters import set_adapter_tensors

        if self._exported_loaded:
            return
        file = Path(self._spec.adapter_dir) / "adapter_model.safetensors"
        try:
            training = json.loads(Path(self._spec.training_file).read_text(encoding="utf-8"))
            found, expected = file_sha256(file), training["adapter_sha256"][self._spec.group]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"group {self._spec.group} has no exported adapter ({error}); finish the training "
                "with `trialign train --resume`"
            ) from error
        if found != expected:
            raise DataError(
                f"{file} has sha256 {found[:12]}, the training exported {expected[:12]}"
            )
        set_adapter_tensors(self._adapted(), load_file(file))
        self._exported_loaded = True

    def _with_engine(self, name: str, call: Any) -> Any:
        from trialign_ray.engines.transformers import TransformersEngine
        from trialign_ray.language_model import load_language_model

        if name == "aligned":
            self._load_exported()
        elif name not in self._engines:
            base = self._behaviour
            if name != "behaviour":
                base = load_language_model(Path(self._spec.models[name]))
            self._engines[name] = TransformersEngine(base.model, base.tokenizer)
        if name == "behaviour" and "aligned" in self._engines:
            with self._peft.disable_adapter():
                return call(self._engines[name])
        return call(self._engines[name])


def read_clone_rows(path: Path, tokenizer: Any) -> list[Any]:
    """The rows that `targets` wrote for one group. Raises: DataError if the file is damaged."""
    from trialign_ray.clone import CloneRow
    from trialign_ray.language_model import answer_ids, text_ids
    from trialign_ray.tree_batch import Tree

    try:
        records = pq.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"training rows {path} cannot be read: {error}") from error
    return [
        CloneRow(
            Tree(
                text_ids(tokenizer, r["prompt_text"]),
                [answer_ids(tokenizer, text) for text in r["candidate_text"]],
            ),
            tuple(r["target"]),
            tuple(r["reference_logprob"]),
        )
        for r in records
    ]
