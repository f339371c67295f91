"""An endpoint that is busy, slow, down or odd, and a key that stays secret."""

import json
import logging
import socket
import time

import pytest

from envs.endpoint_url import checked_url
from envs.errors import ConfigError, WorkerError
from tests.envs.judge_server import KEY, QUESTION, Reply, endpoint_at, items_of, make_judge, serve


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again_when_it_says(tmp_path, status):
    times = []

    def reply(_, number):
        times.append(time.monotonic())
        return Reply(status=status, headers={"Retry-After": "0.2"}) if number == 0 else Reply()

    with serve(reply) as at:
        judge = make_judge(at.url, tmp_path, concurrency=1)
        assert judge.score("g", QUESTION, "a", "a") == 0.5
    assert judge.report().num_retries == 1 and times[1] - times[0] >= 0.2


def test_a_slow_endpoint_is_given_up_with_what_to_do(tmp_path):
    with serve(lambda *_: Reply(wait_s=1.0)) as at:
        judge = make_judge(at.url, tmp_path, timeout_s=0.1, max_retries=0)
        with pytest.raises(WorkerError, match=r"Timeout.*see to the endpoint"):
            judge.prepare(items_of("abc"))


def test_an_endpoint_that_dies_ends_the_run_soon(tmp_path):
    with serve(lambda *_: Reply()) as at:
        judge = make_judge(at.url, tmp_path, max_retries=0)
        judge.prepare(items_of("a"))
    started = time.monotonic()
    with pytest.raises(WorkerError, match="Connection"):
        judge.prepare(items_of(map(str, range(50))))
    assert time.monotonic() - started < 5
    assert judge.score("g", QUESTION, "a", "a") == 0.5


def test_a_reply_that_is_no_completion_is_no_reward(tmp_path):
    with serve(lambda *_: Reply(raw=b'{"score": 5}')) as at:
        judge = make_judge(at.url, tmp_path)
        with pytest.raises(WorkerError, match="verdicts failed"):
            judge.score("g", QUESTION, "a", "a")


def test_an_endpoint_without_schemas_is_asked_without(tmp_path):
    def reply(payload, _):
        known = "response_format" not in payload
        return Reply() if known else Reply(status=400, raw=b'{"error": {"message": "no schema"}}')

    with serve(reply) as at:
        judge = make_judge(at.url, tmp_path, concurrency=1)
        judge.prepare(items_of("ab"))
        assert judge.score("g", QUESTION, "a", "a") == 0.5
    assert ["response_format" in p for p in at.seen] == [True, False, False, False, False]


def test_an_endpoint_that_is_down_is_named_within_seconds():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    started = time.monotonic()
    with pytest.raises(WorkerError, match=url):
        endpoint_at(url, max_retries=5).check()
    assert time.monotonic() - started < 3


def test_a_model_that_the_endpoint_has_not_is_refused():
    with serve(lambda *_: Reply(), models=("llama", "qwen")) as at:
        with pytest.raises(ConfigError, match=r"no model 'judge-1'; it lists llama, qwen"):
            endpoint_at(at.url).check()
        endpoint_at(at.url, model="qwen").check()


def test_a_key_is_needed_elsewhere_but_not_here(monkeypatch):
    monkeypatch.delenv("TEST_JUDGE_KEY")
    with pytest.raises(ConfigError, match="TEST_JUDGE_KEY is not set"):
        endpoint_at("https://judge.example/v1")
    endpoint_at("http://localhost:1/v1")


@pytest.mark.parametrize(
    "url",
    [
        "judge.example/v1",
        "ftp://judge",
        "http:///v1",
        "http://judge:port/v1",
        "http://[::1/v1",
        "http://me:pw@judge/v1",
        "http://me:pw@ss@judge/v1",
        "http://me:pw/@judge/v1",
        "",
    ],
)
def test_an_odd_url_is_refused_without_its_password(url):
    with pytest.raises(ConfigError, match="expected http") as caught:
        endpoint_at(url)
    assert "pw" not in str(caught.value)


def test_an_address_of_version_6_is_a_url():
    assert checked_url("http://[::1]:8000/v1", "engine.url", "KEY") == "http://[::1]:8000/v1"


@pytest.mark.parametrize(
    "url",
    ["u:pw@host:8000/v1", "https://h/v1?api_key=pw", "https://h/v1#pw", "http://u:12/pw@h/v1"],
)
def test_what_may_be_a_secret_is_refused_wherever_it_stands_and_not_repeated(url):
    with pytest.raises(ConfigError, match="environment variable KEY") as caught:
        checked_url(url, "engine.url", "KEY")
    assert "pw" not in str(caught.value)


def test_the_key_goes_to_the_endpoint_and_nowhere_else(tmp_path, caplog):
    body = json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()
    with serve(lambda *_: Reply(status=401, raw=body)) as at, caplog.at_level(logging.DEBUG):
        judge = make_judge(at.url, tmp_path)
        with pytest.raises(ConfigError, match="TEST_JUDGE_KEY") as caught:
            judge.score("g", QUESTION, "a", "a")
    assert at.keys[0] == f"Bearer {KEY}"
    assert KEY not in str(caught.value) + repr(judge.report())
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("envs")]
    assert not any(KEY in message for message in ours)
