import pytest

from orthoplex.cli.spelled import own_arguments
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
        ("--validation_prompt 7", '--set sample_prompts=["7"]'),
        ("--checkpointing_steps 5", "--set checkpoint_every=5"),
        ("--resume_from_checkpoint latest", "--resume"),
        ("--pretrained_model_name_or_path b --instance_data_dir d", "--base b d"),
        ("--cache_latents --center_crop", ""),
        ("--report_to tensorboard", '--set report_to="tensorboard"'),
        ("--report-to=tensorboard", '--set report_to="tensorboard"'),
        ("--log_with tensorboard", '--set report_to="tensorboard"'),
        ("--use_8bit_adam", '--set optimizer="adamw-8bit"'),
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
    path.write_text("max_train_steps = 9\nvalidation_prompt = 'a {trigger}'\n")
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
