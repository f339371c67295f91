"""Export: folders that PEFT alone can load, with cards that say what was measured and what not."""

import json
import os
import shlex

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.trialign_ray.finished_run import GROUPS, copied, finished_run
from trialign_ray.adapters import load_adapter
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.export import ExportOptions, export_run, portable_config, require_space
from trialign_ray.language_model import load_language_model, weights_checksum
from trialign_ray.model_card import card_facts, model_card, stored_evaluation
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.run_models import RunBase, run_base

IDS = torch.tensor([[2, 30, 31, 32, 33, 34, 35]])
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """A folder with merged copies, and what was told while it was made."""
    told = []
    out = tmp_path_factory.mktemp("export") / "adapters"
    export_run(finished[0], finished[1], out, ExportOptions(merged=True), told.append)
    return out, told


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("group", GROUPS)
def test_peft_alone_loads_a_folder_and_computes_what_the_run_computes(finished, exported, group):
    run, _ = finished
    base = AutoModelForCausalLM.from_pretrained(SHIPPED_BASE)
    plain = logits(base)
    theirs = logits(PeftModel.from_pretrained(base, exported[0] / group))
    ours = logits(load_adapter(load_language_model(SHIPPED_BASE), run.adapter_dir(group)).eval())
    torch.testing.assert_close(theirs, ours)
    assert (theirs - plain).abs().max() > 1e-3, "the adapter does something"


def test_a_common_adapter_and_the_groups_own_are_one_lora_of_the_sum_of_their_ranks(exported):
    settings = json.loads((exported[0] / "amber" / "adapter_config.json").read_text())
    assert settings["r"] == settings["lora_alpha"] == 8 + 4


@pytest.mark.parametrize("group", GROUPS)
def test_a_merged_copy_computes_what_base_and_adapter_do(exported, group):
    out, _ = exported
    base = AutoModelForCausalLM.from_pretrained(SHIPPED_BASE)
    merged = AutoModelForCausalLM.from_pretrained(out / "merged" / group)
    assert not hasattr(merged, "peft_config")
    beside = logits(PeftModel.from_pretrained(base, out / group))
    torch.testing.assert_close(logits(merged), beside, atol=1e-4, rtol=1e-4)
    assert (out / "merged" / group / "tokenizer.json").is_file()


def test_merging_tells_the_size_before_and_leaves_the_base_as_it_was(finished, exported):
    run, config = finished
    assert "merged copies: 2 of" in exported[1][0] and "GiB are free" in exported[1][0]
    provenance = json.loads((run.adapter_dir("amber") / "trialign.json").read_text())
    assert weights_checksum(run_base(run, config).folder) == provenance["base_checksum"]


def test_merged_copies_that_do_not_fit_the_disk_are_refused_with_both_numbers(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2**43)  # a sparse file: it takes no space
    base = RunBase(tmp_path, "huge", on_hub=False, revision=None)
    with pytest.raises(ConfigError, match=r"need 17203\.200 GiB, there are \d+\.\d+ GiB free"):
        require_space(base, ("a", "b"), tmp_path / "out", lambda line: None)


def test_the_card_has_the_runs_figures_with_intervals_and_front_matter(finished, exported):
    run, _ = finished
    card = ModelCard.load(exported[0] / "amber" / "README.md")
    matter = card.data.to_dict()
    assert matter["library_name"] == "peft" and "group:amber" in matter["tags"]
    assert "base_model" not in matter, "the tiny base is not on the Hub"
    evaluation = stored_evaluation(run)
    assert evaluation is not None
    truth = evaluation["models"]["aligned"]["truth"]
    low, high = truth["ci"]["by_group"]["amber"]
    figures = f"| **this adapter** | {truth['by_group']['amber']:.3f} [{low:.3f}, {high:.3f}] |"
    verdict = json.loads(run.selection_file.read_text())["verdict"]
    for expected in (figures, "A user without a profile", "## Licence\n\nTo be decided"):
        assert expected in card.text
    assert verdict[1:] in card.text
    assert "Limits" in card.text and "LoRA rank 8 (own) and 4 (common" in card.text


