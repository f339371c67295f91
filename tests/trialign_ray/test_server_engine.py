"""The server engine against a real endpoint on this machine: a good one, and every bad kind."""

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from trialign_ray.config_models import EngineConfig
from trialign_ray.engines import Decoding
from trialign_ray.engines.server import ServerEngine
from trialign_ray.errors import ConfigError, WorkerError

GREEDY = Decoding(0.0, 8, 4)
Body = dict[str, Any]
Reply = tuple[int, Any]
MODELS = [
    {"id": "base", "object": "model", "created": 0, "owned_by": "vllm", "parent": None},
    {"id": "amber", "object": "model", "created": 0, "owned_by": "vllm", "parent": "base"},
]


@dataclass
class Endpoint:
    """What a test's endpoint does. `answer` gets path and request; str is sent as it is."""

    answer: Callable[[str, Body], Reply]
    models: list[Body] = field(default_factory=lambda: list(MODELS))
    asked: list[Body] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


def completion(text: str, finish: str = "stop", **more: Any) -> Body:
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None, **more}
    return {"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}


def chat(content: str | None) -> Body:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def echo(path: str, request: Body) -> Reply:
    """Answers with the prompt or the last message, later for earlier prompts."""
    if path.endswith("/chat/completions"):
        return 200, chat(f"heard {request['messages'][-1]['content']}")
    time.sleep(0.02 * (int(request["prompt"].split()[-1]) % 3))
    return 200, completion(
        f" heard {request['prompt']}",
        logprobs={"tokens": ["a", "b"], "token_logprobs": [-0.5, -0.25], "text_offset": [0, 1]},
        token_ids=[7, 3],
    )


@contextmanager
def served(endpoint: Endpoint) -> Iterator[str]:
    """Its url, for as long as it answers."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": endpoint.models})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                endpoint.asked.append(request)
                endpoint.keys.append(self.headers["Authorization"])
                endpoint.at_once += 1
                endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
            try:
                self._send(*endpoint.answer(self.path, request))
            finally:
                with lock:
                    endpoint.at_once -= 1

        def _send(self, status: int, body: Any) -> None:
            raw = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header(
                "Content-Type", "text/html" if isinstance(body, str) else "application/json"
            )
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def engine(url: str, **options: Any) -> ServerEngine:
    given = {"max_retries": 0, "timeout_s": 5.0, "concurrency": 4} | options
    return ServerEngine(EngineConfig(kind="server", url=url, **given))


def failing(status: int, body: Any) -> Endpoint:
    return Endpoint(lambda path, request: (status, body))


def test_answers_come_in_the_order_of_the_prompts_many_at_once():
    endpoint = Endpoint(echo)
    with served(endpoint) as url:
        said = engine(url).generate([f"prompt {i}" for i in range(12)], GREEDY)
    assert [u.text for u in said] == [f"heard prompt {i}" for i in range(12)]
    assert 2 <= endpoint.most_at_once <= 4
    assert said[0].token_ids == (7, 3)
    assert said[0].logprob == pytest.approx(-0.75)
    assert not said[0].truncated


def test_the_length_limit_marks_an_answer_truncated():
    with served(Endpoint(lambda path, request: (200, completion("and so", "length")))) as url:
        said = engine(url).generate(["p"], GREEDY)[0]
    assert said.truncated
    assert math.isnan(said.logprob)
    assert said.token_ids == ()


def test_the_only_base_model_is_asked_and_adapters_by_name():
    endpoint = Endpoint(echo)
    with served(endpoint) as url:
        asked = engine(url)
        assert asked.models() == ["base", "amber"]
        asked.generate(["prompt 0"], GREEDY)
        asked.generate(["prompt 0"], GREEDY, model="amber")
    assert [request["model"] for request in endpoint.asked] == ["base", "amber"]


def test_a_vllm_is_told_to_ignore_the_recommended_sampling_and_another_server_is_not():
    endpoint = Endpoint(echo)
    with served(endpoint) as url:
        engine(url).generate(["prompt 0"], GREEDY)
        endpoint.models = [MODELS[0] | {"owned_by": "somebody"}]
        engine(url).generate(["prompt 0"], GREEDY)
    told, plain = endpoint.asked
    assert (told["repetition_penalty"], told["top_k"]) == (1.0, 0)
    assert told["add_special_tokens"] is False
    assert told["return_token_ids"] is True
    assert "repetition_penalty" not in plain
    assert "return_token_ids" not in plain
    assert (told["temperature"], told["max_tokens"], told["top_p"]) == (0.0, 8, 1.0)


def test_seeds_depend_on_the_prompt_and_its_repetition_alone():
    endpoint = Endpoint(echo)
    with served(endpoint) as url:
        asked = engine(url, concurrency=1)
        asked.generate(["prompt 0", "prompt 1", "prompt 0"], GREEDY)
        asked.generate(["prompt 1"], GREEDY)
    seeds = [request["seed"] for request in endpoint.asked]
    assert len(set(seeds[:3])) == 3
    assert seeds[3] == seeds[1]


def test_conversations_are_answered_by_the_chat_path():
    endpoint = Endpoint(echo)
    chats = [[{"role": "user", "content": f"number {i}"}] for i in range(5)]
    with served(endpoint) as url:
        replies = engine(url).chat(chats, GREEDY)  # type: ignore[arg-type]
    assert replies == [f"heard number {i}" for i in range(5)]


def test_a_reply_without_words_is_empty():
    with served(Endpoint(lambda path, request: (200, chat(None)))) as url:
        assert engine(url).chat([[{"role": "user", "content": "?"}]], GREEDY) == [""]


def test_a_passing_failure_is_asked_again():
    failures = iter([503, 429])

    def moody(path: str, request: Body) -> Reply:
        status = next(failures, 200)
        return (200, completion("at last")) if status == 200 else (status, {"error": "busy"})

    endpoint = Endpoint(moody)
    with served(endpoint) as url:
        said = engine(url, max_retries=3).generate(["p"], GREEDY)
    assert said[0].text == "at last"
    assert len(endpoint.asked) == 3


def test_an_endpoint_that_keeps_failing_is_named_with_what_it_said():
    with (
        served(failing(500, {"error": "out of memory"})) as url,
        pytest.raises(WorkerError, match=r"127\.0\.0\.1.*failed 2 times.*out of memory"),
    ):
        engine(url, max_retries=1).generate(["p"], GREEDY)


def test_nobody_at_the_url_is_said_so_in_bounded_time():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"cannot be reached.*trialign serve.*engine\.url"):
        engine(url, max_retries=1).models()
    assert time.monotonic() - started < 10


def test_a_slow_endpoint_ends_in_bounded_time_whatever_still_waits():
    def slow(path: str, request: Body) -> Reply:
        time.sleep(1.0)
        return 200, completion("late")

    started = time.monotonic()
    with (
        served(Endpoint(slow)) as url,
        pytest.raises(WorkerError, match=r"within 0\.2 s, 1 times; raise engine\.timeout_s"),
    ):
        engine(url, timeout_s=0.2, concurrency=2).generate([f"p {i}" for i in range(50)], GREEDY)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "garbage",
    [
        "<html>a login page</html>",
        "{'choices': ",
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"text": 7, "finish_reason": "stop"}]},
        [1, 2],
        {"choices": [{"text": "x", "finish_reason": "stop", "logprobs": {"token_logprobs": "no"}}]},
    ],
)
def test_garbage_is_an_error_that_shows_it(garbage):
    with (
        served(failing(200, garbage)) as url,
        pytest.raises(WorkerError, match=r"answered what is no"),
    ):
        engine(url).generate(["p"], GREEDY)


@pytest.mark.parametrize("garbage", ["hello", {"choices": [{"message": {"content": [1]}}]}, {}])
def test_garbage_in_a_chat_is_an_error(garbage):
    with served(failing(200, garbage)) as url, pytest.raises(WorkerError, match="no"):
        engine(url).chat([[{"role": "user", "content": "?"}]], GREEDY)


def test_a_list_of_models_that_is_none_is_an_error():
    listed = Endpoint(echo, models="nonsense")  # type: ignore[arg-type]
    with served(listed) as url, pytest.raises(WorkerError, match="a list of models"):
        engine(url).models()


def test_an_unknown_model_name_says_where_the_names_are():
    missing = failing(404, {"error": {"message": "The model `emil` does not exist."}})
    with (
        served(missing) as url,
        pytest.raises(ConfigError, match=r"no model 'emil'.*GET /models"),
    ):
        engine(url, model="emil").generate(["p"], GREEDY)


def test_several_base_models_have_to_be_chosen_from():
    two = Endpoint(echo, models=[MODELS[0], MODELS[0] | {"id": "other"}])
    with served(two) as url, pytest.raises(ConfigError, match=r"base.*other.*engine\.model"):
        engine(url).generate(["prompt 0"], GREEDY)


def test_a_refused_request_repeats_the_reason():
    long = failing(400, {"error": {"message": "maximum context length is 256 tokens"}})
    with served(long) as url, pytest.raises(ConfigError, match=r"refused.*maximum context length"):
        engine(url).generate(["p"], GREEDY)


def test_the_key_comes_from_the_environment_and_is_never_repeated(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-12345")
    refused = failing(401, {"error": {"message": "Incorrect API key provided: sk-secret-12345"}})
    with served(refused) as url, pytest.raises(ConfigError, match="MY_KEY") as caught:
        engine(url, api_key_env="MY_KEY").generate(["p"], GREEDY)
    assert refused.keys == ["Bearer sk-secret-12345"]
    assert "secret" not in str(caught.value)


def test_no_url_is_an_error():
    with pytest.raises(ConfigError, match=r"engine\.url"):
        ServerEngine(EngineConfig(kind="server"))
