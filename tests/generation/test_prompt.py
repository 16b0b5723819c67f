"""Prompts as users write them: weights, chunks, concepts, and syntax of other programs."""

from __future__ import annotations

import random
import re
import shlex

import pytest

from orthoplex.cli.console import parse_strength
from orthoplex.errors import PromptError
from orthoplex.generation import Prompt, read_prompt
from orthoplex.models import Fragment, escaped

TOKENS = ("<anna>", "<anna>_1", "<rex>")


def chunks(prompt: str, tokens=TOKENS) -> list[list[tuple[str, float]]]:
    return [[(part.text, part.weight) for part in chunk] for chunk in read_prompt(prompt, tokens).chunks]


def refusal(prompt: str, **options) -> str:
    with pytest.raises(PromptError) as error:
        read_prompt(prompt, TOKENS, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("normal text", [("normal text", 1)]),
        ("photo: 3:2, a [ b, c ) d ]", [("photo: 3:2, a ", 1), (" b, c ) d ", 0.909091)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("a [faint] word", [("a ", 1), ("faint", 0.909091), (" word", 1)]),
        ("((word)) [[word]]", [("word", 1.21), (" ", 1), ("word", 0.826446)]),
        ("([neither])", [("neither", 1)]),
        ("(word:1.2)", [("word", 1.2)]),
        ("(word : 1.2 )", [("word ", 1.2)]),
        ("(word:.5) (word:0)", [("word", 0.5), (" ", 1), ("word", 0)]),
        ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3), (" c", 1.5)]),
        ("(1990:1.2) (chapter:5)", [("1990", 1.2), (" ", 1), ("chapter", 5)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("[un(balanced", [("un", 0.909091), ("balanced", 1)]),
        ("un)bal]anced)", [("un)bal]anced)", 1)]),
        (r"\(literal\] \\ \a", [(r"(literal] \ a", 1)]),
        (r"(\(cat\:1.2) \AND \BREAK" + "\\", [("(cat:1.2", 1.1), (" AND BREAK", 1)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                *[("a ", 1), ("house", 1.573), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.55)],
                *[(", sun, ", 1.1), ("sky", 1.4641), (".", 1.1)],
            ],
        ),
        ("(<anna> person:1.4) at night", [("<anna> person", 1.4), (" at night", 1)]),
        ("(<anna> <anna>_1:1.4)", [("<anna>", 1.4)]),
        ("two\nlines (of\ntext)", [("two\nlines ", 1), ("of\ntext", 1.1)]),
    ],
)
def test_weights_written_out(prompt, expected):
    assert chunks(prompt) == [expected]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat BREAK a dog", [[("a cat", 1)], [("a dog", 1)]]),
        ("(a BREAK b:1.2)", [[("a", 1.2)], [("b", 1.2)]]),
        ("a BREAK, b", [[("a", 1)], [(", b", 1)]]),
        ("BREAK a BREAK BREAK b BREAK", [[("a", 1)], [("b", 1)]]),
        ("break BREAKFAST JAIL-BREAK", [[("break BREAKFAST JAIL-BREAK", 1)]]),
        ("BREAK", [[]]),
    ],
)
def test_break_begins_a_chunk(prompt, expected):
    assert chunks(prompt) == expected


def test_what_was_understood():
    prompt = read_prompt("<rex> and (<anna>:1.2), \\(night\\)", TOKENS)
    fragments = (Fragment("<rex> and "), Fragment("<anna>", 1.2), Fragment(", (night)"))
    assert prompt == Prompt("<rex> and (<anna>:1.2), \\(night\\)", (fragments,), ("anna", "rex"))
    assert prompt.text == "<rex> and <anna>, (night)" and not prompt.is_plain
    assert read_prompt("a \\(cat\\)", TOKENS).is_plain and not read_prompt("a BREAK b", TOKENS).is_plain
    assert read_prompt("BREAK (a) BREAK b", TOKENS).text == "a b"


