"""What the centre makes of the agents' reports, by hand."""

from dataclasses import replace

import pytest
import torch

from trialign_ray.algorithms import ALGORITHMS
from trialign_ray.algorithms.algorithm import AlgorithmInput
from trialign_ray.candidates import Candidate, GroupView, JointQuestion
from trialign_ray.checkpoint import file_sha256
from trialign_ray.config_sections import TargetsConfig
from trialign_ray.coordination import (
    CENTRE_FLOOR,
    PolicyReport,
    prox_centre,
    reported_policy,
    round_report,
    solve_around,
)
from trialign_ray.critic import CandidateTensors
from trialign_ray.errors import DataError
from trialign_ray.training_rows import write_rows


def two_questions(groups=("g", "h")):
    texts = {"q0": ("a", "b", "c"), "q1": ("a", "b")}
    return [
        JointQuestion(
            name,
            "truth",
            True,
            ("a", "b", "c"),
            {
                g: GroupView(
                    "prompt", tuple(Candidate(t, t, None, None, 1) for t in said), *[{}] * 4
                )
                for g in groups
            },
        )
        for name, said in texts.items()
    ]


MU = torch.tensor([[[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]], [[0.2, 0.4, 0.4], [0.9, 0.1, 0.0]]])


def write_group(folder, group, rows):
    table = [{"question_id": q, "candidate_text": list(texts)} for q, texts in rows]
    write_rows(table, folder / f"{group}.parquet", group)
    return file_sha256(folder / f"{group}.parquet")


def test_reports_find_their_candidates_and_what_nobody_reports_keeps_its_place(tmp_path):
    sha_g = write_group(tmp_path, "g", [("q0", ("c", "a")), ("q1", ("b",))])
    sha_h = write_group(tmp_path, "h", [("q0", ("b",))])
    reports = {
        "g": PolicyReport(sha_g, ((0.75, 0.25), (1.0,))),
        "h": PolicyReport(sha_h, ((1.0,),)),
    }
    p = reported_policy(two_questions(), ("g", "h"), MU, tmp_path, reports)
    expected = [[[0.25, 0.0, 0.75], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [0.9, 0.1, 0.0]]]
    torch.testing.assert_close(p, torch.tensor(expected).double())
    centre = prox_centre(p, MU)
    # q0 of g: .99 (.25, 0, .75) + .01 (.5, .25, .25)
    by_hand = torch.tensor([0.2525, 0.0025, 0.745], dtype=torch.float64)
    torch.testing.assert_close(centre[0, 0], by_hand)
    assert bool((centre > 0).eq(MU > 0).all()) and CENTRE_FLOOR == 0.01
    torch.testing.assert_close(centre.sum(-1), torch.ones(2, 2).double())


def test_a_report_about_other_rows_is_refused(tmp_path):
    write_group(tmp_path, "g", [("q0", ("a",))])
    with pytest.raises(DataError, match="group g reports on rows"):
        reported_policy(
            two_questions(), ("g",), MU[:1], tmp_path, {"g": PolicyReport("0" * 64, ((1.0,),))}
        )


def problem(penalty_weight=0.0, kl_weight=1.0):
    """Two groups, one question, candidates true and false; mu uniform, equal weights."""
    shape = (2, 1, 2)
    tensors = CandidateTensors(
        reference_GXK=torch.full(shape, 0.5),
        truth_GXK=torch.tensor([1.0, 0.0]).expand(shape).clone(),
        personalization_GXK=torch.full(shape, torch.nan),
        answer_GXK=torch.tensor([0, 1]).expand(shape).clone(),
        mask_GXK=torch.ones(shape, dtype=torch.bool),
        is_truth_X=torch.tensor([True]),
    )
    config = TargetsConfig(
        welfare="power_mean",
        welfare_exponent=1.0,
        players="groups",
        penalty_weight=penalty_weight,
        kl_weight=kl_weight,
        personalization_weight=0.0,
    )
    return AlgorithmInput(tensors, config, torch.ones(2), seed=0)


def test_solving_around_a_policy_takes_one_more_step_from_there():
    """Utilitarian, lambda 0, beta 1, w_g = 1/2 in W and in KL: q is proportional to c exp(Q).

    Around mu = 1/2: sigmoid(1) = .731059. Around c = .99 p + .01 mu with p = (.8, .2), that is
    c = (.797, .203): odds .797 e / .203 = 10.6723, q = .914327.
    """
    trialign = ALGORITHMS["trialign"]
    at_mu = solve_around(trialign, problem(), problem().tensors.reference_GXK.double())
    assert at_mu.policy_GXK[0, 0, 0] == pytest.approx(0.731059, abs=1e-3)
    agents = torch.tensor([0.8, 0.2], dtype=torch.float64).expand(2, 1, 2)
    around = solve_around(trialign, problem(), agents)
    assert around.policy_GXK[0, 0, 0] == pytest.approx(0.914327, abs=1e-3)


def test_candidates_still_rank_by_what_they_gained_over_the_log():
    """log(q / mu), not log(q / c): the losses that read it are relative to the reference model."""
    agents = torch.tensor([0.8, 0.2], dtype=torch.float64).expand(2, 1, 2)
    targets = solve_around(ALGORITHMS["trialign"], problem(), agents)
    torch.testing.assert_close(targets.value_GXK, (targets.policy_GXK / 0.5).log())


def test_the_order_of_groups_does_not_matter():
    agents = torch.tensor([[[0.8, 0.2]], [[0.3, 0.7]]], dtype=torch.float64)
    one = solve_around(ALGORITHMS["trialign"], problem(penalty_weight=1.0), agents)
    other = solve_around(ALGORITHMS["trialign"], problem(penalty_weight=1.0), agents.flip(0))
    torch.testing.assert_close(one.policy_GXK, other.policy_GXK.flip(0), atol=1e-6, rtol=0)


def test_the_report_of_a_round_measures_disagreement_and_the_way_to_go():
    """p = (1, 0) and (0, 1): GJSD ln 2. Targets (.5, .5) of both: total variation .5."""
    agents = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    report = round_report(problem(), agents, torch.full((2, 1, 2), 0.5).double())
    assert report["agents_inconsistency"] == pytest.approx(0.693147, abs=1e-6)
    assert report["distance_to_targets"] == pytest.approx(0.5)
    absent = problem()
    mask = absent.tensors.mask_GXK.clone()
    mask[1] = False
    absent = replace(absent, tensors=replace(absent.tensors, mask_GXK=mask))
    alone = round_report(absent, agents, torch.full((2, 1, 2), 0.5).double())
    assert alone["agents_inconsistency"] == pytest.approx(0.0, abs=1e-12)
    assert alone["distance_to_targets"] == pytest.approx(0.5)
