"""A set of concepts in a base that changes while the base is in use."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, final

from torch import Tensor

from orthoplex.concepts import Concept, Recipe, Token
from orthoplex.errors import ConfigurationError
from orthoplex.merging import Merge
from orthoplex.merging.concept_merge import check_pairs
from orthoplex.models.base_lock import NotBetweenStepsError
from orthoplex.models.undo import token_masks
from orthoplex.models.weights import ChosenWeights, check_base, named_modules, stacks_of
from orthoplex.models.words.extension import TokenExtension
from orthoplex.options import checked

if TYPE_CHECKING:
    from orthoplex.models.changeable_base import ChangeableBase

Merger = Callable[[Sequence[tuple[Concept, float]]], Merge]
"""(concepts with their strengths) -> their merge."""


@final
class Blend(MutableMapping[str, float]):
    """Concepts with strengths that are in a base now; every change of the set is a merge made anew, written at once.

    It maps the concepts in the set, by name, or by content hash where two share a name, to their strengths. The weights
    depend on the set alone, never on what was in before: they are, bit for bit, those of a base into which that merge
    was folded. Only layers whose change differs are written. A change that fails leaves the set of before.

    A member that is not in the set is a concept at strength 0: prompts are read without its name. Its tokens may stay
    in the base; its factors stay in memory, arranged for quick products, until ``forget``.

    Threads may share a blend. A change waits until the base is free; while a picture is made by ``generate(…,
    live=True)``, until the end of its denoising step.
    """

    def __init__(
        self,
        base: ChangeableBase,
        concepts: Sequence[tuple[Concept, float]],
        merger: Merger,
        *,
        unmerged: bool | None = None,
        needs_plain_base: Callable[[Sequence[tuple[Concept, float]]], bool] | None = None,
    ) -> None:
        """Put concepts in; see ``Base.blend``.

        Args:
            base: The base, with nothing folded in.
            concepts: The members with their strengths; those at strength 0 are not in the set. There may be none.
            merger: Merges members; a pure function.
            unmerged: See ``Base.fold``.
            needs_plain_base: Says for concepts with their strengths if the merger asks the base, which has nothing in
                then; None if it never does.
        """
        self._base, self._merger, self._is_unmerged = base, merger, unmerged is True
        self._needs_plain_base = needs_plain_base
        self._state: tuple[Mapping[str, Concept], Mapping[str, float]] = {}, {}
        self._usual: dict[str, float] = {}
        self._recipe: Recipe | None = None
        self._extension: TokenExtension | None = None
        self._tokens: Mapping[str, Token] = {}
        self._present: Mapping[str, Token] = {}
        self._is_open = True
        modules = named_modules(base.family.components())
        self._weights = ChosenWeights(modules, (), unmerged=unmerged, originals=base.originals)
        members = _checked_members(concepts, base)
        try:
            self._change({owner: strength for owner, (_, strength) in members.items()}, new=members)
        except BaseException:
            self._take_out()
            raise

    @property
    def _members(self) -> Mapping[str, Concept]:
        return self._state[0]

    @property
    def _strengths(self) -> Mapping[str, float]:
        return self._state[1]

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of the set now, with members that are not in it at strength 0; None without members."""
        return self._recipe

    @property
    def members(self) -> tuple[str, ...]:
        """All concepts that may be in the set, as the mapping names them."""
        members = self._members
        return tuple(_key(owner, members) for owner in members)

    @property
    def unmerged_layers(self) -> tuple[str, ...]:
        """The layers whose changes are computed beside them, and are not in their weights."""
        return self._weights.unmerged_layers

    @property
    def is_unmerged(self) -> bool:
        """True if all changes were asked to be beside their layers."""
        return self._is_unmerged

    @property
    def num_bytes(self) -> int:
        """The bytes besides base and concepts: originals of changed weights, arranged factors, and buffers."""
        return self._weights.num_bytes

    def __getitem__(self, concept: str) -> float:
        """Return the strength of a concept in the set.

        Raises:
            KeyError: If it is not in the set; names those that are.
        """
        members, strengths = self._state
        owners = _owners(concept, members)
        if len(owners) > 1:
            raise KeyError(f"{len(owners)} concepts are called {concept}; allowed are their content hashes {owners}")
        if not owners or not strengths[owners[0]]:
            raise KeyError(f"concept {concept!r} is not in the blend now; in it are {', '.join(self) or 'none'}")
        return strengths[owners[0]]

    def __setitem__(self, concept: str, strength: float) -> None:
        """Set the strength of a member; 0 takes it out of the set.

        Raises:
            ConfigurationError: If it is no member, the strength is no finite number, or a weight would not be finite.
        """
        self.update({concept: strength})

    def __delitem__(self, concept: str) -> None:
        """Take a concept out of the set; it stays a member.

        Raises:
            KeyError: If it is not in the set.
        """
        _ = self[concept]
        self.update({concept: 0.0})

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def items(self) -> ItemsView[str, float]:
        """Return the concepts in the set with their strengths, all of one moment, whoever changes the set meanwhile."""
        return self._now().items()

    def _now(self) -> dict[str, float]:
        members, strengths = self._state
        return {_key(owner, members): strength for owner, strength in strengths.items() if strength}

    def update(self, strengths: Mapping[str, float]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Set the strengths of several members by one change.

        Raises:
            ConfigurationError: See ``__setitem__``; then nothing was changed.
        """
        checked_ones = {key: float(checked(f"strength of {key}", value, float)) for key, value in strengths.items()}
        self._run(lambda: self._change({self._owner(key): value for key, value in checked_ones.items()}))

    def only(self, *concepts: str) -> None:
        """Let these members alone be in the set, each with its last strength, or 1; none is the base itself.

        Raises:
            ConfigurationError: If one is no member, or a weight would not be finite; then nothing was changed.
        """

        def change() -> None:
            chosen = {self._owner(concept) for concept in concepts}
            self._change({owner: self._usual.get(owner, 1.0) if owner in chosen else 0.0 for owner in self._members})

        self._run(change)

    def add(self, concept: Concept, strength: float = 1.0) -> None:
        """Make a concept a member, and put it into the set.

        Raises:
            ConfigurationError: If it is a member already, or see ``merging.merge``; then nothing was changed.
            BaseModelError: If it does not fit the base.
        """
        new = _checked_members([(concept, strength)], self._base)

        def change() -> None:
            if concept.content_hash in self._members:
                raise ConfigurationError(
                    f"concept {concept.label} is in the blend already; allowed is setting its strength"
                )
            self._change({concept.content_hash: float(strength)}, new=new)

        self._run(change)

    def forget(self, concept: str) -> None:
        """Take a member out of the set, and out of memory.

        Raises:
            ConfigurationError: If it is no member.
        """

        def change() -> None:
            owner = self._owner(concept)
            self._change({owner: 0.0}, forgotten=owner)

        self._run(change)

    def mask(self, masks: Mapping[str, Tensor] | None) -> None:
        """Let members work in parts of the picture alone; see ``Undo.mask``.

        Raises:
            ConfigurationError: See ``Undo.mask``.
            BaseModelError: See ``Undo.mask``.
        """
        self._run(lambda: self._weights.set_masks(token_masks(masks, self._recipe, self._base.family)))

    def restore(self) -> None:
        """Put the base's weights and tokens back, bit for bit; the blend has ended."""
        with self._base.locked():
            self._take_out()
            self._state = {}, {}
            self._recipe = None
            self._is_open = False
            self._base.forget(self)

    def __enter__(self) -> Blend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def _run(self, change: Callable[[], None]) -> None:
        def run() -> None:
            if not self._is_open:
                raise ConfigurationError("the blend has been taken out of the base; allowed is making another")
            change()

        self._base.run_between_steps(run)

    def _change(
        self,
        strengths: Mapping[str, float],
        *,
        new: Mapping[str, tuple[Concept, float]] | None = None,
        forgotten: str | None = None,
    ) -> None:
        """Let the base hold the members with other strengths; after an error everything is as before."""
        members = {**self._members, **{owner: concept for owner, (concept, _) in (new or {}).items()}}
        members = {owner: concept for owner, concept in members.items() if owner != forgotten}
        values = {owner: strengths.get(owner, self._strengths.get(owner, 0.0)) for owner in members}
        pairs = [(members[owner], values[owner]) for owner in members]
        self._check_pause(values, pairs)
        for owner in new or {}:
            self._weights.arrange(members[owner].layers)
        before = dict(self._weights.changes)
        try:
            merge = self._merged(pairs) if pairs else None
            self._swap(self._wanted_tokens(members.values(), {} if merge is None else merge.tokens))
            self._weights.switch({} if merge is None else stacks_of(merge))
        except BaseException:
            self._swap(self._wanted_tokens(self._members.values(), self._present))
            self._weights.switch(before)
            for owner in new or {}:
                self._weights.disarrange(members[owner].layers)
            raise
        if forgotten is not None:
            self._weights.disarrange(self._members[forgotten].layers)
        self._state = members, values
        self._present = {} if merge is None else merge.tokens
        self._recipe = None if merge is None else merge.recipe
        self._usual = {owner: value for owner, value in {**self._usual, **_nonzero(values)}.items() if owner in members}

    def _check_pause(self, strengths: Mapping[str, float], pairs: Sequence[tuple[Concept, float]]) -> None:
        """Refuse a change of tokens in the pause of a picture whose text features are as wide as tokens made them.

        Raises:
            NotBetweenStepsError: See there.
        """
        if not self._base.is_between_steps or all(item.placement.is_one_vector for item in self._tokens.values()):
            return
        is_same_set = _nonzero(strengths).keys() == _nonzero(self._strengths).keys()
        if not is_same_set or (self._needs_plain_base is not None and self._needs_plain_base(pairs)):
            wide = ", ".join(name for name, item in self._tokens.items() if not item.placement.is_one_vector)
            raise NotBetweenStepsError(f"the picture that is made now was begun with {wide}, which would change")

    def _merged(self, pairs: Sequence[tuple[Concept, float]]) -> Merge:
        if self._needs_plain_base is None or not self._needs_plain_base(pairs):
            return self._merger(pairs)
        self._weights.switch({})
        self._swap({})
        with self._base.plain():
            return self._merger(pairs)

    def _wanted_tokens(self, members: Iterable[Concept], present: Mapping[str, Token]) -> Mapping[str, Token]:
        """The tokens that shall be in: those of the set, and those of other members where they do no harm.

        Tokens that stay in need not be put in again. Those that are more than a row of the embedding change how every
        prompt is computed, so that none but those of the set are in then.
        """
        tokens = dict(present)
        for concept in members:
            for name, item in concept.tokens.items():
                tokens.setdefault(name, item)
        is_plain = all(item.placement.is_one_vector for item in tokens.values())
        return tokens if is_plain else present

    def _swap(self, tokens: Mapping[str, Token]) -> None:
        """Let these tokens be in the base, and no others of this blend."""
        is_same = tokens.keys() == self._tokens.keys() and all(self._tokens[name] is tokens[name] for name in tokens)
        if is_same:
            return
        before = self._extension
        if before is not None:
            before.take()
        try:
            extension = self._base.prepared_tokens(tokens) if tokens else None
            if extension is not None:
                extension.put()
        except BaseException:
            if before is not None:
                before.put()
            raise
        self._extension, self._tokens = extension, dict(tokens)

    def _take_out(self) -> None:
        if self._extension is not None:
            self._extension.take()
            self._extension = None
        self._weights.restore()

    def _owner(self, concept: str) -> str:
        owners = _owners(concept, self._members)
        if len(owners) > 1:
            raise ConfigurationError(
                f"{len(owners)} concepts are called {concept}; allowed are their content hashes {', '.join(owners)}"
            )
        if not owners:
            raise ConfigurationError(
                f"concept {concept!r} is no member of the blend; allowed are {', '.join(self.members) or 'none'}, and "
                "add(concept) makes another a member"
            )
        return owners[0]


def _key(owner: str, members: Mapping[str, Concept]) -> str:
    """The name of a member, or its content hash where another has the same name."""
    name = members[owner].name
    return name if sum(concept.name == name for concept in members.values()) == 1 else owner


def _owners(concept: str, members: Mapping[str, Concept]) -> list[str]:
    return [owner for owner, member in members.items() if concept in (owner, member.name)]


def _nonzero(values: Mapping[str, float]) -> dict[str, float]:
    return {owner: value for owner, value in values.items() if value}


def _checked_members(pairs: Sequence[tuple[Concept, float]], base: ChangeableBase) -> dict[str, tuple[Concept, float]]:
    """Concepts of the base by content hash, each with a finite strength."""
    members: dict[str, tuple[Concept, float]] = {}
    for concept, strength in check_pairs(pairs) if pairs else ():
        check_base(concept.recipe, base.identity)
        members[concept.content_hash] = (concept, float(strength))
    return members