def test_concepts_at_strength_zero_are_left_out_of_brackets():
    assert read_prompt("(<max> person:1.4)", TOKENS, absent=["max"]).chunks == ((Fragment("person", 1.4),),)
    assert read_prompt("a (<max>:1.4)", TOKENS, absent=["max"]).is_plain
    assert refusal("<Max>", absent=["max"]) == "prompt holds '<Max>', which names no concept; write <max>"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "(a\nb:-1)",
            "prompt weighs 'a b' by -1; allowed are weights from 0 to 5; pass the words as the negative prompt, or "
            r"'\(' for a bracket that is text",
        ),
        (
            "((word:3):2)",
            "prompt weighs 'word' by 6; allowed are weights from 0 to 5; write a smaller one, or "
            r"'\(' for a bracket that is text",
        ),
        (f"(word:{'9' * 400})", "prompt weighs 'word' by inf; allowed are"),
        ("(<max>:1.2)", "prompt names '<max>', which is not loaded; known concepts: <anna>, <rex>"),
        ("(<anna>:1.2) <anna>_1", "prompt names '<anna>_1', which is one vector of a concept; write <anna>"),
        ("<anna> <anna>_12", "prompt names '<anna>_12', which is not loaded; known concepts: <anna>, <rex>"),
    ],
)
def test_weights_and_names_that_cannot_be_are_refused(prompt, message):
    assert refusal(prompt).startswith(message)


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("(cat:1.2", "(cat:1.2', whose bracket is never closed; write (words:1.2)"),
        ("a (cat:2\n", "(cat:2', whose bracket is never closed; write (words:2)"),
        ("a (cat:1.2) (dog:.5", "(dog:.5', whose bracket is never closed; write (words:0.5)"),
        ("[cat:1.2", "[cat:1.2', whose bracket is never closed; write (words:1.2)"),
        ("(cat:1.2]", "(cat:1.2', whose bracket is never closed; write (words:1.2)"),
        ("(<anna> person:1.2", "(<anna> person:1.2', whose bracket is never closed; write (words:1.2)"),
        ("a cat:1.2)", "a cat:1.2', whose bracket is never opened; write (words:1.2)"),
        ("（cat:1.2）", "（cat:1.2', whose bracket is never opened; write (words:1.2)"),
        ("(cat:1,4)", "(cat:1,4', whose weight is no number; write (words:1.4)"),
        ("(cat:1.2f)", "(cat:1.2f', whose weight is no number; write (words:1.2)"),
        ("(cat:1.2.3)", "(cat:1.2.3', whose weight is no number; write (words:1.2)"),
        ("(cat:120%)", "(cat:120%', whose weight is no number; write (words:1.2)"),
        ("(1990:1,4)", "(1990:1,4', whose weight is no number; write (words:1.4)"),
        ("(1990:1.2", "(1990:1.2', whose bracket is never closed; write (words:1.2)"),
        ("(cat:2x)", "(cat:2x', whose weight is no number; write (words:2)"),
        ("(cat：1.2)", "(cat：1.2', whose weight is no number; write (words:1.2)"),
        ("(cat:-1,5)", "(cat:-1,5', whose weight is no number; write (words:1.2)"),
        ("(cat:1.2, dog)", "(cat:1.2', a weight before the end of its bracket; write (words:1.2)"),
        ("(cat:1.2:1.3)", "(cat:1.2', a weight before the end of its bracket; write (words:1.2)"),
        ("(cat:1.2, dog:1.3)", "(cat:1.2', a weight before the end of its bracket; write (words:1.2)"),
        ("(aspect 3:2)", "(aspect 3:2', which may be a weight or text; write (words:2.0) for a weight"),
        ("(at 3:05)", "(at 3:05', which may be a weight or text; write (words:5.0) for a weight"),
        ("(John 1:1)", "(John 1:1', which may be a weight or text; write (words:1.0) for a weight"),
    ],
)
def test_slips_in_weights_are_refused_with_both_cures(prompt, problem):
    assert refusal(prompt, key="negative_prompt") == (
        f"negative_prompt holds '{problem}, or " + r"'\(' for a bracket that is text"
    )


def test_a_weight_without_its_number_is_refused():
    assert refusal("(cat:)") == (
        "prompt has no number behind a colon at the end of a bracket; write (words:1.2), or "
        r"'\(' for a bracket that is text"
    )


