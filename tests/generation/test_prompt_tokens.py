"""What prompts may say."""

from __future__ import annotations

import pytest

from orthoplex.errors import PromptError
from orthoplex.generation import concept_names, contract_prompt, read_prompt

TOKENS = ("<anna>", "<anna>_1", "<anna>_10", "<anna>_2", "<rex>")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a photo of a cat", "a photo of a cat"),
        ("", ""),
        ("<rex> in a forest", "<rex> in a forest"),
        ("<anna> and <rex>", "<anna> and <rex>"),
        ("<anna> <anna>_1 <anna>_2 <anna>_10 person", "<anna> person"),
        ("2 < 3 and 4 > 1", "2 < 3 and 4 > 1"),
        ("x<rex>y", "x<rex>y"),
    ],
)
def test_what_a_pipeline_gets_written_out(prompt, expected):
    assert read_prompt(prompt, TOKENS).text == expected


@pytest.mark.parametrize("name", ["<max>", "<Anya>", "<>", "<anna>_3", "<rex>_1", "<|endoftext|>"])
@pytest.mark.parametrize("key", ["prompt", "negative_prompt"])
def test_an_unknown_name_lists_the_known_ones(name, key):
    with pytest.raises(PromptError) as error:
        read_prompt(f"a photo of {name} in a forest", TOKENS, key=key)
    assert str(error.value) == f"{key} names '{name}', which is not loaded; known concepts: <anna>, <rex>"


def test_a_single_vector_is_refused_with_what_to_write():
    with pytest.raises(PromptError, match="prompt names '<anna>_2', which is one vector of a concept; write <anna>"):
        read_prompt("<anna> beside <anna>_2", TOKENS)


def test_an_unknown_name_when_nothing_is_loaded():
    with pytest.raises(PromptError, match="'<anna>', which is not loaded; known concepts: none"):
        read_prompt("<anna>", ())


def test_names():
    assert concept_names(TOKENS) == ("anna", "rex")
    assert concept_names(()) == ()


def test_a_run_spelled_out_by_hand_is_contracted_and_a_lone_vector_stays() -> None:
    assert contract_prompt("<a> <a>_1 on <a>_1", ("<a>", "<a>_1")) == "<a> on <a>_1"
