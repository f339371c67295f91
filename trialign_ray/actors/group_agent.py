"""One social group: the frozen base, its own LoRA, its optimizer and its rows.

A plain class: `actors/workers.py` makes it a Ray actor, or calls it directly without Ray. Every
constructor restores the newest complete checkpoint, because a restarted actor comes back empty.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trialign_ray.checkpoint import file_sha256
from trialign_ray.common_adapter import CommonAdapterSpec
from trialign_ray.config_models import ModelConfig
from trialign_ray.config_sections import CloneConfig
from trialign_ray.coordination import PolicyReport
from trialign_ray.engines import CandidateScore, Decoding, Generation, Utterance
from trialign_ray.errors import DataError
from trialign_ray.group_mixer import Sharing

if TYPE_CHECKING:
    from trialign_ray.adapter_training import AdapterTraining, CloneProgress


@dataclass(frozen=True)
class GroupAgentSpec:
    """All that a group's actor needs to come up, or to come back.

    models: name -> folder of a base model; the adapter sits on "behaviour". rows_file (None:
    another agent trains for this group), checkpoint_dir and adapter_dir belong to this group;
    training_file says what was exported. model: how all base models are loaded. sharing: how groups
    mix if the rows are of several. common: the adapter that all groups have beside their own, if
    any. identity: entries that its checkpoints must carry.
    """

    group: str
    models: dict[str, str]
    rows_file: str | None
    checkpoint_dir: str
    adapter_dir: str
    training_file: str
    clone: CloneConfig
    seed: int
    identity: dict[str, str]
    sharing: Sharing = "own"
    common: CommonAdapterSpec | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    num_threads: int = 1


class GroupAgent:
    """Verbs: generate, score, clone_common, export_common, clone, save, policy, export, state."""

    def __init__(self, spec: GroupAgentSpec):
        from trialign_ray.group_adapter import GroupAdapter

        torch.set_num_threads(spec.num_threads)
        self._spec = spec
        self._behaviour = self._load("behaviour")
        self._adapter = GroupAdapter(self._behaviour, spec.clone, spec.seed, spec.common)
        self._engines: dict[str, Any] = {}
        self._exported_loaded = False
        self._training: AdapterTraining | None = None
        self._common_training: AdapterTraining | None = None
        self._resume()

    def __repr__(self) -> str:
        return f"GroupAgent(group={self._spec.group})"

    def generate(self, model: str, prompts: Sequence[str], decoding: Decoding) -> list[Generation]:
        """Utterances of "behaviour", "aligned" (the exported adapter), "training" (the adapter as
        it stands) or another base model."""
        return self._with_engine(model, lambda engine: engine.generate(prompts, decoding))

    def score(
        self, model: str, prompts: Sequence[str], candidates: Sequence[Sequence[Utterance]]
    ) -> list[list[CandidateScore]]:
        """Log-probabilities of candidates under the named model."""
        return self._with_engine(model, lambda engine: engine.score(prompts, candidates))

    def clone_common(self, until_step: int) -> "CloneProgress":
        """Trains all groups' common adapter up to `until_step` updates in all. Calling it again
        changes nothing."""
        return self._train_common().advance(until_step)

    def export_common(self) -> str:
        """Writes the common adapter; returns the sha256 of its weights."""
        common, training = self._spec.common, self._train_common()
        assert common is not None
        return self._write(common.adapter_dir, training, {"group": "all"})

    def clone(self, until_step: int) -> "CloneProgress":
        """Trains up to `until_step` updates in all. Calling it again changes nothing."""
        if self._exported_loaded:
            raise DataError(f"group {self._spec.group} already serves its exported adapter")
        return self._train().advance(until_step)

    def save(self) -> int:
        """Writes a checkpoint of where its training stands; returns the step."""
        training = self._train()
        training.save()
        return training.step

    def policy(self, step: int) -> PolicyReport:
        """What it answers among its rows' candidates after `step` updates, where it stands."""
        return self._train().policy(step)

    def export(self, folder: str, group: str | None = None) -> str:
        """Writes the adapter in PEFT's layout for `group` (its own if None); returns the sha256 of
        its weights."""
        if self._training is None:
            raise DataError(f"group {self._spec.group} has not been trained; call clone first")
        return self._write(folder, self._training, {"group": group or self._spec.group})

    def state(self) -> dict[str, Any]:
        """Group, step, the step at which this process resumed, and its process id."""
        return {
            "group": self._spec.group,
            "step": self._training.step if self._training else 0,
            "resumed_at": self._training.resumed_at if self._training else 0,
            "pid": os.getpid(),
        }

    def _load(self, name: str) -> Any:
        """A base model, on this actor's GPU if Ray gave it one."""
        from trialign_ray.language_model import load_language_model

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return load_language_model(Path(self._spec.models[name]), self._spec.model, device)

    def _resume(self) -> None:
        """Continues what can be continued: the own adapter, or before it the common one."""
        spec = self._spec
        if spec.rows_file is None or not Path(spec.rows_file).is_file():
            return
        if spec.common is None or self._adapter.common_is_trained:
            self._train()
        elif spec.common.rows_file is not None and Path(spec.common.rows_file).is_file():
            self._train_common()

    def _train(self) -> "AdapterTraining":
        from trialign_ray.adapter_training import AdapterTraining, TrainingSpec

        spec = self._spec
        if spec.rows_file is None:
            raise DataError(f"group {spec.group} is served by another agent's adapter")
        if self._training is None:
            beside = {}
            if spec.common is not None:
                beside = {"common_sha256": self._adapter.common_sha256()}
            training = TrainingSpec(
                owner=f"group {spec.group}",
                rows_file=Path(spec.rows_file),
                checkpoint_dir=Path(spec.checkpoint_dir),
                clone=spec.clone,
                seed=spec.seed,
                identity={**spec.identity, **beside},
                sharing=spec.sharing,
            )
            model = self._adapter.with_own()
            self._training = AdapterTraining(model, self._behaviour.tokenizer, training)
        return self._training

    def _train_common(self) -> "AdapterTraining":
        from trialign_ray.adapter_training import AdapterTraining, TrainingSpec

        spec, common = self._spec, self._spec.common
        if common is None or common.rows_file is None or self._training is not None:
            raise DataError(
                f"group {spec.group} does not train the common adapter: another agent does, "
                "clone.shared_rank is 0, or its own is being trained already"
            )
        if self._common_training is None:
            training = TrainingSpec(
                owner="the common adapter",
                rows_file=Path(common.rows_file),
                checkpoint_dir=Path(common.checkpoint_dir),
                clone=self._adapter.common_config,
                seed=common.seed,
                identity={**spec.identity, "group": "all"},
                sharing="pooled",
            )
            model = self._adapter.with_common()
            self._common_training = AdapterTraining(model, self._behaviour.tokenizer, training)
        return self._common_training

    def _write(self, folder: str, training: "AdapterTraining", provenance: dict[str, Any]) -> str:
        from trialign_ray.adapters import WEIGHTS, export_adapter

        assert self._adapter.model is not None
        provenance = {**training.identity, **provenance, "step": training.step}
        export_adapter(self._adapter.model, self._behaviour, Path(folder), provenance)
        return file_sha256(Path(folder) / WEIGHTS)

    def _load_exported(self) -> None:
        """What is evaluated is what was exported, whatever this process trained or restored."""
        from trialign_ray.engines.transformers import TransformersEngine
        from trialign_ray.group_adapter import recorded, require_exported

        if self._exported_loaded:
            return
        spec, folder = self._spec, Path(self._spec.adapter_dir)
        training = recorded(Path(spec.training_file), f"group {spec.group}'s adapter")
        require_exported(folder, training["adapter_sha256"][spec.group])
        model = self._adapter.serve(folder)
        self._engines["aligned"] = TransformersEngine(model, self._behaviour.tokenizer)
        self._exported_loaded = True

    def _with_engine(self, name: str, call: Any) -> Any:
        from trialign_ray.adapters import unadapted
        from trialign_ray.engines.transformers import TransformersEngine

        models = self._spec.models
        if models.get(name) == models["behaviour"]:  # one model in both roles: loaded once
            name = "behaviour"
        if name == "aligned":
            self._load_exported()
        elif name == "training":
            self._train()  # restores what was trained before this process
            model = self._adapter.with_own()
            return call(TransformersEngine(model, self._behaviour.tokenizer))
        elif name not in self._engines:
            base = self._behaviour
            if name != "behaviour":
                base = self._load(name)
            self._engines[name] = TransformersEngine(base.model, base.tokenizer)
        if name == "behaviour" and self._adapter.model is not None:
            with unadapted(self._adapter.model):
                return call(self._engines[name])
        return call(self._engines[name])
