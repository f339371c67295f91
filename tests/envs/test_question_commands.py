"""`trialign data sources` and `trialign data questions` show what a model will be asked."""

import json

import pytest
from typer.testing import CliRunner

from envs.errors import ConfigError
from envs.questions import SOURCES
from trialign_ray.commands.inspecting import app


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def data_dir(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    rows = [{"question": f"What is {i} plus 1?", "answer": f"#### {i + 1}"} for i in range(5)]
    (tmp_path / "gsm8k" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_every_source_is_listed_with_licence_kind_and_local_questions(data_dir):
    output = said("sources", "--data-dir", data_dir)
    for name, source in SOURCES.items():
        assert name in output and source.licence in output and source.description in output
    assert f"MIT; 5 questions in {data_dir}" in output and "no questions" in output
    assert "harm probe" in output and "subjective" in output
    assert "questions in" not in said("sources"), "nothing is counted or loaded without a folder"


def test_questions_are_shown_as_the_model_sees_them(data_dir):
    output = said("questions", "gsm8k", "--data-dir", data_dir, "--limit", 2)
    assert "--- gsm8k/test/0 (truth, verifier numeric)\nWhat is 0 plus 1?\n\nReason step" in output
    assert ">>> gold: 1\n" in output and "gsm8k/test/2" not in output
    assert "2 of 5 questions of gsm8k" in output


def test_an_unknown_source_is_an_error():
    with pytest.raises(ConfigError, match="gsm8k"):
        said("questions", "nope")
