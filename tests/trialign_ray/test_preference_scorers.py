"""From the configuration's `preferences` to a scorer; what cannot work is said before the start."""

import json
import socket

import pytest

from envs.groups import load_pack
from envs.judge import Judge
from envs.preferences import StyleScorer, WeightedScorer, prepare
from envs.truthworld.facts import load_facts
from envs.truthworld.styles import styled_answer
from envs.types import Question
from envs.world import WorldSpec
from tests.envs.judge_server import MODEL, Reply, obedient_judge, serve
from tests.trialign_ray.test_reward_model import save_reward_model
from trialign_ray.collect import collect
from trialign_ray.config import load_config, parse_config
from trialign_ray.config_sections import CollectConfig
from trialign_ray.engines import CandidateScore, Generation
from trialign_ray.errors import ConfigError, DataError, WorkerError
from trialign_ray.preference_scorers import build_scorer, explicit_prompts, scorer_reports
from trialign_ray.scoring import score_candidates

GROUPS = load_pack("truthworld").groups[:4]
FACTS = load_facts()


def preferences(*sections):
    return parse_config({"preferences": list(sections)}, "test").preferences


def build(tmp_path, *sections, groups=GROUPS):
    return build_scorer(preferences(*sections), groups, explicit_prompts(groups), tmp_path)


