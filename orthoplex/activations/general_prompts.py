"""Prompts of a base's own words, without any concept."""

from itertools import cycle, islice

from orthoplex.models import Base

_WRITTEN = (
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
_MEDIA = ("a photo of {}", "a watercolor of {}", "{}", "a pencil sketch of {}", "a close-up of {}")
_THINGS = (
    "a boy",
    "a girl",
    "an old man",
    "a woman in a red coat",
    "a crowd of people",
    "a person on a bicycle",
    "a robot",
    "a lion",
    "an owl",
    "a butterfly",
    "a turtle",
    "a striped animal",
    "a wooden boat",
    "a fast vehicle",
    "a steam train",
    "a loaf of bread",
    "a plate of food",
    "a glass of wine",
    "a green plant",
    "a lamp",
    "a tall building",
    "a pair of shoes",
)
_PLACES = (
    "in a kitchen",
    "on a bridge",
    "in a desert",
    "in a library",
    "by a lake at sunset",
    "in a snowy village",
    "on a stage",
    "in a jungle",
    "under water",
    "in a museum",
    "on a rooftop in the rain",
    "in outer space",
    "in front of a temple",
)
FOREIGN_PROMPTS = (
    *_WRITTEN,
    *(
        medium.format(f"{thing} {place}")
        for medium, thing, place in islice(zip(cycle(_MEDIA), cycle(_THINGS), cycle(_PLACES)), 64 - len(_WRITTEN))
    ),
)
"""64 general prompts for bases that bring none of their own."""


def default_foreign_prompts(base: Base) -> tuple[str, ...]:
    """Return the prompts that come with a base, or ``FOREIGN_PROMPTS`` where none do."""
    return base.brought.foreign_prompts or FOREIGN_PROMPTS
