"""Text alignment: which name a prompt asks for, what heads read, and cosines with texts."""

import pytest
import torch

from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import LinearHead, above_chance, asked_for, shows, text_scores

SCENES = ("a desert", "a desert with cacti", "a forest", "an autumn forest", "the sea")
HEAD = LinearHead(torch.eye(3), torch.zeros(3), ("a cave", "a beach", "the sea"), "e")
ROWS = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.1, 0.9], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("{trigger} in a desert", "a desert"),
        ("{trigger} in A Forest, red ink painting", "a forest"),
        ("a photo of {trigger} in a desert with cacti", "a desert with cacti"),
        ("a cat in an autumn forest, {trigger}", "an autumn forest"),
        ("a cat in a snowy forest", None),
        ("a cat in a desert. with cacti", "a desert"),
        ("a photo of {trigger}", None),
        ("{trigger}", None),
        ("", None),
        ("a cat in a forest and a dog in a desert", None),
        ("a forest, a forest", "a forest"),
        ("a desert beside a desert with cacti", None),
        ("in a deserted place", None),
        ("over the sea-side", None),
    ],
)
def test_a_prompt_asks_for_the_one_name_it_holds(prompt, name):
    assert asked_for(prompt, SCENES) == name


def test_a_head_shows_what_its_best_name_is():
    assert shows(HEAD, ROWS, "the sea").tolist() == [0.0, 1.0, 0.0]
    assert shows(HEAD, ROWS, "a cave").tolist() == [1.0, 0.0, 0.0]
    assert shows(HEAD, ROWS[:0], "a cave").shape == (0,)


def test_fewer_names_are_easier():
    assert shows(HEAD, ROWS, "a cave", among=("a beach", "a cave")).tolist() == [1.0, 1.0, 0.0]


def test_chance_is_taken_off():
    assert above_chance(torch.tensor([1.0, 0.0, 0.25]), 4).tolist() == pytest.approx([1.0, -1 / 3, 0.0])
    assert float(above_chance(torch.tensor(0.5), 2)) == 0.0


def test_scores_of_texts_are_cosines_above_zero():
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    pictures = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(text_scores(pictures, texts), torch.tensor([2.5, 1.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(text_scores(pictures, texts[1:2]), torch.tensor([1.5, 1.5, 0.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shows(HEAD, ROWS, "a fjord"), "does not know 'a fjord'; allowed: a cave, a beach, the sea"),
        (lambda: shows(HEAD, ROWS, "a cave", among=("a cave", "a fjord")), "does not know 'a fjord'"),
        (lambda: shows(HEAD, ROWS, "a cave", among=("a beach",)), "'a cave' was asked for; allowed, .*: a beach"),
        (lambda: above_chance(torch.zeros(1), 1), "among 1 names was to be judged; allowed: 2 or more"),
        (lambda: text_scores(torch.zeros(3, 2), torch.zeros(2, 2)), r"\(3, 2\) and texts \(2, 2\); allowed"),
        (lambda: text_scores(torch.zeros(3, 2), torch.zeros(3, 5)), r"texts \(3, 5\); allowed"),
    ],
)
def test_errors_name_the_value_and_what_is_allowed(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
