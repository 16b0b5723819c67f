"""The engine that folds changes into the weights themselves, and its exact undo.

``W' = round(W + up · diag(s) · down)`` with float32 accumulation and one rounding, always from the original weights,
which are stored. Parameters keep their place in memory: every number is written where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import nn

from orthoplex.adapters import LowRank
from orthoplex.concepts import Ingredient, Run, Stack
from orthoplex.errors import BaseModelError
from orthoplex.models.numerics import full_numerics
from orthoplex.models.weights.arrangement import ArrangedFactors
from orthoplex.models.weights.engine import WeightEngine
from orthoplex.models.weights.factor_facts import FactorFacts, Span, facts_of
from orthoplex.models.weights.originals import Originals, sharing_memory
from orthoplex.models.weights.products import Block, Products, Target, blocks_of
from orthoplex.models.weights.refusals import check_foldable, parameter_place
from orthoplex.options import OriginalsPlace


@final
class FoldedWeights(WeightEngine):
    """Changes that are added to weights and biases; stores the originals."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        owners: Sequence[Ingredient] = (),
        locked: Callable[[], AbstractContextManager[object]] = nullcontext,
        *,
        originals: OriginalsPlace = "memory",
    ) -> None:
        """Prepare folding into modules; see ``WeightEngine``.

        Args:
            modules: Name to module, of all modules of the components; see ``named_modules``.
            owners: See ``WeightEngine``.
            locked: See ``WeightEngine``.
            originals: See ``Originals``.
        """
        super().__init__(owners, locked)
        self._modules = modules
        self._changes: dict[str, Stack] = {}
        self._originals = Originals(originals)
        self.arranged = ArrangedFactors()
        self._products = Products(self.arranged)

    arranged: ArrangedFactors
    """Copies of factors in the order in which products read them; none are needed."""

    @property
    def changes(self) -> Mapping[str, Stack]:
        """Layer to the change that is folded into it now."""
        return self._changes

    @property
    def num_bytes(self) -> int:
        """The bytes that the engine takes besides the weights: their originals, copies of factors, and buffers."""
        return self._originals.num_bytes + self.arranged.num_bytes + self._products.num_bytes

    def apply(self, changes: Mapping[str, Stack]) -> None:
        """Fold changes in; see ``WeightEngine.apply``."""
        self._write(changes, {})

    def switch(self, changes: Mapping[str, Stack]) -> None:
        """Fold changes in and take all others out; see ``WeightEngine.switch``."""
        self._write(changes, {name: None for name in self._changes if name not in changes})

    def restore(self) -> None:
        """Write the originals back, bit for bit; if the weights were cast meanwhile, the same cast of them."""
        self._originals.restore()
        self._changes.clear()
        self.arranged.clear()
        self._products.clear()
        self.strengths.close()

    def _write(self, changes: Mapping[str, Stack], absent: Mapping[str, None]) -> None:
        """Write what differs from what is in; after an error the weights are those of before."""
        parameters = self._checked(changes)
        with full_numerics(next((weight.device for weight in parameters.values()), torch.device("cpu"))):
            self._write_differing(changes, absent, parameters)

    def _write_differing(
        self, changes: Mapping[str, Stack], absent: Mapping[str, None], parameters: Mapping[str, nn.Parameter]
    ) -> None:
        differing = {
            name: change
            for name, change in changes.items()
            if name not in self._changes or not change.is_as(self._changes[name])
        }
        runs = {name: _active(change) for name, change in differing.items()}
        before = {name: _active(self._changes[name]) for name in differing if name in self._changes}
        facts = facts_of(run.change for own in (*runs.values(), *before.values()) for run in own)
        try:
            self._store({name: parameters[name] for name in runs if name not in self._originals})
            targets = [self._target(name, own, before.get(name, ()), facts) for name, own in runs.items() if own]
            self._products.write([target for target in targets if target.rows[0] < target.rows[1]], facts)
            for name in (*(name for name, own in runs.items() if not own), *absent):
                self._originals.put_back(name)
        except BaseException:
            self._write_again([name for name in (*differing, *absent) if name in self._originals])
            raise
        self._changes.update(changes)
        for name in absent:
            del self._changes[name]

    def _checked(self, changes: Mapping[str, Stack]) -> Mapping[str, nn.Parameter]:
        """The weights of changes; all is checked again where one is new, or is another than it was."""
        shapes = {name: change.shape for name, change in changes.items()}
        places = {name: parameter_place(name, self._modules) for name in shapes}
        if all(
            name in self._originals and self._originals[name].is_of(place, shapes[name])
            for name, place in places.items()
        ):
            return {name: self._originals[name].weight for name in shapes}
        parameters = check_foldable(shapes, self._modules)
        for name, weight in parameters.items():
            if name in self._originals and self._originals[name].weight is not weight:
                raise BaseModelError(
                    f"the weight of layer '{name}' was replaced by another while a change is in it; allowed is "
                    "replacing weights after restore()"
                )
        return parameters

    def _store(self, parameters: Mapping[str, nn.Parameter]) -> None:
        if not parameters:
            return
        every = (item for module in self._modules.values() for item in module._parameters.values() if item is not None)
        sharing = sharing_memory(every)
        for name, weight in parameters.items():
            self._originals.store(name, weight, is_shared=id(weight) in sharing)

    def _target(
        self, name: str, runs: tuple[Run, ...], before: Sequence[Run], facts: Mapping[LowRank, FactorFacts]
    ) -> Target:
        """What is written for a layer; nothing where its rows are none."""
        original = self._originals[name]
        num_rows, num_columns = original.values.shape
        rows, columns = (0, num_rows), (0, num_columns)
        if original.weight.ndim <= 2 or original.weight.is_contiguous():
            rows, columns = _written((num_rows, num_columns), before, runs, facts)
        return Target(name, original, runs, rows, columns)

    def _write_again(self, names: Sequence[str]) -> None:
        """Let weights hold the changes that they should have now."""
        targets = []
        for name in names:
            own = _active(self._changes[name]) if name in self._changes else ()
            if own:
                original = self._originals[name]
                rows, columns = original.values.shape
                targets.append(Target(name, original, own, (0, rows), (0, columns)))
            else:
                self._originals.put_back(name)
        self._products.write(targets, facts_of(run.change for target in targets for run in target.runs))


