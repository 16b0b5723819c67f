"""A set of concepts of its own for every row of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from orthoplex.concepts import Token
from orthoplex.errors import ConfigurationError
from orthoplex.models.weights import Foldable, RowStack, UnmergedWeights, check_base, named_modules, stacks_of
from orthoplex.models.words.extension import TokenExtension

if TYPE_CHECKING:
    from orthoplex.models.changeable_base import ChangeableBase


@final
class RowChanges:
    """Changes beside a base's layers, of which row i of a batch uses the i-th; rows without one are the base's own.

    One stacked pair a layer serves all rows, and columns that rows share are computed once.

    Attributes:
        recipe: None: rows have recipes of their own.
        is_unmerged: True.
        unmerged_layers: The layers that have changes beside them.
    """

    recipe = None
    is_unmerged = True

    def __init__(self, base: ChangeableBase, changes: Sequence[Foldable | None]) -> None:
        """Put changes beside layers; see ``Base.rows``."""
        if not changes:
            raise ConfigurationError("rows of 0 pictures were asked for; at least 1 is allowed")
        for change in changes:
            if change is not None:
                check_base(change.recipe, base.identity)
        stacks = [{} if change is None else stacks_of(change) for change in changes]
        layers = sorted({layer for own in stacks for layer in own})
        rows = {layer: RowStack.of([own.get(layer) for own in stacks]) for layer in layers}
        extension = base.prepared_tokens(tokens) if (tokens := _tokens(changes)) else None
        self._weights = UnmergedWeights(named_modules(base.family.components()))
        self._weights.put_rows({layer: row for layer, row in rows.items() if row is not None})
        self._extension: TokenExtension | None = None
        try:
            if extension is not None:
                extension.put()
                self._extension = extension
        except BaseException:
            self._weights.restore()
            raise
        self.unmerged_layers = tuple(self._weights.changes)

    def restore(self) -> None:
        """Take everything out."""
        if self._extension is not None:
            self._extension.take()
        self._weights.restore()


def _tokens(changes: Sequence[Foldable | None]) -> dict[str, Token]:
    """The tokens of all rows.

    Raises:
        ConfigurationError: If two rows have different tokens of one name.
    """
    tokens: dict[str, Token] = {}
    for change in changes:
        for name, item in () if change is None else change.tokens.items():
            if tokens.setdefault(name, item) is not item:
                raise ConfigurationError(
                    f"token {name} is claimed by concepts of two rows; one is allowed in a batch: make their pictures "
                    "one after the other"
                )
    return tokens
