"""A pipeline as an ordinary folder, there whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from orthoplex.models.families import family_of
from orthoplex.models.folder_content import check_pipeline_content, write_pipeline
from orthoplex.models.pipeline_folder import check_pipeline_folder, pipeline_folder
from orthoplex.models.quiet import quiet


def save_pipeline(
    pipeline: Any,  # noqa: ANN401  (pipelines share no typed parent)
    folder: Path,
    *,
    recipe: Mapping[str, Any] | None,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
    stored_dtypes: Mapping[str, torch.dtype] | None = None,
) -> Path:
    """Write the pipeline as safetensors, and the recipe beside ``model_index.json``.

    Old and new releases of diffusers read the folder (``docs/bases.md``). The pipeline stays as it is.

    Args:
        pipeline: The pipeline as it is now, with everything that is folded in.
        folder: A new or empty folder.
        recipe: What was folded in, or None.
        overwrite: Replace a folder that holds something.
        dtype: The type of the weights in the files, float16, bfloat16 or float32.
        stored_dtypes: Without ``dtype``: component to the type in the files, as in those that it was loaded from,
            unless it is wider than that in memory. Other components keep their type in memory.

    Raises:
        ConfigurationError: See ``check_pipeline_folder``; or if the type is another, or too small for a weight.
        BaseModelError: If no family has the pipeline's class, or weights are none of a plain pipeline: LoRAs are
            loaded, or networks compiled or quantised.
        OutputError: If it cannot be written, or another process filled the folder meanwhile.
    """
    family_of(type(pipeline).__name__)
    check_pipeline_folder(folder, overwrite=overwrite)
    check_pipeline_content(pipeline, dtype)
    with pipeline_folder(folder, recipe=recipe, overwrite=overwrite) as temporary, quiet():
        write_pipeline(pipeline, temporary, dtype=dtype, stored_dtypes=stored_dtypes)
    return folder.resolve()
