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


@contextmanager
def at_resolution(base: Base, pixels: int) -> Iterator[None]:
    """Inside, the base belongs to this thread, and its pictures are of a training's resolution.

    Args:
        base: The base.
        pixels: Width and height.

    Raises:
        ConfigurationError: If such pictures have no latents; names what is allowed.
    """
    with base.locked():
        if pixels == base.family.resolution:
            yield
            return
        before = base.family.use_resolution(pixels)
        try:
            yield
        finally:
            base.family.use_resolution(before)


@final
class SharedBase:
    """A base with a training's tokens in it, and at its resolution, for one computation at a time.

    In between nothing of the training is there. So a training that stops half-way holds nothing, and several trainings
    may alternate on a base.
    """

    def __init__(self, base: Base, name: str, tokens: Mapping[str, Token], resolution: int) -> None:
        """Prepare the tokens of a concept.

        Args:
            base: The base, with nothing folded in.
            name: The concept's name, for errors.
            tokens: Name to token.
            resolution: Width and height of its pictures, in pixels.

        Raises:
            ConfigurationError: See ``Base.with_tokens``.
        """
        self._base, self._name, self._resolution = base, name, resolution
        self._tokens = base.prepared_tokens(tokens)

    @contextmanager
    def with_tokens(self) -> Iterator[tuple[str, ...]]:
        """Inside, the base belongs to this thread and knows the tokens; yields their names.

        Never to be held across a ``yield`` of a generator.

        Raises:
            BusyError: If something was folded in meanwhile, and stays.
        """
        with at_resolution(self._base, self._resolution):
            refuse_folded(self._base, self._name)
            self._base.family.channels_last()
            with self._tokens.put_in() as names:
                yield names
