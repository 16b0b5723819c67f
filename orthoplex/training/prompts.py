"""Prompts of a base's own words, without any concept."""

from orthoplex import vignette
from orthoplex.models import EMBEDDED, Base

FOREIGN_PROMPTS = (
    "a photo of a person",
    "a drawing of a person",
    "a woman with long hair",
    "a man with a beard and glasses",
    "a person on a beach",
    "a photo of a dog",
    "a drawing of a cat",
    "a bird in a garden",
    "a fish in the water",
    "a horse on a field",
    "a photo of a car",
    "a red apple",
    "a cup on a table",
    "a flower in a room",
    "a guitar",
    "a photo of a forest",
    "a view of a beach",
    "a city street at night",
    "a mountain under a blue sky",
    "a room with a window",
    "snow on a field",
    "a painting of a castle",
    "a picture in the style of watercolor",
    "a colorful abstract painting",
)
"""General prompts for bases that bring none of their own."""


def default_foreign_prompts(base: Base) -> tuple[str, ...]:
    """Return the prompts that come with the embedded base, or ``FOREIGN_PROMPTS`` for any other."""
    return tuple(vignette.foreign_prompts()) if base.identity.family == EMBEDDED else FOREIGN_PROMPTS
