"""A change that is in a base, and the way out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, final

from torch import Tensor, nn

from orthoplex.concepts import Recipe
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.models.families.family import Family
from orthoplex.models.weights import Foldable, Strengths, TokenMasks, chosen_weights, is_quantised, named_modules
from orthoplex.models.words.extension import TokenExtension

if TYPE_CHECKING:
    from orthoplex.models.blend import Blend
    from orthoplex.models.changeable_base import ChangeableBase
    from orthoplex.models.rows import RowChanges


@final
class Undo:
    """A change that is in a base, or beside its layers; sets its strengths, and takes it out again.

    ``restore()`` may be called twice; a ``with`` block calls it on leaving.
    """

    def __init__(self, base: ChangeableBase, change: Foldable, *, unmerged: bool | None = None) -> None:
        """Put ``change`` into ``base``; see ``Base.fold``."""
        self._base = base
        self._recipe, self._is_unmerged = change.recipe, unmerged is True
        modules = named_modules(base.family.components())
        self._weights = chosen_weights(modules, change, base.locked, unmerged=unmerged, originals=base.originals)
        self._tokens: TokenExtension | None = None
        try:
            if change.tokens:
                extension = base.prepared_tokens(change.tokens)
                extension.put()
                self._tokens = extension
        except BaseException:
            self._weights.restore()
            raise

    @property
    def recipe(self) -> Recipe:
        """The recipe of the change, with the strengths of now."""
        return self._recipe.with_strengths(self.strengths)

    @property
    def strengths(self) -> Strengths:
        """Concept, by name or content hash, to its strength; setting a strength changes the base's weights.

        Tokens stay. Prompts that name a concept at strength 0 are read without its name.
        """
        return self._weights.strengths

    @property
    def unmerged_layers(self) -> tuple[str, ...]:
        """The layers whose changes are computed beside them, and are not in their weights."""
        return self._weights.unmerged_layers

    @property
    def is_unmerged(self) -> bool:
        """True if all changes were asked to be beside their layers."""
        return self._is_unmerged

    def mask(self, masks: Mapping[str, Tensor] | None) -> None:
        """Let concepts work in parts of the picture alone; see ``models.weights.TokenMasks``.

        Args:
            masks: Concept, by content hash, to ``(height, width)`` in [0, 1], all of one shape; others work everywhere.
                None removes all masks.

        Raises:
            ConfigurationError: If a mask is not allowed, a concept is not in the change, a change is folded into its
                weight, or a layer's positions are not those of a picture alone.
            BaseModelError: If a layer is a convolution in groups.
        """
        with self._base.locked():
            self._weights.set_masks(token_masks(masks, self._recipe, self._base.family))

    def restore(self) -> None:
        """Put the base's weights and tokens back, bit for bit.

        Raises:
            BaseModelError: If tokens that were added after the fold are still in.
        """
        with self._base.locked():
            if self._tokens is not None:
                self._tokens.take()
                self._tokens = None
            self._weights.restore()
            self._base.forget(self)

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()


def token_masks(masks: Mapping[str, Tensor] | None, recipe: Recipe | None, family: Family) -> TokenMasks | None:
    """Return masks of concepts that are in a recipe, as engines take them.

    Raises:
        ConfigurationError: If a concept is not in it; names those that are.
    """
    if masks is None:
        return None
    named = {} if recipe is None else {item.content_hash: item.name for item in recipe.concepts}
    for owner in masks:
        if owner not in named:
            shown = ", ".join(f"{known} ({name})" for known, name in named.items()) or "none"
            raise ConfigurationError(f"mask of concept {owner!r}, which is not in the base; allowed are {shown}")
    return TokenMasks(masks, family.table.sees)


def check_absent(undo: Undo | Blend | RowChanges | None, tokens: Sequence[str]) -> None:
    """Refuse to save a concept at strength 0 with its tokens: the folder would not be the base without it."""
    recipe = None if undo is None else undo.recipe
    absent = () if recipe is None else [name for name in recipe.absent_names if f"<{name}>" in tokens]
    if absent:
        raise ConfigurationError(
            f"concept {', '.join(absent)} is turned to strength 0 and its tokens are in; allowed is saving a merge "
            "that was made with strength 0, which leaves them out"
        )


def check_in_weights(undo: Undo | Blend | RowChanges | None, name: str, components: Mapping[str, nn.Module]) -> None:
    """Refuse to save a base whose weights are quantised, or do not hold the change that is in it.

    Args:
        undo: The change, or None.
        name: The base's name.
        components: Component to module.

    Raises:
        BaseModelError: Names the component, or the first layer, and the cure.
    """
    for component, module in components.items():
        if is_quantised(module):
            raise BaseModelError(
                f"base '{name}' cannot be saved: its {component} is quantised; allowed are plain weights of 16 or 32 "
                "bits: load the base without quantisation"
            )
    if undo is not None and undo.unmerged_layers:
        raise BaseModelError(
            f"base '{name}' cannot be saved: the change of layer '{undo.unmerged_layers[0]}' is beside it, not in its "
            "weight; allowed is a change that was put in without unmerged=True"
        )
