"""How text encoders read: lengths, places, and several encoders side by side."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from orthoplex.errors import ConfigurationError
from orthoplex.models.words.words import Reader, Room, Words
from tests.pico import MAX_LENGTH, tokens_of


class Letters:
    """A tokenizer of single letters, ``a`` is 1; 0 begins and 27 ends a text and fills it up."""

    bos_token_id, eos_token_id, eos_token = 0, 27, "."

    def __init__(self, length):
        self.model_max_length = length

    def __call__(self, texts, *, add_special_tokens=True, padding=None, max_length=None, truncation=False, **_):
        if isinstance(texts, str):
            return SimpleNamespace(input_ids=self.ids(texts, add_special_tokens))
        rows = [self.ids(text, add_special_tokens) for text in texts]
        if padding:
            rows = torch.tensor([[*row[: max_length - 1], *[27] * max_length][:max_length] for row in rows])
        return SimpleNamespace(input_ids=rows)

    def get_added_vocab(self):
        return {"<a>": 1, "<b>": 2, "other": 3}

    def tokenize(self, text):
        return text.split()

    def ids(self, text, marks):
        numbers = [27 if letter == "." else ord(letter) - 96 for letter in text]
        return [0, *numbers, 27] if marks else numbers


def network(width):
    table = nn.Embedding(28, width)
    return SimpleNamespace(get_input_embeddings=lambda: table)


@pytest.fixture
def words():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = SimpleNamespace(one=network(2), letters=Letters(6), two=network(3), others=Letters(4))
    readers = [Reader(pipeline, "one", "letters"), Reader(pipeline, "two", "others")]
    return Words(readers, seen="one")


def test_numbers_of_encoders_lie_side_by_side(words):
    assert words.widths == {"one": 2, "two": 3} and words.width == 5 and words.dtype == torch.float32
    ids = words.ids(["abc"])
    assert ids.tolist() == [[0, 1, 2, 3, 27, 27, 0, 1, 2, 27]]
    assert {name: part.tolist() for name, part in words.apart(ids).items()} == {
        "one": [[0, 1, 2, 3, 27, 27]],
        "two": [[0, 1, 2, 27]],
    }
    assert words.embeddings(ids).shape == (1, 6 * 2 + 4 * 3)


def test_places_are_those_of_the_features(words):
    ids = words.ids(["aba", "b"])
    assert words.places(ids, ["<a>", "<b>"]).int().tolist() == [
        [[0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]],
        [[0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]],
    ]
    assert words.filling(ids).int().tolist() == [[1, 0, 0, 0, 1, 1], [1, 0, 1, 1, 1, 1]]


def test_the_encoder_with_the_least_room_counts(words):
    assert words.room("abc") == Room(length=3, limit=2)
    assert words.room("") == Room(length=0, limit=2)
    assert words.room(words.stand_in(4)).length == 4


def test_class_vectors_and_spreads_lie_side_by_side(words):
    one, two = (row.table.detach() for row in words._readers.values())
    torch.testing.assert_close(words.class_vector("ab"), torch.cat([one[1:3].mean(0), two[1:3].mean(0)]))
    spread = words.spread(["ab", "bc"])
    torch.testing.assert_close(spread.mean, torch.cat([one[1:4].mean(0), two[1:4].mean(0)]))
    torch.testing.assert_close(spread.deviation, torch.cat([one[1:4].std(0), two[1:4].std(0)]))
    with pytest.raises(ConfigurationError, match="class word '' has no tokens; allowed is a word such as 'person'"):
        words.class_vector("")


def test_a_bases_own_words(pico, capfd):
    words, long = pico.family.words, "a cat " * 40
    assert words.room(long) == Room(80, MAX_LENGTH - 2)
    assert words.ids([long]).shape == (1, MAX_LENGTH)
    with pico.with_tokens(tokens_of({"<anna>": torch.zeros(24), "<anna>_1": torch.ones(24)})) as names:
        assert pico.family.words.room("a <anna>") == Room(3, MAX_LENGTH - 2)
        places = pico.family.words.places(pico.family.words.ids(["a <anna>"]), names)
        assert places.nonzero().tolist() == [[0, 0, 2], [0, 1, 3]]
    written = capfd.readouterr()
    assert written.out == "" and written.err == ""
