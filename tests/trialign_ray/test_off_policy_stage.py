"""What the log says of the adapters: weights by tokens, a critic that does not judge itself."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trialign_ray.runs import make_recipe
from tests.trialign_ray.small_runs import run_to_report, small_run_config
from trialign_ray.dataset import content_hash, read_dataset, write_dataset
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.language_model import answer_ids, text_ids
from trialign_ray.off_policy import (
    EstimateOptions,
    ValueEstimates,
    first_answers,
    fitted_values,
)
from trialign_ray.off_policy_log import believed_truth, logged_candidates, place_answers
from trialign_ray.off_policy_stage import evaluate_off_policy, group_report, off_policy_metrics
from trialign_ray.progress import read_metrics
from trialign_ray.reference_scores import rebind_scores

GROUPS = ("amber", "birch")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    config = small_run_config(folder, "world.num_groups=2", "collect.label_fraction=0.7")
    recipe = run_to_report(folder / "run", config)
    yield recipe
    recipe.close()
    recipe.progress.close()


def strict_json(path):
    def refuse(name):
        raise AssertionError(f"{path} holds {name}")

    return json.loads(path.read_text(), parse_constant=refuse)


def hand_log(said, truth, num_questions=1):
    """One group's log: `said[e]` is the only token that episode e says, `truth` by token."""
    rows = [
        {
            "turn": 0,
            "question_id": f"q{x}",
            "episode_id": f"q{x}#{e}",
            "kind": "truth",
            "group_ids": ["blue"],
            "present": [True],
            "prompt_text": [f"ask {x}"],
            "action_text": [str(token)],
            "action_token_ids": [[token]],
            "parsed_answer": [str(token)],
            "truncated": [False],
            "behaviour_logprob": [-1.0],
            "r_truth": [truth[token]],
            "r_pers": [None],
        }
        for x in range(num_questions)
        for e, token in enumerate(said if isinstance(said[0], int) else said[x])
    ]
    candidates = logged_candidates(rows, "blue", {})
    answers = first_answers(rows, "blue")
    return place_answers(answers, candidates, np.full(len(rows), np.nan))


def report_of(log, mu, pi, **options):
    """Estimates where the probability of token t is mu[t] in the log and pi[t] for the adapter."""
    width = max(map(len, log.candidates_XK))
    old_XK, new_XK = np.full((2, len(log.contexts_X), width), np.nan)
    for x, row in enumerate(log.candidates_XK):
        tokens = [said.utterance[0] for said in row]
        old_XK[x, : len(row)], new_XK[x, : len(row)] = np.log(mu[tokens]), np.log(pi[tokens])
    places = (log.question_N, log.candidate_N)
    log = replace(log, answers=replace(log.answers, behaviour_logprob_N=old_XK[places]))
    return group_report(log, old_XK, new_XK, EstimateOptions(**options), seed=0)


def test_every_estimate_by_hand():
    # Twenty questions, each answered a, a, b, c in four episodes. mu 1/3 each, pi (.6, .3, .1),
    # truth (1, 0, .5); weights 1.8, 1.8, .9, .3.
    # IS (1.8 + 1.8 + 0 + .15) / 4; WIS 3.75 / 4.8; ESS 20 * 4.8^2 / (2 * 1.8^2 + .9^2 + .3^2).
    # DM .6 * 1 + .3 * 0 + .1 * .5. DR judges c without c, which only its own episode holds:
    # V = .6, so .6 + .3 * .5 = .75; the other three .65 + w (r - Q) = .65, for b is worth 0.
    log = hand_log([0, 0, 1, 2], {0: 1.0, 1: 0.0, 2: 0.5}, num_questions=20)
    report = report_of(log, np.full(3, 1 / 3), np.array([0.6, 0.3, 0.1]))
    truth = report["rewards"]["truth"]
    value = {n: truth[n]["value"] for n in ("is", "wis", "dm", "dr", "behaviour", "mean_weight")}
    assert value == pytest.approx(
        {
            "is": 3.75 / 4,
            "wis": 3.75 / 4.8,
            "dm": 0.65,
            "dr": (3 * 0.65 + 0.75) / 4,
            "behaviour": 2.5 / 4,
            "mean_weight": 4.8 / 4,
        }
    )
    assert truth["ess"] == pytest.approx(20 * 4.8**2 / (2 * 1.8**2 + 0.9**2 + 0.3**2))
    assert report["coverage"] == pytest.approx(1.0)


def test_a_group_whose_weights_rest_on_few_answers_is_refused_and_keeps_the_critics_word():
    # Seven questions of the twenty are too few: ESS 7 * 3.12 = 21.9
    log = hand_log([0, 0, 1, 2], {0: 1.0, 1: 0.0, 2: 0.5}, num_questions=7)
    truth = report_of(log, np.full(3, 1 / 3), np.array([0.6, 0.3, 0.1]))["rewards"]["truth"]
    assert truth["wis"] is truth["dr"] is truth["is"] is None and "21.9 of 28" in truth["refused"]
    assert truth["dm"]["value"] == pytest.approx(0.65)
    assert truth["behaviour"]["value"] == pytest.approx(2.5 / 4)


