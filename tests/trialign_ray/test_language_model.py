"""Base models: mapped weights, the tiny tokenizer, refusals."""

import shutil
from pathlib import Path

import pytest
import torch

from envs.groups import load_pack
from envs.prompts import opening_messages
from envs.types import Message
from trialign_ray.engines import Decoding
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.errors import DataError
from trialign_ray.language_model import (
    answer_ids,
    chat_text,
    load_language_model,
    load_tokenizer,
    text_ids,
    unknown_words,
    weights_checksum,
)
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.supervised import IGNORED, encode_dialogue, shuffled_batches
from trialign_ray.tiny_lm import shipped_world, world_texts

CHAT: list[Message] = [{"role": "user", "content": "What is the capital of France?"}]


def test_weights_are_pages_of_the_file_and_keep_its_dtype():
    base = load_language_model(SHIPPED_BASE)
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(SHIPPED_BASE / "model.safetensors")):
            span, permissions = line.split()[:2]
            assert permissions.endswith("p"), "private: a write would copy the page, not the file"
            ranges.append(tuple(int(end, 16) for end in span.split("-")))
    for name, parameter in base.model.named_parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in ranges), name
        assert parameter.dtype == torch.float32 and not parameter.requires_grad


def test_the_shipped_vocabulary_covers_the_world():
    questions, groups = shipped_world()
    tokenizer = load_tokenizer(SHIPPED_BASE)
    assert unknown_words(tokenizer, world_texts(questions, groups)) == []
    assert unknown_words(tokenizer, ["What quokka?"]) == ["quokka"]


def test_text_survives_the_tokenizer():
    tokenizer = load_tokenizer(SHIPPED_BASE)
    text = "Good day. The capital of France is Paris. Kind regards."
    assert tokenizer.decode(answer_ids(tokenizer, text), skip_special_tokens=True) == text


def test_the_prompt_is_rendered_by_the_chat_template():
    text = chat_text(load_tokenizer(SHIPPED_BASE), CHAT)
    assert text == "<bos><user>What is the capital of France?<eos><assistant>"


def test_a_dialogue_teaches_the_last_answers_alone():
    tokenizer = load_tokenizer(SHIPPED_BASE)
    history: Message = {"role": "assistant", "content": "Paris."}
    row = encode_dialogue(tokenizer, [*CHAT, history, *CHAT, history], num_learned=1)
    learned = [i for i in row.labels if i != IGNORED]
    assert learned == answer_ids(tokenizer, "Paris.") and row.ids[-len(learned) :] == learned
    assert len(row.ids) == len(row.labels) and row.kind == 4


def test_batches_hold_one_kind_and_every_row_is_used_alike():
    kinds = [1] * 40 + [2] * 20
    batches = shuffled_batches(kinds, 4, epochs=3, seed=0)
    assert len(batches) == 45 and all(len({kinds[i] for i in b}) == 1 for b in batches)
    counts = [sum(i in b for b in batches) for i in range(60)]
    assert set(counts) == {3}
    assert shuffled_batches([1, 2], 8, 1, 0), "fewer rows than a batch still make one"


def test_generation_is_greedy_at_temperature_zero_and_seeded_otherwise():
    base = load_language_model(SHIPPED_BASE)
    engine = TransformersEngine(base.model, base.tokenizer)
    group = load_pack("truthworld").groups[0]
    prompts = [
        chat_text(base.tokenizer, opening_messages(CHAT[0]["content"], "explicit", group)),
        chat_text(base.tokenizer, CHAT),
    ]
    greedy = engine.generate(prompts, Decoding(0.0, 24, 2))
    assert all("Paris" in u.text and not u.truncated for u in greedy)
    assert greedy == engine.generate(prompts, Decoding(0.0, 24, 2, seed=5))
    sampled = [engine.generate(prompts * 8, Decoding(1.0, 24, 4, seed=s)) for s in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    (cut,) = engine.generate(prompts[:1], Decoding(0.0, 2, 1))
    assert cut.truncated and len(cut.token_ids) == 2


def test_log_probabilities_of_generation_and_of_scoring_agree():
    base = load_language_model(SHIPPED_BASE)
    engine = TransformersEngine(base.model, base.tokenizer)
    prompts = [chat_text(base.tokenizer, CHAT)]
    (said,) = engine.generate(prompts, Decoding(0.0, 24, 1))
    ((score,),) = engine.score(prompts, [[said.text]])
    assert score.logprob == pytest.approx(said.logprob, abs=1e-4)
    assert score.num_tokens == len(said.token_ids)


def test_the_checksum_knows_other_weights(tmp_path):
    shutil.copytree(SHIPPED_BASE, tmp_path / "copy")
    assert weights_checksum(tmp_path / "copy") == weights_checksum(SHIPPED_BASE)
    with (tmp_path / "copy" / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert weights_checksum(tmp_path / "copy") != weights_checksum(SHIPPED_BASE)


def test_pickled_weights_and_missing_templates_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(DataError, match=r"no \.safetensors weights"):
        load_language_model(tmp_path)
    shutil.copytree(SHIPPED_BASE, tmp_path / "copy")
    (tmp_path / "copy" / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="no chat template"):
        load_language_model(tmp_path / "copy")
    assert text_ids(load_tokenizer(SHIPPED_BASE), "") == []