def _active(change: Stack) -> tuple[Run, ...]:
    """The runs of a change that change something."""
    return tuple(run for run in change.runs if run.factor != 0 and run.change.rank)


def _written(
    shape: tuple[int, int], before: Sequence[Run], after: Sequence[Run], facts: Mapping[LowRank, FactorFacts]
) -> tuple[Span, Span]:
    """The part of a weight that differs before and after: all of it, or what bounds the blocks that differ.

    A part is written only if every block is inside or outside, so that each is the product that it always is.
    """
    whole = ((0, shape[0]), (0, shape[1]))
    if not all(facts[run.change].is_small for run in (*before, *after)):
        return whole
    old, new = (
        {(block.rows, block.columns): block for block in blocks_of(runs, shape, facts)} for runs in (before, after)
    )
    changed = [place for place in {**old, **new} if not _are_as(old.get(place), new.get(place), before, after)]
    if not changed:
        return (0, 0), (0, 0)
    rows = min(rows[0] for rows, _ in changed), max(rows[1] for rows, _ in changed)
    columns = min(columns[0] for _, columns in changed), max(columns[1] for _, columns in changed)
    is_clean = all(_is_clean(place, (rows, columns)) for place in (*old, *new))
    return (rows, columns) if is_clean else whole


def _are_as(old: Block | None, new: Block | None, before: Sequence[Run], after: Sequence[Run]) -> bool:
    """True if a block is made of the same runs in the same order."""
    if old is None or new is None or len(old.runs) != len(new.runs):
        return False
    return all(before[one].is_as(after[other]) for one, other in zip(old.runs, new.runs, strict=True))


def _is_clean(place: tuple[Span, Span], outer: tuple[Span, Span]) -> bool:
    """True if a block is inside of another or apart from it."""
    spans = list(zip(place, outer, strict=True))
    is_inside = all(wide[0] <= own[0] and own[1] <= wide[1] for own, wide in spans)
    return is_inside or any(own[1] <= wide[0] or wide[1] <= own[0] for own, wide in spans)
