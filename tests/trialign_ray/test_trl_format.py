"""TRL's formats: how answers become pairs and labels, and that TRL trains on what is written."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tests.trialign_ray.finished_run import GROUPS, copied, finished_run
from tests.trialign_ray.runs import UNREACHABLE_JUDGE
from trialign_ray.candidates import Candidate, GroupView, JointQuestion
from trialign_ray.config import Config, load_config
from trialign_ray.dataset import read_dataset
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.language_model import chat_text, load_language_model
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.trl.export import export_trl
from trialign_ray.trl.format import TrlOptions, scored_answers, trl_rows

ONE_STEP = {
    "per_device_train_batch_size": 4,
    "max_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "logging_steps": 1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    """All formats with chat messages, as JSON lines."""
    out = tmp_path_factory.mktemp("trl") / "data"
    return out, export_trl(finished[0], finished[1], out, (), TrlOptions(margin=0.0))


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: Any = load_dataset("json", data_files=str(folder / f"{name}.jsonl"), split="train")
    return list(rows)


def test_no_scorer_is_built_to_export_answers_that_are_scored(finished, tmp_path):
    run, config = finished
    judged = config.model_copy(update={"preferences": (UNREACHABLE_JUDGE,)})
    assert export_trl(run, judged, tmp_path / "data", (), TrlOptions(margin=0.0))["unpaired"]


def question(has_truth: bool, *candidates: Candidate) -> JointQuestion:
    view = GroupView("prompt", candidates, {}, {}, {}, {})
    answers = tuple(sorted({c.answer for c in candidates}))
    return JointQuestion("q", "truth" if has_truth else "subjective", False, answers, {"a": view})


def score_of(candidate_question: JointQuestion, beliefs, config: Config) -> dict[str, float]:
    scored = scored_answers([candidate_question], beliefs, config)
    return {a.candidate.text: a.score for a in scored.get(("q", "a"), [])}


def test_an_answer_is_worth_the_weighted_mean_of_gold_or_belief_and_liking():
    """Weights 3 and 1. Gold 1, liked .2: (3 + .2) / 4 = .8. Belief .5, liked .6: (1.5 + .6) / 4 =
    .525."""
    config = load_config(None, ["targets.truth_weight=3", "targets.personalization_weight=1"])
    asked = question(True, Candidate("x.", "x", 1.0, 0.2, 3), Candidate("y.", "y", None, 0.6, 1))
    scores = score_of(asked, {"q": {"x": 0.1, "y": 0.5}}, config)
    assert scores == pytest.approx({"x.": 0.8, "y.": 0.525})


def test_what_is_not_known_of_all_answers_is_compared_of_none():
    config = load_config(None)
    asked = question(True, Candidate("x.", "x", 1.0, 0.2, 1), Candidate("y.", "y", 0.0, None, 1))
    assert score_of(asked, {}, config) == {"x.": 1.0, "y.": 0.0}
    unknown = question(True, Candidate("x.", "x", None, None, 1))
    assert score_of(unknown, {}, config) == {}


def test_a_matter_of_taste_is_worth_how_it_was_liked():
    asked = question(False, Candidate("x.", "x", None, 0.2, 1), Candidate("y.", "y", None, 0.9, 1))
    assert score_of(asked, {}, load_config(None)) == {"x.": 0.2, "y.": 0.9}


def test_pairs_set_the_best_answer_against_worse_ones_by_more_than_the_margin(finished):
    run, config = finished
    pairs = trl_rows(run, config, "preference", TrlOptions(0.2, 2), lambda q, g, text: text)
    assert {p["group"] for p in pairs} == set(GROUPS)
    per_question: dict = {}
    for pair in pairs:
        assert pair["score_chosen"] - pair["score_rejected"] > 0.2
        per_question.setdefault((pair["question_id"], pair["group"]), []).append(pair)
    for own in per_question.values():
        assert len(own) <= 2 and len({p["chosen"] for p in own}) == 1
        assert own == sorted(own, key=lambda p: p["score_rejected"])


def test_truth_comes_from_visible_gold_and_else_from_the_critic(finished, written):
    run, _ = finished
    visible = {r["question_id"]: r["gold_visible"] for r in read_dataset(run.log_file)}
    sources = {
        (visible[r["question_id"]], r["truth_source"]) for r in rows_of(written[0], "unpaired")
    }
    assert sources - {(True, None), (False, None)} == {(True, "gold"), (False, "critic")}


def test_labels_say_which_answers_are_above_the_questions_mean(written):
    rows = rows_of(written[0], "unpaired")
    assert {r["label"] for r in rows} == {True, False}
    assert all(r["label"] == (r["score"] > r["mean_score"]) for r in rows)


def test_message_prompts_are_the_logs_prompts_once_rendered(finished, written):
    run, _ = finished
    render = partial(chat_text, load_language_model(SHIPPED_BASE).tokenizer)
    logged = {text for r in read_dataset(run.log_file) for text in r["prompt_text"]}
    for row in rows_of(written[0], "sft"):
        assert render(row["prompt"]) in logged
        assert row["prompt"][0]["role"] == "system" and 0 < row["target"] <= 1


def test_the_folder_loads_by_its_card(written):
    folder, counts = written
    for name, count in counts.items():
        assert len(load_dataset(str(folder), name, split="train")) == count > 0


@pytest.mark.parametrize("prompts", ["messages", "text"])
def test_trl_trains_on_every_format(finished, tmp_path, prompts):
    base = load_language_model(SHIPPED_BASE)
    options = TrlOptions(margin=0.0, prompts=prompts, parquet=prompts == "text")
    export_trl(finished[0], finished[1], tmp_path / "data", (), options)
    trainers = {
        "preference": (DPOTrainer, DPOConfig),
        "unpaired": (KTOTrainer, KTOConfig),
        "sft": (SFTTrainer, SFTConfig),
    }
    for name, (trainer_class, config_class) in trainers.items():
        base.model.requires_grad_(True)
        trainer = trainer_class(
            model=base.model,
            args=config_class(output_dir=str(tmp_path / name), **ONE_STEP),
            train_dataset=load_dataset(str(tmp_path / "data"), name, split="train"),
            processing_class=base.tokenizer,
        )
        trainer.train()
        losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
        assert losses and losses[0] > 0
        unknown = base.tokenizer.unk_token_id
        ids = next(
            v for k, v in trainer.train_dataset[0].items() if k in ("prompt_ids", "input_ids")
        )
        assert unknown not in ids, "the prompt was read as it was written"


def test_what_cannot_be_written_is_said(finished, tmp_path):
    run, config = finished
    bare = copied(run, tmp_path / "run")
    (bare.root / "targets" / "amber.parquet").unlink()
    (bare.root / "targets" / "birch.parquet").unlink()
    (bare.root / "targets" / "shared" / "rows.parquet").unlink(missing_ok=True)
    with pytest.raises(DataError, match="has no targets"):
        export_trl(bare, config, tmp_path / "out", ("sft",), TrlOptions())
    with pytest.raises(DataError, match="no two answers"):
        export_trl(run, config, tmp_path / "out", ("preference",), TrlOptions(margin=0.999))
    with pytest.raises(ConfigError, match="expected one of preference, unpaired, sft"):
        export_trl(run, config, tmp_path / "out", ("dpo",), TrlOptions())
    with pytest.raises(ConfigError, match="is there already"):
        export_trl(run, config, tmp_path, (), TrlOptions())
    assert not (tmp_path / "out").exists()


def test_formats_without_a_row_are_left_out_where_none_was_asked_for(finished, tmp_path):
    run, config = finished
    counts = export_trl(run, config, tmp_path / "out", (), TrlOptions(margin=0.999))
    assert counts["preference"] == counts["unpaired"] == 0 < counts["sft"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "sft.jsonl"]
    assert len(load_dataset(str(tmp_path / "out"), split="train")) == counts["sft"]


def test_prompts_that_are_no_longer_the_logs_are_refused(finished, tmp_path):
    run, config = finished
    world = config.world.model_copy(update={"prompt_mode": "implicit"})
    changed = config.model_copy(update={"world": world})
    with pytest.raises(DataError, match="--prompts text"):
        export_trl(run, changed, tmp_path / "out", (), TrlOptions())