def test_dr_is_right_on_average_though_its_critic_knows_only_what_was_logged():
    # 20 answers of equal mu, of which four are drawn per question; pi prefers the true ones 0..9.
    # True value sum pi r = .8. What four draws hold is 4/20 of pi's mass: DM is about 1/5 of it.
    generator = np.random.default_rng(0)
    said = generator.integers(0, 20, (3000, 4)).tolist()
    log = hand_log(said, {t: float(t < 10) for t in range(20)}, num_questions=3000)
    pi = np.where(np.arange(20) < 10, 0.08, 0.02)
    truth = report_of(log, np.full(20, 0.05), pi, num_resamples=200)["rewards"]["truth"]
    low, high = truth["dr"]["ci"]
    assert low < 0.8 < high and high - low < 0.06
    assert truth["dm"]["value"] < 0.2
    # FQE: what is no candidate earns what such answers earned, .5 in the log; on the covered fifth
    # of pi's mass Q is exact, so its value is about .2 * .8 + .8 * .5 = .56.
    assert truth["dm"]["value"] + 0.3 < truth["fqe"]["value"] < 0.62


def test_fitted_q_evaluation_corrects_a_critic_that_is_biased():
    # The critic says (1, .5, 0) of three candidates that earn (.8, .5, .2): Q = .2 + .6 critic.
    # pi = (.5, .5, 0) is worth .65, which the critic calls .75. Every candidate is known, so the
    # constant and the indicator of a candidate share the .2.
    reward_N = np.array([0.8, 0.5, 0.2] * 20)
    judged = ValueEstimates(np.array([1.0, 0.5, 0.0] * 20), np.full(60, 0.75))
    known = ValueEstimates(np.ones(60), np.ones(60))
    assert fitted_values(reward_N, known, judged) == pytest.approx([0.65] * 60, abs=1e-4)
    # Half of pi says what nobody logged; such answers earned .1: .5 * .65 + .5 * .1.
    reward_N = np.append(reward_N, [0.1] * 20)
    q_N, is_N = np.append(judged.q_N, np.zeros(20)), np.append(known.q_N, np.zeros(20))
    judged = ValueEstimates(q_N, np.full(80, 0.375))
    known = ValueEstimates(is_N, np.full(80, 0.5))
    assert fitted_values(reward_N, known, judged) == pytest.approx([0.375] * 80, abs=1e-4)
    assert np.isnan(fitted_values(np.full(80, np.nan), known, judged)).all()


def test_what_an_answer_is_worth():
    believed = {"Lima": 0.9, "Rome": 0.1}
    assert believed_truth("Rome", 1.0, believed) == 1.0  # the verifier, whatever the head believes
    assert believed_truth("Lima", None, believed) == 0.9
    assert believed_truth("abstain", None, believed) == 0.0  # to say nothing is to tell no truth
    assert np.isnan(believed_truth("Oslo", None, believed))
    assert np.isnan(believed_truth("Lima", None, {"Lima": None}))
    assert np.isnan(believed_truth("red", None, None))


def test_tokens_are_scored_as_they_were_sampled(shipped_lm):
    # A sampled "!" and "." are written "!." and would be read as one unknown word.
    tokenizer, model = shipped_lm.tokenizer, shipped_lm.model
    ids = tokenizer.convert_tokens_to_ids(["Hey", "!", ".", "Cheers", "!", "<eos>"])
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert answer_ids(tokenizer, text) != ids
    prompt = "<bos><user>What is the sum of 12 and 3?<eos><assistant>"
    engine = TransformersEngine(model, tokenizer)
    ((by_ids, by_text),) = engine.score([prompt], [[ids, text]])
    prompt_ids = text_ids(tokenizer, prompt)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt_ids, *ids]])).logits[0].log_softmax(-1)
    expected = sum(float(logits[len(prompt_ids) - 1 + n, t]) for n, t in enumerate(ids))
    assert by_ids.logprob == pytest.approx(expected, abs=1e-3)
    assert abs(by_text.logprob - by_ids.logprob) > 1


def test_the_behaviour_model_earns_what_the_log_earned_with_every_answer_counting(small):
    report = evaluate_off_policy(small.run_dir, small.workers, small.config, model="behaviour")
    rows = read_dataset(small.run_dir.log_file)
    for group in GROUPS:
        pers = report["groups"][group]["rewards"]["personalization"]
        liked = first_answers(rows, group).personalization_N
        assert pers["num"] == len(liked) and pers["ess"] == pytest.approx(len(liked))
        for name in ("is", "wis", "behaviour"):
            assert pers[name]["value"] == pytest.approx(liked.mean())
        assert pers["dr"]["value"] == pytest.approx(liked.mean(), abs=0.1)
        assert pers["mean_weight"]["value"] == pytest.approx(1.0)
        truth = report["groups"][group]["rewards"]["truth"]
        assert truth["wis"]["value"] == pytest.approx(truth["behaviour"]["value"])