def test_a_base_of_the_hub_is_named_with_its_commit(finished):
    run, config = finished
    base = RunBase(SHIPPED_BASE, "Qwen/Qwen2.5-1.5B-Instruct", on_hub=True, revision=COMMIT)
    settings = portable_config({"r": 8, "target_modules": ["q", "k"]}, base)
    assert settings["base_model_name_or_path"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert settings["revision"] == COMMIT and settings["target_modules"] == ["k", "q"]
    facts = card_facts(run, config, GROUPS, None)
    facts = type(facts)(**{**vars(facts), "base": base})
    card = ModelCard(model_card(facts, "amber", "A reader.", {"base_checksum": "c" * 64}))
    matter = card.data.to_dict()
    assert matter["base_model"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert matter["base_model_revision"] == COMMIT
    assert f'revision="{COMMIT}"' in card.text


def test_nothing_exported_names_a_path_of_the_machine_that_trained(finished, exported):
    run, _ = finished
    texts = [p for p in exported[0].rglob("*") if p.suffix in (".md", ".json")]
    assert len(texts) > 6
    for path in texts:
        content = path.read_text()
        assert str(run.root) not in content and str(SHIPPED_BASE) not in content, path


def serving_command(folder) -> list[str]:
    """What README.md tells a shell to serve the folder with, word by word."""
    page = (folder / "README.md").read_text()
    return shlex.split(page.split("```sh\n")[1].split("```")[0].replace("\\\n", " "))


def test_the_index_serves_its_own_folders_on_a_base_that_can_be_found(finished, exported, tmp_path):
    run, config = finished
    out, told = exported
    name = run_base(run, config).name
    command = serving_command(out)
    assert command[:3] == ["vllm", "serve", f"/path/to/{name}"], "its name alone is no model"
    assert command[command.index("--served-model-name") + 1] == name
    assert command[command.index("--lora-modules") + 1 :] == [f"{g}={g}" for g in GROUPS]
    assert all((out / g).is_dir() for g in GROUPS)
    assert f"base: {run_base(run, config).folder}, which is not on the Hub" in told[-1]
    assert f'from_pretrained("/path/to/{name}"' in (out / GROUPS[0] / "README.md").read_text()


def test_a_chat_template_that_is_given_with_the_base_is_served_with_it(finished, tmp_path):
    run, config = finished
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }}")
    model = config.model.model_copy(update={"chat_template": str(template)})
    given = config.model_copy(update={"model": model})
    export_run(run, given, tmp_path / "out", ExportOptions(("amber",)))
    command = serving_command(tmp_path / "out")
    assert command[command.index("--chat-template") + 1] == "chat_template.jinja"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_a_run_that_is_not_evaluated_is_exported_and_says_so(finished, tmp_path):
    run, config = finished
    bare = copied(run, tmp_path / "run")
    bare.evaluation_file.unlink()
    told = []
    written = export_run(bare, config, tmp_path / "out", ExportOptions(("birch",)), told.append)
    assert not written.evaluated and written.groups == ("birch",)
    assert any("not evaluated" in line for line in told)
    assert "**not evaluated**" in (written.folder / "birch" / "README.md").read_text()
    assert "not evaluated" in (written.folder / "README.md").read_text()
    assert not (written.folder / "amber").exists()


def test_links_share_the_runs_weights_and_copies_do_not(finished, tmp_path):
    run, config = finished
    original = (run.adapter_dir("amber") / "adapter_model.safetensors").stat().st_ino
    for link in (True, False):
        out = tmp_path / str(link)
        export_run(run, config, out, ExportOptions(("amber",), link=link))
        same = os.stat(out / "amber" / "adapter_model.safetensors").st_ino == original
        assert same == link


def test_a_folder_that_is_there_is_not_overwritten(finished, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is there already"):
        export_run(finished[0], finished[1], tmp_path, ExportOptions())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_weights_that_the_training_did_not_export_are_refused_and_nothing_is_left(
    finished, tmp_path
):
    run, config = finished
    changed = copied(run, tmp_path / "run")
    file = changed.adapter_dir("birch") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match="the training exported"):
        export_run(changed, config, tmp_path / "out", ExportOptions())
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_another_base_is_refused_with_both_checksums(finished, tmp_path):
    run, config = finished
    changed = copied(run, tmp_path / "run")
    path = changed.adapter_dir("amber") / "trialign.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_checksum": "f" * 64}))
    with pytest.raises(ConfigError, match="checksum ffffffffffff"):
        export_run(changed, config, tmp_path / "out", ExportOptions())


def test_unknown_groups_and_untrained_runs_are_named(finished, tmp_path):
    run, config = finished
    with pytest.raises(ConfigError, match=r"'nobody' has no adapter .* amber, birch"):
        export_run(run, config, tmp_path / "out", ExportOptions(("nobody",)))
    bare = copied(run, tmp_path / "run")
    bare.training_file.unlink()
    with pytest.raises(DataError, match="has no trained adapters"):
        export_run(bare, config, tmp_path / "out", ExportOptions())
