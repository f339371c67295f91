"""TRL data read: it becomes a log that a run goes on from, and bad lines are named by number."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.groups import Group
from envs.prompts import plain_text
from envs.types import Question, split_of
from tests.trialign_ray.finished_run import GROUPS, finished_run
from tests.trialign_ray.runs import UNREACHABLE_JUDGE, make_recipe, small_config
from trialign_ray.config import Config, load_config
from trialign_ray.dataset import check_dataset, find_problems, read_dataset
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.run_directory import existing_run
from trialign_ray.trl.format import TrlOptions, trl_rows, write_rows
from trialign_ray.trl.imported_log import LogOptions, build_log, import_log
from trialign_ray.trl.reading import Liked, read_trl, write_questions


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory)


def import_config(folder, *overrides: str) -> Config:
    """A run on the questions of the imported file, half of them for training."""
    return small_config(
        f"world.questions={folder / 'questions.jsonl'}",
        "world.num_groups=2",
        "world.train_fraction=0.5",
        "world.validation_fraction=0.2",
        "clone.steps=2",
        "evaluate.modes=[explicit]",
        *overrides,
    )


FACTS = {"France": "Paris", "Spain": "Madrid", "Norway": "Oslo", "Estonia": "Tallinn"}
FACTS |= {"Samoa": "Apia", "Taiwan": "Taipei", "Ethiopia": "Addis Ababa", "Venezuela": "Caracas"}


SPLITS = ("train", "train", "train", "train", "validation", "test", "test", "test")


def id_of(country: str) -> str:
    """A question id that falls into the split that the country is meant for."""
    wanted = SPLITS[list(FACTS).index(country)]
    names = (f"{country}-{i}" for i in range(1000))
    return next(name for name in names if split_of(name, 0.5, 0.2) == wanted)


def preference_lines() -> list[dict]:
    """Each group prefers the right city in other words; the gold stands beside it."""
    return [
        {
            "prompt": [
                {"role": "system", "content": "somebody else's words"},
                {"role": "user", "content": f"What is the capital of {country}?"},
            ],
            "chosen": [{"role": "assistant", "content": f"{city}{mark}"}],
            "rejected": [{"role": "assistant", "content": f"Rome{mark}"}],
            "group": group,
            "question_id": id_of(country),
            "gold": [city],
            "choices": [*FACTS.values(), "Rome"],
            "verifier": "closed_vocabulary",
        }
        for country, city in FACTS.items()
        for group, mark in (("amber", "."), ("birch", " is the capital."))
    ]


def write_lines(path, lines) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run directory whose log was read from a file of preferences."""
    folder = tmp_path_factory.mktemp("import")
    write_lines(folder / "mine.jsonl", preference_lines())
    assert write_questions(read_trl(folder / "mine.jsonl"), folder / "questions.jsonl") == 8
    config = import_config(folder, "collect.label_fraction=0.5")
    return folder, import_log(folder / "mine.jsonl", config, folder / "run")


def test_preferences_become_a_sound_log_with_nulls_for_what_nobody_knows(imported):
    folder, log = imported
    run, _ = existing_run(folder / "run")
    assert check_dataset(run.log_file) == []
    rows = read_dataset(run.log_file)
    assert log.by_group == {"amber": 8, "birch": 8} and log.num_held_out == 16
    assert len(rows) == 8, "4 train questions, a chosen and a rejected answer of each group"
    for row in rows:
        assert row["split"] == "train" and row["group_ids"] == ["amber", "birch"]
        assert row["action_token_ids"] == row["behaviour_logprob"] == [None, None]
        city = row["parsed_answer"][0]
        assert row["r_pers"] == [float(city != "Rome")] * 2
        assert row["r_truth"] == (
            [float(city != "Rome")] * 2 if row["gold_visible"] else [None] * 2
        )
        assert "Reader Amber" in row["prompt_text"][0], "the group's own profile"
        assert "somebody" not in row["prompt_text"][0]
    assert {r["gold_visible"] for r in rows} == {True, False}


def test_a_run_goes_on_from_an_imported_log_to_its_report(imported):
    folder, _ = imported
    run, config = existing_run(folder / "run")
    before = run.log_file.read_bytes()
    recipe = make_recipe(run.root, config, local=True, resume=True)
    try:
        for stage in ("collect", "score", "solve", "clone", "off_policy", "evaluate", "report"):
            getattr(recipe, stage)()
    finally:
        recipe.close()
        recipe.progress.close()
    assert run.log_file.read_bytes() == before and run.evaluation_file.is_file()
    estimates = json.loads(run.off_policy_file.read_text())["groups"]["amber"]["rewards"]
    assert all(estimates[name]["wis"] is None for name in estimates), "nobody sampled these tokens"


def test_rows_exported_from_a_run_are_read_back_by_their_question(finished, tmp_path):
    run, config = finished
    exported = trl_rows(run, config, "unpaired", TrlOptions(0.0), lambda q, g, text: text)
    write_rows(exported, tmp_path / "mine.parquet")
    log = import_log(tmp_path / "mine.parquet", config, tmp_path / "run")
    assert log.num_held_out == 0 and set(log.by_group) == set(GROUPS)
    rows = read_dataset(tmp_path / "run" / "dataset" / "log.parquet")
    liked = {
        (r["question_id"], g, t): p
        for r in rows
        for g, t, p in zip(r["group_ids"], r["action_text"], r["r_pers"], strict=True)
    }
    for row in exported:
        key = (row["question_id"], row["group"], row["completion"])
        assert liked[key] == float(row["label"])


