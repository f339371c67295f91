"""Reward models of real architectures: a batch says what one at a time says."""

import math
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
)

from envs.types import Message, Question
from tests.trialign_ray.tiny_models import byte_level_tokenizer
from trialign_ray.engines.reward_model import RewardModelScorer, load_reward_model
from trialign_ray.errors import ConfigError, DataError

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
ANSWERS = ["Rome.", "It is Rome, I would say, dear reader.", "!", "Paris? No: Rome.", "Rome, Rome"]
NO_SYSTEM_ROLE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
)


def save_reward_model(
    folder, kind: Any = Qwen2Config, num_labels=1, pad=True, template=None, **changes
):
    tokenizer = byte_level_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    config = kind(
        vocab_size=len(tokenizer),
        num_labels=num_labels,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id if pad else None,
        **(SIZES | changes),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        torch.nn.init.normal_(model.score.weight, std=2.0)
    model.save_pretrained(folder)
    if not pad:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def chat_of(answer: str) -> list[Message]:
    return [
        {"role": "system", "content": "The user is a child."},
        {"role": "user", "content": "What is the capital of Italy?"},
        {"role": "assistant", "content": answer},
    ]


def naive_reward(folder, chat):
    """By the definition: the whole chat alone through the model, the head at its last token."""
    rm = load_reward_model(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    ids = byte_level_tokenizer()(rm.render(chat), add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        hidden = model.model(torch.tensor([ids])).last_hidden_state
        return float(model.score(hidden)[0, -1, 0])


@pytest.mark.parametrize("kind", [Qwen2Config, LlamaConfig])
@pytest.mark.parametrize("pad", [True, False], ids=["pad token", "no pad token"])
def test_a_batch_says_what_one_at_a_time_says(tmp_path, kind, pad):
    folder = save_reward_model(tmp_path / "rm", kind, pad=pad)
    chats = [chat_of(a) for a in ANSWERS]
    batched = load_reward_model(folder, batch_size=4).rewards(chats)
    single = [load_reward_model(folder, batch_size=1).rewards([c])[0] for c in chats]
    assert batched == pytest.approx(single, abs=1e-5)
    assert batched == pytest.approx([naive_reward(folder, c) for c in chats], abs=1e-5)
    assert len({round(r, 3) for r in batched}) == len(chats)


def test_a_model_without_pad_token_reads_the_token_that_ends_the_chat(tmp_path):
    """ChatML ends in a line break; this template ends in the end token itself."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>"
        "{% endfor %}"
    )
    folder = save_reward_model(tmp_path / "rm", LlamaConfig, pad=False, template=template)
    chats = [chat_of(a) for a in ANSWERS]
    batched = load_reward_model(folder, batch_size=8).rewards(chats)
    assert batched == pytest.approx([naive_reward(folder, c) for c in chats], abs=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_does_not_matter(tmp_path, side):
    folder = save_reward_model(tmp_path / "rm")
    tokenizer = byte_level_tokenizer()
    tokenizer.padding_side = side
    tokenizer.save_pretrained(folder)
    chats = [chat_of(a) for a in ANSWERS]
    assert load_reward_model(folder).rewards(chats) == pytest.approx(
        [naive_reward(folder, c) for c in chats], abs=1e-5
    )


@pytest.mark.parametrize("num_labels", [2, 5])
def test_a_classifier_of_several_classes_is_refused(tmp_path, num_labels):
    folder = save_reward_model(tmp_path / "rm", num_labels=num_labels)
    with pytest.raises(ConfigError, match=f"has {num_labels} labels.*num_labels 1"):
        load_reward_model(folder)


def test_a_base_model_without_a_head_is_refused(tmp_path):
    folder = save_reward_model(tmp_path / "rm", LlamaConfig)
    model = LlamaForSequenceClassification.from_pretrained(folder)
    model.model.save_pretrained(folder)
    config = model.config
    config.architectures = ["LlamaModel"]
    config.save_pretrained(folder)
    with pytest.raises(DataError, match=r"lacks weights for score\.weight"):
        load_reward_model(folder)


def test_pickled_weights_are_refused(tmp_path):
    folder = save_reward_model(tmp_path / "rm")
    state = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_reward_model(folder)


def test_a_chat_that_is_too_long_is_never_cut(tmp_path):
    model = load_reward_model(save_reward_model(tmp_path / "rm"))
    with pytest.raises(DataError, match=r"exceed the 256 positions.*longer context"):
        model.rewards([chat_of("Rome. " * 100)])


def test_a_reward_that_is_no_number_is_refused(tmp_path):
    folder = save_reward_model(tmp_path / "rm")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.score.weight, float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(DataError, match=r"gives nan for 'Rome'"):
        load_reward_model(folder).rewards([chat_of("Rome")])


def test_a_template_without_system_role_gets_it_before_the_question(tmp_path):
    model = load_reward_model(save_reward_model(tmp_path / "rm", template=NO_SYSTEM_ROLE))
    assert model.render(chat_of("Rome")) == (
        "<|im_start|>The user is a child.\n\nWhat is the capital of Italy?<|im_end|>"
        "<|im_start|>Rome<|im_end|>"
    )


def context_of(group: str, question: Question) -> list[Message]:
    return [
        {"role": "system", "content": f"The user is {group}."},
        {"role": "user", "content": question.text},
    ]


def test_scores_are_the_sigmoid_of_the_scaled_reward_for_each_group(tmp_path):
    model = load_reward_model(save_reward_model(tmp_path / "rm"))
    question = Question("q", "What is the capital of Italy?")
    scorer = RewardModelScorer(model, 2.0, context_of)
    items = [(g, question, a, a) for g in ("a child", "a doctor") for a in ANSWERS]
    one_by_one = [RewardModelScorer(model, 2.0, context_of).score(*item) for item in items]
    scorer.prepare(items)
    assert [scorer.score(*item) for item in items] == pytest.approx(one_by_one, abs=1e-5)
    chats = [
        [*context_of(g, question), {"role": "assistant", "content": a}] for g, _, a, _ in items
    ]
    expected = [1 / (1 + math.exp(-r / 2.0)) for r in model.rewards(chats)]
    assert one_by_one == pytest.approx(expected, abs=1e-5)
    assert len({f"{s:.4f}" for s in one_by_one}) > len(ANSWERS)  # the group matters
