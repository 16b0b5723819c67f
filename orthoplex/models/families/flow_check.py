"""The check of loaded pipelines of flow matching: whether their networks and tokenizers belong together."""

from __future__ import annotations

from collections.abc import Mapping

from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of
from orthoplex.models.words.words import Reader


def check_flow_reader(reader: Reader) -> None:
    """Refuse a tokenizer whose numbers its text encoder cannot read, or which makes no prompt of its form.

    Raises:
        BaseModelError: Says what does not fit.
    """
    name, tokenizer = reader.tokenizer_component, reader.tokenizer
    if tokenizer.pad_token_id is None:
        raise BaseModelError(f"{name} has no pad_token; a prompt needs filling")
    largest, rows = max(tokenizer.get_vocab().values()), len(reader.table)
    if largest >= rows:
        raise BaseModelError(
            f"{name} numbers its tokens up to {largest}; allowed is {rows - 1}, as {reader.component} has {rows} "
            "embeddings"
        )
    try:
        words, shape = reader.form.num_words(tokenizer, "a"), tuple(reader.ids(["a"]).shape)
    except Exception as error:  # noqa: BLE001  (tokenizers raise anything)
        raise BaseModelError(f"{name} cannot read a prompt: {summary_of(error)}") from error
    if words < 1 or shape != (1, reader.length):
        raise BaseModelError(
            f"{name} makes {words} tokens of 'a', and ids of shape {shape}; allowed are tokens, and "
            f"(1, {reader.length})"
        )


def check_sizes(sizes: Mapping[str, tuple[int, str, int]]) -> None:
    """Refuse a network that reads another size than the network before it gives.

    Args:
        sizes: Setting, as ``transformer in_channels``, to its value, where the size comes from in words, and the size.

    Raises:
        BaseModelError: Names the setting, its value, and what is allowed.
    """
    for setting, (value, source, size) in sizes.items():
        if value != size:
            raise BaseModelError(f"{setting} is {value!r}; allowed is {size}, of {source}")
