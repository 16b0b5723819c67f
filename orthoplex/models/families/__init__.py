"""The families of bases, one file each; it is imported when such a base is loaded, and diffusers with it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, final

from orthoplex.errors import BaseModelError

if TYPE_CHECKING:
    from orthoplex.models.families.family import Family


@final
@dataclass(frozen=True)
class FamilyRow:
    """Where a family is.

    Attributes:
        module: Its file in this folder.
        name: Its class there.
    """

    module: str
    name: str


FAMILIES = {"StableDiffusionPipeline": FamilyRow("stable_diffusion", "StableDiffusion")}
"""Pipeline class, as ``model_index.json`` names it, to family."""


def family_of(pipeline_class: str) -> type[Family]:
    """Return the family whose bases are pipelines of a class.

    Raises:
        BaseModelError: When there is none; names the classes that have one.
    """
    row = FAMILIES.get(pipeline_class)
    if row is None:
        raise BaseModelError(f"a {pipeline_class} is no base, supported are {', '.join(sorted(FAMILIES))}")
    return getattr(import_module(f"{__name__}.{row.module}"), row.name)
