"""Training rows: who learns from which question, and files that come back as they were written."""

import math
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.trialign_ray.planted_critic import GROUPS, likely, planted_critic, planted_questions
from trialign_ray.algorithms import algorithm_by_name
from trialign_ray.algorithms.algorithm import Targets, make_targets
from trialign_ray.config_sections import TargetsConfig
from trialign_ray.critic import PSEUDO_COUNT
from trialign_ray.errors import DataError
from trialign_ray.extraction import EXTRACTIONS, PAIR_MARGIN
from trialign_ray.training_rows import (
    SHARED_ROWS,
    read_rows,
    rows_of_group,
    write_rows,
    write_targets,
)

NAN = math.nan


def encode(text: str) -> list[int]:
    return [ord(c) for c in text]


def targets(policy: list[float], value: list[float]) -> Targets:
    """Targets of group a on the first planted question; elsewhere there is nothing to learn."""
    policy_GXK = torch.zeros(2, 3, 2)
    value_GXK = torch.full((2, 3, 2), NAN)
    policy_GXK[0, 0], value_GXK[0, 0] = torch.tensor(policy), torch.tensor(value)
    return make_targets(policy_GXK, value_GXK)


def rows(extraction: str, given: Targets, group: int = 0) -> list[dict[str, Any]]:
    questions = planted_questions()
    return rows_of_group(questions, GROUPS[group], group, given, likely, 0.1, extraction)


def answers(extraction: str, policy: list[float], value: list[float]) -> list[list[str]]:
    return [row["answer"] for row in rows(extraction, targets(policy, value))]


BOTH = [["myth", "true"]]


def test_cloning_leaves_out_what_has_little_target_and_renormalises():
    (row,) = rows("clone", targets([0.95, 0.05], [0.0, 1.0]))
    assert row["answer"] == ["myth"] and row["target"] == [1.0]
    assert row["prior"] == [3 + PSEUDO_COUNT] and row["value"] == [0.0]
    assert answers("clone", [0.9, 0.1], [NAN, NAN]) == BOTH


def test_cloning_keeps_the_largest_where_all_have_little():
    (row,) = rows("clone", targets([0.04, 0.06], [NAN, NAN]))
    assert row["answer"] == ["true"] and row["target"] == [1.0]


def test_listwise_needs_every_candidate_and_no_return():
    (row,) = rows("listwise", targets([0.95, 0.05], [NAN, NAN]))
    assert row["answer"] == ["myth", "true"] and row["target"] == pytest.approx([0.95, 0.05])


@pytest.mark.parametrize("extraction", ["dpo", "ipo"])
def test_pairs_need_two_known_returns_that_differ(extraction):
    assert answers(extraction, [0.95, 0.05], [1.0, 0.0]) == BOTH
    assert answers(extraction, [0.95, 0.05], [1.0, 1.0]) == []
    assert answers(extraction, [0.95, 0.05], [1.0, 1.0 - PAIR_MARGIN / 2]) == []
    assert answers(extraction, [0.95, 0.05], [1.0, NAN]) == []
    assert answers(extraction, [0.95, 0.05], [NAN, NAN]) == []
    assert answers(extraction, [0.95, 0.05], [-3.0, NAN]) == []


@pytest.mark.parametrize("extraction", ["awr", "kto", "grpo", "dro"])
def test_extractions_by_return_need_one_known_return_and_keep_all_candidates(extraction):
    assert answers(extraction, [0.95, 0.05], [NAN, 0.0]) == BOTH
    assert answers(extraction, [0.95, 0.05], [NAN, NAN]) == []


@pytest.mark.parametrize("extraction", EXTRACTIONS)
def test_a_question_without_target_mass_has_no_row(extraction):
    assert answers(extraction, [0.0, 0.0], [1.0, 0.0]) == []


@pytest.mark.parametrize("extraction", EXTRACTIONS)
def test_a_group_that_was_absent_has_no_row_even_if_padding_has_targets(extraction):
    everything = make_targets(torch.full((2, 3, 2), 0.5), torch.tensor([1.0, 0.0]).expand(2, 3, 2))
    found = [row["question_id"] for row in rows(extraction, everything, group=1)]
    assert "q2" not in found and "q1" in found


