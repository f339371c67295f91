"""Controls: neutral personas as long as the groups they are held against."""

import pytest

from envs.control_groups import control_groups
from envs.errors import ConfigError
from envs.groups import load_pack, shipped_packs
from envs.preferences import StyleRules
from envs.prompts import CONTROL_PERSONAS
from envs.social_group import Exchange, Group, history_text

REAL_TEXT_PACKS = [name for name in shipped_packs() if name != "truthworld"]


def columns(groups, kind):
    """Texts of all groups, for each paraphrase number."""
    if kind == "profile":
        return list(zip(*(g.profile_variants for g in groups), strict=True))
    histories = zip(*(g.history_variants for g in groups), strict=True)
    return [[history_text(h) for h in column] for column in histories]


@pytest.mark.parametrize("name", REAL_TEXT_PACKS)
def test_made_controls_are_as_long_as_the_groups_and_all_different(name):
    groups = load_pack(name).groups
    controls = control_groups(12, groups)
    assert [c.name for c in controls][:2] == ["control-1", "control-2"]
    assert {c.num_variants for c in controls} == {groups[0].num_variants}
    assert all(c.control and c.role == groups[0].role for c in controls)
    assert all(c.style == StyleRules() for c in controls)
    for kind in ("profile", "history"):
        pairs = zip(columns(groups, kind), columns(controls, kind), strict=True)
        for wanted, made in pairs:
            assert len(set(made)) == 12
            mean = sum(map(len, wanted)) / len(wanted)
            assert all(abs(len(text) - mean) <= 0.1 * mean for text in made)


def test_made_controls_have_as_many_wordings_as_groups_even_when_there_are_many():
    history = (Exchange(question="Where do I wait?", answer="By the door."),)
    like = [Group(name="a", profiles=tuple(f"A user number {i}." for i in range(8)))]
    assert len(set(control_groups(1, like)[0].profiles)) == 8
    single = [Group(name="a", profile="Short.", history=history)]
    assert [len(h) for h in control_groups(2, single)[1].histories] == [1]


def test_a_packs_own_controls_come_first_and_too_few_are_an_error():
    pack = load_pack("truthworld")
    own = control_groups(5, pack.groups, pack.controls)
    assert tuple(c.profile for c in own) == CONTROL_PERSONAS
    with pytest.raises(ConfigError, match="brings 5 of its own"):
        control_groups(6, pack.groups, pack.controls)
    assert control_groups(0, pack.groups, pack.controls) == ()
