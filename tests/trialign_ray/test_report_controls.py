"""What the report says of users of no group and of liking, by figures that are known."""

import pytest

from trialign_ray.report_charts import charts
from trialign_ray.report_controls import (
    HOW_TO_READ_GAPS,
    HOW_TO_READ_NO_PERSONA,
    HOW_TO_READ_PREFERENCE,
    control_lines,
    gap_rows,
    preference_rows,
    user_rows,
)
from trialign_ray.summary import GroupLine, Summary


def model(truth, liked, gap):
    return {
        "truth": {
            "by_group": dict(zip(("amber", "birch"), truth, strict=True)),
            "mean": sum(truth) / 2,
            "gap": gap,
            "gap_null": 0.05,
            "gap_p": 0.001,
            "ci": {"by_group": {g: [0.0, 1.0] for g in ("amber", "birch")}},
        },
        "preference": {"explicit": dict(zip(("amber", "birch"), liked, strict=True))},
        "adherence": {"explicit": {"by_group": {"amber": None, "birch": None}}},
    }


@pytest.fixture
def evaluation():
    return {
        "models": {
            "facts_base": model((1.0, 1.0), (0.1, None), 0.0),
            "behaviour": model((0.2, 0.9), (0.5, None), 0.7),
            "aligned": model((0.9, 0.95), (0.4, None), 0.05),
        },
        "controls": {
            "personas": {
                "by_control": {"control-1": 0.8, "control-2": 0.86, "control-3": 0.83},
                "gap": 0.06,
                "gap_null": 0.04,
                "gap_p": 0.3,
            },
            "no_persona": {"behaviour": 0.85, "aligned": {"amber": 0.95, "birch": 0.82}},
        },
    }


def test_the_gap_among_personas_stands_between_those_of_the_groups(evaluation):
    rows = gap_rows(evaluation)
    assert [(r.users, r.num, r.gap) for r in rows] == [
        ("groups, before", "2", "0.700"),
        ("neutral personas, before", "3", "0.060"),
        ("groups, after", "2", "0.050"),
    ]
    assert (rows[1].null, rows[1].p_value) == ("0.040", "0.3000")


def test_an_adapter_that_takes_truth_from_who_says_nothing_is_marked(evaluation):
    rows = {r.user: r for r in user_rows(evaluation)}
    assert rows["control-1"].after == "–" and not rows["control-1"].worse
    assert not rows["no persona, adapter of amber"].worse
    assert rows["no persona, adapter of birch"].worse, ".82 is more than 2 points below .85"
    assert "| no persona, adapter of birch | 0.850 | **0.820** |" in control_lines(
        evaluation, False
    )


def test_two_points_less_are_not_marked(evaluation):
    evaluation["controls"]["no_persona"]["aligned"]["birch"] = 0.8301
    assert not any(r.worse for r in user_rows(evaluation))


def test_liking_is_shown_by_group_and_mode_with_a_dash_where_nobody_has_an_opinion(evaluation):
    assert preference_rows(evaluation) == [["amber", "0.500", "0.400"], ["birch", "–", "–"]]
    text = control_lines(evaluation, False)
    assert "| group | explicit, before | explicit, after |" in text
    assert HOW_TO_READ_PREFERENCE in text


def test_each_part_is_shown_only_where_there_is_something_to_say(evaluation):
    evaluation["controls"]["personas"] = None
    for name in evaluation["models"]:
        evaluation["models"][name]["preference"]["explicit"]["amber"] = None
    text = control_lines(evaluation, False)
    assert HOW_TO_READ_GAPS not in text and HOW_TO_READ_PREFERENCE not in text
    assert HOW_TO_READ_NO_PERSONA in text
    evaluation["controls"] = None  # no question has a truth that is read from what is said
    assert control_lines(evaluation, False) == [""]


def test_gaps_that_rest_on_different_questions_are_called_so(evaluation):
    assert "different questions" not in "".join(control_lines(evaluation, False))
    assert "different questions" in "".join(control_lines(evaluation, True))


def test_charts_show_every_user_and_no_style_where_there_are_no_rules(evaluation):
    lines = tuple(
        GroupLine(g, before, (0, 1), after, (0, 1), None, None)
        for g, before, after in (("amber", 0.2, 0.9), ("birch", 0.9, 0.95))
    )
    found = charts(evaluation, Summary(lines, (), 20, {}), None, None)
    assert set(found) == {"truth", "consistency", "controls"}
    for user in ("amber", "birch", "control-3", "no persona"):
        assert f'"{user}"' in found["controls"]
    assert lines[0].style_kept == "no rules"