@pytest.mark.parametrize(
    ("prompt", "words", "number"),
    [("at (12:30)", "12", 30), ("(John 3:16)", "John 3", 16), ("(16:9)", "16", 9), ("(12:30:45)", "12:30", 45)],
)
def test_times_ratios_and_verses_in_brackets_weigh_nothing(prompt, words, number):
    assert refusal(prompt) == (
        f"prompt weighs '{words}' by {number}; allowed are weights from 0 to 5; write a smaller one, or "
        r"'\(' for a bracket that is text"
    )
    assert read_prompt(prompt.replace("(", r"\(").replace(")", r"\)"), TOKENS).is_plain


@pytest.mark.parametrize(
    "trigger", ["<anna> cat (toy)", "<an-na_1> C++ AND [x|y] {z}", "<anna> BREAK _BREAK \\ a:1.2", "é"]
)
def test_escaped_text_is_read_as_it_stands(trigger):
    assert read_prompt(escaped(trigger), ("<anna>", "<an-na_1>")).chunks == ((Fragment(trigger),),)


def test_a_digit_behind_a_concept_stays_no_number_of_a_vector():
    assert chunks("<anna>1 and <anna> <anna>_1, <rex>22") == [[("<anna> 1 and <anna>, <rex> 22", 1)]]


@pytest.mark.parametrize(
    "text", ["<Anna>", "<ANNA>_1", "< anna>", "<anna >", "<anna", "<anna person", "anna>", "<\nanna>"]
)
def test_a_name_that_is_nearly_written_is_refused_with_what_to_write(text):
    assert refusal(f"a photo of {text}").endswith("', which names no concept; write <anna>")
    assert refusal(text, key="negative_prompt").startswith("negative_prompt holds '")


@pytest.mark.parametrize(
    ("text", "form", "advice"),
    [
        ("<hypernet:old:1>", "<hypernet:old:1>', a tag", "leave it out; hypernetworks are not supported"),
        ("<anna:1.2>", "<anna:1.2>', a tag", "write (<anna>:1.2) for a weight, or <anna>"),
        ("<region:0,0,1,1>", "<region:0,0,1,1>', a tag", "say in words where things are"),
        ("<object:0,0,1,1>", "<object:0,0,1,1>', a tag", "say in words where things are"),
        ("<random[1-2]:a,b>", "<random[1-2]:a,b>', a tag", "write one of its texts, one prompt for each choice"),
        ("<what:ever>", "<what:ever>', a tag", "leave it out"),
        ("[cat:dog:0.5]", "[cat:dog:0.5]', a schedule", "write one of its texts"),
        ("[cat:10]", "[cat:10]', a schedule", "write one of its texts, or (words:0.9) for a weight"),
        ("[cat::0.5]", "[cat::0.5]', a schedule", "write one of its texts"),
        ("[a [b] c:(d:1.1):.5]", "[a [b] c:(d:1.1):.5]', a schedule", "write one of its texts"),
        ("[cat|dog]", "[cat|dog]', an alternation", "write one of its texts, one prompt for each choice"),
        ("[[cat]|dog]", "[[cat]|dog]', an alternation", "write one of its texts"),
        ("cat AND dog", "AND', two prompts at once", "write 'and', or make a picture of each prompt"),
        ("cat ADDCOL dog", "ADDCOL', a region", "say in words where things are"),
        ("cat COUPLE MASK(0 1) dog", "COUPLE', a region", "say in words where things are"),
        ("__color__ cat", "__color__', a wildcard", "write one of its texts"),
        ("__a/b-*__", "__a/b-*__', a wildcard", "write one of its texts"),
        ("{cat|dog}", "{cat|dog}', a choice", "write one of its texts"),
        ("{2$$cat|{dog|\nfox}}", "{dog| fox}', a choice", "write one of its texts"),
        ("{{cat}}", "{cat}', braces", r"write (words:1.05) for a weight, or '\{' for a brace that is text"),
        ("cat --ar 3:2", "--ar', an option", "leave it out; pictures have the size of the base"),
        ("cat —ar 3:2", "—ar', an option", "leave it out; pictures have the size of the base"),
        ("cat --no dog", "--no', an option", "pass its words as the negative prompt, --negative-prompt WORDS"),
        ("cat --seed 3", "--seed', an option", "pass --seed beside the prompt"),
        ("cat --stylize 3", "--stylize', an option", "leave it out; options stand beside the prompt"),
        ("hot::2 dog", "::2', a weight", "write (words:2)"),
        ("hot:: dog", "::', a weight", "write (words:1.4)"),
        ("hot::-.5 dog", "::-.5', a weight", "pass the words as the negative prompt, --negative-prompt WORDS"),
        ("<anna:-1>", "<anna:-1>', a tag", "write (<anna>:1.4) for a weight, or <anna>"),
        ("1.5::rain ::", "1.5::', a weight", "write (words:1.5)"),
        ("cat++", "cat++', a weight", r"write (cat:1.21), or '\+\+' for text"),
        ("cat+ dog", "cat+', a weight", r"write (cat:1.10), or '\+' for text"),
        ("cat--", "cat--', a weight", r"write (cat:0.81), or '\-\-' for text"),
        ("(a cat)+", ")+', a weight", r"write (words:1.10), or '\+' for text"),
        ('"a cat"-', "\"-', a weight", r"write (words:0.90), or '\-' for text"),
        ("<rex>++", "<rex>++', a weight", r"write (<rex>:1.21), or '\+\+' for text"),
        ("(cat)1.2", ")1.2', a weight behind its bracket", "write (words:1.2)"),
        ('("cat", "dog").and()', ".and(', a function", "make a picture of each prompt"),
        ('("cat", "dog").blend(1, 1)', ".blend(', a function", "make a picture of each prompt"),
        ("cat.swap(dog)", ".swap(', a function", "make a picture of each prompt"),
    ],
)
def test_syntax_of_other_programs_is_refused_with_what_to_write(text, form, advice):
    message = refusal(f"a photo, {text}")
    assert message.startswith("prompt holds '") and f"{form} in other programs; {advice}" in message
    for weighted in re.findall(r"write (\(.*?:[0-9.]+\))", message):
        assert not read_prompt(weighted, TOKENS).is_plain


