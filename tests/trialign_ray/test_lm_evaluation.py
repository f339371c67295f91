"""lm-evaluation-harness for real, on a task of our own, with the tiny model and no network."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from envs.truthworld.facts import load_facts
from tests.trialign_ray.finished_run import copied, finished_run
from trialign_ray.checkpoint import file_sha256
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.lm_evaluation import BASE, HarnessOptions, evaluate_with_harness

TASK = """
task: tiny_facts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
NUM_FACTS = 10


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("lm_eval", reason="needs the lm-eval extra")
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Facts that the base knows, the right answer among three wrong ones."""
    folder = tmp_path_factory.mktemp("tasks")
    facts = [q for q in load_facts() if len(q.choices) > 3][:NUM_FACTS]
    rows = [
        {
            "question": q.text,
            "choices": [*[c for c in q.choices if c != q.gold[0]][:3], q.gold[0]],
            "answer": 3,
        }
        for q in facts
    ]
    file = folder / "facts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "facts.yaml").write_text(TASK.format(file=file))
    return folder


@pytest.fixture(scope="module")
def results(finished, tasks, tmp_path_factory):
    """The base, one group as it was trained, and one whose adapter was replaced by noise."""
    run, config = finished
    run = copied(run, tmp_path_factory.mktemp("lm_eval") / "run")
    file = run.adapter_dir("birch") / "adapter_model.safetensors"
    generator = torch.Generator().manual_seed(0)
    noise = {k: torch.randn(t.shape, generator=generator) for k, t in load_file(file).items()}
    save_file(noise, file, metadata={"format": "pt"})
    record = json.loads(run.training_file.read_text())
    record["adapter_sha256"]["birch"] = file_sha256(file)
    run.training_file.write_text(json.dumps(record))
    options = HarnessOptions(("tiny_facts",), include=tasks, with_base=True)
    return {r.group: r for r in evaluate_with_harness(run, config, options)}


def accuracy(results, group: str) -> float:
    return results[group].metrics["tiny_facts"]["acc,none"]


def test_the_base_knows_its_facts_and_noise_in_an_adapter_shows(results):
    assert accuracy(results, BASE) == 1.0
    assert accuracy(results, "birch") < 0.8, "the adapter is what the harness evaluates"


def test_results_are_kept_with_profile_and_versions(results):
    record = json.loads(results["amber"].file.read_text())
    assert record["group"] == "amber" and record["system_instruction"].startswith("Reader Amber")
    assert record["results"]["tiny_facts"]["acc,none"] == accuracy(results, "amber")
    assert record["num_documents"]["tiny_facts"]["effective"] == NUM_FACTS
    assert {"lm_eval", "torch", "transformers", "peft"} <= record["packages"].keys()
    assert json.loads(results[BASE].file.read_text())["system_instruction"] is None
    (line,) = [x for x in results["amber"].lines() if x[1] == "acc,none"]
    assert line[0] == "tiny_facts" and float(line[3]) >= 0


def test_the_model_reads_the_question_under_the_groups_profile(finished, tasks, tmp_path):
    import lm_eval
    from lm_eval.api.model import LM

    from trialign_ray.lm_evaluation import _evaluate, _task_manager

    heard: list[str] = []

    class Listener(LM):
        """A model that finds every answer as likely, and remembers what it was asked."""

        @property
        def tokenizer_name(self):
            return "listener"

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return json.dumps(chat_history)

        def loglikelihood(self, requests):
            heard.extend(request.args[0] for request in requests)
            return [(0.0, False)] * len(requests)

        def loglikelihood_rolling(self, requests):
            return []

        def generate_until(self, requests):
            return []

    options = HarnessOptions(("tiny_facts",), include=tasks, limit=2)
    manager = _task_manager(options)
    _evaluate(lm_eval, Listener(), ["tiny_facts"], manager, "Reader Amber likes tea.", options)
    chats = [json.loads(text) for text in heard]
    assert len(chats) == 2 * 4
    assert all(c[0] == {"role": "system", "content": "Reader Amber likes tea."} for c in chats)
    assert chats[0][-1]["role"] == "user" and "?" in chats[0][-1]["content"]


def test_an_unknown_task_is_named_with_those_that_are_near(finished, tasks):
    options = HarnessOptions(("tiny_fact",), include=tasks)
    with pytest.raises(ConfigError, match=r"'tiny_fact', which is no task .*mean tiny_facts"):
        evaluate_with_harness(finished[0], finished[1], options)
    with pytest.raises(ConfigError, match="--tasks is empty"):
        evaluate_with_harness(finished[0], finished[1], HarnessOptions((), include=tasks))


def test_a_task_whose_data_are_not_there_is_an_error_of_data(finished, tmp_path):
    (tmp_path / "facts.yaml").write_text(TASK.format(file=tmp_path / "none.jsonl"))
    options = HarnessOptions(("tiny_facts",), ("amber",), include=tmp_path)
    with pytest.raises(DataError, match="cannot run tiny_facts"):
        evaluate_with_harness(finished[0], finished[1], options)


def test_without_the_extra_the_error_says_what_to_install(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"trialign-ray\[lm-eval\]"):
        evaluate_with_harness(finished[0], finished[1], HarnessOptions(("arc_easy",)))
