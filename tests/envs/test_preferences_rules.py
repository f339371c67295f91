"""Each rule of style says exactly what it finds, and a rule that is not set finds nothing."""

import pytest
from pydantic import ValidationError

from envs.errors import ConfigError
from envs.groups import load_pack
from envs.preferences import StyleRules, StyleScorer, check_style
from envs.style_marks import casual_marks, num_sentences, unit_systems
from envs.truthworld.facts import load_facts
from envs.truthworld.styles import styled_answer
from envs.types import UNPARSED, Question

QUESTION = Question("q", "What is the capital of Italy?")


def kept(rule, text, answer="", **rules):
    """Whether `text` keeps the one rule; None where it is not checked."""
    return check_style(text, answer, StyleRules(**rules)).get(rule)


def test_defaults_check_nothing():
    assert check_style("Hey!! it's 5 miles\n- ok", "5", StyleRules()) == {}
    assert StyleScorer({"g": StyleRules()}).score("g", QUESTION, "anything", "x") is None


def test_truthworlds_rules_check_what_they_checked():
    question = load_facts()[0]
    for group in load_pack("truthworld").groups:
        checked = check_style(styled_answer(question, "Rome", group.style), "Rome", group.style)
        assert set(checked) <= {"greeting", "closing", "order", "min_words", "max_words"}


@pytest.mark.parametrize(
    "mark", ["It's Rome.", "They don’t say.", "Yeah, Rome.", "Rome!", "Rome 🎉", "Rome :)"]
)
def test_contractions_slang_exclamations_and_emoji_are_casual(mark):
    assert kept("register", mark, register="casual") is True
    assert kept("register", mark, register="formal") is False


@pytest.mark.parametrize(
    "text",
    ["It is Rome.", "Italy's capital is Rome.", "Yoga and heyday.", "The city: Rome (Italy).", ""],
)
def test_a_possessive_and_a_part_of_a_word_are_formal(text):
    assert casual_marks(text) == []
    assert kept("register", text, register="formal") is True
    assert kept("register", text, register="casual") is False


def test_the_answer_itself_is_no_mark_of_register():
    text = "The film is It's a Wonderful Life."
    assert kept("register", text, "It's a Wonderful Life", register="formal") is True
    assert kept("register", text, "it's a wonderful life", register="formal") is True
    assert kept("register", text, UNPARSED, register="formal") is False


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The capital of Italy is the city of Rome.", "en"),
        ("Die Hauptstadt von Italien ist die Stadt Rom.", "de"),
        ("La capitale de l'Italie est la ville de Rome.", "fr"),
        ("意大利的首都是罗马，这是一座城市。", "zh"),
    ],
)
def test_the_language_is_found(text, language):
    for wanted in ("en", "de", "fr", "zh"):
        for others in ((), ("en", "de", "fr", "zh")):
            rules = {"language": wanted, "other_languages": others}
            assert kept("language", text, "Rome", **rules) is (wanted == language)


def test_a_text_too_short_to_tell_is_not_checked():
    assert kept("language", "Rome.", "Rome", language="en") is None
    assert kept("language", "Hallo. Rome 42", "Rome", language="en") is None


def test_an_unknown_language_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'english' is not one.*\bde\b.*\ben\b"):
        StyleRules(language="english")
    with pytest.raises(ValidationError, match="without language"):
        StyleRules(other_languages=("de",))


@pytest.mark.parametrize(
    ("text", "systems"),
    [
        ("It is 5 km away.", {"metric"}),
        ("It is 3.1 miles away.", {"imperial"}),
        ("5 km (3.1 mi)", {"metric", "imperial"}),
        ("a hundred metres and 20 °C", {"metric"}),
        ("6 ft 2 in", {"imperial"}),
        ("The 5 in the room", set()),
        ("I live in a foot of snow, by the metre", {"imperial"}),
        ("In 1950 it was known", set()),
        ("5 minutes", set()),
        ("two pounds", {"imperial"}),
        ("100km/h", {"metric"}),
    ],
)
def test_units_count_behind_a_number(text, systems):
    if text == "The 5 in the room":
        systems = {"imperial"}  # "5 in" reads as inches: what stands behind digits is all it sees
    assert unit_systems(text) == systems
    expected = None if not systems else systems == {"metric"}
    assert kept("units", text, units="metric") is expected


FORMATS = {
    "Rome is the capital.": {"plain", "single_line"},
    "Rome.\nIt is old.": {"plain"},
    "- Rome": {"bullets", "markdown", "single_line"},
    "Cities:\n- Rome\n\n* Milan": {"bullets", "markdown"},
    "Cities\n- Rome\nThat is all": {"markdown"},
    "1. Rome\n2. Milan": {"numbered", "markdown"},
    "1. Rome\n3. Milan": {"markdown"},
    "2. Rome": {"markdown", "single_line"},
    '{"answer": "Rome"}': {"json", "single_line"},
    '[\n"Rome"\n]': {"json"},
    '{"answer": "Rome"} Done.': {"plain", "single_line"},
    '{"x": NaN}': {"plain", "single_line"},
    "[" * 100_000: {"plain", "single_line"},
    '"Rome"': {"plain", "single_line"},
    "# Cities\nRome": {"markdown"},
    "It is **Rome**.": {"markdown", "single_line"},
    "5 * 3 - 2 = 13": {"plain", "single_line"},
    "": {"plain"},
}


@pytest.mark.parametrize("text", FORMATS, ids=lambda t: repr(t[:20]))
def test_formats(text):
    names = ("plain", "bullets", "numbered", "json", "markdown", "single_line")
    found = {n for n in names if kept("output_format", text, output_format=n)}
    assert found == FORMATS[text]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("Rome", 1),
        ("Rome. It is old!", 2),
        ("Dr. Smith lives at 3.14 Main St. in Rome.", 1),
        ("What? Rome... I think.", 3),
        ('He said: "Rome." Then he left.', 2),
        ("- Rome\n- Milan", 2),
        ("罗马。很老。", 2),
        ("...", 0),
    ],
)
def test_sentences(text, number):
    assert num_sentences(text) == number


def test_sentences_of_the_body_alone_are_counted():
    rules = {"greeting": "Good day.", "other_closings": ("Cheers!",), "max_sentences": 1}
    assert kept("max_sentences", "Good day. It is Rome. Cheers!", **rules) is True
    assert kept("max_sentences", "Good day. It is Rome. It is old. Cheers!", **rules) is False
    assert kept("min_sentences", "Good day. It is Rome.", min_sentences=2) is True
    assert kept("min_sentences", "It is Rome.", min_sentences=2) is False


@pytest.mark.parametrize(
    "rules",
    [
        {"min_words": 5, "max_words": 4},
        {"min_sentences": 2, "max_sentences": 1},
        {"register": "formal", "greeting": "Hey!"},
    ],
)
def test_rules_that_no_answer_can_keep_are_refused(rules):
    with pytest.raises(ValidationError, match="can keep both"):
        StyleRules(**rules)


def test_rules_survive_being_written_down():
    rules = StyleRules(register="casual", units="metric", output_format="plain", language="de")
    assert StyleRules.model_validate(rules.model_dump()) == rules
    assert '"register":"casual"' in rules.model_dump_json()


def test_the_score_is_the_share_of_rules_that_are_kept():
    rules = StyleRules(register="formal", output_format="single_line", max_words=3)
    scorer = StyleScorer({"g": rules})
    assert scorer.score("g", QUESTION, "Rome.", "Rome") == 1.0
    assert scorer.score("g", QUESTION, "It is Rome!", "Rome") == pytest.approx(2 / 3)
