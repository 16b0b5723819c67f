"""What the layers see under a concept's own prompts: the Gram matrices that data-aware merges need. No pictures."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from orthoplex.concepts import Concept, Manifest
from orthoplex.merging import Algorithm, InputGrams
from orthoplex.models import Base, Foldable, gather_grams
from orthoplex.training.dataset import CAPTION_TEMPLATES
from orthoplex.training.prompts import default_foreign_prompts

NUM_FOREIGN = 64
"""Foreign prompts that are pictured for algorithms that ask for them."""
_PLACES = ("forest", "garden", "city street", "room", "desert", "meadow", "cave", "beach", "field", "house")
_THINGS = ("a person", "a dog", "a cat", "a car", "a tree", "a house", "a fish", "a chair")
_IN_PLACES = ("{trigger}", *(f"{{trigger}} in a {place}" for place in _PLACES))
_SETTINGS = {
    "scene": ("{trigger}", *(f"{thing} in {{trigger}}" for thing in _THINGS)),
    "style": ("{trigger}", *(f"{thing}, {{trigger}}" for thing in (*_THINGS, "a forest", "a city street"))),
}
"""What own prompts say besides a kind's templates; things of other kinds stand in places."""

Gather = Callable[[Foldable | None, Sequence[str], Sequence[str]], Mapping[str, Tensor]]
"""(what is folded in, layers, prompts) -> layer to its Gram matrix."""


def own_prompts(manifest: Manifest) -> tuple[str, ...]:
    """Return prompts of a concept: its kind's templates, and it in plain places, or beside plain things.

    They are the same for all concepts of a kind, and say nothing that a concept might contradict.

    Args:
        manifest: Of the concept; its ``<name>`` stands for all its vectors.
    """
    templates = [*CAPTION_TEMPLATES[manifest.kind], *_SETTINGS.get(manifest.kind, _IN_PLACES)]
    return tuple(dict.fromkeys(template.format(trigger=manifest.trigger) for template in templates))


def inputs_for(
    way: Algorithm, base: Base, concepts: Sequence[Concept], *, gather: Gather | None = None
) -> InputGrams | None:
    """Gather what a merging algorithm wants to know of the layers' inputs; None where it wants nothing.

    Args:
        way: The algorithm.
        base: See ``gather_inputs``.
        concepts: See ``gather_inputs``.
        gather: See ``gather_inputs``.
    """
    return gather_inputs(base, concepts, with_foreign=way.needs_foreign, gather=gather) if way.needs_inputs else None


def gather_inputs(
    base: Base,
    concepts: Sequence[Concept],
    *,
    prompts: Sequence[str] | None = None,
    with_foreign: bool = True,
    gather: Gather | None = None,
) -> InputGrams:
    """Gather what every layer that a concept changes sees: under each concept's own prompts, and under foreign ones.

    Args:
        base: The base, with nothing folded in.
        concepts: The concepts of a merge; each is folded in, at strength 1, while its prompts are pictured.
        prompts: Prompts of the base's own words, without any concept; None takes those that come with the base.
        with_foreign: Whether foreign prompts are pictured, too.
        gather: How Gram matrices are made, for callers that remember them; None makes them.

    Raises:
        BaseModelError: When a concept does not fit the base.
    """
    foreign = tuple(dict.fromkeys(default_foreign_prompts(base) if prompts is None else prompts))
    layers = sorted({layer for concept in concepts for layer in concept.layers})
    if not layers:  # tokens alone
        return InputGrams({concept.content_hash: {} for concept in concepts})
    made: Gather = gather or (lambda change, names, texts: gather_grams(base, names, texts, change=change))
    grams = {concept.content_hash: made(concept, layers, own_prompts(concept.manifest)) for concept in concepts}
    return InputGrams(grams, made(None, layers, foreign[:NUM_FOREIGN]) if with_foreign else {})
