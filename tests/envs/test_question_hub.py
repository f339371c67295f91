"""The Hub's rows, whose schema differs from the local files', become the same questions.

Real data sets of Parquet files, loaded by `datasets` from local folders: no network.
"""

import builtins
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.errors import ConfigError, DataError
from envs.questions import SOURCES, load_from_hub, load_source
from envs.questions.source import HubSet

pytest.importorskip("datasets", reason="the Hub is reached by the optional package datasets")

MC1 = {"choices": ["right", "wrong", "bad"], "labels": [1, 0, 0]}
CHOICES = {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}
ROWS = {
    "truthfulqa_mc": {"question": "Q?", "mc1_targets": MC1, "mc2_targets": MC1},
    "truthfulqa_generation": {
        "type": "Adversarial",
        "category": "Misconceptions",
        "question": "Q?",
        "best_answer": "right indeed",
        "correct_answers": ["right indeed", "I have no comment"],
        "incorrect_answers": ["quite wrong"],
        "source": "x",
    },
    "mmlu": {"question": "Q?", "subject": "law", "choices": ["right", "b", "c", "d"], "answer": 0},
    "gsm8k": {"question": "Q?", "answer": "6 * 7 = 42\n#### 42"},
    "math500": {"problem": "Q?", "solution": "", "answer": r"\frac12", "unique_id": "a"},
    "aime": {"problem": "Q?", "answer": "042"},
    "arc": {"id": "Mercury_1", "question": "Q?", "choices": CHOICES, "answerKey": "C"},
    "openbookqa": {"id": "8-1", "question_stem": "Q?", "choices": CHOICES, "answerKey": "B"},
    "bbq": {
        "example_id": 5,
        "question_index": 1,
        "question_polarity": "neg",
        "context_condition": "ambig",
        "category": "Religion",
        "answer_info": {"ans0": ["a", "x"], "ans1": ["b", "unknown"], "ans2": ["c", "y"]},
        "context": "Two people met.",
        "question": "Who?",
        "ans0": "The x",
        "ans1": "Unknown",
        "ans2": "The y",
        "answer_label": 1,
    },
    "stereoset": {
        "id": "s",
        "target": "poet",
        "bias_type": "profession",
        "context": "BLANK",
        "sentences": {"sentence": ["anti", "typical", "other"], "gold_label": [0, 1, 2]},
    },
}
EXPECTED = {
    "truthfulqa_mc": ("truthfulqa_mc/validation/1", ("right",)),
    "truthfulqa_generation": ("truthfulqa_generation/validation/1", ("right indeed",)),
    "mmlu": ("mmlu/law/test/0", ("right",)),
    "gsm8k": ("gsm8k/test/0", ("42",)),
    "math500": ("math500/test/0", (r"\frac12",)),
    "aime": ("aime/2024/0", ("42",)),
    "arc": ("arc/test/0", ("three",)),
    "openbookqa": ("openbookqa/test/0", ("two",)),
    "bbq": ("bbq/Religion/5", ("Unknown",)),
    "stereoset": ("stereoset/profession/s", ()),
}


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    """A source whose data set is a folder with the given rows."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def source(name, rows):
        folder = tmp_path / name
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
        return replace(SOURCES[name], hub=lambda part: (HubSet(str(folder), None, "test"),))

    return source


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_hub_becomes_a_question(on_hub, name):
    (question,) = load_from_hub(on_hub(name, [ROWS[name]]))
    assert (question.id, question.gold) == EXPECTED[name]
    assert question.kind == SOURCES[name].kind


def test_labels_follow_the_shuffled_options(on_hub):
    (question,) = load_from_hub(on_hub("stereoset", [ROWS["stereoset"]]))
    label = dict(zip(question.choices, question.choice_labels, strict=True))
    assert label == {"anti": "anti-stereotype", "typical": "stereotype", "other": "unrelated"}


def test_each_subject_of_mmlu_is_counted_apart(on_hub):
    subjects = ("law", "law", "physics", "law")
    rows = [ROWS["mmlu"] | {"subject": s, "question": f"Q{i}?"} for i, s in enumerate(subjects)]
    ids = [q.id for q in load_from_hub(on_hub("mmlu", rows))]
    assert ids == ["mmlu/law/test/0", "mmlu/law/test/1", "mmlu/physics/test/0", "mmlu/law/test/2"]


def test_rows_of_another_schema_are_refused(on_hub):
    with pytest.raises(DataError, match="row 1: there is no 'answer'"):
        load_from_hub(on_hub("gsm8k", [{"question": "Q?"}]))


def test_a_data_set_that_cannot_be_loaded_says_what_to_do(tmp_path):
    gone = replace(SOURCES["gsm8k"], hub=lambda p: (HubSet(str(tmp_path / "no"), None, "test"),))
    with pytest.raises(DataError, match=r"gsm8k.*cannot be loaded.*--data-dir"):
        load_from_hub(gone)


def test_facts_are_not_on_the_hub_and_say_where_they_are():
    with pytest.raises(ConfigError, match=r"not on the Hub.*github\.com/annexare.*countries\.csv"):
        load_source("countries")


def test_without_the_library_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"trialign-ray\[hub\]"):
        load_source("gsm8k")
