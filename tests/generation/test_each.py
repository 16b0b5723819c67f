"""Pictures of one batch, each with concepts of its own."""

from __future__ import annotations

import numpy as np
import pytest

from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.generation import Picture, generate, generate_each
from orthoplex.merging import merge
from tests.pico import make_concept


def sets(base):
    anna = make_concept(base, "anna", selection="linear", text_encoder=True, seed=1, scale=2.0)
    rex = make_concept(base, "rex", selection="attention", seed=2, scale=2.0)
    return anna, rex, merge([(anna, 0.5), (rex, 1.0)], algorithm="sum")


def apart(first, second) -> float:
    return float(np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).max())


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_every_picture_is_the_one_that_it_is_alone(pico, guidance_scale):
    anna, rex, both = sets(pico)
    pictures = [
        Picture("<anna> in a forest", anna, 3),
        Picture("a cat", None, 4),
        Picture("<anna> and <rex>", both, 5),
        Picture("a <rex>", rex, 6),
    ] * 3
    settings = {"num_inference_steps": 2, "guidance_scale": guidance_scale}
    made = generate_each(pico, pictures, **settings)
    assert len(made) == 12 and pico.tokens == () and pico.recipe is None
    for picture, drawn in zip(pictures[:4], made[:4], strict=True):
        alone = generate(pico, picture.prompt, merge=picture.merge, unmerged=True, seed=picture.seed, **settings)[0]
        assert apart(alone, drawn) <= 2
    assert apart(made[0], made[2]) > 5
    assert [picture.tobytes() for picture in made[4:8]] == [picture.tobytes() for picture in made[:4]]


def test_prompts_do_not_name_concepts_of_others(pico):
    anna, rex, _ = sets(pico)
    with pytest.raises(PromptError, match="<rex>"):
        generate_each(pico, [Picture("<anna> and <rex>", anna), Picture("<rex>", rex)], num_inference_steps=1)
    assert pico.tokens == () and pico.recipe is None


def test_what_cannot_be_in_one_batch_is_refused(pico):
    anna, _, _ = sets(pico)
    other = make_concept(pico, "anna", seed=7)
    with pytest.raises(ConfigurationError, match="token <anna> is claimed by concepts of two rows"):
        generate_each(pico, [Picture("<anna>", anna), Picture("<anna>", other)], num_inference_steps=1)
    with pytest.raises(PromptError, match="allowed in a batch of several prompts are plain ones"):
        generate_each(pico, [Picture("a (cat:1.3)", anna)], num_inference_steps=1)
    with pytest.raises(ConfigurationError, match="0 pictures were asked for"):
        generate_each(pico, [])
    with pico.fold(anna), pytest.raises(BaseModelError, match="has anna folded in"):
        generate_each(pico, [Picture("a cat")], num_inference_steps=1)
    assert pico.tokens == ()


def test_the_negative_prompt_is_read_as_it_is_for_one_picture(pico):
    anna, rex, _ = sets(pico)
    pictures, settings = [Picture("a cat", anna), Picture("a <rex>", rex)], {"num_inference_steps": 2}
    for negative, message in (
        ("<nobody>", "<nobody>"),
        ("<rex>", "<rex>"),
        ("(dog:1.5)", "negative_prompt .* has weights"),
        ("dog " * 61, "plain ones"),
    ):
        with pytest.raises(PromptError, match=message):
            generate_each(pico, pictures, negative_prompt=negative, **settings)
    assert pico.tokens == () and pico.recipe is None
    (alone, _) = generate_each(pico, pictures, negative_prompt="night", guidance_scale=8.0, **settings)
    once = generate(pico, "a cat", merge=anna, unmerged=True, negative_prompt="night", guidance_scale=8.0, **settings)[
        0
    ]
    assert apart(alone, once) <= 2
