"""The options of erasure, of a concept in training or of one that is finished."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, final

from orthoplex.options import Precision, check_fields, option

_LARGEST = 1e6
"""Of a factor that meets numbers of float32: their products must stay finite."""


@final
@dataclass(frozen=True)
class ErasureOptions:
    """How much erasure counts, and what foreign prompts and prior pictures are made by.

    Attributes:
        weight: How much foreign prompts count against the concept's own; 0 for no erasure.
        num_prompts: How many foreign prompts there are.
        seed: Decides order, noise and random vectors.
        batch_size: Prompts at a time.
        prior_pictures: How many pictures the base makes of foreign prompts; 0 takes pure noise as foreign latents.
        prior_inference_steps: Denoising steps of prior pictures.
        guidance_scale: Guidance of prior pictures.
        mixed_precision: ``"no"``, ``"bf16"`` or ``"auto"``, of prior pictures.

    Raises:
        ConfigurationError: When a value is of the wrong type or outside its range.
    """

    weight: float = option(30.0, lowest=0, highest=_LARGEST)
    num_prompts: int = option(128, lowest=1)
    seed: int = option(0, lowest=0, highest=2**62)
    batch_size: int = option(8, lowest=1)
    prior_pictures: int = option(24, lowest=0)
    prior_inference_steps: int = option(10, lowest=1)
    guidance_scale: float = option(4.0, lowest=0)
    mixed_precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Refuse values of the wrong type or outside their range."""
        check_fields(self, "erasure")

    def with_defaults(self, defaults: Mapping[str, Any]) -> "ErasureOptions":
        """Return the same options with those defaults of a base's family that concern erasure.

        Args:
            defaults: As ``Base.training_defaults`` has them; other options among them are left out.
        """
        known = {item.name for item in fields(self)}
        return replace(self, **{name: value for name, value in defaults.items() if name in known})
