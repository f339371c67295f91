"""Stage 5, one adapter from its rows to its last update: rounds, checkpoints, resume.

What a group's agent does when it trains; plain, without Ray. Update s is made on the rows of round
s // clone.coordinate_every (all on round 0 without re-coordination), so that checkpoint and rows
files decide the rest of the training, whoever was killed in between.

Shapes: B rows of a batch, K candidates (padded).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trialign_ray.adapters import unadapted
from trialign_ray.checkpoint import Checkpoint, file_sha256, newest_checkpoint, save_checkpoint
from trialign_ray.clone import CloneRow, CloneTrainer, candidate_batch, candidate_policy
from trialign_ray.config_sections import CloneConfig
from trialign_ray.coordination import PolicyReport, round_folder
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.group_mixer import GroupMixer, Sharing
from trialign_ray.language_model import end_ids, text_ids
from trialign_ray.training_rows import read_group_weights, read_rows

logger = logging.getLogger(__name__)
ROWS_PER_BATCH = 32


@dataclass(frozen=True)
class TrainingSpec:
    """Whose adapter it is, its rows of round 0, where checkpoints lie, and what these must carry.

    sharing: how groups mix if the rows are of several; fixed weights come with the rows.
    """

    owner: str
    rows_file: Path
    checkpoint_dir: Path
    clone: CloneConfig
    seed: int
    identity: dict[str, str]
    sharing: Sharing = "own"


@dataclass(frozen=True)
class CloneProgress:
    """Where the adapter stands: number of updates done, loss of each, step it had resumed at."""

    step: int
    losses: tuple[float, ...]
    resumed_at: int


class AdapterTraining:
    """Trains the trainable adapter of `model`; begins at the newest complete checkpoint.

    Raises: ConfigError if that checkpoint belongs to another run or to other rows; DataError if
    rows are missing, or `model` is not the one that the reference scores were made with.
    """

    def __init__(self, model: Any, tokenizer: Any, spec: TrainingSpec):
        self._model, self._tokenizer, self._spec = model, tokenizer, spec
        checkpoint = newest_checkpoint(spec.checkpoint_dir, spec.identity)
        self.resumed_at = 0 if checkpoint is None else checkpoint.step
        self._load_round(self._round_of_last_update(self.resumed_at))
        if checkpoint is None:
            with unadapted(model):
                self._trainer.require_reference()
        else:
            self._require_same_rows(checkpoint)
            self._trainer.restore(checkpoint)
            logger.info("%s resumes at step %d", spec.owner, checkpoint.step)

    @property
    def step(self) -> int:
        return self._trainer.step

    @property
    def identity(self) -> dict[str, str]:
        """Run, data and base: what a checkpoint must agree with and an export carries."""
        return {**self._spec.identity, "rows_sha256": self._rows_sha256}

    def advance(self, until_step: int) -> CloneProgress:
        """Trains up to `until_step` updates in all. Calling it again changes nothing."""
        while self.step < until_step:
            self._enter_round(self._round_of(self.step))
            self._trainer.step_once()
            if self._saves_at(self.step):
                self.save()
        return CloneProgress(self.step, tuple(self._trainer.losses), self.resumed_at)

    def save(self) -> None:
        """Writes a checkpoint of where it stands."""
        save_checkpoint(self._spec.checkpoint_dir, self._trainer.checkpoint(self.identity))

    def policy(self, step: int) -> PolicyReport:
        """What it answers after `step` updates, on the rows that these were made on.

        Raises: DataError if it stands elsewhere: then the next round had begun already.
        """
        if step != self.step:
            raise DataError(
                f"{self._spec.owner} stands at step {self.step}, it is asked for its answers at "
                f"step {step}: rows of a round that had begun were removed; put them back under "
                "targets/, or delete the run's checkpoints/ and resume"
            )
        pad_id = self._tokenizer.pad_token_id
        return PolicyReport(self._rows_sha256, present_policy(self._model, self._rows, pad_id))

    def _round_of(self, step: int) -> int:
        every = self._spec.clone.coordinate_every
        return step // every if every else 0

    def _round_of_last_update(self, step: int) -> int:
        return self._round_of(max(0, step - 1))

    def _saves_at(self, step: int) -> bool:
        """Always where a round ends: the next one's rows are made from that checkpoint."""
        clone = self._spec.clone
        ends_round = clone.coordinate_every > 0 and step % clone.coordinate_every == 0
        return step % clone.checkpoint_every == 0 or ends_round or step == clone.steps

    def _enter_round(self, round_: int) -> None:
        """Goes on with the next round's rows; weights, moments and step stay."""
        if round_ == self._round:
            return
        so_far = self._trainer.checkpoint({})
        self._load_round(round_)
        self._trainer.restore(so_far)

    def _load_round(self, round_: int) -> None:
        spec = self._spec
        path = round_folder(spec.rows_file.parent, round_) / spec.rows_file.name
        if not path.is_file():
            raise DataError(
                f"{spec.owner} has no training rows of round {round_} ({path}); resume with "
                "`trialign train --resume`, which solves the round first"
            )
        encode = partial(text_ids, self._tokenizer)
        self._rows = read_rows(path, encode, end_ids(self._tokenizer)[0])
        self._rows_sha256, self._round = file_sha256(path), round_
        groups = tuple(dict.fromkeys(r.group for r in self._rows))
        mixer = GroupMixer(spec.sharing, groups, read_group_weights(path))
        self._trainer = CloneTrainer(
            self._model, self._tokenizer.pad_token_id, self._rows, spec.clone, spec.seed, mixer
        )

    def _require_same_rows(self, checkpoint: Checkpoint) -> None:
        trained_on = checkpoint.state.get("rows_sha256")
        if trained_on != self._rows_sha256:
            raise ConfigError(
                f"checkpoint {self._spec.checkpoint_dir} at step {checkpoint.step} has rows_sha256 "
                f"{trained_on!r}, the rows of round {self._round} have {self._rows_sha256!r}; "
                "resume with the targets it was started with, or use a new --run-dir"
            )


def present_policy(
    model: Any, rows: Sequence[CloneRow], pad_id: int
) -> tuple[tuple[float, ...], ...]:
    """p over the candidates of every row under `model`: mu pi / pi_ref, normalised."""
    model.eval()
    policy: list[tuple[float, ...]] = []
    with torch.no_grad():
        for start in range(0, len(rows), ROWS_PER_BATCH):
            chosen = rows[start : start + ROWS_PER_BATCH]
            batch = candidate_batch(model, chosen, pad_id)
            p_BK = candidate_policy(batch.log_ratio_BK, batch.prior_BK, batch.mask_BK)
            policy += [
                tuple(p_K[: len(row.target_K)].tolist())
                for row, p_K in zip(chosen, p_BK, strict=True)
            ]
    return tuple(policy)
