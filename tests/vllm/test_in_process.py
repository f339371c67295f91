"""vLLM in this process says what the transformers engine says, and finds it as likely."""

import shutil

import pytest
import torch

from tests.trialign_ray.tiny_models import save_random_qwen2
from tests.vllm.shipped_adapters import (
    GREEDY,
    GROUPS,
    SAMPLED,
    largest_distance,
    num_different,
    write_adapter,
)
from trialign_ray.config_models import EngineConfig, ModelConfig
from trialign_ray.engines import Decoding
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.engines.vllm import Call, VLLMEngine
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.language_model import chat_text, load_language_model
from trialign_ray.model_source import SHIPPED_BASE

pytestmark = pytest.mark.vllm
OPTIONS = EngineConfig(kind="vllm", cache_gib=0.1)


@pytest.fixture(scope="module")
def own_adapters(adapters, tmp_path_factory):
    """The adapters, and one that this module's tests may change."""
    changing = write_adapter(tmp_path_factory.mktemp("changing") / "changing", 11)
    return adapters | {"changing": changing, "later": changing.with_name("later")}


@pytest.fixture(scope="module")
def engine(own_adapters):
    engine = VLLMEngine(SHIPPED_BASE, own_adapters, OPTIONS, max_lora_rank=8)
    yield engine
    engine.close()


def test_greedy_answers_are_those_of_transformers_for_every_adapter_in_one_batch(
    engine, prompts, reference
):
    said = engine.generate_calls([Call(prompts[g], GREEDY, g) for g in GROUPS])
    texts = set()
    for group, own in zip(GROUPS, said, strict=True):
        expected = reference.generate(prompts[group], GREEDY, group)
        assert num_different(own, expected) == 0
        assert largest_distance(own, expected) < 1e-3
        texts.add(tuple(u.text for u in own))
    assert len(texts) == len(GROUPS)


def test_the_base_is_not_touched_by_adapters_asked_at_the_same_time(engine, prompts, reference):
    first = GROUPS[0]
    calls = [Call(prompts[first], GREEDY, first), Call(prompts[first], GREEDY)]
    adapted, plain = engine.generate_calls(calls)
    assert num_different(plain, reference.generate(prompts[first], GREEDY)) == 0
    assert num_different(adapted, plain) > 0


def test_answers_that_the_limit_cuts_are_marked(engine, prompts, reference):
    short = Decoding(0.0, 2, 64)
    said = engine.generate(prompts[GROUPS[1]], short)
    assert num_different(said, reference.generate(prompts[GROUPS[1]], short)) == 0
    assert any(u.truncated for u in said)
    assert all(len(u.token_ids) == 2 for u in said if u.truncated)


def test_scores_are_those_of_transformers_with_and_without_an_adapter(engine, prompts, reference):
    own = prompts[GROUPS[2]][:18]
    candidates = [["Paris.", [5, 9, 3]], ["I do not know."], ["9", "The capital.", "."]] * 6
    for adapter in (None, GROUPS[2]):
        found = engine.score(own, candidates, adapter)
        expected = reference.score(own, candidates, adapter)
        for mine, other in zip(found, expected, strict=True):
            assert [s.num_tokens for s in mine] == [s.num_tokens for s in other]
            assert [s.logprob for s in mine] == pytest.approx([s.logprob for s in other], abs=1e-3)


def test_a_sampled_answer_depends_on_its_prompt_and_seed_alone(engine, prompts):
    own = prompts[GROUPS[0]]
    said = engine.generate(own, SAMPLED, GROUPS[0])
    backwards = engine.generate(own[::-1], SAMPLED, GROUPS[0])[::-1]
    few = engine.generate(own[:5], SAMPLED, GROUPS[0])
    assert num_different(said, backwards) == 0
    assert num_different(said[:5], few) == 0
    other = Decoding(1.0, 24, 64, seed=6)
    assert num_different(said, engine.generate(own, other, GROUPS[0])) > 0


def test_more_sampled_prompts_than_one_pass_takes_are_all_answered(engine, prompts):
    """About 12,000 tokens: vLLM would split a prompt where a pass of 4,096 ends."""
    many = prompts[GROUPS[0]] * 8
    said = engine.generate(many, SAMPLED)
    assert num_different(said[:60], engine.generate(many[:60], SAMPLED)) == 0


