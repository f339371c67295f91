"""What Ray Tune could not go on with is refused before it forgets trained trials."""

import json
from dataclasses import replace

import pytest

from trialign_ray.errors import ConfigError
from trialign_ray.run_trial import write_json
from tuning.sweep_plan import TrialRecord, record_as_json, trials_dir
from tuning.trial_folder import SweepFolder
from tuning.tune_state import require_readable_state

BEGUN = TrialRecord("t1", {}, (), "stopped")


def state(*trial_ids: str) -> str:
    """As Tune writes it, in what matters here."""
    trials = [[json.dumps({"trial_id": i}), json.dumps({"last_result": {}})] for i in trial_ids]
    return json.dumps({"trial_data": trials, "runner_data": {}, "stats": {}})


def sweep_with(root, record: TrialRecord | None, *states: str, tuner: str = "pickle"):
    folder = SweepFolder(root)
    folder.tune.mkdir()
    (folder.tune / "tuner.pkl").write_text(tuner)
    for i, text in enumerate(states):
        (folder.tune / f"experiment_state-2026-01-01_00-00-0{i}.json").write_text(text)
    if record is not None:
        write_json(trials_dir(root) / record.trial_id / "trial.json", record_as_json(record))
    return folder


REPORTED = replace(BEGUN, step=6, status="done", metrics={"worst_truth": 0.5})


@pytest.mark.parametrize(
    ("record", "states", "tuner"),
    [
        (REPORTED, (state("t1"),), "pickle"),
        (REPORTED, ("{", state("t1")), "pickle"),  # the newest counts, as for Tune
        (BEGUN, (), "pickle"),  # killed before Tune's first snapshot: nothing is lost
        (None, ("{",), "pickle"),
        (None, (), ""),
    ],
)
def test_a_state_that_tune_can_read_or_that_loses_nothing_is_gone_on_with(
    tmp_path, record, states, tuner
):
    require_readable_state(sweep_with(tmp_path, record, *states, tuner=tuner))


@pytest.mark.parametrize(
    ("record", "states", "tuner", "message"),
    [
        (BEGUN, (state("t1"), state("t1")[:-9]), "pickle", "00-01.json is not readable"),
        (REPORTED, ("[]",), "pickle", "is not readable"),
        (REPORTED, (), "pickle", "knows of no trial"),
        (REPORTED, (state(),), "pickle", "knows of no trial"),
        (REPORTED, (state("t1"),), "", "tuner.pkl is missing or empty"),
    ],
)
def test_a_state_by_which_trials_would_be_forgotten_is_refused_with_the_way_out(
    tmp_path, record, states, tuner, message
):
    folder = sweep_with(tmp_path, record, *states, tuner=tuner)
    with pytest.raises(ConfigError, match=f"{message}.*forget 1 trials.*another --run-dir"):
        require_readable_state(folder)


def test_a_sweep_of_which_nothing_was_trained_can_begin(tmp_path):
    require_readable_state(SweepFolder(tmp_path))
