"""Foreign prompts, composed for a concept."""

from collections import Counter

import pytest
import torch

from orthoplex import vignette
from orthoplex.activations import FOREIGN_PROMPTS
from orthoplex.activations.captions import with_article
from orthoplex.activations.foreign_prompts import CLASS_WORDS, compose_foreign_prompts
from orthoplex.activations.general_prompts import default_foreign_prompts
from orthoplex.errors import ConfigurationError
from orthoplex.models import Base, Brought, load_base

DIM = 24


def compose(count, prompts=FOREIGN_PROMPTS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return compose_foreign_prompts(count, token="<anna>", class_word="person", prompts=prompts, generator=generator)


@pytest.mark.parametrize("count", [1, 2, 8, 64, 300])
def test_number_of_prompts(count):
    prompts = compose(count)
    assert len(prompts.plain) + len(prompts.tokened) == count
    assert len(prompts.tokened) == count // 4
    assert "" in prompts.plain


def test_no_class_word_stands_for_most_concepts_that_do_not_exist():
    words = Counter(compose(128).words)
    assert set(words) == {"person", *CLASS_WORDS}
    assert max(words.values()) <= 10  # of 32


def test_only_tokened_prompts_hold_the_token():
    prompts = compose(64)
    assert all("<anna>" in prompt for prompt in prompts.tokened)
    assert not any("<anna>" in prompt for prompt in prompts.plain)


def test_class_word_and_other_words_are_there():
    prompts = compose(64)
    assert "a photo of a person" in prompts.plain
    assert "a photo of <anna> person" in prompts.tokened
    assert any("<anna> animal" in prompt for prompt in prompts.tokened)
    assert all(f"<anna> {word}" in prompt for prompt, word in zip(prompts.tokened, prompts.words, strict=True))
    assert {"person", "food", "building", "place"} <= set(prompts.words)
    assert prompts.about_class == tuple(
        template.format("a person")
        for template in (
            "a drawing of {}",
            "a picture of {}",
            "a view of {}",
            "{}",
            "a photo of {}",
        )
    )


def test_class_words_have_their_article():
    generator = torch.Generator().manual_seed(0)
    prompts = compose_foreign_prompts(16, token="<otto>", class_word="animal", prompts=["a tree"], generator=generator)
    assert "a drawing of an animal" in prompts.plain and not any("a animal" in prompt for prompt in prompts.plain)
    assert [with_article(word) for word in ("person", "animal", "object")] == ["a person", "an animal", "an object"]


def test_prompts_that_name_a_class_word_get_the_token_in_its_place():
    prompts = compose(8, prompts=["a person on a beach", "a tree"])
    assert "<anna> person on a beach" in prompts.tokened


def test_order_is_decided_by_the_generator():
    assert compose(64, seed=1).plain == compose(64, seed=1).plain != compose(64, seed=2).plain


def test_no_prompts_are_refused():
    with pytest.raises(ConfigurationError, match="foreign_prompts holds 0 prompts"):
        compose(8, prompts=())


def test_default_prompts_depend_on_the_base(base):
    bringing = Base(base.pipeline, base.identity, brought=Brought(foreign_prompts=("a person",)))
    assert default_foreign_prompts(base) == FOREIGN_PROMPTS
    assert default_foreign_prompts(bringing) == ("a person",)
    assert default_foreign_prompts(load_base("vignette")) == tuple(vignette.foreign_prompts())