def items():
    return [
        (g.name, q, styled_answer(q, q.gold[0], other.style), q.gold[0])
        for g in GROUPS
        for other in GROUPS
        for q in FACTS[:1]
    ]


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "log.jsonl"
    rows = [
        {"group": g.name, "text": styled_answer(q, q.gold[0], g.style), "question": q.text}
        for g in GROUPS
        for q in FACTS[10:40]
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def judge_section(url, **changes):
    return {"kind": "judge", "url": url, "model": MODEL, "max_retries": 0} | changes


def test_the_default_is_todays_style_scorer(tmp_path):
    scorer = build_scorer(load_config(None).preferences, GROUPS, explicit_prompts(GROUPS), tmp_path)
    assert type(scorer) is StyleScorer
    today = StyleScorer({g.name: g.style for g in GROUPS})
    assert [scorer.score(*i) for i in items()] == [today.score(*i) for i in items()]
    assert scorer_reports(scorer) == [] and list(tmp_path.iterdir()) == []


def test_rules_classifier_reward_model_and_judge_are_weighed(tmp_path, log):
    folder = save_reward_model(tmp_path / "rm", max_position_embeddings=1024)
    with serve(lambda p, _: Reply(obedient_judge(p))) as at:
        sections = [
            {"kind": "rules", "weight": 1.0},
            {"kind": "classifier", "weight": 2.0, "log": str(log)},
            {"kind": "reward_model", "weight": 3.0, "model": str(folder)},
            judge_section(at.url, weight=4.0),
        ]
        alone = [build(tmp_path, section) for section in sections]
        mixed = build(tmp_path / "mixed", *sections)
        prepare(mixed, items())
        asked = len(at.seen)
        scores = [mixed.score(*i) for i in items()]
        assert len(at.seen) == asked == 2 * len(items())
        for item, score in zip(items(), scores, strict=True):
            parts = [scorer.score(*item) or 0.0 for scorer in alone]
            assert score == pytest.approx(sum(w * p for w, p in enumerate(parts, 1)) / 10, abs=1e-6)
    reports = {r["kind"]: r for r in scorer_reports(mixed)}
    assert reports["judge"]["num_asked"] == asked and reports["judge"]["url"] == at.url
    assert reports["classifier"]["groups"]["amber"]["accuracy"] > 0.95
    assert (tmp_path / "mixed" / "judge_cache.sqlite").is_file()


def test_a_classifier_is_fitted_once_per_run_and_log(tmp_path, log):
    section = {"kind": "classifier", "log": str(log)}
    build(tmp_path, section)
    assert not (tmp_path / "preferences").exists()  # no run's folder: nothing is written there
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    first = build(tmp_path, section)
    (saved,) = (tmp_path / "preferences").iterdir()
    written = saved.stat().st_mtime_ns
    again = build(tmp_path, section)
    elsewhere = build(tmp_path / "not there yet", section)
    assert saved.stat().st_mtime_ns == written
    for item in items():
        assert again.score(*item) == first.score(*item) == elsewhere.score(*item)
    log.write_text(log.read_text() + "\n" + log.read_text().splitlines()[0])
    build(tmp_path, section)
    assert len(list((tmp_path / "preferences").iterdir())) == 2


def test_a_log_must_cover_all_groups(tmp_path, log):
    with pytest.raises(ConfigError, match=r"no texts of group ember, .*it has amber, birch"):
        build(
            tmp_path, {"kind": "classifier", "log": str(log)}, groups=load_pack("truthworld").groups
        )


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl does not exist"):
        build(tmp_path, {"kind": "classifier", "log": "nowhere.jsonl"})
    with pytest.raises(ConfigError, match="no model folder /nowhere/rm"):
        build(tmp_path, {"kind": "reward_model", "model": "/nowhere/rm"})


def test_an_endpoint_that_is_down_is_refused_before_the_start(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with pytest.raises(WorkerError, match=url):
        build(tmp_path, judge_section(url))


def test_an_unset_key_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        build(tmp_path, judge_section("https://judge.example/v1", api_key_env="NO_SUCH_KEY"))


def test_no_scorer_at_all_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="preferences is empty"):
        build_scorer((), GROUPS, explicit_prompts(GROUPS), tmp_path)


def test_a_scorer_without_its_keys_is_refused():
    for section in ({"kind": "classifier"}, {"kind": "judge", "url": "x"}, {"kind": "oracle"}):
        with pytest.raises(ConfigError, match="preferences"):
            preferences(section)


def test_raters_are_told_the_profile_of_the_group():
    prompt_of = explicit_prompts(GROUPS)
    question = Question("q", "Why?")
    for group in GROUPS:
        system, user = prompt_of(group.name, question)
        assert system["role"] == "system" and system["content"] in group.profile_variants
        assert user == {"role": "user", "content": "Why?"}


class TalkingWorkers:
    """Agents that say one of three things, by prompt and seed, and find all texts likely alike."""

    groups = tuple(g.name for g in GROUPS)

    def on_groups(self, method, arguments):
        return {g: getattr(self, method)(g, *args) for g, args in arguments.items()}

    def generate(self, group, model, prompts, decoding):
        words = [FACTS[0].gold[0], FACTS[1].gold[0], "No idea"]
        return [
            Generation(f"Hey! {words[(len(p) + decoding.seed) % 3]}.", (1, 2), -1.0, False)
            for p in prompts
        ]

    def score(self, group, model, prompts, candidates):
        return [[CandidateScore(-float(len(c)), 1) for c in own] for own in candidates]


class Batches:
    """A scorer that works in batches, of which it keeps a list."""

    def __init__(self):
        self.batches = []
        self.style = StyleScorer({g.name: g.style for g in GROUPS})

    def prepare(self, items):
        self.batches.append({(g, q.id, text) for g, q, text, _ in items})

    def score(self, group, question, text, answer):
        return self.style.score(group, question, text, answer)


def test_collecting_and_scoring_ask_once_a_turn_and_change_nothing():
    questions, config = FACTS[:5], CollectConfig(turns=3, episodes_per_question=2)

    def log_and_scores(scorer):
        judge = Judge(WeightedScorer([(1.0, scorer)]))
        spec = WorldSpec(questions=questions, groups=GROUPS, judge=judge, turns=3)
        rows = collect(spec, TalkingWorkers(), config, 0, "model")  # pyright: ignore
        return rows, score_candidates(rows, TalkingWorkers(), questions, judge)  # pyright: ignore

    told = Batches()
    assert log_and_scores(told) == log_and_scores(told.style)
    rows, scores = log_and_scores(Batches())
    *turns, scored = told.batches
    assert len(turns) == 3
    said = {
        (g, r["question_id"], t)
        for r in rows
        for g, t in zip(r["group_ids"], r["action_text"], strict=True)
    }
    assert set().union(*turns) == said
    assert scored == {(s["group"], s["question_id"], s["text"]) for s in scores}