def test_gold_stands_where_it_is_visible_and_the_head_elsewhere(small):
    saved = strict_json(small.run_dir.off_policy_file)
    beliefs = json.loads((small.run_dir.root / "critic" / "truth_head.json").read_text())
    rows = read_dataset(small.run_dir.log_file)
    for group in GROUPS:
        answers = first_answers(rows, group)
        triples = zip(answers.question_ids, answers.answers, answers.truth_N, strict=True)
        expected = [
            beliefs[q].get(z, 0.0) if np.isnan(t) else t for q, z, t in triples if q in beliefs
        ]
        truth = saved["groups"][group]["rewards"]["truth"]
        assert np.isnan(answers.truth_N).any() and truth["num"] == len(expected)
        assert truth["behaviour"]["value"] == pytest.approx(np.mean(expected))


def test_the_adapter_moves_the_estimates_and_metrics_name_them(small):
    saved = strict_json(small.run_dir.off_policy_file)
    records = [r for r in read_metrics(small.run_dir.root) if "off_policy/truth_ess" in r]
    assert [r["group"] for r in records] == list(GROUPS)
    for record in records:
        group = saved["groups"][record["group"]]
        assert record["off_policy/truth_ess"] == group["rewards"]["truth"]["ess"]
        assert 0 < group["coverage"] <= 1 + 1e-6 and group["num_contradicted"] == 0
        assert group["rewards"]["truth"]["ess"] < group["rewards"]["truth"]["num"]
        known = off_policy_metrics(saved, record["group"])
        assert all(record[name] == value for name, value in known.items())


def test_what_the_behaviour_model_does_not_confirm_is_left_out(small, tmp_path):
    # One answer's log-probability is off by 3 nats; another's text reads as other tokens than were
    # sampled, which its tokens explain: that one stays.
    shutil.copytree(small.run_dir.root, tmp_path / "run")
    run = replace(small.run_dir, root=tmp_path / "run")
    rows = read_dataset(run.log_file)
    first = [r for r in rows if r["turn"] == 0]
    first[0]["behaviour_logprob"][0] += 3
    first[1]["action_text"][0] += " "  # no reference score of this text
    write_dataset(rows, run.log_file)
    rebind_scores(run.scores_file, run.scores_file, content_hash(read_dataset(run.log_file)))
    before = strict_json(small.run_dir.off_policy_file)["groups"]
    after = evaluate_off_policy(run, small.workers, small.config)["groups"]
    assert after["amber"]["num_contradicted"] == 1
    assert after["amber"]["max_difference_nats"] == pytest.approx(3.0, abs=0.01)
    num = {g: r[g]["rewards"]["personalization"]["num"] for r in (before,) for g in GROUPS}
    assert after["amber"]["rewards"]["personalization"]["num"] == num["amber"] - 1
    assert after["birch"]["rewards"]["personalization"]["num"] == num["birch"]


def test_a_log_of_another_temperature_is_refused_and_the_run_goes_on(small):
    collect = small.config.collect.model_copy(update={"temperature": 0.7})
    config = small.config.model_copy(update={"collect": collect})
    report = evaluate_off_policy(small.run_dir, small.workers, config)
    for group in GROUPS:
        truth = report["groups"][group]["rewards"]["truth"]
        assert "temperature 0.7" in truth["refused"] and truth["wis"] is None
        assert truth["dm"] is not None and truth["fqe"] is not None


def test_what_is_there_is_not_done_again(small):
    run = small.run_dir
    before = (run.off_policy_file.stat().st_mtime_ns, run.selection_file.stat().st_mtime_ns)
    again = make_recipe(run.root, small.config, local=True, resume=True)
    again.off_policy()
    assert not again.assembly.started
    assert before == (run.off_policy_file.stat().st_mtime_ns, run.selection_file.stat().st_mtime_ns)
    again.progress.close()


def test_one_group_without_any_label_has_a_reason_in_place_of_truth(tmp_path):
    config = small_run_config(
        tmp_path, "algorithm=sft", "world.num_groups=1", "collect.label_fraction=0"
    )
    recipe = run_to_report(tmp_path / "run", config)
    recipe.close()
    recipe.progress.close()
    (group,) = strict_json(recipe.run_dir.off_policy_file)["groups"].values()
    assert group["rewards"]["truth"]["num"] == 0 and group["rewards"]["truth"]["behaviour"] is None
    assert "have a reward" in group["rewards"]["truth"]["refused"]
    assert group["rewards"]["personalization"]["wis"] is not None
    assert "no answer of the log has a known" in (recipe.run_dir.root / "report.html").read_text()


@pytest.mark.ray
def test_actors_give_what_one_process_gives(ray_local, small, tmp_path):
    shutil.copytree(small.run_dir.root, tmp_path / "run")
    recipe = make_recipe(tmp_path / "run", small.config, local=False, resume=True)
    paths = (recipe.run_dir.off_policy_file, recipe.run_dir.selection_file)
    before = [strict_json(path) for path in paths]
    for path in paths:
        path.unlink()
    try:
        recipe.off_policy()
    finally:
        recipe.close()
        recipe.progress.close()
    assert [strict_json(path) for path in paths] == before
