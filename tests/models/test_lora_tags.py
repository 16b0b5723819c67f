"""Tags that name LoRA files in prompts."""

from __future__ import annotations

import pytest

from orthoplex.errors import PromptError
from orthoplex.models.prompts.lora_tags import LoraTag, read_lora_tags


@pytest.mark.parametrize(
    ("tag", "read"),
    [
        ("<lora:rex>", LoraTag("rex", 1.0, 1.0)),
        ("<lora:rex:0.8>", LoraTag("rex", 0.8, 0.8)),
        ("<lora:rex:-.5>", LoraTag("rex", -0.5, -0.5)),
        ("<lora:rex:0>", LoraTag("rex", 0.0, 0.0)),
        ("<lora:rex:0.8:0.5>", LoraTag("rex", 0.8, 0.5, is_ambiguous=True)),
        ("<lora:rex:0.8:0.8>", LoraTag("rex", 0.8, 0.8)),
        ("<lora:rex:te=0.5:unet=0.8>", LoraTag("rex", 0.8, 0.5)),
        ("<lora:rex:0.8:te=0.5>", LoraTag("rex", 0.8, 0.5)),
        ("<lora:rex:unet=0.8>", LoraTag("rex", 0.8, 1.0)),
        ("<LyCO: My  Rex : 0.8 >", LoraTag("My Rex", 0.8, 0.8)),
        ("< lora :people/rex.safetensors:1>", LoraTag("people/rex.safetensors", 1.0, 1.0)),
        ("<lycoris:rex:1e-1>", LoraTag("rex", 0.1, 0.1)),
    ],
)
def test_a_tag_is_read(tag, read):
    assert read_lora_tags(f"a photo {tag} at night") == ("a photo at night", (read,))


@pytest.mark.parametrize(
    ("prompt", "words", "names"),
    [
        ("<lora:a:1> a cat", "a cat", ["a"]),
        ("a cat, <lora:a:1><lora:b>", "a cat", ["a", "b"]),
        ("a,<lora:a:1>, b", "a, b", ["a"]),
        ("a, <lora:a>,<lora:b> , b", "a, b", ["a", "b"]),
        ("<lora:a>, b", "b", ["a"]),
        ("(a, <lora:a>:1.2) b", "(a:1.2) b", ["a"]),
        ("[<lora:a>, b]", "[b]", ["a"]),
        ("([<lora:a>], b:1.2)", "(b:1.2)", ["a"]),
        ("x (<lora:a:0.8>:1.2) y", "x y", ["a"]),
        ("x, ((<lora:a:0.8> <lora:b>):1.2), y", "x, y", ["a", "b"]),
        (r"smile \(<lora:a>\), b", r"smile \(\), b", ["a"]),
        ("a <lora:a>, b", "a, b", ["a"]),
        ("a <lora:a> cat <lora:b> sits", "a cat sits", ["a", "b"]),
        ("a cat<lora:a>, (big:1.2)", "a cat, (big:1.2)", ["a"]),
        ("a\n<lora:a>\ncat", "a\ncat", ["a"]),
        (r"a \<lora:a> cat", r"a \<lora:a> cat", []),
        ("<anna> and <Lora>", "<anna> and <Lora>", []),
        ("<embed:a> <segment:face>", "<embed:a> <segment:face>", []),
        ("  as it is  ", "  as it is  ", []),
        ("", "", []),
        ("<lora:a>", "", ["a"]),
    ],
)
def test_the_tags_leave_the_prompt(prompt, words, names):
    rest, tags = read_lora_tags(prompt)
    assert rest == words and [tag.name for tag in tags] == names


def test_a_file_that_is_named_twice_has_the_sum():
    _, tags = read_lora_tags("<lora:rex:0.5> a dog <lora:rex:0.25:1> <lora:max>")
    assert tags == (LoraTag("rex", 0.75, 1.5, is_ambiguous=True), LoraTag("max", 1.0, 1.0))


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("<lora::1>", "which names no file"),
        ("<lora: >", "which names no file"),
        ("<lora:rex:high>", "whose 'high' is not read"),
        ("<lora:rex:>", "whose '' is not read"),
        ("<lora:rex:nan>", "whose 'nan' is not read"),
        ("<lora:rex:1:1:1>", "whose '1' is not read"),
        ("<lora:rex:1:lbw=MIDD>", "whose 'lbw=MIDD' is not read"),
        ("<lora:rex:te=1:te=2>", "whose 'te=2' is not read"),
        ("<lora:rex:1:2:te=1>", "which has two numbers and te= or unet="),
    ],
)
def test_what_is_not_read_is_named(tag, message):
    with pytest.raises(PromptError) as error:
        read_lora_tags(f"a dog {tag}")
    assert str(error.value).startswith(f"prompt holds '{tag}', {message}; allowed are <lora:NAME>, <lora:NAME:0.8>")