@pytest.mark.parametrize(
    "prompt",
    [
        "2 < 3 and 4 > 1, <3",
        "salt and pepper, R&B, AC/DC, BAND, ANDES",
        "18+ club, A+ grade, LGBTQ+ flag, C++ book, 1+1=2",
        "mid- and late century, well-known - sharp -- dark — light",
        "std::vector, 3:2, 16:9, at 12:30, 3::2, fe80::1",
        'SALT AND PEPPER, ROCK AND roll, an AND gate, A YOUNG COUPLE, "AS IS" AND ANY, AND/OR',
        "name: ______, 8 -------, libstdc++",
        'he waited-- and left, sunset --golden, "yes"- she said, (red)- blue, dreams —no regrets --wait',
        "c++ code, g++, notepad++, disney+ logo, lgbtq+ flag",
        "(John 3:16, Luke), (at 12:30pm), (ratio 3:2, blue), (note: 3 cats), (2nd:3rd), (opens:9am), (happy :)",
        "[12:30] [John 3:16] [16:9] [sic], f:1.8, score: 9",
        "fill(x), list.add (y), end.and (then), init._x",
        "poster | 1990, snake_case, _one_, f(x)",
        r"\{a\}, \[a\|b\], \_\_name__, cat\+\+, \(a\)1.2",
        "a brace { alone",
        "embedding of a cat, embedding: a cat",
        "mail to me@home.de, see a.b/c, 50% off #1 $5",
    ],
)
def test_ordinary_prose_is_text(prompt):
    text = read_prompt(prompt, TOKENS).text
    assert [letter for letter in text if letter.isalnum()] == [letter for letter in prompt if letter.isalnum()]


