"""What a trial finds in its folder and leaves there, and trials that Tune has forgotten."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from envs.errors import DataError
from trialign_ray.run_trial import write_json
from tuning.sweep import _only_known
from tuning.sweep_plan import TrialRecord, read_record, read_records, record_as_json, trials_dir
from tuning.trial_folder import Given, SweepFolder, TrialFolder, read_given, write_given

PARAMS = {"targets.penalty_weight": 0.3, "targets.welfare": "log_nash"}


def opened(root: Path, params=PARAMS, given: Given | None = None) -> TrialFolder:
    trial = TrialFolder(SweepFolder(root), "t1", params)
    trial.open(given)
    return trial


def half_trained(root: Path, donor: str | None = None) -> Path:
    """A trial that has reported at step 3."""
    trial = opened(root)
    trial.write({"start": 2.0}, metrics={"worst_truth": 0.5}, step=3)
    (trial.path / "config.yaml").write_text("seed: 0")
    trial.note_rung(3, {"worst_truth": 0.5})
    if donor is not None:
        write_json(trial.path / "adopted.json", {"donor": donor})
    return trial.path


def test_a_trial_goes_on_with_what_its_folder_holds(tmp_path):
    half_trained(tmp_path)
    trial = opened(tmp_path)
    assert (trial.record.step, trial.metrics_at(3)) == (3, {"worst_truth": 0.5})
    assert trial.metrics_at(6) is None
    assert trial.spec.overrides == ("targets.penalty_weight=0.3", "targets.welfare=log_nash")


def test_seconds_of_earlier_attempts_are_added_up(tmp_path):
    half_trained(tmp_path)
    trial = opened(tmp_path)
    trial.write({"start": 1.0, "clone": 4.0})
    trial.write({"start": 1.5, "clone": 5.0})
    found = read_record(trial.path)
    assert (found.wall_s["start"], found.wall_s["clone"]) == (3.5, 5.0)
    assert found.wall_s["total"] >= 0


def test_a_folder_with_other_settings_begins_anew(tmp_path):
    path = half_trained(tmp_path)
    trial = opened(tmp_path, {"targets.penalty_weight": 8})
    assert (trial.record.step, trial.record.metrics) == (0, {})
    assert not path.exists()


def given(trial_id: str, root: Path) -> Given:
    return Given(trial_id, 3, root / "given")


def test_a_trial_takes_over_from_others_and_not_from_itself(tmp_path):
    trial = opened(tmp_path)
    assert trial.donor(None) is None and trial.donor(given("t1", tmp_path)) is None
    donor = trial.donor(given("t2", tmp_path))
    assert donor is not None and donor.name == "t2 at step 3"


def test_a_folder_is_emptied_for_a_donor_once(tmp_path):
    path = half_trained(tmp_path)
    trial = opened(tmp_path, given=given("t2", tmp_path))
    assert not path.exists() and trial.record.step == 0
    trial.write({"start": 1.0})
    assert read_record(path).wall_s["start"] == 3.0  # what the first life cost is not forgotten
    half_trained(tmp_path, donor="t2 at step 3")
    assert opened(tmp_path, given=given("t2", tmp_path)).record.step == 3
    half_trained(tmp_path, donor="t2 at step 3")
    assert opened(tmp_path, given=given("t9", tmp_path)).record.step == 0


def test_a_checkpoint_says_whose_it_is(tmp_path):
    write_given(tmp_path, "t7", 4)
    assert read_given(tmp_path) == Given("t7", 4, tmp_path)


def record(trial_id: str, finished_at: float) -> TrialRecord:
    return TrialRecord(
        trial_id,
        dict(PARAMS),
        ("targets.penalty_weight=0.3",),
        "done",
        metrics={"worst_truth": 0.5},
        step=6,
        wall_s={"total": 2.0},
        finished_at=finished_at,
    )


def test_records_are_read_in_the_order_in_which_trials_ended(tmp_path):
    for trial_id, finished_at in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        path = trials_dir(tmp_path) / trial_id / "trial.json"
        write_json(path, record_as_json(record(trial_id, finished_at)))
    found = read_records(tmp_path)
    assert [r.trial_id for r in found] == ["b", "c", "a"]
    assert found[0].overrides == ("targets.penalty_weight=0.3",)
    assert found[0].folder == str(trials_dir(tmp_path) / "b")


def test_a_record_of_another_version_is_refused(tmp_path):
    tree = record_as_json(record("a", 1.0))
    write_json(tmp_path / "trial.json", {**tree, "colour": "red"})
    with pytest.raises(DataError, match="may come from another version"):
        read_record(tmp_path)


def test_a_trial_that_tune_forgot_is_put_aside_and_told_most_of_all_if_it_was_done(
    tmp_path, caplog
):
    for trial_id in ("a", "b", "known"):
        write_json(trials_dir(tmp_path) / trial_id / "trial.json", record_as_json(record("a", 1)))
    (trials_dir(tmp_path) / "b" / "trial.json").unlink()
    known = [SimpleNamespace(path=str(tmp_path / "tune" / "known"))]
    assert _only_known(SweepFolder(tmp_path), known) == known
    assert [p.name for p in trials_dir(tmp_path).iterdir()] == ["known"]
    first, second = (r.getMessage() for r in caplog.records)
    assert "trial a, although trained to its end, is not in Tune's state" in first
    assert "trial b is not in Tune's state" in second
    assert (tmp_path / "unknown_trials" / "a" / "trial.json").is_file()
