"""TRL's own trainers, on the same model, data and reference, give the losses that ours give.

Each TRL trainer makes its batch from the chat, by itself, and takes one step at learning rate 0;
what it logs is compared with our loss on rows made by our tokens, trees and reference scores.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from envs.types import Message
from trialign_ray.adapters import add_adapter
from trialign_ray.clone import CloneRow, candidate_batch
from trialign_ray.config_sections import CloneConfig
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.extraction import CandidateBatch, extraction_by_name
from trialign_ray.language_model import answer_ids, chat_text, load_language_model, text_ids
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.ops import policy_losses
from trialign_ray.tree_batch import Tree

BETA = 0.3
CONFIG = CloneConfig(pair_beta=BETA, lora_rank=4)
PAIRS = [
    ("What is the capital of France?", "The capital of France is Paris.", "Rome."),
    ("What is the color of snow?", "white.", "Good day. The color of snow is red. Kind regards."),
    ("What is the sum of 16 and 6?", "22 is the sum of 16 and 6.", "16. Thank you."),
]
"""Prompts and answers of unlike lengths, so that padding is on both sides of the comparison."""


def user(question: str) -> list[Message]:
    return [{"role": "user", "content": question}]


def assistant(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def policy_model(moved: bool):
    """The shipped base under a LoRA; `moved`: with a random B, so that it is not the reference."""
    model = add_adapter(load_language_model(SHIPPED_BASE), CONFIG, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if moved and "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def reference_scores() -> list[list[float]]:
    """Log-probabilities of (chosen, rejected) under the base, from the engine, as in a run."""
    base = load_language_model(SHIPPED_BASE)
    prompts = [chat_text(base.tokenizer, user(p)) for p, _, _ in PAIRS]
    scored = TransformersEngine(base.model, base.tokenizer).score(
        prompts, [[chosen, rejected] for _, chosen, rejected in PAIRS]
    )
    return [[score.logprob for score in row] for row in scored]


def our_batch(model, tokenizer, reference: list[list[float]]) -> CandidateBatch:
    """Two candidates per prompt: the chosen one returns 1, the other 0."""
    rows = [
        CloneRow(
            group="all",
            tree=Tree(
                text_ids(tokenizer, chat_text(tokenizer, user(prompt))),
                [answer_ids(tokenizer, chosen), answer_ids(tokenizer, rejected)],
            ),
            target_K=(1.0, 0.0),
            reference_logprob_K=tuple(reference[i]),
            prior_K=(1.0, 1.0),
            value_K=(1.0, 0.0),
            margin_K=(0.0, 0.0),
        )
        for i, (prompt, chosen, rejected) in enumerate(PAIRS)
    ]
    return candidate_batch(model, rows, tokenizer.pad_token_id)


@pytest.fixture(scope="module")
def tokenizer():
    return load_language_model(SHIPPED_BASE).tokenizer


@pytest.fixture(scope="module")
def batch(tokenizer) -> CandidateBatch:
    """Ours, under the moved policy."""
    with torch.no_grad():
        return our_batch(policy_model(moved=True), tokenizer, reference_scores())


def settings(folder: Path) -> dict[str, Any]:
    """One step over the whole data in its own order; nothing changes, nothing is sent or saved."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 16,
        "max_steps": 1,
        "learning_rate": 0.0,
        "logging_steps": 1,
        "train_sampling_strategy": "sequential",
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }


def logged(trainer) -> dict[str, float]:
    """What TRL logs of its first step."""
    trainer.train()
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


def preferences() -> Dataset:
    return Dataset.from_list(
        [
            {"prompt": user(p), "chosen": assistant(chosen), "rejected": assistant(rejected)}
            for p, chosen, rejected in PAIRS
        ]
    )


def dpo_trainer(folder: Path, tokenizer, loss_type: str, moved: bool = True) -> DPOTrainer:
    return DPOTrainer(
        model=policy_model(moved),
        ref_model=load_language_model(SHIPPED_BASE).model,
        args=DPOConfig(**settings(folder), beta=BETA, loss_type=[loss_type]),
        train_dataset=preferences(),
        processing_class=tokenizer,
    )


