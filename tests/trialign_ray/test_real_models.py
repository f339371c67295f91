"""A Hugging Face model in the tiny LM's place, by configuration alone: the whole way, in small."""

import json
import os
from pathlib import Path

import pytest

from tests.trialign_ray.runs import run_all
from tests.trialign_ray.small_runs import write_questions
from tests.trialign_ray.tiny_models import save_random_qwen2
from trialign_ray.assembly import Assembly
from trialign_ray.config import load_config
from trialign_ray.dataset import read_dataset
from trialign_ray.errors import ConfigError
from trialign_ray.progress import Progress
from trialign_ray.run import make_recipe
from trialign_ray.run_directory import open_run
from trialign_ray.setting import build_setting

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "qwen.yaml"
DATA = Path(os.environ.get("TRIALIGN_DATA", ROOT.parent / "shared" / "data"))
IN_SMALL = (
    "model.dtype=float32",
    "world.max_questions=8",
    "world.train_fraction=0.4",
    "world.validation_fraction=0.2",
    "world.num_groups=3",
    "collect.episodes_per_question=3",
    "collect.max_new_tokens=8",
    "collect.label_fraction=0.6",
    "critic.steps=10",
    "clone.steps=2",
    "clone.batch_size=2",
    "evaluate.num_resamples=100",
    "engine.kind=transformers",
    "resources.gpus_per_group=0",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    if not DATA.is_dir():
        pytest.skip(f"no benchmark files at {DATA}; TRIALIGN_DATA names another folder")
    folder = tmp_path_factory.mktemp("real")
    model = save_random_qwen2(folder / "model", teach=True)
    sets = [*IN_SMALL, f"behaviour.base={model}", f"world.data_dir={DATA}"]
    config = load_config(EXAMPLE, sets)
    run = open_run(folder / "run", config, resume=False)
    setting = build_setting(config, run.root)
    recipe = make_recipe(config, setting, run, Progress(run.root), local=True)
    return run, setting, run_all(recipe)


def test_the_example_runs_to_the_end_with_a_random_model_in_its_place(finished):
    run, setting, evaluation = finished
    names = {g.name for g in setting.groups}
    assert set(evaluation["models"]["aligned"]["truth"]["by_group"]) == names
    assert (run.root / "report.html").is_file()
    training = json.loads(run.training_file.read_text())
    assert set(training["adapter_sha256"]) == names
    assert len(set(training["adapter_sha256"].values())) == len(setting.groups)


def test_the_log_is_of_both_sources_in_the_models_own_chat_format(finished):
    run, _, _ = finished
    rows = read_dataset(run.log_file)
    assert {r["source"].split("/")[0].split(":")[0] for r in rows} == {"truthfulqa_mc", "gsm8k"}
    prompt = rows[0]["prompt_text"][0]
    assert prompt.startswith("<|im_start|>system\n") and prompt.endswith("<|im_start|>assistant\n")


def test_groups_that_share_a_question_share_its_paraphrase_number(finished):
    run, setting, _ = finished
    for row in read_dataset(run.log_file):
        variants = {
            next(v for v, text in enumerate(g.profile_variants) if text in row["prompt_text"][i])
            for i, g in enumerate(setting.groups)
        }
        assert len(variants) == 1


def test_base_and_behaviour_are_one_model_and_controls_stand_beside_them(finished):
    _, setting, evaluation = finished
    assert evaluation["models"]["behaviour"] == evaluation["models"]["facts_base"]
    controls = evaluation["controls"]
    assert len(controls["personas"]["by_control"]) == 5
    assert set(controls["no_persona"]["aligned"]) == {g.name for g in setting.groups}


def test_a_given_chat_template_is_what_prompts_are_rendered_by(tmp_path):
    model = save_random_qwen2(tmp_path / "model")
    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}>")
    questions = write_questions(tmp_path / "q.jsonl")
    config = load_config(
        None,
        [
            *(f"behaviour.base={model}", f"model.chat_template={template}"),
            *(f"world.questions={questions}", "world.train_fraction=0.4"),
        ],
    )
    run = open_run(tmp_path / "run", config, resume=False)
    render = Assembly(config, build_setting(config), run, local=True).render
    assert render([{"role": "user", "content": "Hi"}]) == "[user] Hi>"


def test_an_id_that_stands_in_two_sources_is_refused(tmp_path):
    first, second = (write_questions(tmp_path / name) for name in ("a.jsonl", "b.jsonl"))
    config = load_config(None, [f"world.questions=[{first}, {second}]"])
    with pytest.raises(ConfigError, match="occurs 2 times in"):
        build_setting(config)
