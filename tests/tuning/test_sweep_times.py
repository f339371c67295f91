"""How long a sweep took, however often it was killed."""

import multiprocessing
import time

from trialign_ray.run_trial import write_json
from tuning.sweep_times import noted_time, read_times


def test_a_sweep_that_was_not_timed_has_taken_nothing(tmp_path):
    assert read_times(tmp_path) == {}


def test_times_add_up_over_all_starts(tmp_path):
    write_json(tmp_path / "times.json", {"prepare_s": 7.0, "trials_s": 100.0})
    with noted_time(tmp_path, "trials_s"):
        pass
    found = read_times(tmp_path)
    assert found["trials_s"] > 100 and found["prepare_s"] == 7


def test_a_killed_driver_has_noted_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr("tuning.sweep_times.NOTE_S", 0.01)
    write_json(tmp_path / "times.json", {"trials_s": 100.0})

    def driver() -> None:
        with noted_time(tmp_path, "trials_s"):
            time.sleep(600)

    process = multiprocessing.get_context("fork").Process(target=driver)
    process.start()
    try:
        deadline = time.monotonic() + 30
        while read_times(tmp_path)["trials_s"] == 100:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.join()
    left = read_times(tmp_path)["trials_s"]
    with noted_time(tmp_path, "trials_s"):
        pass
    assert read_times(tmp_path)["trials_s"] > left > 100
