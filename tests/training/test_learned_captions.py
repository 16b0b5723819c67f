"""Captions that are longer than a base reads: one computation for the check and for the training."""

import logging
from dataclasses import replace

import pytest

from orthoplex.errors import DatasetError
from orthoplex.training.learned_captions import caption_fit, check_captions


@pytest.mark.parametrize("num_vectors", [1, 2, 4])
def test_captions_that_do_not_fit_are_named_with_their_length(base, num_vectors):
    limit = base.family.words.room("").limit
    captions = {
        "a.png": ["<anna>" + " a" * (limit - num_vectors)],
        "b.png": ["<anna>" + " a" * (limit - num_vectors + 1), "a <anna>"],
        "c.png": ["a " * (limit - num_vectors + 1) + "<anna>"],
        "d.png": ["a photo"],
        "e.png": ["a " * (limit - num_vectors) + "<anna>"],
    }
    fit = caption_fit(base, captions, "<anna>", num_vectors)
    assert fit.errors == (
        f"caption of c.png has {limit + 1} tokens, and <anna> stands behind the {limit} that the base reads; allowed "
        "are captions that name it before",
        "caption of d.png does not name <anna>; allowed are captions that name it",
    )
    assert fit.warnings == (
        f"captions of b.png have up to {limit + 1} tokens, and the base reads {limit}; their ends are not seen",
    )


def test_a_rare_word_is_no_part_of_other_words(base):
    """It counts as a whole word, wherever its letters stand."""
    limit = base.family.words.room("").limit
    texts = (
        "a garden" + " dog" * limit + " ar person",
        "a garden",
        "ar person" + " garden" * (limit - 2),
        "art, ar, a",
    )
    fit = caption_fit(base, {f"{place}.png": [text] for place, text in enumerate(texts)}, "ar", 1)
    assert len(fit.errors) == 2 and "caption of 0.png has " in fit.errors[0]
    assert f"and ar stands behind the {limit} that the base reads" in fit.errors[0]
    assert fit.errors[1] == "caption of 1.png does not name ar; allowed are captions that name it"


def test_of_a_caption_without_end_the_beginning_is_measured(base, monkeypatch):
    measured = []
    room = type(base.family.words).room
    monkeypatch.setattr(type(base.family.words), "room", lambda self, text: measured.append(text) or room(self, text))
    captions = {"a.png": ["<anna> " + "word, " * 100_000], "b.png": ["word, " * 100_000 + "<anna>"]}
    fit = caption_fit(base, captions, "<anna>", 2)
    assert max(map(len, measured)) < 10_000
    assert "captions of a.png have more than " in fit.warnings[0]
    assert "caption of b.png has more than " in fit.errors[0] and "<anna> stands behind the " in fit.errors[0]


def test_a_training_refuses_what_the_check_does(base, dataset, caplog):
    def with_caption(text):
        first, *others = dataset.pictures
        return replace(dataset, pictures=(replace(first, captions=(text,)), *others))

    limit, tokens = base.family.words.room("").limit, ["<anna>", "<anna>_1"]
    hidden = with_caption("a " * (limit - 1) + "<anna>")
    (error,) = caption_fit(base, {item.file_name: item.captions for item in hidden.pictures}, "<anna>", 2).errors
    with pytest.raises(DatasetError) as refusal:
        check_captions(base, hidden, tokens)
    assert str(refusal.value) == error
    with caplog.at_level(logging.WARNING):
        check_captions(base, with_caption("<anna>" + " a" * limit), tokens)
    assert "their ends are not seen" in caplog.text
