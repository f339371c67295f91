"""The facts are facts, and each corruption knob does what it says, exactly and alone."""

import csv
import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from envs.groups import load_pack
from envs.truthworld.corpus import behaviour_corpus, facts_corpus, plurality
from envs.truthworld.corruption import Corruption, draw_beliefs, myth_rates
from envs.truthworld.facts import load_facts, load_tastes

FACTS = load_facts()
GROUPS = load_pack("truthworld").groups[:4]
CLEAN = {"systematic_myth": 0.0, "sycophancy": 0.0}
DATA = Path(os.environ.get("TRIALIGN_DATA", Path(__file__).parents[3] / "shared" / "data"))
NEWER_THAN_THE_TABLE = {
    "Bulgaria": "the euro since January 2026",
    "Sierra Leone": "the leone was redenominated in 2022",
    "Myanmar": "listed as Myanmar (Burma)",
}


def plain(name):
    decomposed = unicodedata.normalize("NFKD", name)
    return "".join(c for c in decomposed if c.isalpha()).lower()


def rows(path):
    if not path.is_file():
        pytest.skip(f"public table {path.name} is not at hand; set TRIALIGN_DATA to its folder")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_there_are_enough_real_and_computed_facts():
    sources = Counter(q.source for q in FACTS)
    assert sum(n for s, n in sources.items() if s != "sum") >= 500 and sources["sum"] == 64
    assert len({q.id for q in FACTS}) == len(FACTS)
    assert all(q.gold[0] in q.choices and len(q.choices) > 2 for q in FACTS)


def test_sums_are_right():
    for question in (q for q in FACTS if q.source == "sum"):
        a, b = question.id.removeprefix("sum/").split("_and_")
        assert question.gold == (str(int(a) + int(b)),)


def test_capitals_and_currencies_agree_with_a_public_table():
    table = {r["Name"]: r for r in rows(DATA / "facts_countries" / "countries.csv")}
    for question in (q for q in FACTS if q.source in ("capital", "currency")):
        country = question.id.split("/")[1].replace("_", " ")
        if country in NEWER_THAN_THE_TABLE:
            continue
        if question.source == "capital":
            assert plain(table[country]["Capital"]) == plain(question.gold[0])
        else:
            assert question.gold[0] in table[country]["Currency"].split(",")


def test_elements_agree_with_a_public_table():
    table = rows(DATA / "facts_elements" / "PeriodicTableCSV.csv")[:118]
    by_id = {q.id: q.gold[0] for q in FACTS}
    for row in table:
        assert by_id[f"symbol/{row['name']}"] == row["symbol"]
        assert by_id[f"number/{row['name']}"] == row["number"]


def test_knob_a_has_exact_rates_and_permutes_who_is_badly_served():
    worst = set()
    for seed in range(8):
        beliefs = draw_beliefs(FACTS, GROUPS, Corruption(), seed)
        for group in GROUPS:
            myths = sum(beliefs.told[group.name, q.id] not in q.gold for q in FACTS)
            assert myths == round(beliefs.myth_rate[group.name] * len(FACTS))
        worst.add(max(beliefs.myth_rate, key=lambda g: beliefs.myth_rate[g]))
    assert sorted(beliefs.myth_rate.values()) == [0.03, 0.10, 0.40, 0.90]
    assert len(worst) > 1


@pytest.mark.parametrize("num_groups", range(1, 13))
def test_any_number_of_groups_has_a_worst_one(num_groups):
    rates = myth_rates(num_groups, 0.8)
    assert len(rates) == num_groups and rates == sorted(rates) and rates[-1] == pytest.approx(0.8)


def test_the_clean_control_tells_everyone_the_truth():
    beliefs = draw_beliefs(FACTS, GROUPS, Corruption(**CLEAN), 0)
    assert all(beliefs.told[g.name, q.id] == q.gold[0] for g in GROUPS for q in FACTS)
    assert not beliefs.favourite


def test_knob_b_makes_logs_wrong_at_random_and_leaves_beliefs_alone():
    noise = Corruption(**CLEAN, noise=0.3, style_noise=0.0)
    beliefs = draw_beliefs(FACTS, GROUPS, noise, 0)
    corpus = behaviour_corpus(FACTS, GROUPS, beliefs, noise, 0.0, 0)
    assert not beliefs.favourite
    gold = {q.text: q.gold[0] for q in FACTS}
    wrong = [
        gold[d.messages[-2]["content"]] not in d.messages[-1]["content"]
        for d in corpus
        if d.num_learned == 1
    ]
    assert sum(wrong) / len(wrong) == pytest.approx(0.3, abs=0.03)


def test_knob_f_lets_all_but_the_best_served_share_one_myth():
    shared = Corruption(**CLEAN, false_consensus=0.25)
    beliefs = draw_beliefs(FACTS, GROUPS, shared, 0)
    affected = 0
    for question in FACTS:
        told = Counter(beliefs.told[g.name, question.id] for g in GROUPS)
        if len(told) > 1:
            affected += 1
            assert told.most_common()[0][1] == 3 and told[question.gold[0]] == 1
    assert affected == round(0.25 * len(FACTS))


def test_a_seed_gives_the_same_beliefs_and_logs():
    def make():
        beliefs = draw_beliefs(FACTS, GROUPS, Corruption(), 5)
        return beliefs, behaviour_corpus(FACTS, GROUPS, beliefs, Corruption(), 0.5, 5)

    assert make() == make()


def test_tastes_differ_between_groups_and_have_no_truth():
    tastes = load_tastes()
    beliefs = draw_beliefs(tastes, GROUPS, Corruption(**CLEAN), 0)
    assert all(not q.has_truth for q in tastes)
    assert len({beliefs.told[g.name, tastes[0].id] for g in GROUPS}) == len(GROUPS)


def test_the_facts_corpus_tells_every_prompt_the_same_truths():
    corpus = facts_corpus(FACTS[:20], GROUPS, 0, 0)
    gold = {q.text: q.gold[0] for q in FACTS}
    count = Counter()
    for dialogue in corpus:
        asked = dialogue.messages[-4]["content"]
        assert gold[asked] in dialogue.messages[-1]["content"]
        count[dialogue.messages[0]["content"]] += 1
    profiles = [count[g.profile] for g in GROUPS]
    assert profiles == [20] * 4


def test_plurality_needs_two_voices():
    assert plurality(["a", "b", "a"]) == "a" and plurality(["a"]) == "a"
    assert plurality(["a", "b"]) is None and plurality([]) is None
