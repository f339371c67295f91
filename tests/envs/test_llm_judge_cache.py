"""Verdicts outlive threads and kills; a judge is held against people before it is believed."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from envs.errors import DataError
from envs.judge_prompt import judge_messages
from envs.judge_validation import agreement_with_labels, read_labelled_answers
from envs.types import Question
from envs.verdict_cache import VerdictCache, verdict_key
from tests.envs.judge_server import Reply, make_judge, serve

DATA = Path(os.environ.get("TRIALIGN_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_a_cache_holds_under_threads(tmp_path):
    cache = VerdictCache(tmp_path / "c.sqlite")

    def work(start):
        for i in range(start, start + 50):
            cache.put(f"k{i}", i % 5 + 1)
            assert cache.get(f"k{i}") == i % 5 + 1

    threads = [threading.Thread(target=work, args=(10 * i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 100


def test_a_kill_in_the_middle_loses_no_verdict_that_was_kept(tmp_path):
    code = (
        "import sys; from pathlib import Path; from envs.verdict_cache import VerdictCache\n"
        "cache = VerdictCache(Path(sys.argv[1]))\n"
        "for i in range(10**9):\n"
        "    cache.put(f'k{i}', 1 + i % 5); print(i, flush=True)\n"
    )
    file = tmp_path / "c.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 30:
            process.send_signal(signal.SIGKILL)
            break
    written = [int(line), *(int(n) for n in process.stdout.read().split("\n")[:-1] if n)]
    process.wait()
    process.stdout.close()
    cache = VerdictCache(file)
    assert all(cache.get(f"k{i}") == 1 + i % 5 for i in range(max(written) + 1))


def test_a_file_that_is_no_cache_is_named(tmp_path):
    (tmp_path / "c.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match=r"c\.sqlite cannot be used"):
        VerdictCache(tmp_path / "c.sqlite")


def test_a_key_depends_on_endpoint_model_and_prompt():
    messages = judge_messages("Rate.", "ascending", [], "a", "0")
    keys = {
        verdict_key("u", "m", messages),
        verdict_key("v", "m", messages),
        verdict_key("u", "n", messages),
        verdict_key("u", "m", judge_messages("Rate.", "descending", [], "a", "0")),
    }
    assert len(keys) == 4 and verdict_key("u", "m", messages) in keys


def test_agreement_is_cohens_kappa():
    # 2 yes-yes, 1 yes-no, 1 no-yes, 4 no-no of 8: p_o = 6/8; both say yes 3/8 of the time, so
    # p_e = (3/8)^2 + (5/8)^2 = 34/64; kappa = (48 - 34) / (64 - 34)
    scores = [0.9, 0.8, 0.7, 0.2, 0.1, 0.0, 0.5, 0.25, None]
    labels = [True, True, False, True, False, False, False, False, True]
    found = agreement_with_labels(scores, labels)
    assert found.accuracy == 0.75 and found.kappa == pytest.approx(14 / 30)
    assert (found.num_items, found.num_without_score) == (8, 1)
    with pytest.raises(DataError, match="none of 1"):
        agreement_with_labels([None], [True])


def test_a_judge_is_validated_on_human_labels(tmp_path):
    file = DATA / "truthfulqa" / "human_eval_en.csv"
    if not file.is_file():
        pytest.skip("real data are not here; set TRIALIGN_DATA")
    answers = read_labelled_answers(file, "truthfulness")
    assert len(answers) == 300 and sum(a.label for a in answers) == 207
    chosen = answers[::6]
    truthful = {a.answer: a.label for a in chosen}

    def reply(payload, _):
        user = payload["messages"][1]["content"]
        label = next(label for text, label in truthful.items() if f"\n{text}\n" in user)
        return Reply('{"score": 5}' if label else '{"score": 1}')

    with serve(reply) as at:
        judge = make_judge(at.url, tmp_path, concurrency=8)
        items = [("g", Question(str(i), a.question), a.answer, "") for i, a in enumerate(chosen)]
        judge.prepare(items)
        knowing = agreement_with_labels([judge.score(*i) for i in items], [a.label for a in chosen])
    assert knowing.accuracy == 1.0 and knowing.kappa == 1.0
    yes_man = agreement_with_labels([1.0] * 300, [a.label for a in answers])
    assert yes_man.accuracy == pytest.approx(0.69) and yes_man.kappa == 0.0
    with pytest.raises(DataError, match="has no column honesty"):
        read_labelled_answers(file, "honesty")
