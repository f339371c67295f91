"""The arithmetic of a run, for `--dry-run`: what is asked, trained, reserved, held in memory."""

import os
from pathlib import Path

from envs.prompts import opening_messages
from trialign_ray.actors.placement import total
from trialign_ray.checks import check_models, check_vocabulary
from trialign_ray.config import Config
from trialign_ray.errors import UnreachableModel
from trialign_ray.setting import Setting

NUM_PROMPTS_READ = 100


def resources_here() -> dict[str, float]:
    """What a Ray started on this machine would have."""
    import torch

    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}


def memory_lines(config: Config, setting: Setting) -> list[str]:
    """What the actors will need of memory, in words; why not, where the model is not at hand."""
    from trialign_ray.assembly import Assembly
    from trialign_ray.memory_plan import Workload, memory_plan
    from trialign_ray.run_directory import RunDirectory

    assembly = Assembly(config, setting, RunDirectory(Path()), local=True)
    try:
        check_models(config)
        folder = assembly.facts_base if config.fits_behaviour else assembly.behaviour_dir
        check_vocabulary(config, setting)
    except UnreachableModel as error:
        return [f"memory: not estimated, {error}"]
    work = Workload(
        prompt=_longest_prompt(config, setting, folder),
        answer=config.collect.max_new_tokens,
        generated_at_once=config.collect.batch_size,
    )
    return memory_plan(folder, config.clone, config.model, len(setting.groups), work).lines()


def _longest_prompt(config: Config, setting: Setting, folder: Path) -> int:
    """Tokens of the longest of some hundred prompts."""
    from trialign_ray.language_model import chat_text, load_tokenizer, text_ids

    tokenizer = load_tokenizer(folder, config.model)
    some = setting.questions[:: max(1, len(setting.questions) // NUM_PROMPTS_READ)]
    group = max(setting.groups, key=lambda g: len(g.profile))
    texts = [chat_text(tokenizer, opening_messages(q.text, "explicit", group)) for q in some]
    return max(len(text_ids(tokenizer, text)) for text in texts)


def plan(config: Config, setting: Setting) -> dict[str, float]:
    """The arithmetic of a run: what is asked, generated, trained, and reserved."""
    num_groups = len(setting.groups)
    train, test = setting.of_split("train"), setting.of_split("test")
    episodes = len(train) * config.collect.episodes_per_question
    reserved, engine = total(num_groups, config.resources), config.engine
    own_engine = {"vllm": 1, "ray_data": engine.concurrency}.get(engine.kind, 0)
    one_model = not config.fits_behaviour and config.behaviour.given == config.behaviour.base
    beside = {
        "CPUs of vLLM beside them": own_engine * engine.cpus,
        "GPUs of vLLM beside them": own_engine * engine.gpus,
    }
    return {
        "actors": num_groups + 1,
        "CPUs reserved": reserved["CPU"],
        "GPUs reserved": reserved.get("GPU", 0.0),
        **(beside if own_engine else {}),
        "questions in the log": len(train),
        "of these verified": round(config.collect.label_fraction * sum(q.has_truth for q in train)),
        "held-out questions": len(test),
        "episodes": episodes,
        "utterances in the log": episodes * config.collect.turns * num_groups,
        "updates per adapter": config.clone.steps,
        "evaluation answers": (2 if one_model else 3)
        * len(config.evaluate.modes)
        * len(test)
        * num_groups,
    }
