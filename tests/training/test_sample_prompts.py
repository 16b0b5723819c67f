"""Sample pictures read prompts as pictures do, and bad ones are refused before a training begins."""

import sys
from dataclasses import replace

import pytest

from orthoplex.errors import MissingExtraError, PromptError
from orthoplex.generation import generate
from orthoplex.models import Conditioning
from orthoplex.training import train
from orthoplex.training.sampling import make_pictures
from tests.pictures import recorded_requests


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "({trigger}:1.4) [cat|dog]",
            "sample_prompts holds '[cat|dog]', an alternation in other programs; write one of",
        ),
        (
            "<lora:x:1>",
            "sample_prompts holds '<lora:x:1>', a tag in other programs; only the prompt of 'orthoplex generate' reads "
            "it; pass --concept x@1 and write <x>",
        ),
        (
            "({trigger}:1.4",
            "sample_prompts holds '(<anna> person:1.4', whose bracket is never closed; write (words:1.4)",
        ),
        ("{trigger} and <rex>", "sample_prompts names '<rex>', which is not loaded; known concepts: <anna>"),
        ("{name}", "sample_prompts holds '{name}', braces in other programs; write"),
        ("({trigger}:9)", "sample_prompts weighs '<anna> person' by 9; allowed are weights from 0 to 5"),
    ],
)
def test_bad_sample_prompts_are_refused_before_the_training(base, dataset, config, tmp_path, prompt, message):
    config = replace(config, sample_every=2, sample_prompts=("a {trigger}", prompt))
    with pytest.raises(PromptError) as error:
        train(base, dataset, config, output=tmp_path / "anna.safetensors")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert base.tokens == () and not list(tmp_path.iterdir())
    train(base, dataset, replace(config, sample_every=0), output=tmp_path / "anna.safetensors")  # nothing is drawn


def test_without_the_extra_weighted_samples_are_refused_before_the_training(
    base, dataset, config, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "compel.embeddings_provider", None)
    config = replace(config, sample_every=2, sample_prompts=("a ({trigger}:1.4)",))
    with pytest.raises(MissingExtraError, match=r"^sample_prompts 'a \(<anna> person:1.4\)' with weights"):
        train(base, dataset, config, output=tmp_path / "anna.safetensors")


def test_samples_with_weights_and_long_ones_are_read_whole(base, dataset, config, tmp_path, monkeypatch):
    long = "{trigger} " + "cat " * 40
    prompts = ("a {trigger}", "({trigger}:1.4) BREAK [cat]", long)
    config = replace(config, erasure=0.0, steps=1, sample_every=1, sample_prompts=prompts)
    seen = recorded_requests(base, monkeypatch)
    records = list(train(base, dataset, config, output=tmp_path / "anna.safetensors"))
    assert [len(record.images) for record in records] == [3, 3]
    plain, weighted, chunked = seen[0].prompts
    assert plain == "a <anna> person"
    assert isinstance(weighted, Conditioning) and isinstance(chunked, Conditioning)
    assert weighted.features.shape[1] == chunked.features.shape[1] == 2 * 32


def test_a_sample_is_the_picture_that_the_prompt_draws_elsewhere(base, config):
    for prompt in ("a cat", "a (cat:1.4) and a dog"):
        (sample,) = make_pictures(base, config, [prompt], seed=3).images()
        options = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
        assert sample.tobytes() == generate(base, prompt, seed=3, **options)[0].tobytes()


@pytest.mark.parametrize("class_word", ["cat (toy)", "C++ [book]", "SOMETHING: {a|b}"])
def test_the_trigger_is_text_in_samples_and_thumbnails(base, dataset, config, tmp_path, monkeypatch, class_word):
    trigger = f"<anna> {class_word}"
    dataset = replace(dataset, class_word=class_word, trigger=trigger)
    config = replace(config, erasure=0.0, steps=1, sample_every=1, thumbnail="generated")
    seen = recorded_requests(base, monkeypatch)
    list(train(base, dataset, config, output=tmp_path / "anna.safetensors"))
    assert {prompt for request in seen for prompt in request.prompts} == {f"a photo of {trigger}"}
