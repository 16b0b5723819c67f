"""What prompts may say."""

from __future__ import annotations

import pytest

from orthoplex.errors import PromptError
from orthoplex.generation import concept_names, contract_prompt, expand_prompt

TOKENS = ("<anna>", "<anna>_1", "<anna>_10", "<anna>_2", "<rex>")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a photo of a cat", "a photo of a cat"),
        ("", ""),
        ("<rex> in a forest", "<rex> in a forest"),
        ("<anna> person", "<anna> <anna>_1 <anna>_2 <anna>_10 person"),
        ("<anna> and <rex>", "<anna> <anna>_1 <anna>_2 <anna>_10 and <rex>"),
        ("<anna> <anna>_1 <anna>_2 <anna>_10 person", "<anna> <anna>_1 <anna>_2 <anna>_10 person"),
        ("2 < 3 and 4 > 1", "2 < 3 and 4 > 1"),
        ("x<rex>y", "x<rex>y"),
    ],
)
def test_expansion_written_out(prompt, expected):
    assert expand_prompt(prompt, TOKENS) == expected


@pytest.mark.parametrize("name", ["<max>", "<Anna>", "<>", "<anna>_3", "<rex>_1", "<|endoftext|>"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(PromptError) as error:
        expand_prompt(f"a photo of {name} in a forest", TOKENS)
    assert str(error.value) == f"prompt names '{name}', which is not loaded; known concepts: <anna>, <rex>"


def test_a_single_vector_is_refused_with_what_to_write():
    with pytest.raises(PromptError, match="prompt names '<anna>_2', which is one vector of a concept; write <anna>"):
        expand_prompt("<anna> beside <anna>_2", TOKENS)


def test_an_unknown_name_when_nothing_is_loaded():
    with pytest.raises(PromptError, match="'<anna>', which is not loaded; known concepts: none"):
        expand_prompt("<anna>", ())


@pytest.mark.parametrize(
    ("tag", "instead"),
    [
        ("<lora:rex:0.8>", "pass --concept rex@0.8 and write <rex>"),
        ("<lora:rex>", "pass --concept rex and write <rex>"),
        ("<lyco:max:1>", "pass --concept max@1 and write <max>"),
    ],
)
def test_strength_tags_are_refused_with_what_to_write(tag, instead):
    with pytest.raises(PromptError) as error:
        expand_prompt(f"a photo, {tag}", TOKENS)
    assert f"'{tag}'" in str(error.value) and instead in str(error.value)


def test_names():
    assert concept_names(TOKENS) == ("anna", "rex")
    assert concept_names(()) == ()


@pytest.mark.parametrize("prompt", ["<a> in a forest", "<a> and <b>", "a cat", "<b>, <a>"])
def test_contracting_undoes_expanding(prompt: str) -> None:
    tokens = ("<a>", "<a>_1", "<a>_2", "<b>")
    assert contract_prompt(expand_prompt(prompt, tokens), tokens) == prompt


def test_a_run_spelled_out_by_hand_is_contracted_and_a_lone_vector_stays() -> None:
    assert contract_prompt("<a> <a>_1 on <a>_1", ("<a>", "<a>_1")) == "<a> on <a>_1"
