"""A real `trialign serve` answers an OpenAI client as the transformers engine answers."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any, cast

import pytest

from envs.prompts import opening_messages, variant_of
from tests.trialign_ray.finished_run import finished_run
from trialign_ray.adapters import load_adapter
from trialign_ray.engines import Decoding
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.language_model import chat_text, load_language_model
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.setting import build_setting

START = """
import sys
from pathlib import Path
from trialign_ray.run_directory import existing_run
from trialign_ray.serve import serve
from trialign_ray.serve_plan import serve_plan, vllm_command
plan = serve_plan(*existing_run(Path(sys.argv[1])))
port = int(sys.argv[2])
ready = lambda url: print("ready at", url, flush=True)
sys.exit(serve(vllm_command(plan, port=port), "127.0.0.1", port, ready, 300))
"""
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def server(finished):
    """The process and its URL, as it says itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    small = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    child = subprocess.Popen(
        [sys.executable, "-c", START, str(finished[0].root), str(port)],
        env={**os.environ, **small, "VLLM_DO_NOT_TRACK": "1"},
        stdout=subprocess.PIPE,
    )
    try:
        yield child, _url(child)
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0, "it ends in peace when it is told to"


def _url(child) -> str:
    deadline, said = time.monotonic() + 320, ""
    while time.monotonic() < deadline and child.poll() is None:
        if select.select([child.stdout], [], [], 1)[0]:
            said += os.read(child.stdout.fileno(), 65536).decode()
            if found := re.search(r"ready at (\S+)\n", said):
                return found[1]
    raise AssertionError(f"the server was not ready:\n{said[-3000:]}")


def test_every_group_is_told_the_same_by_the_server_and_by_the_transformers_engine(
    finished, server
):
    from openai import OpenAI

    run, config = finished
    client = OpenAI(base_url=f"{server[1]}/v1", api_key="none")
    setting = build_setting(config, run.root)
    assert {"amber", "birch"} <= {m.id for m in client.models.list()}
    questions = setting.of_split("test")
    for group in setting.groups:
        base = load_language_model(SHIPPED_BASE)
        model = load_adapter(base, run.adapter_dir(group.name)).eval()
        chats = [
            opening_messages(
                q.text, "explicit", group, variant=variant_of(q.id, group.num_variants)
            )
            for q in questions
        ]
        prompts = [chat_text(base.tokenizer, chat) for chat in chats]
        ours = TransformersEngine(model, base.tokenizer).generate(prompts, Decoding(0.0, 24, 64))
        theirs = [
            client.chat.completions.create(
                model=group.name, messages=cast(Any, chat), temperature=0, max_tokens=24
            )
            for chat in chats
        ]
        said = [(answer.choices[0].message.content or "").strip() for answer in theirs]
        assert said == [u.text.strip() for u in ours]
