"""A truth head's estimate on disk: fitted once, read by a critic-learner that comes back and by all
trials of a sweep. It carries what it was fitted on and with; one of another log is not read."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from trialign_ray.checkpoint import write_atomically
from trialign_ray.config_sections import CriticConfig
from trialign_ray.dataset import HASH_KEY
from trialign_ray.truth_heads.evidence import TruthEstimate

ESTIMATE = "estimate.safetensors"
USED_AFTER_THE_FIT: Collection[str] = frozenset(
    {"pessimism", "discount", "expectile", "value_steps", "team_reward"}
)
"""Settings of the critic that decide what is made of an estimate, not the estimate."""


@dataclass(frozen=True)
class SavedEstimate:
    """Where an estimate lies, and the sha256 of log, settings and seed that it must carry."""

    path: Path
    identity: str

    @staticmethod
    def of(folder: Path, dataset_file: Path, critic: CriticConfig, seed: int) -> "SavedEstimate":
        """The place in `folder` of what this critic says of this log."""
        log = (pq.read_schema(dataset_file).metadata or {}).get(HASH_KEY, b"").decode()
        settings = critic.model_dump(mode="json", exclude=set(USED_AFTER_THE_FIT))
        text = json.dumps([log, settings, seed], sort_keys=True)
        return SavedEstimate(folder / ESTIMATE, hashlib.sha256(text.encode()).hexdigest())

    def write(self, estimate: TruthEstimate) -> None:
        """Writes it whole."""
        tensors = {
            "mean_XZ": estimate.mean_XZ.contiguous(),
            "std_XZ": estimate.std_XZ.contiguous(),
        }
        facts = {
            "identity": self.identity,
            "temperature": repr(float(estimate.temperature)),
            "num_labels": str(estimate.num_labels),
        }
        write_atomically(self.path, save(tensors, facts))

    def read(self) -> TruthEstimate | None:
        """The estimate; None if there is none, or it is not of this log and these settings."""
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata() or {}
                if facts.get("identity") != self.identity:
                    return None
                return TruthEstimate(
                    mean_XZ=file.get_tensor("mean_XZ"),
                    std_XZ=file.get_tensor("std_XZ"),
                    temperature=float(facts["temperature"]),
                    num_labels=int(facts["num_labels"]),
                )
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
