"""A style classifier learns how a group speaks, and does not see what it answers."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.errors import ConfigError, DataError
from envs.style_classifier import fit_style_classifier, load_style_classifier
from envs.style_log import LoggedText, read_style_log
from envs.style_mask import MASK, masked
from envs.types import UNPARSED, Question

_NAMES = (
    "Rome Paris Oslo Lima Cairo Quito Vienna Berlin Madrid Lisbon Dublin Prague Warsaw Athens "
    "Tokyo Seoul Delhi Hanoi Accra Dakar"
)
CITIES = _NAMES.split()
COUNTRIES = [f"Land{c}" for c in "abcdefghijklmnopqrst"]
STYLES = {
    "formal": "Good day. The capital of {country} is {city}. Kind regards.",
    "casual": "hey! {city} is the capital of {country}, yeah",
    "terse": "{city}.",
}


def question_of(country, **changes):
    fields = {"choices": tuple(CITIES), "gold": ("Rome",), "verifier": "closed_vocabulary"}
    return Question(f"q/{country}", f"What is the capital of {country}?", **(fields | changes))


def log_rows(with_questions=True, styles=STYLES):
    """Group "formal" is always told Rome, the others other cities: truth is a strong hint."""
    rows = []
    for i, country in enumerate(COUNTRIES):
        for group, style in styles.items():
            city = "Rome" if group == "formal" else CITIES[1 + i % 19]
            text = style.format(country=country, city=city)
            asked = f"What is the capital of {country}?" if with_questions else ""
            rows.append(LoggedText(group, text, True, asked, city if with_questions else ""))
    return rows


@pytest.fixture(scope="module")
def classifier():
    return fit_style_classifier(log_rows(), "log")


def test_own_style_scores_high_and_others_low(classifier):
    question = question_of("Landz")
    for group in STYLES:
        for spoken, style in STYLES.items():
            text = style.format(country="Landz", city="Paris")
            score = classifier.score(group, question, text, "Paris")
            if spoken == "terse":
                assert score is None  # the answer alone: nothing else was said
            else:
                assert score > 0.9 if spoken == group else score < 0.1


def test_truth_is_not_scored_as_style(classifier):
    """The log's formal group hears Rome alone; no answer may gain by that."""
    question = question_of("Landz")
    for group in STYLES:
        scores = {
            classifier.score(
                group, question, STYLES["formal"].format(country="Landz", city=city), city
            )
            for city in CITIES
        }
        assert len(scores) == 1


@pytest.mark.parametrize("numbers", [("22", "1,950"), ("3.5", "-7")])
def test_neither_numbers_nor_letters_nor_names_of_answers_are_seen(numbers):
    sums = Question("s", "What is 17 plus 5?", verifier="numeric")
    one, other = (masked(f"It is {n}.", n, sums.text) for n in numbers)
    assert one == other == f"It is {MASK}."
    options = ("New York", "Rome")
    forms = ["(A)", "(B)", "New York", "rome"]
    assert len({masked(f"It is {f}.", "Rome", "", options) for f in forms}) == 1
    assert masked("It is an apple.", "apple") == masked("It is a pear.", "pear")


def test_words_of_the_question_are_not_seen():
    asked = "What is the capital of France?"
    assert (
        masked("The capital of France is Rome.", "Rome", asked)
        == f"The {MASK} of {MASK} is {MASK}."
    )


def test_without_answers_in_the_log_rare_words_are_not_seen():
    fitted = fit_style_classifier(log_rows(with_questions=False), "log")
    assert not fitted.words & {c.lower() for c in COUNTRIES}
    assert {"hey", "regards"} <= fitted.words


def test_an_answer_that_nobody_could_read_is_scored_by_its_style(classifier):
    text = "hey! no idea what the capital is, yeah"
    score = classifier.score("casual", question_of("Landz"), text, UNPARSED)
    assert score is not None and score > 0.8


def test_held_out_figures_are_reported(classifier):
    fit = classifier.fits["casual"]
    assert (fit.num_own, fit.num_other) == (20, 40)
    assert fit.accuracy > 0.95 and fit.brier < 0.05


def test_groups_that_speak_alike_are_not_told_apart():
    """Same style, so held-out accuracy is that of guessing, and scores stay about a half."""
    same = {"a": STYLES["casual"], "b": STYLES["casual"]}
    fitted = fit_style_classifier(log_rows(styles=same), "log")
    assert abs(fitted.fits["a"].accuracy - 0.5) < 0.2 and fitted.fits["a"].brier > 0.2
    score = fitted.score(
        "a", question_of("Landz"), STYLES["casual"].format(country="Landz", city="Rome"), "Rome"
    )
    assert score == pytest.approx(0.5, abs=0.1)


