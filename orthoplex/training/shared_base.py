"""A base that a training shares with other threads that draw, fold or train on it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

from orthoplex.concepts import Token
from orthoplex.errors import BusyError
from orthoplex.models import Base


def refuse_folded(base: Base, name: str) -> None:
    """Refuse to train a concept on a base that has something folded in; to be called while the base is locked.

    Raises:
        BusyError: Names what is folded in.
    """
    if base.recipe is not None:
        folded = ", ".join(base.recipe.names)
        raise BusyError(
            f"{name} cannot be trained on: the base has {folded or 'a change'} folded in; allowed is training on the "
            "base alone, after restore()"
        )


@final
class SharedBase:
    """A base with a training's tokens in it for one computation at a time; in between nothing of the training is there.

    So a training that stops half-way holds nothing, and several trainings may alternate on a base.
    """

    def __init__(self, base: Base, name: str, tokens: Mapping[str, Token]) -> None:
        """Prepare the tokens of a concept.

        Args:
            base: The base, with nothing folded in.
            name: The concept's name, for errors.
            tokens: Name to token.

        Raises:
            ConfigurationError: See ``Base.with_tokens``.
        """
        self._base, self._name = base, name
        self._tokens = base.prepared_tokens(tokens)

    @contextmanager
    def with_tokens(self) -> Iterator[tuple[str, ...]]:
        """Inside, the base belongs to this thread and knows the tokens; yields their names.

        Never to be held across a ``yield`` of a generator.

        Raises:
            BusyError: If something was folded in meanwhile, and stays.
        """
        with self._base.locked():
            refuse_folded(self._base, self._name)
            self._base.family.channels_last()
            with self._tokens.put_in() as names:
                yield names