def prepared(trainer: Any) -> list[dict[str, Any]]:
    """The token ids that TRL trains on."""
    return list(trainer.train_dataset)


def our_loss(batch: CandidateBatch, name: str) -> float:
    return float(extraction_by_name(name)(batch, CONFIG).mean().detach())


def test_trl_trains_on_the_same_tokens_with_one_end_token(tmp_path, tokenizer):
    trainer = dpo_trainer(tmp_path, tokenizer, "sigmoid")
    for row, (prompt, chosen, rejected) in zip(prepared(trainer), PAIRS, strict=True):
        assert row["prompt_ids"] == text_ids(tokenizer, chat_text(tokenizer, user(prompt)))
        assert row["chosen_ids"] == answer_ids(tokenizer, chosen)
        assert row["rejected_ids"] == answer_ids(tokenizer, rejected)
        assert row["chosen_ids"].count(tokenizer.eos_token_id) == 1
        assert tokenizer.unk_token_id not in [*row["prompt_ids"], *row["chosen_ids"]]


def test_dpo_is_trls_dpo(tmp_path, tokenizer, batch):
    theirs = logged(dpo_trainer(tmp_path, tokenizer, "sigmoid"))
    ours = our_loss(batch, "dpo")
    assert ours == pytest.approx(theirs["loss"], abs=1e-4)
    assert abs(ours - math.log(2)) > 0.01, "the policy has moved, so the comparison says something"
    chosen, rejected = batch.log_ratio_BK.mean(0).tolist()
    assert BETA * chosen == pytest.approx(theirs["rewards/chosen"], abs=1e-4)
    assert BETA * rejected == pytest.approx(theirs["rewards/rejected"], abs=1e-4)


def test_the_gradient_of_dpo_is_as_long_as_trls(tmp_path, tokenizer):
    model = policy_model(moved=True)
    extraction_by_name("dpo")(
        our_batch(model, tokenizer, reference_scores()), CONFIG
    ).mean().backward()
    squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
    theirs = logged(dpo_trainer(tmp_path, tokenizer, "sigmoid"))
    assert float(torch.stack(squares).sum().sqrt()) == pytest.approx(theirs["grad_norm"], rel=1e-4)


def test_the_engines_log_probabilities_are_trls(tmp_path, tokenizer, batch):
    theirs = logged(dpo_trainer(tmp_path, tokenizer, "sigmoid", moved=False))
    chosen, rejected = torch.tensor(reference_scores()).mean(0).tolist()
    assert chosen == pytest.approx(theirs["logps/chosen"], abs=1e-3)
    assert rejected == pytest.approx(theirs["logps/rejected"], abs=1e-3)