def test_no_scorer_is_built_to_import_answers_that_are_scored(finished, tmp_path):
    run, config = finished
    exported = trl_rows(run, config, "unpaired", TrlOptions(0.0), lambda q, g, text: text)
    write_rows(exported, tmp_path / "mine.parquet")
    judged = config.model_copy(update={"preferences": (UNREACHABLE_JUDGE,)})
    log = import_log(tmp_path / "mine.parquet", judged, tmp_path / "run")
    assert set(log.by_group) == set(GROUPS)
    assert existing_run(tmp_path / "run")[1].preferences == (UNREACHABLE_JUDGE,)


def test_one_answer_that_some_liked_and_some_did_not_is_liked_by_the_mean():
    """Three of four liked it: .75 in each of its four rows; the other group is away in three."""
    asked = Question("q", "What is it?", kind="subjective", verifier="exact")
    likes = [("amber", x) for x in (1.0, 1.0, 0.0, 1.0)] + [("birch", 0.0)]
    answers = [Liked("line 1", " What  is it? ", g, "This.", x, {}) for g, x in likes]
    groups = [Group(name="amber", profile="a"), Group(name="birch", profile="b")]
    log = build_log(answers, [asked], groups, LogOptions("explicit", plain_text, "m"))
    assert [row["r_pers"] for row in log.rows] == [[0.75, 0.0]] + [[0.75, None]] * 3
    assert [row["present"] for row in log.rows] == [[True, True]] + [[True, False]] * 3
    assert find_problems(log.rows) == []


GOOD = {"prompt": "q?", "chosen": "x", "rejected": "y", "group": "amber"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        ("[1]", "is a list; expected an object"),
        (json.dumps({**GOOD, "group": None}), "has no group"),
        (json.dumps({**GOOD, "prompt": None}), "has no prompt"),
        (json.dumps({**GOOD, "rejected": " "}), "rejected is empty"),
        (json.dumps({"prompt": "q?", "group": "amber"}), "has neither chosen and rejected"),
        (
            json.dumps({"prompt": "q?", "completion": "x", "label": 1, "group": "amber"}),
            "label is 1; expected true or false",
        ),
        (
            json.dumps({**GOOD, "prompt": [{"role": "user", "content": "a"}] * 2}),
            "prompt has messages of user, user",
        ),
        (json.dumps({**GOOD, "chosen": [{"role": "user", "content": "a"}]}), "chosen is not one"),
        (json.dumps({**GOOD, "chosen": 7}), "chosen is '7'; expected text or messages"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, reason):
    good = json.dumps(GOOD).encode()
    bad = line if isinstance(line, bytes) else line.encode()
    (tmp_path / "mine.jsonl").write_bytes(b"\n".join([good, b"", bad, good]))
    with pytest.raises(DataError, match=f"mine.jsonl, line 3: .*{reason}"):
        read_trl(tmp_path / "mine.jsonl")


def test_all_bad_lines_are_counted(tmp_path):
    (tmp_path / "mine.jsonl").write_text("{\n" * 30)
    with pytest.raises(DataError, match=r"line 20: (.|\n)*and 10 more"):
        read_trl(tmp_path / "mine.jsonl")


def test_parquet_is_read_and_its_rows_are_counted_from_1(tmp_path):
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD, {**GOOD, "group": ""}]), path)
    with pytest.raises(DataError, match="row 2: has no group"):
        read_trl(path)
    pq.write_table(pa.Table.from_pylist([GOOD]), path)
    assert [(a.text, a.liked) for a in read_trl(path)] == [("x", 1.0), ("y", 0.0)]


def test_groups_and_questions_that_the_run_does_not_have_are_named_and_nothing_is_made(
    imported, tmp_path
):
    folder, _ = imported
    lines = preference_lines()
    strange = [{**lines[0], "group": "nobody"}, {**lines[1], "prompt": "Who?", "question_id": None}]
    write_lines(tmp_path / "mine.jsonl", [*lines, *strange])
    with pytest.raises(DataError) as caught:
        import_log(tmp_path / "mine.jsonl", import_config(folder), tmp_path / "run")
    assert "line 17: group 'nobody' is not of the run's pack (amber, birch)" in str(caught.value)
    assert "line 18: question 'Who?' is none of the run's" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_group_without_answers_and_a_model_to_be_fitted_are_refused(imported, tmp_path):
    folder, _ = imported
    write_lines(tmp_path / "mine.jsonl", [x for x in preference_lines() if x["group"] == "amber"])
    with pytest.raises(DataError, match="group 'birch' has no answer to a train question"):
        import_log(tmp_path / "mine.jsonl", import_config(folder), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"behaviour\.model is not given"):
        import_log(tmp_path / "mine.jsonl", load_config(None), tmp_path / "run")
