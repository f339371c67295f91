"""A real `trialign serve` answers an OpenAI client as the transformers engine answers."""

from typing import Any, cast

import pytest

from envs.prompts import question_messages
from trialign_ray.adapters import load_adapter
from trialign_ray.engines import Decoding
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.language_model import chat_text, load_language_model
from trialign_ray.run_directory import existing_run
from trialign_ray.setting import build_setting

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
NUM_QUESTIONS = 30


def test_every_group_is_told_the_same_by_the_server_and_by_the_transformers_engine(
    quickstart, served_url
):
    from openai import OpenAI

    run, config = existing_run(quickstart.root)
    client = OpenAI(base_url=served_url, api_key="none")
    setting = build_setting(config, run.root)
    assert {"amber", "birch", "cedar", "delta"} <= {m.id for m in client.models.list()}
    questions = setting.of_split("test")[:NUM_QUESTIONS]
    for group in setting.groups:
        base = load_language_model(run.behaviour_dir)
        model = load_adapter(base, run.adapter_dir(group.name)).eval()
        chats = [question_messages(q, "explicit", group) for q in questions]
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


def test_seeded_requests_whose_prompts_would_be_split_are_all_answered(served_url):
    """About 19,000 tokens at once, no prompt begun like another: more than one pass takes."""
    from concurrent.futures import ThreadPoolExecutor

    from openai import OpenAI

    client = OpenAI(base_url=served_url, api_key="none", max_retries=0)
    long = "What is the capital of France? " * 25

    def ask(number: int) -> str:
        message = {"role": "user", "content": f"{number} {long}"}
        answer = client.chat.completions.create(
            model="amber", messages=cast(Any, [message]), temperature=1, max_tokens=4, seed=number
        )
        return answer.choices[0].finish_reason

    with ThreadPoolExecutor(100) as pool:
        assert len(list(pool.map(ask, range(100)))) == 100
