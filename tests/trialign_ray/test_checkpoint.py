"""Checkpoints: complete or not there at all."""

import logging

import pytest
import torch

from trialign_ray.checkpoint import (
    STATE,
    TENSORS,
    Checkpoint,
    newest_checkpoint,
    save_checkpoint,
    write_atomically,
)
from trialign_ray.errors import ConfigError

IDENTITY = {"config_sha256": "abc"}


def checkpoint(step):
    return Checkpoint(step, {"w": torch.full((3,), float(step))}, {**IDENTITY, "losses": [1.0]})


def newest_step(folder):
    newest = newest_checkpoint(folder, IDENTITY)
    return newest and newest.step


def test_the_newest_comes_back_and_one_before_it_is_kept(tmp_path):
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, checkpoint(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]
    newest = newest_checkpoint(tmp_path, IDENTITY)
    assert newest is not None
    assert newest.step == 30 and newest.tensors["w"].tolist() == [30.0] * 3
    assert newest.state["losses"] == [1.0]


@pytest.mark.parametrize("name", [TENSORS, STATE, "manifest.json"])
def test_a_truncated_one_is_skipped_with_a_warning(tmp_path, name, caplog):
    save_checkpoint(tmp_path, checkpoint(10))
    damaged = save_checkpoint(tmp_path, checkpoint(20)) / name
    damaged.write_bytes(damaged.read_bytes()[:-3])
    with caplog.at_level(logging.WARNING):
        assert newest_step(tmp_path) == 10
    assert "is skipped" in caplog.text


def test_one_of_another_run_is_refused(tmp_path):
    save_checkpoint(tmp_path, checkpoint(10))
    with pytest.raises(ConfigError, match="config_sha256"):
        newest_checkpoint(tmp_path, {"config_sha256": "other"})


def test_a_half_written_folder_is_no_checkpoint(tmp_path):
    (tmp_path / ".tmp-00000010-1").mkdir()
    assert newest_checkpoint(tmp_path, IDENTITY) is None
    assert newest_checkpoint(tmp_path / "none", IDENTITY) is None


def test_saving_a_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, checkpoint(10))
    save_checkpoint(tmp_path, checkpoint(10))
    assert newest_step(tmp_path) == 10


def test_files_are_written_whole(tmp_path):
    write_atomically(tmp_path / "a" / "f.json", b"{}")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["f.json"]