def test_a_prompt_that_is_asked_again_is_answered_anew(engine, prompts):
    said = engine.generate(prompts[GROUPS[0]][:1] * 40, Decoding(2.0, 24, 64))
    assert len({u.token_ids for u in said}) > 10


def test_logprobs_are_at_temperature_1_however_hot_the_sampling(engine, prompts):
    own = prompts[GROUPS[0]][:20]
    said = engine.generate(own, Decoding(2.0, 24, 64, seed=1))
    scores = engine.score(own, [[u.token_ids] for u in said])
    assert [u.logprob for u in said] == pytest.approx([s[0].logprob for s in scores], abs=1e-3)


def test_an_adapter_with_new_weights_is_read_again(engine, own_adapters, prompts, tmp_path):
    own = prompts[GROUPS[0]]
    before = engine.generate(own, GREEDY, "changing")
    write_adapter(tmp_path / "new", 12)
    shutil.copytree(tmp_path / "new", own_adapters["changing"], dirs_exist_ok=True)
    after = engine.generate(own, GREEDY, "changing")
    assert num_different(before, after) > 0


def test_an_adapter_may_be_written_after_the_start(engine, own_adapters, prompts):
    own = prompts[GROUPS[0]][:3]
    with pytest.raises(DataError, match="finish the training"):
        engine.generate(own, GREEDY, "later")
    shutil.copytree(own_adapters[GROUPS[0]], own_adapters["later"])
    later = engine.generate(own, GREEDY, "later")
    assert num_different(later, engine.generate(own, GREEDY, GROUPS[0])) == 0


def test_an_unknown_adapter_is_refused_by_name(engine, prompts):
    with pytest.raises(ConfigError, match=r"no adapter 'nobody'; it has: .*amber"):
        engine.generate(prompts[GROUPS[0]][:1], GREEDY, "nobody")


def test_a_prompt_that_leaves_no_room_for_the_answer_is_refused(engine):
    with pytest.raises(DataError, match="256 positions"):
        engine.generate(["Paris " * 240], GREEDY)


def test_nothing_asked_is_nothing_answered(engine):
    assert engine.generate([], GREEDY) == []
    assert engine.score([], []) == []


def test_a_random_qwen2_answers_alike_and_a_closed_engine_no_more(tmp_path):
    folder = save_random_qwen2(tmp_path / "qwen2", hidden_size=128, num_attention_heads=4)
    base = load_language_model(folder)
    chats = [
        chat_text(base.tokenizer, [{"role": "user", "content": f"Is {i} + {i} even?"}])
        for i in range(8)
    ]
    expected = TransformersEngine(base.model, base.tokenizer).generate(chats, GREEDY)
    threads = torch.get_num_threads()
    random_state = torch.random.get_rng_state()
    engine = VLLMEngine(folder, {}, OPTIONS)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), random_state)
    said = engine.generate(chats, GREEDY)
    assert num_different(said, expected) == 0
    assert largest_distance(said, expected) < 1e-3
    engine.close()
    engine.close()
    with pytest.raises(ConfigError, match="closed"):
        engine.generate(chats, GREEDY)


def test_a_model_that_vllm_cannot_load_is_named_with_the_reason():
    with pytest.raises(ConfigError, match=r"(?s)vLLM cannot load .*lm: .*512"):
        VLLMEngine(SHIPPED_BASE, {}, OPTIONS, ModelConfig(max_length=512))


def test_heads_that_the_cpu_kernels_do_not_take_are_refused_before_the_first_prompt(tmp_path):
    folder = save_random_qwen2(tmp_path / "qwen2")
    with pytest.raises(ConfigError, match=r"qwen2 on a CPU: .* 8 dimensions.* 32, 64"):
        VLLMEngine(folder, {}, OPTIONS)


def test_a_temperature_beyond_vllms_own_limit_is_refused(engine, prompts):
    with pytest.raises(ConfigError, match=r"temperature 3 .*collect\.temperature"):
        engine.generate(prompts[GROUPS[0]][:1], Decoding(3.0, 24, 64))
