"""The data-set card: its counts are the log's, and what nobody knows is left to be filled in."""

from collections import Counter

import pytest
from huggingface_hub import DatasetCard

from tests.trialign_ray.finished_run import copied, finished_run
from trialign_ray.config import load_config
from trialign_ray.dataset import read_dataset
from trialign_ray.dataset_card import TO_FILL, dataset_card, licence_of
from trialign_ray.errors import DataError
from trialign_ray.log_figures import log_figures


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory)


@pytest.fixture
def card(finished) -> DatasetCard:
    return DatasetCard(dataset_card(finished[0], finished[1]))


def test_the_counts_are_those_of_the_log(finished, card):
    run, _ = finished
    rows = read_dataset(run.log_file)
    figures = log_figures(run.log_file)
    assert figures.num_rows == len(rows)
    assert figures.num_episodes == len({r["episode_id"] for r in rows})
    questions = {r["question_id"]: r for r in rows}
    assert figures.num_visible == sum(q["gold_visible"] for q in questions.values())
    assert figures.questions_by_kind == Counter(q["kind"] for q in questions.values())
    for i, group in enumerate(rows[0]["group_ids"]):
        rated = sum(r["r_pers"][i] is not None for r in rows)
        verified = sum(r["r_truth"][i] is not None for r in rows)
        assert f"| {group} | {len(rows)} | {rated} | {verified} |" in card.text
        assert 0 < verified < len(rows), "some gold is hidden"
    assert f"about {len(questions)} questions" in card.text


def test_the_front_matter_is_one_that_the_hub_reads(card):
    matter = card.data.to_dict()
    assert matter["license"] == "other" and matter["size_categories"] == ["n<1K"]
    assert matter["configs"][0]["data_files"] == "log.parquet"


def test_what_only_its_owner_knows_is_marked(card):
    personal = card.text.partition("## Personal data")[2]
    assert TO_FILL in personal and "consented" in personal
    assert TO_FILL in card.text.partition("## Sources and licences")[2].partition("\n## ")[0]


def test_licences_of_named_sources_are_known_and_files_are_left_to_their_owner():
    assert licence_of("gsm8k") == "MIT"
    assert licence_of("mmlu:world_religions") == "MIT"
    assert licence_of("truthworld").startswith("Apache-2.0")
    assert TO_FILL in licence_of("mine.jsonl")


def test_planted_beliefs_are_named_as_no_source_of_facts(finished):
    run, config = finished
    world = load_config(None).world
    planted = config.model_copy(update={"world": world})
    has_knobs = any(world.corruption.model_dump().values())
    assert ("planted on purpose" in dataset_card(run, planted)) == has_knobs


def test_a_run_without_a_log_is_named(finished, tmp_path):
    run, config = finished
    bare = copied(run, tmp_path / "run")
    bare.log_file.unlink()
    with pytest.raises(DataError, match="has no log"):
        dataset_card(bare, config)
