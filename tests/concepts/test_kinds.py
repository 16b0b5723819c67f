"""The kinds of concepts."""

from __future__ import annotations

import pytest

from orthoplex.concepts import KINDS, kind_of


@pytest.mark.parametrize(
    ("word", "kind"),
    [("woman", "person"), ("man", "person"), ("boy", "person"), ("Girl", "person"), ("young woman", "person"),
     ("person", "person"), ("scene", "scene"), ("style", "style"), ("dog", "subject"), ("human", "subject"),
     ("style guide", "subject"), (" ", "subject")],
)  # fmt: skip
def test_a_class_word_says_a_kind(word, kind):
    assert kind_of(word) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_prompt_of_a_kind_names_the_concept(kind):
    row = KINDS[kind]
    prompts = row.own_prompts("<anna> person")
    assert all("<anna> person" in prompt and "{" not in prompt for prompt in prompts)
    assert len(set(prompts)) == len(prompts) and "<anna> person" in prompts
    assert set(prompts) == {text.format(trigger="<anna> person") for text in (*row.captions, *row.settings)}
    assert row.captions and "{trigger}" in row.example and row.example.format(trigger="<anna> person") not in prompts


def test_class_words_belong_to_one_kind():
    words = [word for kind in KINDS.values() for word in kind.class_words]
    assert len(set(words)) == len(words) and not {*words} & {*KINDS}
