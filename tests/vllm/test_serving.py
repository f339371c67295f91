"""A real `vllm serve` with one LoRA per group answers as the transformers engine does."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from envs.prompts import opening_messages
from tests.vllm.shipped_adapters import (
    GREEDY,
    GROUPS,
    SAMPLED,
    largest_distance,
    num_different,
)
from trialign_ray.config_models import EngineConfig
from trialign_ray.engines.server import ServerEngine
from trialign_ray.errors import ConfigError
from trialign_ray.language_model import chat_text, load_tokenizer
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.serve import vllm_program
from trialign_ray.tiny_lm import shipped_world

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
STARTS_WITHIN_S = 400.0


@pytest.fixture(scope="module")
def url(adapters, tmp_path_factory):
    """The server's url; it ends, with all that it started, when the tests do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # One place for an adapter stays empty: on CPUs that is what requests without one are given.
    command = [*vllm_program(), str(SHIPPED_BASE), "--served-model-name", "base"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    # Nor may prompts be split there: a seeded request whose prompt is split ends the server.
    command += ["--enforce-eager", "--no-enable-chunked-prefill", "--enable-lora"]
    command += ["--kv-cache-memory-bytes", str(2**27)]
    command += ["--max-lora-rank", "8", "--max-loras", str(len(GROUPS) + 1), "--lora-modules"]
    command += [f"{group}={folder}" for group, folder in adapters.items()]
    log = tmp_path_factory.mktemp("server") / "log"
    environment = os.environ | {"VLLM_DO_NOT_TRACK": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _wait(server, root, log):
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        assert server.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{root}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)


@pytest.fixture(scope="module")
def engine(url):
    tokenizer = load_tokenizer(SHIPPED_BASE)
    return ServerEngine(EngineConfig(kind="server", url=url, concurrency=16), tokenizer)


def test_every_group_is_answered_as_by_transformers(engine, prompts, reference):
    assert set(engine.models()) == {"base", *GROUPS}
    for group in (None, *GROUPS):
        own = prompts[group or GROUPS[0]]
        said = engine.generate(own, GREEDY, model=group)
        expected = reference.generate(own, GREEDY, group)
        assert num_different(said, expected) == 0
        assert largest_distance(said, expected) < 1e-3


def test_groups_and_base_asked_at_once_do_not_mix(engine, prompts, reference):
    asked = (*GROUPS, None)
    own = prompts[GROUPS[0]]
    with ThreadPoolExecutor(len(asked)) as pool:
        said = list(pool.map(lambda group: engine.generate(own, GREEDY, model=group), asked))
    for group, utterances in zip(asked, said, strict=True):
        assert num_different(utterances, reference.generate(own, GREEDY, group)) == 0


def test_sampled_answers_depend_on_prompt_and_seed_alone(url, prompts):
    own = prompts[GROUPS[0]] * 4
    tokenizer = load_tokenizer(SHIPPED_BASE)
    busy = EngineConfig(kind="server", url=url, concurrency=240)
    said = ServerEngine(busy, tokenizer).generate(own, SAMPLED)
    alone = EngineConfig(kind="server", url=url, concurrency=1)
    assert num_different(said[:9], ServerEngine(alone, tokenizer).generate(own[:9], SAMPLED)) == 0


def test_an_openai_client_chats_with_a_group_and_hears_the_same(url, reference):
    client = openai.OpenAI(base_url=url, api_key="none")
    questions, groups = shipped_world()
    tokenizer = load_tokenizer(SHIPPED_BASE)
    for group in groups[: len(GROUPS)]:
        chats = [opening_messages(q.text, "explicit", group) for q in questions[:8]]
        expected = reference.generate([chat_text(tokenizer, c) for c in chats], GREEDY, group.name)
        for chat, utterance in zip(chats, expected, strict=True):
            answer = client.chat.completions.create(
                model=group.name,
                messages=chat,  # type: ignore[arg-type]
                temperature=0.0,
                max_tokens=24,
            )
            assert (answer.choices[0].message.content or "").strip() == utterance.text


def test_the_chat_of_the_engine_is_the_same(engine, reference):
    questions, groups = shipped_world()
    tokenizer = load_tokenizer(SHIPPED_BASE)
    chats = [opening_messages(q.text, "explicit", groups[1]) for q in questions[:30]]
    said = engine.chat(chats, GREEDY, model=groups[1].name)
    expected = reference.generate([chat_text(tokenizer, c) for c in chats], GREEDY, groups[1].name)
    assert said == [u.text for u in expected]


def test_a_model_that_is_not_served_is_named(engine, prompts):
    with pytest.raises(ConfigError, match=r"no model 'emil'"):
        engine.generate(prompts[GROUPS[0]][:1], GREEDY, model="emil")
