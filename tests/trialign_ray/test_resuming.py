"""A folder is written to if it is free, or goes on with what it was started with."""

import pytest

from trialign_ray.config import load_config
from trialign_ray.errors import ConfigError
from trialign_ray.resuming import (
    flat_settings,
    is_used,
    require_free,
    require_same_settings,
    start_folder,
)
from trialign_ray.run_directory import open_run


def test_a_folder_with_nothing_but_unfinished_writes_is_free(tmp_path):
    assert not is_used(tmp_path) and not is_used(tmp_path / "missing")
    (tmp_path / "config.yaml.tmp").touch()
    require_free(tmp_path, resume=False)
    (tmp_path / "log").touch()
    assert is_used(tmp_path) and is_used(tmp_path / "log")
    require_free(tmp_path, resume=True)
    with pytest.raises(ConfigError, match="not empty; continue it with --resume"):
        require_free(tmp_path, resume=False)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/below cannot be written"):
        start_folder(tmp_path / "file" / "below", load_config(None, []))


def test_settings_are_named_by_their_dotted_key():
    assert flat_settings({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2]}


def test_the_first_changed_setting_is_told_with_both_values_and_how_many_more(tmp_path):
    before, now = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "d": 5}
    require_same_settings(tmp_path, before, before, ())
    require_same_settings(tmp_path, before, now, ("a.", "d"))
    with pytest.raises(ConfigError, match=r"started with a\.c=2, now it is 4 \(1 more keys"):
        require_same_settings(tmp_path, before, now, ())
    with pytest.raises(ConfigError, match=r"started with d=3, now it is 5; resume"):
        require_same_settings(tmp_path, before, now, ("a.",))


def test_a_key_that_only_one_side_has_is_a_change(tmp_path):
    for before, now in (({"a": {"b": 1}}, {"a": {}}), ({"a": {}}, {"a": {"b": 1}})):
        with pytest.raises(ConfigError, match=r"a\.b="):
            require_same_settings(tmp_path, before, now, ())


def test_a_run_may_change_its_resources_and_nothing_else(tmp_path):
    root = tmp_path / "run"
    open_run(root, load_config(None, []), resume=False)
    open_run(root, load_config(None, ["resources.timeout_s=77"]), resume=True)
    with pytest.raises(ConfigError, match=r"clone\.steps=\d+, now it is 7"):
        open_run(root, load_config(None, ["clone.steps=7"]), resume=True)
    with pytest.raises(ConfigError, match="not empty"):
        open_run(root, load_config(None, []), resume=False)


def test_a_folder_of_something_else_is_no_run_to_resume(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        open_run(tmp_path, load_config(None, []), resume=True)
