"""Group packs, question files, splits, prompts."""

import json

import pytest

from envs.errors import ConfigError, DataError
from envs.groups import load_pack
from envs.prompts import opening_messages, plain_text, with_peers
from envs.questions.own_files import load_questions
from envs.types import Question, reveal_gold, split_of

GROUP = "- {name: NAME, profile: somebody}\n"


def pack(tmp_path, *names):
    path = tmp_path / "pack.yaml"
    path.write_text("groups:\n" + "".join(GROUP.replace("NAME", n) for n in names))
    return str(path)


def test_the_shipped_pack_has_twelve_groups_of_distinct_style():
    groups = load_pack("truthworld").groups
    assert len(groups) == 12
    assert len({g.style.model_dump_json() for g in groups}) == 12
    assert all(g.history for g in groups)
    assert len({g.prior_weight for g in groups[:4]}) == 4, "sizes are unbalanced by default"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "groups"),
        (("a", "a"), "stands twice"),
        (("Case", "case"), "stands twice"),
        (("'../x'",), "String should match"),
        (("'a/b'",), "String should match"),
        (("'" + "x" * 65 + "'",), "String should match"),
    ],
)
def test_bad_group_packs_are_refused_with_the_reason(tmp_path, names, message):
    with pytest.raises(ConfigError, match=message):
        load_pack(pack(tmp_path, *names))


def test_a_pack_that_does_not_exist_lists_those_that_do():
    with pytest.raises(ConfigError, match="truthworld"):
        load_pack("no-such-pack")


def test_yaml_tags_that_would_build_objects_are_refused(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("groups: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="not readable YAML"):
        load_pack(str(path))


def test_questions_load_from_json_lines(tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [
        {"id": "a", "text": "2 + 2?", "gold": ["4"], "verifier": "numeric"},
        {"id": "b", "text": "Best color?", "kind": "subjective"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    first, second = load_questions(str(path))
    assert first.gold == ("4",) and not second.has_truth


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "no id", "gold": ["x"]}', "line 1: id"),
        ('{"id": "", "text": "t", "gold": ["x"]}', "line 1: id"),
        ('{"id": "a", "text": "t"}', "needs gold"),
        ('{"id": "a", "text": "t", "gold": ["x"], "verifier": "magic"}', "unknown"),
        ('{"id": "a", "text": "t", "gold": ["x"], "colour": 1}', "colour"),
        ('{"id": "a", "text": "t", "kind": "mixed"}', "needs gold"),
        ('{"id": "a", "text": "t", "gold": ["x"], "verifier": "numeric"}', "is no number"),
        (
            '{"id": "a", "text": "t", "gold": ["x"], "choices": ["y", "z"], '
            '"verifier": "closed_vocabulary"}',
            "not among the choices",
        ),
        ("not json", "line 1: not a JSON object"),
        ("", "holds no question"),
    ],
)
def test_bad_questions_are_refused_with_their_line(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        load_questions(str(path))


def test_an_id_that_stands_twice_names_both_lines(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": "a", "text": "t", "gold": ["x"]}\n' * 2)
    with pytest.raises(DataError, match="line 2: id 'a' stands in line 1"):
        load_questions(str(path))


def test_a_split_depends_on_the_id_alone():
    ids = [f"q{i}" for i in range(2000)]
    splits = [split_of(i, 0.5, 0.1) for i in ids]
    assert splits == [split_of(i, 0.5, 0.1) for i in ids]
    assert splits.count("train") == pytest.approx(1000, abs=70)
    assert splits.count("validation") == pytest.approx(200, abs=45)


def test_less_visible_gold_is_a_subset_of_more():
    questions = [Question(f"q{i}", "?", gold=("x",)) for i in range(100)]
    few, many = (
        {q.id for q in reveal_gold(questions, f, seed=3) if q.gold_visible} for f in (0.1, 0.3)
    )
    assert len(few) == 10 and len(many) == 30 and few < many


def test_prompts_show_profile_or_history_and_then_the_peers():
    group = load_pack("truthworld").groups[0]
    explicit = opening_messages("Why?", "explicit", group)
    implicit = opening_messages("Why?", "implicit", group)
    assert explicit[0] == {"role": "system", "content": group.profile}
    assert group.profile not in plain_text(implicit) and group.history[0].answer in plain_text(
        implicit
    )
    assert opening_messages("Why?", "none") == [{"role": "user", "content": "Why?"}]
    control = opening_messages("Why?", "control", control=2)
    assert control[0]["content"] != opening_messages("Why?", "control", control=3)[0]["content"]
    heard = with_peers(explicit, "So.", ["A", "B"])
    assert with_peers(explicit, "So.", ["unparsed"])[-1]["content"] == "Peers say: nothing."
    assert heard[-2:] == [
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "Peers say: A; B."},
    ]
