"""What a base can have put in: merges, concepts and blends, one at a time, under one lock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Self

import torch

from orthoplex.concepts import BaseIdentity, Concept, Recipe, Token
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import AUTO, check_options, merge
from orthoplex.models.base_lock import BaseLock
from orthoplex.models.blend import Blend, Merger
from orthoplex.models.families.family import Family
from orthoplex.models.numerics import full_numerics
from orthoplex.models.rows import RowChanges
from orthoplex.models.undo import Undo
from orthoplex.models.weights import Foldable, check_base
from orthoplex.models.words.extension import TokenExtension
from orthoplex.options import OriginalsPlace, checked


class ChangeableBase(ABC):
    """A base that holds one change at a time: a merge or concept that was folded in, or a blend.

    Threads may share it: whatever changes or uses it takes its lock, and the others wait. The lock belongs to a thread,
    which may take it again.
    """

    family: Family
    identity: BaseIdentity

    def __init__(self) -> None:
        """Begin with nothing in."""
        self._undo: Undo | Blend | RowChanges | None = None
        self._originals: OriginalsPlace = "memory"
        self._lock = BaseLock()

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the base computes."""

    @abstractmethod
    def prepared_tokens(self, tokens: Mapping[str, Token]) -> TokenExtension:
        """Prepare tokens that are put in and taken out."""

    @property
    def is_unmerged(self) -> bool:
        """True if something is in now that was put in with ``unmerged=True``."""
        undo = self._undo  # which another thread may take out meanwhile
        return undo is not None and undo.is_unmerged

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of what is folded in now, or None."""
        undo = self._undo  # which another thread may take out meanwhile
        return None if undo is None else undo.recipe

    @property
    def originals(self) -> OriginalsPlace:
        """Where the original numbers of changed weights are stored meanwhile, see ``models.weights.Originals``.

        Setting it concerns what is put in afterwards.

        Raises:
            ConfigurationError: If it is set to another place than ``"memory"``, ``"pinned"`` and ``"mapped"``.
        """
        return self._originals

    @originals.setter
    def originals(self, place: OriginalsPlace) -> None:
        self._originals = checked("originals", place, OriginalsPlace)

    @contextmanager
    def locked(self) -> Iterator[Self]:
        """Inside, the base belongs to this thread; others that draw, fold or train on it wait.

        ``folded``, ``attached``, ``with_tokens``, ``replaced_vectors`` and ``replaced_tokens`` take the lock
        themselves. It is for own use of ``pipeline``, and for several of these that belong together.
        """
        with self._lock:
            yield self

    def run_between_steps(self, action: Callable[[], None]) -> None:
        """Run an action that changes the base, as soon as it is free or a live picture is between two steps.

        Args:
            action: Called once, in whichever thread has the base, outside of its autocast and inference mode. An action
                that raises ``NotBetweenStepsError`` is called again when the picture is finished.

        Raises:
            BaseException: What the action raises.
        """

        def run() -> None:
            with full_numerics(self.device):
                action()

        self._lock.run(run)

    @property
    def is_between_steps(self) -> bool:
        """True while a live picture pauses for an action; see ``run_between_steps``."""
        return self._lock.is_between_steps

    def between_steps(self) -> AbstractContextManager[None]:
        """Inside, the picture that this thread makes pauses, and changes of tokens that would break it are refused."""
        return self._lock.between_steps()

    def run_waiting(self) -> None:
        """Run what waits for the end of a step; for the thread that makes a live picture, within ``locked()``."""
        self._lock.run_between_steps()

    def fold(self, change: Foldable, *, unmerged: bool | None = None) -> Undo:
        """Put a merge's or a concept's weights and tokens in, until ``Undo.restore()``.

        ``W' = round(W + up · diag(s) · down)``, float32 accumulation, one rounding to the base's data type. A quantised
        layer keeps its weight, and a forward hook adds ``up · diag(s) · down x`` to its output. The lock is held during
        the computation only: afterwards the change is in for every thread. ``folded`` is for a single thread.
        ``Undo.strengths`` sets the strengths of single concepts.

        Args:
            change: The merge or concept.
            unmerged: None folds into plain weights, and leaves quantised ones as they are; True leaves all as they are,
                so that changes of norms are refused; False folds all, so that quantised layers are refused.

        Raises:
            BaseModelError: If something is folded in already, the change names another base or none, a layer is
                missing or of another shape, its weight cannot be changed in place (fused, quantised, wrapped, compiled,
                offloaded, float8 or shared), or tokens are made for other cross-attention layers or for other widths of
                them. Then nothing was changed.
            ConfigurationError: If a token is in the base already, or a weight would not be finite, as with a
                huge strength. Then nothing was changed.
        """
        with self._lock:
            self._check_fold(change)
            undo = self._undo = Undo(self, change, unmerged=unmerged)
            return undo

    def blend(
        self,
        concepts: Sequence[tuple[Concept, float] | Concept] = (),
        *,
        algorithm: str = AUTO,
        options: Mapping[str, object] | None = None,
        scale: float = 1.0,
        unmerged: bool | None = None,
    ) -> Blend:
        """Put a set of concepts in that can be changed at any time, until ``Blend.restore()``.

        ``blend["anna"] = 0.7``, ``del blend["rex"]``, ``blend.only("anna", "style")`` and ``blend.add(concept)`` give
        the weights of that set merged anew, bit for bit. ``activations.blend_for`` is for algorithms that need Gram
        matrices which no file stores.

        Args:
            concepts: The concepts, with their strengths where these are not 1; there may be none.
            algorithm: See ``merging.merge``.
            options: See ``merging.merge``.
            scale: See ``merging.merge``.
            unmerged: See ``fold``.

        Raises:
            BaseModelError: See ``fold``.
            ConfigurationError: See ``fold`` and ``merging.merge``. Then nothing was changed.
        """
        if algorithm != AUTO:
            check_options(algorithm=algorithm, options=options, scale=scale)
        merger = partial(merge, algorithm=algorithm, options=options, scale=scale)
        return self.blend_by(concepts, merger, unmerged=unmerged)

    def blend_by(
        self,
        concepts: Sequence[tuple[Concept, float] | Concept],
        merger: Merger,
        *,
        unmerged: bool | None = None,
        needs_plain_base: Callable[[Sequence[tuple[Concept, float]]], bool] | None = None,
    ) -> Blend:
        """Put a set of concepts in that another function merges; see ``blend``.

        Args:
            concepts: See ``blend``.
            merger: Called for every new set, with all members; a pure function.
            unmerged: See ``fold``.
            needs_plain_base: See ``Blend``.
        """
        if isinstance(concepts, Concept):
            raise ConfigurationError(f"concepts is {concepts.label}; allowed is a list of concepts")
        pairs = [(item, 1.0) if isinstance(item, Concept) else item for item in concepts]
        with self._lock, full_numerics(self.device):
            self._check_empty()
            self._undo = Blend(self, pairs, merger, unmerged=unmerged, needs_plain_base=needs_plain_base)
            return self._undo

    @contextmanager
    def rows(self, changes: Sequence[Foldable | None]) -> Iterator[Self]:
        """Inside, row i of every batch has the i-th change, beside the layers; the base belongs to this thread.

        A batch of ``m · n`` is m repetitions of the n rows, as guidance makes them. Rows of None are the base's own.

        Args:
            changes: For every row a merge or concept, or None.

        Raises:
            BaseModelError: See ``fold``; or if a layer cannot be changed unmerged.
            ConfigurationError: If there is no row, or a token is in the base already, or of two rows' concepts.
        """
        with self._lock:
            self._check_empty()
            rows = self._undo = RowChanges(self, changes)
            try:
                yield self
            finally:
                try:
                    rows.restore()
                finally:
                    self._undo = None

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Inside, the base counts as one without anything in; for a blend that has taken everything out."""
        undo, self._undo = self._undo, None
        try:
            yield
        finally:
            self._undo = undo

    def forget(self, undo: Undo | Blend) -> None:
        """Note that a change is out again; ``Undo.restore`` calls it."""
        if self._undo is undo:
            self._undo = None

    def _check_fold(self, change: Foldable) -> None:
        """Refuse a second change, and a change of another base or of none."""
        self._check_empty()
        check_base(change.recipe, self.identity)

    def _check_empty(self) -> None:
        if self._undo is not None:
            recipe = self._undo.recipe
            names = ", ".join(() if recipe is None else recipe.names) or "a change"
            raise BaseModelError(f"base '{self.identity.name}' has {names} folded in; restore it before the next fold")

    @contextmanager
    def folded(self, change: Foldable, *, unmerged: bool | None = None) -> Iterator[Self]:
        """Inside, the merge or concept is part of the base, which belongs to this thread; leaving restores every bit.

        An error restores every bit, too.

        Args:
            change: The merge or concept.
            unmerged: See ``fold``.

        Raises:
            BaseModelError: See ``fold``.
            ConfigurationError: See ``fold``.
        """
        with self._lock, self.fold(change, unmerged=unmerged):
            yield self
