"""A service that fails is no wrong setting: exit code 1. A URL that is none is one: exit code 2."""

import json
import socket
import sys

import pytest

from tests.trialign_ray.audit_world import write_capitals, write_pack
from trialign_ray import cli


@pytest.fixture
def trialign(monkeypatch, capsys):
    """Runs a command in this process, where no Ray may start; returns exit code and stderr."""

    def refuse(*_, **__):
        raise AssertionError("Ray was started before the endpoint was asked")

    def call(*arguments):
        monkeypatch.setattr("trialign_ray.run.start_ray", refuse)
        monkeypatch.setattr(sys, "argv", ["trialign", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr().err

    return call


@pytest.fixture
def nobody() -> str:
    """A URL at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def judged_by(url: str) -> tuple[str, ...]:
    sections = [{"kind": "judge", "url": url, "model": "judge-1", "max_retries": 0}]
    return ("--set", f"preferences={json.dumps(sections)}")


def audited_at(url: str, folder) -> tuple[object, ...]:
    world = ("--groups", write_pack(folder), "--questions", write_capitals(folder))
    return ("--url", url, *world, "--set", "engine.max_retries=0")


def test_a_judge_and_an_engine_that_are_down_end_alike(trialign, nobody, tmp_path):
    out = tmp_path / "out"
    by_judge = trialign("quickstart", "--run-dir", out, *judged_by(nobody))
    by_engine = trialign("audit", "--run-dir", out, *audited_at(nobody, tmp_path))
    for code, error in (by_judge, by_engine):
        assert code == 1 and nobody in error and error.count("error:") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "http://localhost:port/v1", "http://me:pw@h/v1"]
)
def test_an_address_that_is_none_or_holds_a_password_is_a_wrong_setting(trialign, tmp_path, url):
    out = tmp_path / "out"
    by_judge = trialign("quickstart", "--run-dir", out, *judged_by(url))
    by_engine = trialign("audit", "--run-dir", out, *audited_at(url, tmp_path))
    for (code, error), key in (
        (by_judge, "preferences: url of the judge"),
        (by_engine, "engine.url"),
    ):
        assert code == 2 and f"{key} " in error and "expected http://host:port/v1" in error
        assert "pw" not in error
        assert ("environment variable" in error and "api_key_env" in error) == ("@" in url)
    assert not out.exists()


def test_a_password_in_a_url_is_kept_out_of_the_message_whatever_else_is_wrong(trialign, tmp_path):
    sections = [{"kind": "judge", "url": "http://me:pw@h/v1", "misspelt": 1}]
    given = ("--set", f"preferences={json.dumps(sections)}")
    code, error = trialign("quickstart", "--run-dir", tmp_path / "out", *given)
    assert code == 2 and "pw" not in error and "environment variable" in error