def test_a_row_carries_what_the_log_says():
    given = replace(
        targets([0.6, 0.4], [NAN, 0.7]),
        margin_GXK=torch.tensor([[[0.2, 0.3]]]).expand(2, 3, 2),
    )
    (row,) = rows("awr", given)
    assert row == {
        "group": "a",
        "question_id": "q0",
        "prompt_text": "<user>Which?",
        "candidate_text": ["It is myth.", "It is true."],
        "answer": ["myth", "true"],
        "target": pytest.approx([0.6, 0.4]),
        "reference_logprob": [-11.0, -11.0],
        "prior": [3.5, 1.5],
        "value": [None, pytest.approx(0.7)],
        "margin": pytest.approx([0.2, 0.3]),
    }


@pytest.mark.parametrize("value", [[NAN, 0.7], [NAN, NAN], [0.25, 0.5]])
def test_rows_come_back_as_they_were_written(tmp_path, value):
    given = replace(
        targets([0.6, 0.4], value), margin_GXK=torch.tensor([[[NAN, 0.3]]]).expand(2, 3, 2)
    )
    written = rows("listwise", given)
    write_rows(written, tmp_path / "deep" / "a.parquet", "group 'a'")
    (row,) = read_rows(tmp_path / "deep" / "a.parquet", encode, 0)
    assert row.group == "a" and list(row.tree.prompt) == encode("<user>Which?")
    assert row.tree.candidates == [[*encode("It is myth."), 0], [*encode("It is true."), 0]]
    assert row.target_K == tuple(written[0]["target"])
    assert row.reference_logprob_K == (-11.0, -11.0) and row.prior_K == (3.5, 1.5)
    assert row.value_K == pytest.approx(value, nan_ok=True)
    assert row.margin_K == pytest.approx([NAN, 0.3], nan_ok=True)
    assert pq.read_table(tmp_path / "deep" / "a.parquet")["value"].to_pylist() == [
        [None if math.isnan(v) else pytest.approx(v) for v in value]
    ]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.parquet"], "no half file is left"


def test_no_rows_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"group 'a' has no training rows.*label_fraction.*another"):
        write_rows([], tmp_path / "a.parquet", "group 'a'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really"])
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        read_rows(tmp_path / "a.parquet", encode, 0)


def test_a_table_that_holds_something_else_is_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read.*group"):
        read_rows(tmp_path / "a.parquet", encode, 0)


def written(tmp_path, algorithm: str, config: TargetsConfig | None = None) -> dict[str, Any]:
    critic, chosen = planted_critic(config), algorithm_by_name(algorithm)
    solved = chosen.solve(critic.problem_for(chosen))
    write_targets(critic, chosen, solved, tmp_path)
    files = sorted(p for p in tmp_path.rglob("*.parquet"))
    return {str(p.relative_to(tmp_path)): pq.read_table(p).to_pylist() for p in files}


def questions_of(table: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["group"], row["question_id"]) for row in table]


def test_every_group_has_its_own_file(tmp_path):
    files = written(tmp_path, "sft")
    assert list(files) == ["a.parquet", "b.parquet"]
    assert questions_of(files["a.parquet"]) == [("a", "q0"), ("a", "q1"), ("a", "q2")]
    assert questions_of(files["b.parquet"]) == [("b", "q0"), ("b", "q1")]


def test_an_adapter_that_groups_share_has_one_file_of_all(tmp_path):
    # a: q0 by truth (3/4 over 1/4), q1 by preference. b: one answer to q0, and of those to q1 one
    # was never scored.
    files = written(tmp_path, "gr_dpo", TargetsConfig(truth_weight=3.0))
    assert list(files) == [SHARED_ROWS]
    assert questions_of(files[SHARED_ROWS]) == [("a", "q0"), ("a", "q1")]
    # With w_T = w_P = 1 the congenial falsehood is worth as much as the truth: q0 has no pair.
    files = written(tmp_path, "gr_dpo")
    assert questions_of(files[SHARED_ROWS]) == [("a", "q1")]


def test_verified_truth_is_all_that_filtered_imitation_writes(tmp_path):
    files = written(tmp_path, "truth_sft")
    assert {row["question_id"]: row["answer"] for row in files["a.parquet"]} == {
        "q0": ["true"],
        "q2": ["jazz"],
    }
    assert questions_of(files["b.parquet"]) == [("b", "q0")]


def test_a_group_without_a_single_pair_is_an_error_and_not_zero_updates(tmp_path):
    with pytest.raises(DataError, match="group 'b' has no training rows"):
        written(tmp_path, "dpo", TargetsConfig(truth_weight=3.0))