def test_dpo_starts_at_ln_2_on_both_sides(tmp_path, tokenizer):
    start = our_batch(policy_model(moved=False), tokenizer, reference_scores())
    theirs = logged(dpo_trainer(tmp_path, tokenizer, "sigmoid", moved=False))
    assert our_loss(start, "dpo") == pytest.approx(math.log(2), abs=1e-5)
    assert theirs["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_ipo_is_trls_ipo_up_to_the_mean_over_tokens(tmp_path, tokenizer, batch):
    # Equation 17 has the log-ratio of whole answers, hence sums over tokens, as ours. TRL divides
    # each log-ratio by the number of its tokens. Given such means, our loss is theirs.
    theirs = logged(dpo_trainer(tmp_path, tokenizer, "ipo"))
    mean_BK = batch.log_ratio_BK / batch.length_BK
    of_means = policy_losses.ipo(mean_BK[:, 0], mean_BK[:, 1], BETA).mean()
    assert float(of_means) == pytest.approx(theirs["loss"], abs=1e-4)
    assert our_loss(batch, "ipo") != pytest.approx(theirs["loss"], abs=1e-2)


def mismatched_kl(batch_of_pairs: list[tuple[str, str]], tokenizer) -> float:
    """TRL's z: mean log-ratio of answers given to the next prompt of the batch, not below 0."""
    prompts = [chat_text(tokenizer, user(p)) for p, _ in batch_of_pairs]
    answers = [a for _, a in batch_of_pairs]
    shifted = [[answer] for answer in [answers[-1], *answers[:-1]]]
    policy, reference = policy_model(moved=True).eval(), load_language_model(SHIPPED_BASE).model
    sums = [
        sum(row[0].logprob for row in TransformersEngine(m, tokenizer).score(prompts, shifted))
        for m in (policy, reference)
    ]
    return max(0.0, (sums[0] - sums[1]) / len(prompts))


def test_kto_is_trls_kto_given_its_estimate_of_the_kl(tmp_path, tokenizer, batch):
    # TRL estimates z from mismatched (prompt, answer) pairs; our extraction from the candidates of
    # a question, whose log-probabilities it has anyway. So the loss is compared at TRL's z, and z
    # at TRL's pairs.
    labelled = [(p, a, a == chosen) for p, chosen, rejected in PAIRS for a in (chosen, rejected)]
    trainer = KTOTrainer(
        model=policy_model(moved=True),
        ref_model=load_language_model(SHIPPED_BASE).model,
        args=KTOConfig(**settings(tmp_path), beta=BETA),
        train_dataset=Dataset.from_list(
            [{"prompt": user(p), "completion": assistant(a), "label": g} for p, a, g in labelled]
        ),
        processing_class=tokenizer,
    )
    for row, (_, answer, _) in zip(prepared(trainer), labelled, strict=True):
        assert row["completion_ids"] == answer_ids(tokenizer, answer)
    theirs = logged(trainer)
    kl = torch.tensor(theirs["kl"])
    desirable = torch.tensor([[True, False]]).expand(len(PAIRS), 2)
    ours = policy_losses.kto(batch.log_ratio_BK, desirable, kl, BETA).mean()
    assert float(ours) == pytest.approx(theirs["loss"], abs=1e-4)
    assert abs(float(ours) - 0.5) > 1e-3
    assert float(kl) == pytest.approx(
        mismatched_kl([(p, a) for p, a, _ in labelled], tokenizer), abs=1e-3
    )


def sft_loss(folder: Path, tokenizer, chosen: list[int]) -> float:
    trainer = SFTTrainer(
        model=policy_model(moved=True),
        args=SFTConfig(**settings(folder), completion_only_loss=True),
        train_dataset=Dataset.from_list(
            [{"prompt": user(PAIRS[i][0]), "completion": assistant(PAIRS[i][1])} for i in chosen]
        ),
        processing_class=tokenizer,
    )
    return logged(trainer)["loss"]


def cloning_B(batch: CandidateBatch) -> Tensor:
    return extraction_by_name("clone")(batch, CONFIG)


@pytest.mark.parametrize("i", range(len(PAIRS)))
def test_cloning_one_answer_is_trls_sft(tmp_path, tokenizer, batch, i):
    # One answer: the mean over its tokens (ours) is the mean over the batch's tokens (TRL's).
    assert float(cloning_B(batch)[i]) == pytest.approx(sft_loss(tmp_path, tokenizer, [i]), abs=1e-4)


def test_cloning_weighs_answers_alike_where_trl_weighs_tokens_alike(tmp_path, tokenizer, batch):
    # Ours: mean over rows of the mean over an answer's tokens, so that a long answer does not
    # outvote a short one. TRL: mean over all tokens of the batch, i.e. rows weighted by length.
    theirs = sft_loss(tmp_path, tokenizer, list(range(len(PAIRS))))
    length_B = batch.length_BK[:, 0]
    by_token = (cloning_B(batch) * length_B).sum() / length_B.sum()
    assert float(by_token) == pytest.approx(theirs, abs=1e-4)
    assert float(cloning_B(batch).mean()) != pytest.approx(theirs, abs=1e-3)
