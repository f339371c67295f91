"""Traps of real models: dtypes, end tokens, BOS, templates, length limits, sampling defaults."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from envs.types import Message
from tests.trialign_ray.architectures import save_random
from trialign_ray.adapters import add_adapter, wrap
from trialign_ray.config_models import ModelConfig
from trialign_ray.config_sections import CloneConfig
from trialign_ray.engines import Decoding
from trialign_ray.engines.transformers import TransformersEngine, _batches
from trialign_ray.errors import ConfigError, DataError, TrialignError
from trialign_ray.language_model import (
    answer_ids,
    chat_text,
    end_ids,
    load_language_model,
    load_tokenizer,
    text_ids,
)
from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees

ASK: list[Message] = [{"role": "user", "content": "Is it?"}]
GREEDY = Decoding(0.0, 6, 4)


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_random(tmp_path / "model", "llama")


def rewrite(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def mapped(file: Path) -> list[tuple[int, int]]:
    """Address ranges of this process that are pages of the file."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if line.endswith(str(file))]
    return [(int(low, 16), int(high, 16)) for low, high in spans]


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_weights_of_the_files_dtype_are_never_copied(dtype, folder):
    file = folder / "model.safetensors"
    save_file({k: v.bfloat16() for k, v in load_file(file).items()}, file, {"format": "pt"})
    model = add_adapter(
        load_language_model(folder, ModelConfig(dtype=dtype)), CloneConfig(lora_rank=2), seed=0
    )
    ranges = mapped(file)
    for name, parameter in model.named_parameters():
        inside = any(low <= parameter.data_ptr() < high for low, high in ranges)
        assert inside != ("lora_" in name), name
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)


