"""The families of bases, one file each; it is imported when such a base is loaded, and diffusers with it.

This table is read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, final

from orthoplex.errors import BaseModelError

if TYPE_CHECKING:
    from orthoplex.models.families.family import Family
    from orthoplex.models.families.form_of_folders import FolderForm


@final
@dataclass(frozen=True)
class FamilyRow:
    """The facts of a family that are needed before its file is imported.

    Attributes:
        module: Its file in this folder.
        name: Its class there.
        training: Training options of such bases that have other defaults than ``TrainingConfig``, with their values.
        folder: The file in this folder whose ``FORM`` says what such folders hold, so that a merge goes into them
            without any network; empty for none.
    """

    module: str
    name: str
    training: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""


FAMILIES = {
    "StableDiffusionPipeline": FamilyRow(
        "stable_diffusion",
        "StableDiffusion",
        training={"num_inference_steps": 30, "guidance_scale": 7.5},
        folder="stable_diffusion_folder",
    ),
    "StableDiffusionXLPipeline": FamilyRow(
        "stable_diffusion_xl",
        "StableDiffusionXL",
        training={"steps": 500, "batch_size": 2, "num_inference_steps": 30, "guidance_scale": 6.0},
        folder="stable_diffusion_xl_folder",
    ),
    "FluxPipeline": FamilyRow(
        "flux", "Flux", training={"layers": "attention", "num_inference_steps": 28, "guidance_scale": 3.5}
    ),
    "ChromaPipeline": FamilyRow(
        "chroma", "Chroma", training={"layers": "attention", "num_inference_steps": 35, "guidance_scale": 5.0}
    ),
    "ZImagePipeline": FamilyRow(
        "z_image", "ZImage", training={"layers": "attention", "num_inference_steps": 9, "guidance_scale": 0.0}
    ),
    "Flux2KleinPipeline": FamilyRow(
        "flux2_klein", "Flux2Klein", training={"layers": "attention", "num_inference_steps": 28, "guidance_scale": 4.0}
    ),
    "QwenImagePipeline": FamilyRow(
        "qwen_image", "QwenImage", training={"layers": "attention", "num_inference_steps": 50, "guidance_scale": 4.0}
    ),
    "AnimaModularPipeline": FamilyRow("anima", "Anima", training={"num_inference_steps": 50, "guidance_scale": 4.0}),
    "Krea2Pipeline": FamilyRow(
        "krea2", "Krea2", training={"layers": "attention", "num_inference_steps": 28, "guidance_scale": 4.5}
    ),
}
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


def defaults_of(pipeline_class: str) -> Mapping[str, Any]:
    """Return the training options with other defaults of the family of a pipeline class; none without a family."""
    row = FAMILIES.get(pipeline_class)
    return {} if row is None else row.training


def folder_form(pipeline_class: str) -> FolderForm | None:
    """Return the form of a pipeline class's folders, into which a merge goes; None where they must be loaded."""
    row = FAMILIES.get(pipeline_class)
    if row is None or not row.folder:
        return None
    return import_module(f"{__name__}.{row.folder}").FORM
