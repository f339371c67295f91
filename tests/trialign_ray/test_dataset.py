"""The log: what is written is read back, and every kind of damage is named."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trialign_ray.dataset import (
    SCHEMA,
    VERSION_KEY,
    check_dataset,
    read_dataset,
    write_dataset,
)
from trialign_ray.errors import DataError


def row(**changes):
    values = {
        "episode_id": "q1#0",
        "turn": 0,
        "question_id": "q1",
        "kind": "truth",
        "split": "train",
        "source": "capital",
        "gold_visible": True,
        "group_ids": ["a", "b"],
        "present": [True, True],
        "prompt_text": ["p", "p"],
        "action_text": ["x", "y"],
        "action_token_ids": [[1, 2], [3]],
        "behaviour_logprob": [-1.0, -2.0],
        "parsed_answer": ["x", "y"],
        "r_truth": [1.0, None],
        "r_pers": [0.5, 1.0],
        "terminated": True,
        "truncated": [False, False],
        "visible_peers": [[], ["x"]],
        "behaviour_model_id": "m",
    }
    return values | changes


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.parquet"
    write_dataset([row(), row(turn=1)], path)
    return path


def test_rows_come_back_as_they_went_and_a_missing_reward_stays_null(log):
    rows = read_dataset(log)
    assert rows == [row(), row(turn=1)] and rows[0]["r_truth"][1] is None
    assert check_dataset(log) == []


def test_the_hash_depends_on_content_alone(tmp_path):
    one = write_dataset([row()], tmp_path / "a.parquet")
    assert one == write_dataset([row()], tmp_path / "b.parquet")
    assert one != write_dataset([row(turn=1)], tmp_path / "c.parquet")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"r_truth": [1.5, None]}, "row 1: r_truth of 'a' is 1.5; expected"),
        ({"r_pers": [0.5, float("nan")]}, "row 1: r_pers of 'b' is nan"),
        ({"r_pers": [-0.1, 0.0]}, "row 1: r_pers of 'a' is -0.1"),
        ({"question_id": ""}, "row 1: question_id is empty"),
        ({"group_ids": []}, "row 1: group_ids is empty"),
        ({"group_ids": ["a", "c"]}, "row 1: group_ids .* differ from those of row 0"),
        ({"group_ids": ["a", "../x"]}, "row 1: group name '../x' does not match"),
        ({"kind": "banana"}, "row 1: kind is 'banana'"),
        ({"turn": -1}, "row 1: turn is -1"),
        ({"turn": 0}, "row 1: episode and turn stand in row 0 already"),
        ({"action_text": ["x", None]}, "row 1: action_text of 'b' is null"),
        ({"group_ids": ["a", "a"]}, "row 1: group_ids .* names a group twice"),
        ({"action_text": ["x"]}, "row 1: action_text has 1 entries for 2 groups"),
        ({"split": "test"}, "row 1: split is test"),
        ({"gold_visible": False}, "row 1: gold_visible is false but r_truth is given"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(tmp_path, changes, reason):
    path = tmp_path / "log.parquet"
    write_dataset([row(), row(**{"turn": 1, **changes})], path)
    with pytest.raises(DataError, match=reason):
        read_dataset(path)


def test_a_group_without_rows_is_named(tmp_path):
    path = tmp_path / "log.parquet"
    write_dataset([row(present=[True, False])], path)
    with pytest.raises(DataError, match="group 'b' has no rows"):
        read_dataset(path)


def test_an_empty_log_is_refused(tmp_path):
    path = tmp_path / "log.parquet"
    write_dataset([], path)
    with pytest.raises(DataError, match="has no rows"):
        read_dataset(path)


def test_a_truncated_file_is_refused(log):
    log.write_bytes(log.read_bytes()[:-100])
    with pytest.raises(DataError, match="may be truncated"):
        read_dataset(log)


def test_an_older_schema_is_refused_with_both_versions(log):
    table = pq.read_table(log)
    metadata = {**table.schema.metadata, VERSION_KEY: b"0"}
    pq.write_table(table.replace_schema_metadata(metadata), log)
    with pytest.raises(DataError, match=r"version is 0, this release reads 1"):
        read_dataset(log)


def test_a_missing_column_is_named(log):
    table = pq.read_table(log)
    pq.write_table(table.drop_columns(["r_pers"]), log)
    with pytest.raises(DataError, match="column 'r_pers' is missing"):
        read_dataset(log)


def test_a_column_of_another_type_is_named(log):
    table = pq.read_table(log)
    turns = pa.array(["0", "1"])
    pq.write_table(table.set_column(1, "turn", turns), log)
    with pytest.raises(DataError, match="column 'turn' has type string; expected int32"):
        read_dataset(log)


def test_rows_changed_after_collection_are_noticed(log):
    table = pq.read_table(log)
    changed = pa.Table.from_pylist([row(), row(turn=2)], schema=SCHEMA)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), log)
    with pytest.raises(DataError, match="changed after collection"):
        read_dataset(log)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_dataset(tmp_path / "none.parquet")


def test_rows_of_another_shape_are_not_written(tmp_path):
    with pytest.raises(DataError, match="schema"):
        write_dataset([row(turn="first")], tmp_path / "log.parquet")
    assert not list(tmp_path.iterdir())
