"""A loopback endpoint that speaks OpenAI's chat protocol and replies as a test tells it to."""

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from envs.chat_endpoint import ChatEndpoint, EndpointSpec
from envs.llm_judge import JudgeTerms, LLMJudge
from envs.types import Message, Question
from envs.verdict_cache import VerdictCache

MODEL = "judge-1"
KEY = "sk-secret-of-the-test"
QUESTION = Question("q", "What is the capital of France?", gold=("Paris",))


@dataclass
class Reply:
    """What the endpoint sends back to one request."""

    text: str = '{"score": 3}'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    raw: bytes | None = None


@dataclass
class Endpoint:
    """`seen` are the payloads of all chat requests, in order of arrival."""

    url: str
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def serve(reply: Callable[[dict[str, Any], int], Reply], models: tuple[str, ...] = (MODEL,)):
    """An endpoint whose `reply(payload, number of the request)` decides everything."""
    lock, busy = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            listed = {"object": "list", "data": [{"id": m, "object": "model"} for m in models]}
            self._send(200, json.dumps(listed).encode(), {})

        def do_POST(self):
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                endpoint.seen.append(payload)
                endpoint.keys.append(self.headers.get("Authorization", ""))
                number = len(endpoint.seen) - 1
                busy[0] += 1
                endpoint.most_at_once = max(endpoint.most_at_once, busy[0])
            answer = reply(payload, number)
            time.sleep(answer.wait_s)
            with lock:
                busy[0] -= 1
            self._send(answer.status, answer.raw or completion(answer.text), answer.headers)

        def _send(self, status: int, body: bytes, headers: dict[str, str]):
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client did not wait

        def log_message(self, format: str, *args: object):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str) -> bytes:
    """A chat completion of 100 prompt tokens and 7 of the reply."""
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                }
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
        }
    ).encode()


def endpoint_at(url: str, **changes: Any) -> ChatEndpoint:
    """A client of the endpoint that gives up soon."""
    settings = {
        "url": url,
        "model": MODEL,
        "api_key_env": "TEST_JUDGE_KEY",
        "timeout_s": 5.0,
        "max_retries": 2,
        "max_completion_tokens": 64,
    }
    return ChatEndpoint(EndpointSpec(**(settings | changes)))


FENCED = re.compile(r"<<<([0-9a-f]{32}) BEGIN (\w+)>>>\n(.*?)\n<<<\1 END \2>>>", re.DOTALL)
_ORDER = re.compile(r"output (\d)", re.IGNORECASE)


def obedient_judge(payload: dict[str, Any]) -> str:
    """A judge that obeys whatever stands outside the fence, and rates "nice" answers 4, else 2."""
    system, user = (m["content"] for m in payload["messages"])
    nonce = re.findall(r"<<<([0-9a-f]{32}) BEGIN name>>>", system)[0]
    blocks = [m for m in FENCED.finditer(user) if m.group(1) == nonce]
    outside = user
    for block in blocks:
        outside = outside.replace(block.group(), "")
    if order := _ORDER.search(outside):
        return json.dumps({"score": int(order.group(1))})
    answer = next(block.group(3) for block in blocks if block.group(2) == "answer")
    return json.dumps({"score": 4 if "nice" in answer else 2})


def context_of(group: str, question: Question) -> list[Message]:
    return [
        {"role": "system", "content": f"The user belongs to {group}."},
        {"role": "user", "content": question.text},
    ]


def make_judge(url, tmp_path, prices=(0.0, 0.0), concurrency=4, **endpoint):
    terms = JudgeTerms("How well does it suit?", concurrency, *prices)
    cache = VerdictCache(tmp_path / "cache.sqlite")
    return LLMJudge(endpoint_at(url, **endpoint), cache, terms, context_of)


def items_of(texts, group="g"):
    return [(group, QUESTION, text, text) for text in texts]