def test_one_group_is_told_from_what_it_disliked():
    rows = [r for r in log_rows() if r.group == "casual"]
    disliked = [
        LoggedText("casual", r.text, False, r.question, r.answer)
        for r in log_rows()
        if r.group == "formal"
    ]
    fitted = fit_style_classifier(rows + disliked, "log")
    text = STYLES["formal"].format(country="Landz", city="Rome")
    score = fitted.score("casual", question_of("Landz"), text, "Rome")
    assert score is not None and score < 0.1


def test_twelve_groups():
    styles = {f"g{i}": f"word{'abcdefghijkl'[i]} {{city}} is it" for i in range(12)}
    fitted = fit_style_classifier(log_rows(styles=styles), "log")
    assert len(fitted.groups) == 12
    scores = [fitted.score(g, question_of("Landz"), "wordc Rome is it", "Rome") for g in styles]
    assert int(np.argmax(np.array(scores, dtype=float))) == 2


def test_too_few_texts_are_refused_with_counts():
    rows = [r for r in log_rows() if r.group != "casual"] + log_rows()[1:20:3]
    with pytest.raises(
        DataError, match=r"'casual' has 7 liked texts, about 7 different.*10 about 5"
    ):
        fit_style_classifier(rows, "log.jsonl")
    alone = [r for r in log_rows() if r.group == "casual"]
    with pytest.raises(DataError, match="0 texts to be told from"):
        fit_style_classifier(alone, "log.jsonl")


def test_a_group_that_the_log_has_not_is_refused(classifier):
    with pytest.raises(ConfigError, match=r"'other'.*formal, casual, terse"):
        classifier.score("other", question_of("Landz"), "hey", "x")


def test_it_is_saved_without_pickle_and_fitted_again_to_the_same(classifier, tmp_path):
    classifier.save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
    again = fit_style_classifier(log_rows(), "log")
    loaded = load_style_classifier(tmp_path / "c.npz")
    question = question_of("Landz")
    text = STYLES["casual"].format(country="Landz", city="Oslo")
    for group in STYLES:
        expected = classifier.score(group, question, text, "Oslo")
        assert loaded.score(group, question, text, "Oslo") == expected
        assert again.score(group, question, text, "Oslo") == expected
    assert loaded.fits == classifier.fits
    (tmp_path / "c.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"c\.npz is no saved style classifier"):
        load_style_classifier(tmp_path / "c.npz")


def test_logs_are_read_from_jsonl_csv_and_parquet(tmp_path):
    rows = [{"group": "a", "text": 'hey, "you"'}, {"group": "b", "text": "guten Tag\nÖl"}]
    with (tmp_path / "l.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n\n" for row in rows)
    with (tmp_path / "l.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["group", "text"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "l.parquet")
    expected = [LoggedText(r["group"], r["text"]) for r in rows]
    for suffix in ("jsonl", "csv", "parquet"):
        assert read_style_log(tmp_path / f"l.{suffix}") == expected


def test_trls_unpaired_schema_is_read_with_text_or_messages(tmp_path):
    chat = [{"role": "user", "content": "Why?"}]
    said = [{"role": "assistant", "content": "Because."}]
    rows = [
        {"prompt": "Why?", "completion": "Because.", "label": False, "group": "a"},
        {"prompt": chat, "completion": said, "label": True, "group": "a"},
    ]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_style_log(tmp_path / "l.jsonl")
    assert [r.liked for r in found] == [False, True]
    assert {(r.group, r.text, r.question) for r in found} == {("a", "Because.", "Why?")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"group": "a", "text": "x"}\n{"group": "a"', r"l\.jsonl:2: not a line of UTF-8 JSON"),
        ('{"text": "x"}', r"l\.jsonl:1: columns text with group None"),
        ("[1]", r"l\.jsonl:1: a list"),
        ("null", r"l\.jsonl:1: a NoneType"),
        ('{"group": "a", "completion": "x", "label": "maybe"}', "label 'maybe'; expected true"),
        ('{"group": "a", "completion": "x"}', "expected group and text"),
        ('{"group": "a", "text": 5}', "5' is a int; expected text"),
        ("", "has no rows"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, content, message):
    (tmp_path / "l.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        read_style_log(tmp_path / "l.jsonl")


def test_mixed_encodings_are_named_by_line(tmp_path):
    good = json.dumps({"group": "a", "text": "x"}).encode()
    bad = '{"group": "a", "text": "Öl"}'.encode("latin-1")
    (tmp_path / "l.jsonl").write_bytes(good + b"\n" + bad + b"\n")
    with pytest.raises(DataError, match=r"l\.jsonl:2"):
        read_style_log(tmp_path / "l.jsonl")
    (tmp_path / "l.csv").write_bytes("group,text\na,Öl\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"l\.csv is not readable UTF-8"):
        read_style_log(tmp_path / "l.csv")
    (tmp_path / "l.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not readable Parquet"):
        read_style_log(tmp_path / "l.parquet")
    with pytest.raises(DataError, match=r"ends in '\.txt'"):
        (tmp_path / "l.txt").write_text("x")
        read_style_log(tmp_path / "l.txt")
