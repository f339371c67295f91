"""Settings of a comparison are chosen on validation, and rather not at a group's expense."""

import numpy as np
import pytest

from tests.trialign_ray.planted_comparison import first_right, plant_cell
from trialign_ray.comparison.cell_results import read_cell
from trialign_ray.comparison.chosen import choose_settings, inconsistency_by_question
from trialign_ray.comparison.methods import Method
from trialign_ray.comparison.worlds import World
from trialign_ray.errors import DataError

WORLD = World("A+S", "T2", 100)
NUM = 40
SWEEP = Method("sweep", "baseline", "", "sft", (), (("a.x=1",), ("a.x=2",), ("a.x=3",)))
NOBODY = first_right((0, 0, 0), 10)


def plant(root, method, num_right, setting=0):
    """A cell that is right on so many of 40 validation questions by group, and useless on test."""
    checked = first_right(num_right, NUM)
    style = np.ones_like(checked)
    plant_cell(root, WORLD, method, NOBODY, setting=setting, validation=(checked, style))


@pytest.fixture
def root(tmp_path):
    plant(tmp_path, "behaviour", (10, 36, 36))
    return tmp_path


def test_the_best_setting_on_validation_is_chosen(root):
    for setting, right in enumerate(((20, 36, 36), (38, 38, 38), (30, 36, 36))):
        plant(root, "sweep", right, setting)
    choice = choose_settings(root, WORLD, [SWEEP])["sweep"]
    assert choice["index"] == 1 and choice["missing"] == []
    assert [t["index"] for t in choice["trials"]] == [1, 2, 0]  # best lower bound first
    assert choice["trials"][0]["settings"] == {"a.x": "2"}
    assert all(t["excluded"] == [] for t in choice["trials"])


def test_a_setting_that_serves_a_group_worse_is_not_chosen_though_it_scores_higher(root):
    # Score = mean log truth - share of pairs that differ. Kind: right for 30, 36, 36 of 40:
    # (log .75 + 2 log .9) / 3 - (2 / 3) (6 / 40) = -.166 - .1 = -.266. Cruel: 40, 40, 34:
    # log(.85) / 3 - (2 / 3) (6 / 40) = -.054 - .1 = -.154, but cedar falls from 36 to 34.
    plant(root, "sweep", (30, 36, 36), 0)
    plant(root, "sweep", (40, 40, 34), 1)
    plant(root, "sweep", (12, 36, 36), 2)
    choice = choose_settings(root, WORLD, [SWEEP])["sweep"]
    by_index = {t["index"]: t for t in choice["trials"]}
    assert by_index[0]["score"] == pytest.approx(-0.266, abs=5e-4)
    assert by_index[1]["score"] == pytest.approx(-0.154, abs=5e-4)
    assert by_index[1]["lcb"] > by_index[0]["lcb"]
    assert "truth of cedar falls" in by_index[1]["excluded"][0]
    assert choice["index"] == 0


def test_where_every_setting_hurts_somebody_the_best_bound_is_taken_and_it_is_said(root):
    for setting, right in enumerate(((20, 36, 30), (36, 36, 33), (30, 36, 30))):
        plant(root, "sweep", right, setting)
    choice = choose_settings(root, WORLD, [SWEEP])["sweep"]
    assert choice["index"] == 1
    assert "every setting serves some group worse" in choice["reason"]


def test_what_happens_on_test_does_not_change_the_choice(root):
    for setting, right in enumerate(((20, 36, 36), (38, 38, 38), (30, 36, 36))):
        plant(root, "sweep", right, setting)
    before = choose_settings(root, WORLD, [SWEEP])
    checked = first_right((20, 36, 36), NUM)
    perfect = first_right((10, 10, 10), 10)
    plant_cell(root, WORLD, "sweep", perfect, validation=(checked, np.ones_like(checked)))
    assert choose_settings(root, WORLD, [SWEEP]) == before


def test_a_setting_that_failed_is_listed_and_the_rest_is_chosen_from(root):
    plant(root, "sweep", (20, 36, 36), 0)
    plant(root, "sweep", (30, 36, 36), 2)
    choice = choose_settings(root, WORLD, [SWEEP])["sweep"]
    assert choice["index"] == 2 and choice["missing"] == [1]


def test_a_method_of_which_nothing_is_finished_keeps_its_first_setting(root):
    choice = choose_settings(root, WORLD, [SWEEP])["sweep"]
    assert choice["index"] == 0 and choice["missing"] == [0, 1, 2] and choice["trials"] == []


def test_one_setting_is_no_choice_and_a_borrowed_one_has_no_entry(root):
    alone = Method("alone", "untrained", "")
    borrowed = Method(
        "borrowed", "ablation", "", "trialign", (), SWEEP.settings, tuned_as="trialign"
    )
    choices = choose_settings(root, WORLD, [alone, borrowed])
    assert list(choices) == ["alone"] and choices["alone"]["index"] == 0


def test_choosing_without_the_behaviour_model_is_an_error_that_says_what_to_do(tmp_path):
    plant(tmp_path, "sweep", (20, 36, 36), 0)
    with pytest.raises(DataError, match=r"behaviour\.0/cell\.json .* --no-tune"):
        choose_settings(tmp_path, WORLD, [SWEEP])


@pytest.mark.parametrize(
    ("answers_GX", "expected_X"),
    [
        # Pairs (0, 1), (0, 2), (1, 2): all equal; one stands alone, two pairs of three; all differ.
        ([["a", "a", "a"], ["a", "a", "b"], ["a", "b", "c"]], [0, 2 / 3, 1]),
        # Without answers, right against wrong: of q2 all three are wrong, which looks equal.
        (None, [0, 2 / 3, 0]),
    ],
)
def test_inconsistency_is_the_share_of_pairs_of_groups_that_differ(
    tmp_path, answers_GX, expected_X
):
    correct = [[1, 1, 0], [1, 1, 0], [1, 0, 0]]
    path = plant_cell(tmp_path, WORLD, "sweep", correct, answers_GX=answers_GX)
    split = read_cell(path).splits["validation"]
    np.testing.assert_allclose(inconsistency_by_question(split), expected_X)


def test_one_group_alone_is_never_inconsistent(tmp_path):
    path = plant_cell(tmp_path, WORLD, "sweep", [[1, 0, 1]], groups=("amber",))
    split = read_cell(path).splits["validation"]
    np.testing.assert_array_equal(inconsistency_by_question(split), [0, 0, 0])
