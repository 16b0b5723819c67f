"""The interface of weight engines, and the strengths of the concepts in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import final

from orthoplex.concepts import Ingredient, Stack
from orthoplex.errors import ConfigurationError
from orthoplex.options import checked


class WeightEngine(ABC):
    """A mechanism that holds a change in the weights of a base.

    Attributes:
        strengths: Concept, by name or content hash, to its strength; setting a strength changes the weights.
    """

    strengths: Strengths

    def __init__(
        self, owners: Sequence[Ingredient], locked: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        """Prepare an engine; no weight is changed before ``apply``.

        Args:
            owners: The concepts of the change.
            locked: Called for every new strength; its block is entered while the weights change.
        """
        self.strengths = Strengths(self, owners, locked)

    @property
    @abstractmethod
    def changes(self) -> Mapping[str, Stack]:
        """Layer to the change that is in it now; empty before ``apply`` and after ``restore``."""

    @abstractmethod
    def apply(self, changes: Mapping[str, Stack]) -> None:
        """Put changes in; a layer that has one already gets the new one in its place, from its original weight.

        Raises:
            BaseModelError: If a layer is missing, has another shape, or cannot be changed by this engine.
            ConfigurationError: If a weight would not be finite.
                After any error the weights are those before the call.
        """

    @abstractmethod
    def switch(self, changes: Mapping[str, Stack]) -> None:
        """Put changes in and take all others out: afterwards the weights hold these changes alone.

        Layers whose change stays the same are not written.

        Raises:
            BaseModelError: See ``apply``.
            ConfigurationError: See ``apply``. After any error the weights are those before the call.
        """

    @abstractmethod
    def restore(self) -> None:
        """Put the weights back that were there before the first ``apply``, bit for bit; strengths are closed."""


@final
class Strengths(MutableMapping[str, float]):
    """The strengths of the concepts in an engine, by name or content hash: 0 is the base, 1 the concept.

    Setting one computes the layers of the concept anew from their original weights, as if the concepts had been merged
    with that strength; nothing is subtracted. What an algorithm took from the set of concepts stays as it was: their
    Gram matrices (least squares, SSR), and their number (mean), which a merge made anew at strength 0
    would leave out. Iteration gives names, and content hashes where two concepts share a name.
    """

    def __init__(
        self, engine: WeightEngine, owners: Sequence[Ingredient], locked: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._engine = engine
        self._locked = locked
        self._names = {owner.content_hash: owner.name for owner in owners}
        self._values = {owner.content_hash: owner.strength for owner in owners}

    def __getitem__(self, concept: str) -> float:
        """Return a concept's strength.

        Raises:
            KeyError: If the concept is not in the weights; names those that are.
        """
        try:
            return self._values[self._owner(concept)]
        except ConfigurationError as error:
            raise KeyError(str(error)) from error  # as mappings do: ``in`` and ``get`` ask for it

    def __setitem__(self, concept: str, strength: float) -> None:
        """Change the weights to a concept's new strength.

        Raises:
            ConfigurationError: If the concept is not in the change or owns no columns of its own, or the strength is
                no finite number, or a weight would not be finite. Then nothing was changed.
        """
        with self._locked():
            owner = self._owner(concept)
            strength = checked(f"strength of {concept}", strength, float)
            self._check_owned(concept)
            changes = {
                layer: stack.with_strength(owner, float(strength))
                for layer, stack in self._engine.changes.items()
                if stack.strength_of(owner) is not None
            }
            try:
                self._engine.apply(changes)
            except ConfigurationError as error:
                raise ConfigurationError(f"{error}; the strength of {concept} is {strength:g}") from error
            self._values[owner] = float(strength)

    def __delitem__(self, concept: str) -> None:
        """Refuse: a concept stays in the change, also at strength 0.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(f"strength of {concept} cannot be deleted; allowed is setting it, and 0 is the base")

    def __iter__(self) -> Iterator[str]:
        names = list(self._names.values())
        return iter([name if names.count(name) == 1 else owner for owner, name in self._names.items()])

    def __len__(self) -> int:
        return len(self._names)

    def close(self) -> None:
        """Forget all concepts: their change is no longer in the weights."""
        self._names.clear()
        self._values.clear()

    def _owner(self, concept: str) -> str:
        """Return the content hash of a concept that is named by its content hash or its name."""
        if concept in self._names:
            return concept
        hashes = [owner for owner, name in self._names.items() if name == concept]
        if len(hashes) > 1:
            raise ConfigurationError(
                f"{len(hashes)} concepts are called {concept}; allowed are their content hashes {', '.join(hashes)}"
            )
        if not hashes:
            raise ConfigurationError(
                f"concept {concept!r} is not in the weights now; allowed are {', '.join(self) or 'none'}. A concept "
                "that is merged at strength 0 brings neither columns nor tokens"
            )
        return hashes[0]

    def _check_owned(self, concept: str) -> None:
        mixed = next((layer for layer, stack in self._engine.changes.items() if not stack.is_owned), None)
        if mixed is not None:
            raise ConfigurationError(
                f"strength of {concept} cannot be turned: the algorithm mixed the columns of layer '{mixed}', and no "
                "concept owns them. Merge anew with that strength, or by an algorithm that keeps them apart, "
                "such as 'sum' or 'least-squares'"
            )
