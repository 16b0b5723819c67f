"""What may be resumed, and what may be trained at one time."""

from contextlib import closing
from dataclasses import replace

import pytest
import torch

from orthoplex.errors import BusyError, ConfigurationError
from orthoplex.models import load_base
from orthoplex.training import train
from tests.training.test_loop import last_of, log_lines


def test_a_break_before_the_first_step_can_be_resumed(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    with closing(train(base, dataset, config, output=output)) as records:
        assert next(records).step == 0
    assert [record.step for record in train(base, dataset, config, output=output, resume=True)] == list(range(7))


def test_two_trainings_of_one_file_at_a_time_are_refused(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    with closing(train(base, dataset, config, output=output)) as first:
        next(first)
        with pytest.raises(BusyError, match="being trained already"):
            next(train(base, dataset, config, output=output))
        assert log_lines(output)[0]["step"] == 0
    assert not list(tmp_path.glob(".*"))
    assert last_of(train(base, dataset, config, output=output, resume=True)).output == output


def test_a_base_in_float16_is_refused(pico_folder, dataset, config, tmp_path):
    half = load_base(pico_folder, dtype=torch.float16)
    with pytest.raises(ConfigurationError, match="weights are float16, .* allowed are float32 and bfloat16"):
        train(half, dataset, config, output=tmp_path / "anna.safetensors")


def test_resume_on_another_autoencoder_or_data_type_is_refused(pico_folder, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    base = load_base(pico_folder)
    with closing(train(base, dataset, config, output=output)) as records:
        next(records)
    with pytest.raises(ConfigurationError, match="data type of the base 'float32', this run has 'bfloat16'"):
        next(train(load_base(pico_folder, dtype=torch.bfloat16), dataset, config, output=output, resume=True))
    with torch.no_grad():
        base.pipeline.vae.encoder.conv_in.bias.add_(1.0)
    with pytest.raises(ConfigurationError, match="made with autoencoder, tokens and schedule .* both must agree"):
        next(train(base, dataset, config, output=output, resume=True))


def test_resume_without_a_checkpoint_begins(base, dataset, config, tmp_path):
    records = train(base, dataset, replace(config, steps=1), output=tmp_path / "anna.safetensors", resume=True)
    assert [record.step for record in records] == [0, 1]


def test_resume_with_other_options_is_refused(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    with closing(train(base, dataset, config, output=output)) as records:
        next(records)
    with pytest.raises(ConfigurationError, match="made with seed 0, this run has 1; both must agree"):
        next(train(base, dataset, replace(config, seed=1), output=output, resume=True))
    next(train(base, dataset, replace(config, sample_every=3, checkpoint_every=1), output=output, resume=True))


def test_convolutions_read_channels_last_when_a_concept_is_trained(base, dataset, config, tmp_path):
    weights = [one for one in base.pipeline.unet.parameters() if one.ndim == 4 and one.shape[-1] > 1]
    with closing(train(base, dataset, config, output=tmp_path / "anna.safetensors")) as records:
        next(records)
        assert all(one.is_contiguous(memory_format=torch.channels_last) for one in weights)
    base.pipeline.save_pretrained(tmp_path / "whole")  # which the layout does not hinder


@pytest.mark.parametrize("form", ["activation", "prediction"])
def test_two_foreign_prompts_are_enough(base, dataset, config, tmp_path, form):
    few = replace(config, steps=1, erasure_prompts=2, erasure_form=form)
    assert last_of(train(base, dataset, few, output=tmp_path / "anna.safetensors")).erasure is not None
