"""Group packs: the shipped ones are fair in length and number of wordings, bad ones are refused."""

import json
import logging
import os
import re
from pathlib import Path

import pytest

from envs.errors import ConfigError
from envs.groups import describe_pack, load_pack, shipped_packs
from envs.preferences import check_style
from envs.social_group import Group, history_text

REAL_TEXT_PACKS = [name for name in shipped_packs() if name != "truthworld"]
PRISM_PACKS = [name for name in shipped_packs() if name.startswith("prism_")]
DATA = Path(os.environ.get("TRIALIGN_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
TWO = """
groups:
- name: a
  profiles: [one, two, three]
- name: b
  profiles: [four, five, six]
"""


def load(tmp_path, text):
    path = tmp_path / "pack.yaml"
    path.write_text(text, encoding="utf-8")
    return load_pack(str(path))


def columns(groups, kind):
    """Texts of all groups, for each paraphrase number."""
    if kind == "profile":
        return list(zip(*(g.profile_variants for g in groups), strict=True))
    histories = zip(*(g.history_variants for g in groups), strict=True)
    return [[history_text(h) for h in column] for column in histories]


@pytest.mark.parametrize("name", shipped_packs())
def test_a_shipped_pack_loads_without_a_warning(name, caplog):
    with caplog.at_level(logging.WARNING):
        pack = load_pack(name)
    assert not caplog.records
    assert pack.description and pack.role in ("user", "model")


@pytest.mark.parametrize("name", REAL_TEXT_PACKS)
def test_every_group_has_three_wordings_of_profile_and_history(name):
    pack = load_pack(name)
    for group in (*pack.groups, *pack.controls):
        assert len(set(group.profile_variants)) >= 3
        assert len(set(group.history_variants)) == len(group.profile_variants)


@pytest.mark.parametrize("kind", ["profile", "history"])
@pytest.mark.parametrize("name", REAL_TEXT_PACKS)
def test_prompts_are_equally_long_across_groups_and_controls(name, kind):
    pack = load_pack(name)
    for texts in columns((*pack.groups, *pack.controls), kind):
        words, chars = [len(t.split()) for t in texts], [len(t) for t in texts]
        assert max(words) - min(words) <= 2
        assert min(chars) >= 0.85 * max(chars)


@pytest.mark.parametrize("kind", ["profile", "history"])
@pytest.mark.parametrize("name", REAL_TEXT_PACKS)
def test_no_two_groups_hear_the_same_prompt(name, kind):
    for texts in columns(load_pack(name).groups, kind):
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", [n for n in REAL_TEXT_PACKS if n != "styles"])
def test_only_the_attribute_differs_between_histories(name):
    """Groups share the frame of each history, so that no group's life is told otherwise."""
    for texts in columns(load_pack(name).groups, "history"):
        shared = set.intersection(*(set(t.lower().split()) for t in texts))
        assert all(len(set(t.lower().split()) - shared) <= 14 for t in texts)


@pytest.mark.parametrize("name", ["underperformance", "controls", *PRISM_PACKS])
def test_answers_in_a_history_are_the_same_for_every_group_of_users(name):
    for histories in zip(*(g.history_variants for g in load_pack(name).groups), strict=True):
        assert len({tuple(e.answer for e in h) for h in histories}) == 1


def test_the_style_pack_shows_in_its_histories_what_its_rules_check():
    for group in load_pack("styles").groups:
        for history in group.history_variants:
            for exchange in history:
                checked = check_style(exchange.answer, "", group.style)
                assert checked and all(checked.values()), (group.name, exchange.answer)


def test_the_style_pack_tells_its_pairs_apart():
    groups = {g.name: g for g in load_pack("styles").groups}
    pairs = [("terse", "full-sentence"), ("formal", "casual"), ("metric", "imperial")]
    for one, other in [*pairs, ("bullets", "single-line")]:
        for mine, theirs in ((one, other), (other, one)):
            for exchange in groups[theirs].history:
                assert not all(check_style(exchange.answer, "", groups[mine].style).values())


def test_underperformance_crosses_education_english_and_country():
    groups = load_pack("underperformance").groups
    values = [set(column) for column in zip(*(g.attributes.values() for g in groups), strict=True)]
    assert sorted(map(len, values)) == [2, 2, 3]
    assert len({tuple(sorted(g.attributes.items())) for g in groups}) == len(groups) == 12
    first_four = zip(*(g.attributes.values() for g in groups[:4]), strict=True)
    assert [set(column) for column in first_four] == values


def test_personas_are_played_by_the_model_and_held_against_the_baseline():
    pack = load_pack("personas")
    assert pack.role == "model" and {g.role for g in pack.groups} == {"model"}
    assert [g.name for g in pack.controls] == ["average-human", "human"]
    assert all(g.attributes["persona"] in p for g in pack.groups for p in g.profiles)


def test_the_control_pack_is_made_of_controls():
    pack = load_pack("controls")
    assert len(pack.groups) >= 5 and all(g.control for g in pack.groups) and not pack.controls


@pytest.mark.parametrize("name", PRISM_PACKS)
def test_prism_packs_weigh_their_groups_by_size(name):
    groups = load_pack(name).groups
    sizes = [g.size or 0 for g in groups]
    shares = [size / sum(sizes) for size in sizes]
    assert [g.prior_weight for g in groups] == pytest.approx(shares)
    assert 1_300 < sum(sizes) <= 1_500
    assert max(sizes) > 2 * min(sizes) > 0, "sizes are unbalanced"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data are not at {DATA}")
def test_sizes_of_prism_packs_are_those_of_its_survey():
    counts = json.loads((DATA / "prism" / "demographics_counts.json").read_text())
    tables = [t for t in counts.values() if t]
    for name in PRISM_PACKS:
        groups = load_pack(name).groups
        sizes = {value: g.size for g in groups for value in g.attributes.values()}
        assert any(sizes.items() <= table.items() for table in tables), name


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data are not at {DATA}")
def test_the_persona_pack_has_every_persona_of_the_study():
    listed = json.loads((DATA / "persona_bias" / "personas.json").read_text())["personas"]
    pack = load_pack("personas")
    found = [g.attributes["persona"] for g in (*pack.groups, *pack.controls)]
    assert sorted(found) == sorted(p for personas in listed.values() for p in personas)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups:\n- {name: a, profile: '  '}", "group 'a': groups.0: profile is empty"),
        ("groups:\n- {name: a}", "group 'a': groups.0: profile is empty"),
        ("groups:\n- {name: a, profiles: [x, X]}", "profiles: a paraphrase stands twice"),
        ("groups:\n- {name: a, profile: y, profiles: [x, z]}", "is not the first of profiles"),
        ("groups:\n- {name: a, profile: x, colour: red}", r"groups.0.colour.*expected one of name"),
        (
            "groups:\n- {name: a, profile: x, style: {max_wrds: 3}}",
            r"'a': groups.0.style.max_wrds: .*expected one of greeting.*register, ",
        ),
        (
            "groups:\n- {name: a, profile: x, history: [{question: q, answer: a, says: b}]}",
            "groups.0.history.0.says: .*expected one of question, answer",
        ),
        ("groups:\n- {name: a, profile: x}\ngrups: []", "grups: .*expected one of description, "),
        ("groups:\n- {name: a, profile: x, size: 0}", "groups.0.size"),
        ("groups:\n- {name: a, profile: x, role: nobody}", "groups.0.role"),
        ("groups:\n- {name: a, profile: x, histories: [[]]}", "one of them has no exchange"),
        (
            "groups:\n- name: a\n  profiles: [x, y, z]\n  histories:\n"
            "  - [{question: q, answer: r}]\n  - [{question: q, answer: s}]\n",
            "3 profiles and 2 histories",
        ),
        (TWO.replace(", six", ""), "'b': number of profiles is 2, that of group 'a' is 3"),
        (TWO + "  size: 5\n", "group 'a': size is missing"),
        (TWO + "  role: model\n", "'b': role is 'model', that of the pack is 'user'"),
        (TWO + "  role: model\nrole: user\n", "'b': role is 'model', that of the pack is 'user'"),
        (TWO + "controls:\n- {name: A, profiles: [r, s, t]}\n", "name 'A' stands twice"),
        (TWO + "controls:\n- {name: c, profile: r}\n", "'c': number of profiles is 1"),
        (TWO + "control: []\n", "control: Extra inputs"),
        ("- name: a", "top level"),
        ("groups:\n- text", "entry 1: groups.0"),
    ],
)
def test_a_bad_pack_is_refused_with_file_group_and_field(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as refused:
        load(tmp_path, text)
    assert str(tmp_path / "pack.yaml") in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "groups:\n- {name: a, profile: A short one.}\n"
            "- {name: b, profile: A user of whom a great deal more is told than of the other.}\n",
            r"profiles\[0\] has 3 words \(12 characters\) for group 'a' and 14",
        ),
        (
            "groups:\n- {name: a, profile: x}\n- {name: b, profile: x}\n",
            "'a' and 'b' have the same",
        ),
        (
            "groups:\n- {name: a, profile: x}\n"
            "- {name: b, profile: y, history: [{question: q, answer: r}]}\n",
            "group 'a' has no history",
        ),
    ],
)
def test_what_could_pass_for_an_effect_of_a_group_is_warned_of(tmp_path, caplog, text, message):
    with caplog.at_level(logging.WARNING):
        load(tmp_path, text)
    assert re.search(message, caplog.text)


