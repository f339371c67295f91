"""Small models of a real architecture, byte by byte: they read anything and know nothing."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and ChatML's marks; every text can be read and is given back as it was."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the answer is A", "the answer is B"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )


ANSWERS = ("A", "B", "C", "D", "4", "12")


def teach_answers(model, tokenizer, num_steps: int = 60, seed: int = 0) -> None:
    """Teaches a model to say one of `ANSWERS` to whatever it is asked."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    start = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    said = [[*tokenizer(a)["input_ids"], tokenizer.eos_token_id] for a in ANSWERS]
    length = max(map(len, said))
    for _ in range(num_steps):
        noise = torch.randint(0, len(tokenizer), (16, 24), generator=generator)
        chosen = torch.randint(0, len(said), (16,), generator=generator).tolist()
        rows = [said[c] + [-100] * (length - len(said[c])) for c in chosen]
        labels = torch.tensor(rows)
        prompt = torch.cat([noise, torch.tensor([start] * 16)], 1)
        ids = torch.cat([prompt, labels.clamp_min(0)], 1)
        loss = model(ids, labels=torch.cat([torch.full_like(prompt, -100), labels], 1)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def save_random_qwen2(folder: Path, seed: int = 0, teach: bool = False, **changes: Any) -> Path:
    """A Qwen2 of some thousand random parameters, as `save_pretrained` writes it.

    Args: teach: it learns to say something that can be understood as an answer (2 s).
    """
    tokenizer = byte_level_tokenizer()
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    }
    ids: dict[str, Any] = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        bos_token_id=None,
        **(sizes | ids | changes),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    if teach:
        teach_answers(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