@pytest.mark.parametrize(
    ("tag", "advice"),
    [
        ("<lora:rex>", "pass --concept rex and write <rex>"),
        ("<lora:rex:0.8>", "pass --concept rex@0.8 and write <rex>"),
        ("<lora:Rex:-0.5>", "pass --concept Rex@-0.5 and write <rex>"),
        ("<lyco:people/rex.safetensors:1>", "pass --concept people/rex.safetensors@1 and write <rex>"),
        ("<lora:rex:high>", "pass --concept rex and write <rex>"),
        ("<lora:rex:1e999>", "pass --concept rex and write <rex>"),
        ("< LORA : rex : 0.8 >", "pass --concept rex@0.8 and write <rex>"),
        ("<lora:-rex>", "pass --concept ./-rex and write <-rex>"),
        ("<lora:My\nRex>", "pass --concept 'My Rex' and write the trigger that 'orthoplex inspect FILE' shows"),
        ("<lora:me@home>", "pass --concept me@home@1 and write the trigger that 'orthoplex inspect FILE' shows"),
        ("<lora:My Rex:1>", "pass --concept 'My Rex@1' and write the trigger that 'orthoplex inspect FILE' shows"),
        ("embedding:rex", "pass --concept rex and write <rex>"),
        ("(embedding:rex:1.2)", "pass --concept rex and write <rex>"),
        ("<lora:rex:0.8:0.5>", "pass --concept rex@0.8 and write <rex>"),
        ("<lora:rex:te=0.8:unet=0.5>", "pass --concept rex@0.8 and write <rex>"),
        ("<embed:rex>", "pass --concept rex and write <rex>"),
    ],
)
def test_the_advice_for_files_works_when_it_is_typed(tag, advice):
    message = refusal(f"a photo, {tag}")
    is_embedding = "embed" in tag
    reader = "" if is_embedding else "only the prompt of 'orthoplex generate' reads it; "
    assert message.endswith(f" in other programs; {reader}{advice}")
    _, _, typed = message.partition("--concept ")
    file, strength = parse_strength(shlex.split(typed)[0])
    assert file.suffix == ".safetensors" and isinstance(strength, float)
    name = re.search(r"write <(.*)>$", message)
    assert name is None or read_prompt(f"<{name[1]}>", [f"<{name[1]}>"]).concepts == (name[1],)


def test_a_tag_without_a_name():
    assert refusal("<lora::1>").endswith("pass --concept FILE and write <NAME>")


PIECES = [
    *[
        "cat",
        "Anna",
        "é",
        "猫",
        "a dog",
        "-",
        "+",
        ",",
        ".",
        " ",
        "\n",
        "\t",
        "1.2",
        "|",
        "\\",
        "'",
        '"',
        "_",
        "@",
        "#",
    ],
    *[
        "(",
        ")",
        "[",
        "]",
        ":",
        ":1.2)",
        ":0.5)",
        ":-1)",
        ":1.2.3)",
        "\\(",
        "\\)",
        "\\[",
        "\\]",
        "\\\\",
        "((",
        "]]",
        "()",
    ],
    *["BREAK", " BREAK ", "AND", "<anna>", "<rex>", "<max>", "<Rex>", "<rex", "< rex>", "<", ">", "<>", "<lora:rex:1>"],
    *[
        "(cat:1.2",
        ":1,4)",
        ":1.2f)",
        ":120%)",
        "(12:30)",
        "3:2)",
        "（",
        "：1.2）",
        "(a:1.2, b)",
        "\\AND",
        "\\BREAK",
        "--no",
        "—ar 3:2",
    ],
    *["{", "}", "{a|b}", "[a|b]", "[a:b:0.5]", "__a__", "--ar 3:2", "::2", "++", "--", ".and()", "embedding:x", "\0"],
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_any_prompt_is_understood_or_refused_in_one_line(seed):
    chance = random.Random(seed)
    tokens, understood = ("<anna>", "<rex>"), 0
    for _ in range(100):
        prompt = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 7)))
        try:
            read = read_prompt(prompt, tokens)
        except PromptError as error:
            assert len(str(error).splitlines()) == 1
            continue
        understood += 1
        written = re.sub(r"\\(.?)|(?<![\w-])BREAK(?![\w-])", lambda match: match[1] or "", prompt, flags=re.DOTALL)
        assert [letter for letter in read.text if letter.isalpha()] == [
            letter for letter in written if letter.isalpha()
        ]
        assert all(0 <= part.weight <= 5 for chunk in read.chunks for part in chunk)
    assert understood > 10