def test_the_documented_example_loads_without_a_warning(tmp_path, caplog):
    page = (Path(__file__).parents[2] / "docs" / "groups.md").read_text(encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        pack = load(tmp_path, page.partition("```yaml\n")[2].partition("```")[0])
    assert not caplog.records
    assert [g.prior_weight for g in pack.groups] == [0.8, 0.2] and len(pack.controls) == 1
    documented = set(re.findall(r"`(\w+)`", page)) | {
        f"prism{n}" for n in re.findall(r"`(_\w+)`", page)
    }
    assert set(shipped_packs()) <= documented


def test_a_pack_with_single_profiles_is_what_it_always_was(tmp_path):
    (group,) = load(tmp_path, "groups:\n- {name: a, profile: x}\n").groups
    assert group.profile_variants == ("x",) and group.num_variants == 1
    assert group.prior_weight == 1.0 and not group.control and group.role == "user"


def test_the_first_paraphrase_is_the_profile(tmp_path):
    first, second = load(tmp_path, TWO).groups
    assert (first.profile, second.profile) == ("one", "four")
    assert Group.model_validate(first.model_dump()) == first


def test_a_role_of_the_pack_holds_for_all_its_groups(tmp_path):
    pack = load(tmp_path, "role: model\n" + TWO)
    assert [g.role for g in pack.groups] == ["model", "model"]


def test_control_groups_in_the_list_are_not_among_the_players(tmp_path):
    pack = load(tmp_path, TWO + "- {name: c, profiles: [r, s, t], control: true}\n")
    assert [g.name for g in pack.groups] == ["a", "b"]
    assert [g.name for g in pack.controls] == ["c"] and pack.controls[0].control


def test_weights_that_are_stated_win_over_sizes(tmp_path):
    text = "groups:\n- {name: a, profile: x, size: 9, prior_weight: 2.0}\n"
    assert load(tmp_path, text).groups[0].prior_weight == 2.0


def test_a_description_names_groups_sizes_controls_and_lengths():
    text = "\n".join(describe_pack(load_pack("personas")))
    assert "16 groups, 2 controls" in text and "a persona that the model plays" in text
    assert "control human:" in text and "3 wordings" in text
    text = "\n".join(describe_pack(load_pack("prism_gender")))
    assert "male: weight 0.506, 757 people, gender Male" in text
    assert "profiles[0]: 17 to 18 words, 86 to 100 characters" in text
    assert "register 'formal'" in "\n".join(describe_pack(load_pack("styles")))