def test_another_dtype_is_given_on_request(folder):
    model = load_language_model(folder, ModelConfig(dtype="float16")).model
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_weights_that_the_file_lacks_are_not_made_up(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(DataError, match=r"lack.* 1 of .*model\.layers\.1\.mlp\.up_proj\.weight"):
        load_language_model(folder)


def test_every_end_token_ends_an_utterance_and_is_itself_scored(folder):
    rewrite(folder / "generation_config.json", eos_token_id=[2, 65, 66, 67, 68, 69, 70])
    base = load_language_model(folder)
    assert end_ids(base.tokenizer) == (2, 65, 66, 67, 68, 69, 70), "the template's own first"
    engine = TransformersEngine(base.model, base.tokenizer)
    said = engine.generate(["ab", "cd", "ef", "gh"] * 16, Decoding(1.0, 40, 64, seed=1))
    last = {u.token_ids[-1] for u in said if not u.truncated}
    assert len(last) > 1, "several of them were used"
    for utterance in said:
        inner = utterance.token_ids[: None if utterance.truncated else -1]
        assert not set(inner) & set(end_ids(base.tokenizer))
        assert utterance.text == base.tokenizer.decode(inner, skip_special_tokens=True)
    scores = engine.score(["ab", "cd", "ef", "gh"] * 16, [[u.token_ids] for u in said])
    for utterance, (score,) in zip(said, scores, strict=True):
        assert score.logprob == pytest.approx(utterance.logprob, abs=1e-3)
        assert score.num_tokens == len(utterance.token_ids)


def test_the_usual_end_is_what_the_template_writes_not_the_tokenizers(folder):
    rewrite(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    rewrite(folder / "generation_config.json", eos_token_id=[0, 2])
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eos_token == "<|endoftext|>"
    assert end_ids(tokenizer) == (2, 0) and answer_ids(tokenizer, "A")[-1] == 2


def test_a_model_that_names_no_end_token_is_refused(folder):
    for name in ("tokenizer_config.json", "generation_config.json", "config.json"):
        rewrite(folder / name, eos_token=None, eos_token_id=None)
    with pytest.raises(DataError, match="names an end token"):
        load_tokenizer(folder)


def test_a_missing_pad_token_and_padding_on_the_right_change_no_answer(folder):
    prompts = ["a", "a much longer prompt", "b c"]
    base = load_language_model(folder)
    alone = [
        TransformersEngine(base.model, base.tokenizer).generate([p], GREEDY)[0] for p in prompts
    ]
    rewrite(folder / "tokenizer_config.json", pad_token=None, padding_side="right")
    again = load_language_model(folder)
    assert again.tokenizer.pad_token_id == end_ids(again.tokenizer)[0]
    again.tokenizer.padding_side = "right"
    together = TransformersEngine(again.model, again.tokenizer).generate(prompts, GREEDY)
    assert [u.token_ids for u in together] == [u.token_ids for u in alone]


def test_bos_is_written_by_the_template_alone(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(folder)
    assert loaded("x")["input_ids"][0] == 1, "by itself it would add one more"
    ids = text_ids(loaded, chat_text(loaded, ASK))
    assert ids.count(1) == 1 and ids[0] == 1


def test_a_template_without_system_role_gets_the_profile_before_the_question(folder):
    (folder / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    tokenizer = load_tokenizer(folder)
    text = chat_text(tokenizer, [{"role": "system", "content": "A nurse."}, *ASK])
    assert text == "<user>A nurse.\n\nIs it?"
    wrong: list[Message] = [
        {"role": "system", "content": "A"},
        {"role": "assistant", "content": "B"},
    ]
    with pytest.raises(DataError, match="roles system, assistant: System role not supported"):
        chat_text(tokenizer, wrong)


def test_a_template_with_a_mistake_is_named_at_load(folder, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}")
    with pytest.raises(DataError, match="cannot render"):
        load_tokenizer(folder, ModelConfig(chat_template=str(file)))
    with pytest.raises(DataError, match=r"model\.chat_template .*nowhere\.jinja cannot be read"):
        load_tokenizer(folder, ModelConfig(chat_template="nowhere.jinja"))


def test_no_thinking_aloud_and_no_date_of_today(folder):
    (folder / "chat_template.jinja").write_text(
        "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
        "{{ date_string if date_string is defined else strftime_now('%Y') }}"
    )
    assert chat_text(load_tokenizer(folder), ASK) == "26 Jul 2024"


def test_the_makers_sampling_advice_does_not_touch_the_policy(folder):
    base = load_language_model(folder)
    plain = TransformersEngine(base.model, base.tokenizer).generate(["ab"] * 8, Decoding(1, 20, 8))
    advice = {"repetition_penalty": 9.0, "top_p": 0.01, "top_k": 1, "no_repeat_ngram_size": 1}
    rewrite(folder / "generation_config.json", do_sample=True, **advice)
    base = load_language_model(folder)
    advised = TransformersEngine(base.model, base.tokenizer).generate(
        ["ab"] * 8, Decoding(1, 20, 8)
    )
    assert advised == plain


def test_too_long_is_an_error_with_the_number_of_tokens(folder):
    base = load_language_model(folder, ModelConfig(max_length=40))
    engine = TransformersEngine(base.model, base.tokenizer)
    prompt = "z" * 30
    with pytest.raises(DataError, match=r"prompt of 30 and answer of up to 11 tokens exceed .* 40"):
        engine.generate([prompt], Decoding(0.0, 11, 1))
    assert engine.generate([prompt], Decoding(0.0, 10, 1))
    with pytest.raises(DataError, match=r"prompt of 30 and answer of 11 .* \(41 in all\)"):
        engine.score([prompt], [["y" * 10]])
    assert engine.score([prompt], [["y" * 9]])[0][0].num_tokens == 10
    adapted = add_adapter(base, CloneConfig(lora_rank=2), seed=0)
    with pytest.raises(DataError, match=r"prompt of 30 and answer of 11 tokens"):
        candidate_logprobs(adapted, pack_trees([Tree([5] * 30, [[6] * 11])], 0, 256))
    with pytest.raises(DataError, match=r"model\.max_length is 300, but the model has 256"):
        load_language_model(folder, ModelConfig(max_length=300))


def test_gradient_checkpointing_keeps_less_and_gives_the_same_gradients(folder):
    found = []
    for recompute in (False, True):
        base = load_language_model(folder, ModelConfig(gradient_checkpointing=recompute))
        model = add_adapter(base, CloneConfig(lora_rank=2), seed=0).train()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, k=kept: (k.append(t.numel()), t)[1], lambda t: t
        ):
            logprob, _ = candidate_logprobs(
                model, pack_trees([Tree([5] * 20, [[6] * 4, [7] * 3])], 0, None)
            )
        logprob.sum().backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        found.append((sum(kept), grads))
    (all_kept, plain), (few_kept, recomputed) = found
    assert few_kept < all_kept / 2
    assert max(float(g.abs().max()) for g in plain) > 0
    for one, other in zip(plain, recomputed, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_large_vocabulary_gets_smaller_scoring_batches():
    trees = [Tree([1], [[2] * 64] * 8)] * 33
    assert [len(b) for b in _batches(trees, 300)] == [32, 1]
    sizes = [len(b) for b in _batches(trees, 151936)]
    assert sum(sizes) == 33 and max(sizes) == 3
    assert [len(b) for b in _batches(trees[:2], 2**30)] == [1, 1], "one is always taken"


def test_unknown_target_modules_are_answered_with_those_there_are(folder):
    base = load_language_model(folder)
    with pytest.raises(ConfigError, match=r"names q_porj, which .*: down_proj, gate_proj, k_proj"):
        add_adapter(base, CloneConfig(target_modules="q_porj, v_proj"), seed=0)
    with pytest.raises(ConfigError, match="names nothing"):
        add_adapter(base, CloneConfig(target_modules=" , "), seed=0)
    model = add_adapter(base, CloneConfig(target_modules="q_proj, v_proj"), seed=0)
    adapted = {
        n.split(".lora_")[0].rsplit(".", 1)[-1] for n, _ in model.named_parameters() if "lora_" in n
    }
    assert adapted == {"q_proj", "v_proj"}


def test_a_base_is_never_wrapped_twice(folder):
    base = load_language_model(folder)
    wrap(base.model, CloneConfig(lora_rank=2), seed=0)
    with pytest.raises(TrialignError, match="already carries an adapter"):
        add_adapter(base, CloneConfig(lora_rank=2), seed=0)
