"""The configuration: nothing unknown passes, everything said is kept."""

import pytest

from trialign_ray.config import Config, field_names, load_config, to_yaml
from trialign_ray.errors import ConfigError

FIELDS = """
algorithm behaviour.base behaviour.batch_size behaviour.epochs behaviour.learning_rate
behaviour.model behaviour.num_threads behaviour.num_workers behaviour.switch_rate
clone.batch_size clone.checkpoint_every clone.coordinate_every clone.extraction clone.kl_weight
clone.learning_rate clone.lora_alpha clone.lora_rank clone.min_target clone.pair_beta
clone.shared_rank clone.steps clone.target_modules clone.temperature collect.batch_size
collect.episodes_per_question collect.label_fraction collect.max_new_tokens collect.temperature
collect.turns critic.discount critic.ensemble_size critic.expectile critic.folds
critic.later_turns critic.learning_rate critic.pessimism critic.steps critic.team_reward
critic.truth_head critic.value_steps critic.weight_decay engine.api_key_env engine.cache_gib
engine.concurrency engine.cpus engine.gpus engine.kind engine.max_retries engine.memory_fraction
engine.model engine.timeout_s engine.url evaluate.confidence evaluate.modes
evaluate.multiple_choice evaluate.num_resamples model.chat_template model.dtype
model.gradient_checkpointing model.max_length model.revision model.trust_remote_code preferences
resources.cpus_critic resources.cpus_per_group resources.gpus_per_group resources.max_restarts
resources.timeout_s seed targets.borrow_peers targets.group_weights targets.kl_weight
targets.penalty targets.penalty_weight targets.personalization_weight targets.players
targets.target_inconsistency targets.tolerance targets.truth_weight targets.welfare
targets.welfare_exponent targets.welfare_level targets.welfare_omega targets.welfare_temperature
world.corruption.false_consensus world.corruption.noise world.corruption.style_noise
world.corruption.sycophancy world.corruption.systematic_myth world.data_dir world.groups
world.max_questions world.num_controls world.num_groups world.prompt_mode world.questions
world.train_fraction world.validation_fraction
"""


def test_the_list_of_keys_is_frozen():
    assert sorted(field_names()) == sorted(FIELDS.split())


def test_every_key_says_what_it_means():
    schema = Config.model_json_schema()
    for section in schema["$defs"].values():
        for name, field in section["properties"].items():
            assert "$ref" in field or field.get("description"), name


def test_a_configuration_survives_yaml(tmp_path):
    path = tmp_path / "c.yaml"
    config = load_config(None, ["seed=3", "targets.penalty_weight=0.5", "world.num_groups=null"])
    path.write_text(to_yaml(config))
    assert load_config(path) == config and config.world.num_groups is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("targets.penality_weight=1", "did you mean 'targets.penalty_weight'"),
        ("target.penalty_weight=1", "unknown key 'target'"),
        ("targets.lambda=1", "is called 'targets.penalty_weight'"),
        ("collect.label_fraction=1.5", "collect.label_fraction is 1.5"),
        ("collect.label_fraction=-0.1", "greater than or equal to 0"),
        ("targets.kl_weight=0", "greater than 0"),
        ("targets.penalty_weight=-1", "greater than or equal to 0"),
        ("targets.welfare_exponent=2", "less than or equal to 1"),
        ("world.num_groups=0", "greater than or equal to 1"),
        ("world.num_groups=1001", "less than or equal to 1000"),
        ("world.train_fraction=0.95", "the rest is the test split"),
        ("seed=x", "seed is 'x'"),
        ("seed", "expected section.key=value"),
        ("seed.a=1", "seed"),
        ("targets.penalty_weight=.inf", "finite"),
        ("evaluate.modes=[]", "evaluate.modes"),
        ("clone.steps=0", "clone.steps is 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_key_value_and_way_out(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def test_files_that_are_no_configuration_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(path)
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match="not a mapping"):
        load_config(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not readable YAML"):
        load_config(path)
    path.write_text("seed: !!python/name:os.system")
    with pytest.raises(ConfigError, match="not readable YAML"):
        load_config(path)


def test_an_empty_section_means_its_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 2\ncollect:\n")
    assert load_config(path) == load_config(None, ["seed=2"])


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 1
