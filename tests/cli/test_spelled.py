import pytest

from orthoplex.cli.spelled import own_arguments
from orthoplex.cli.train import _settings
from orthoplex.errors import ConfigurationError
from orthoplex.options.spellings import SPELLINGS
from orthoplex.training import TrainingConfig

OWN = {"--base", "--rank", "--learning-rate", "--seed", "--steps", "--set", "--resume"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--train_batch_size 4", "--set batch_size=4"),
        ("--train-batch-size=4", "--set batch_size=4"),
        ("--learning_rate 1e-4", "--learning-rate 1e-4"),
        ("--learning_rate=1e-4 --rank 8", "--learning-rate=1e-4 --rank 8"),
        ("--max_train_steps 9", "--set steps=9"),
        ("--network_dim 8 --network_alpha 4", "--set rank=8 --set alpha=4"),
        ("--lora_alpha 4.0", "--set alpha=4.0"),
        ("--snr_gamma 5.0 --noise_offset 0.1", "--set min_snr_gamma=5.0 --set noise_offset=0.1"),
        ("--with_prior_preservation", "--set prior_weight=1.0"),
        ("--prior_loss_weight=0.5 --with_prior_preservation", "--set prior_weight=0.5"),
        ("--num_class_images 9", "--set prior_pictures=9"),
        ("--random_flip --train_text_encoder", "--set flip=true --set text_encoder=true"),
        ("--max_grad_norm 1", "--set gradient_clip=1"),
        ("--lr_scheduler constant_with_warmup", '--set schedule="constant"'),
        ("--lr_warmup_steps 0 --text_encoder_lr 1e-3", "--set warmup=0 --set text_encoder_learning_rate=0.001"),
        ("--mixed_precision bf16", '--set mixed_precision="bf16"'),
        (
            "--gradient_checkpointing --gradient_accumulation_steps 2",
            "--set gradient_checkpointing=true --set gradient_accumulation_steps=2",
        ),
        ("--validation_prompt 7 --sample_every 9", '--set sample_prompts=["7"] --set sample_every=9'),
        ("--checkpointing_steps 5", "--set checkpoint_every=5"),
        ("--resume_from_checkpoint latest", "--resume"),
        ("--pretrained_model_name_or_path b --instance_data_dir d", "--base b d"),
        ("--cache_latents --center_crop", ""),
        ("--report_to tensorboard", '--set report_to="tensorboard"'),
        ("--report-to=tensorboard", '--set report_to="tensorboard"'),
        ("--log_with tensorboard", '--set report_to="tensorboard"'),
        ("--use_8bit_adam", '--set optimizer="adamw-8bit"'),
        ("--resolution 512 --min_snr_gamma 5", "--set resolution=512 --set min_snr_gamma=5"),
        ("--token-vectors=layer-wise --buckets", '--set token_vectors="layer-wise" --set buckets=true'),
        ("--class_data_dir c", "--class-data c"),
        ("--reg_data_dir=c", "--class-data c"),
        ("--steps 3 pictures --nonsense", "--steps 3 pictures --nonsense"),
        ("-- --train_batch_size", "-- --train_batch_size"),
    ],
)
def test_options_of_other_programs_become_own_ones(arguments, expected):
    assert own_arguments(arguments.split(), OWN) == expected.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--instance_prompt", "sks"], "instance_prompt is 'sks', an option that training does not have; --name and"),
        (["--allow_tf32"], "allow_tf32 is True, an option that training does not have; mixed_precision=bf16 is"),
        (["--resume_from_checkpoint", "step-9"], "--resume_from_checkpoint is 'step-9'; allowed is latest"),
        (["--train_batch_size"], "--train_batch_size has no value; it needs one"),
        (["--network_dim=8", "--lora_alpha=4", "--network_alpha=4"], "lora_alpha and network_alpha are both given"),
        (["--cache_dir", "x"], "--cache_dir is where other programs store downloads; --cache-dir stores features here"),
        (
            ["--prior_loss_weight", "1"],
            "prior_loss_weight is 1 without with_prior_preservation; allowed is prior_weight",
        ),
        (["--steps", "1", "--max_train_steps", "2"], "--steps and --max_train_steps are both given; allowed is one"),
        (["--max_train_steps", "2", "--steps=1"], "--steps and --max_train_steps are both given; allowed is one"),
        (["--cache_latents=false"], "cache_latents is False; allowed is true, which training always does"),
    ],
)
def test_options_without_an_equal_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        own_arguments(arguments, OWN)


def test_spellings_lead_to_options_that_exist():
    assert {row.key for row in SPELLINGS.values() if row.key} <= set(TrainingConfig().to_json())
    assert not set(SPELLINGS) & set(TrainingConfig().to_json())


def test_files_and_entries_take_the_spellings(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("max_train_steps = 9\nvalidation_prompt = 'a {trigger}'\nsample_every = 3\n")
    config = TrainingConfig.from_toml(path, overrides=["train_batch_size=3", "lr_scheduler=constant"])
    assert (config.steps, config.batch_size, config.schedule) == (9, 3, "constant")
    assert config.sample_prompts == ("a {trigger}",)
    assert TrainingConfig.from_toml(path, overrides=["steps=4"]).steps == 4
    assert config.with_overrides(["max_grad_norm=0"]).gradient_clip == 0


def test_the_command_reads_them(run, pictures, pico_folder):
    named = ["--name", "anna", "--class-word", "person", "--pretrained_model_name_or_path", pico_folder]
    result = run("train", "--instance_data_dir", pictures, *named, "--max_train_steps", "0")
    assert result.exit_code != 0
    assert "steps is 0; allowed are whole numbers from 1" in result.stderr
    result = run("train", pictures, *named, "--instance_prompt", "sks")
    assert result.exit_code != 0
    assert "instance_prompt is 'sks', an option that training does not have" in result.stderr


def test_every_option_that_has_no_flag_is_read_like_one():
    for name, value in TrainingConfig().to_json().items():
        if f"--{name.replace('_', '-')}" not in OWN:
            given = [f"--{name}"] if isinstance(value, bool) else [f"--{name}", "7"]
            assert own_arguments(given, OWN)[0] == "--set" and own_arguments(given, OWN)[1].startswith(f"{name}=")


@pytest.mark.parametrize("entry", ["steps=4", "max_train_steps=4", " max_train_steps = 4"])
def test_entries_go_before_flags_in_any_spelling(entry):
    config = _settings(None, {"steps": 100, "rank": 3}, [entry], no_thumbnail=False, defaults={})
    assert (config.steps, config.rank) == (4, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_encoder_lr": 1e-5}, "text_encoder_learning_rate is 1e-05 and text_encoder is false; allowed is"),
        (
            {"validation_prompt": "a"},
            "validation_prompt is 'a' without sample_every; allowed is one beside it",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig.from_mapping(values)


def test_files_of_versions_that_allowed_options_without_effect_are_read():
    recorded = {**TrainingConfig().to_json(), "text_encoder_learning_rate": 1e-5}
    assert TrainingConfig.recorded(recorded) == TrainingConfig()
