"""A pipeline as an ordinary folder, there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthoplex.errors import ConfigurationError
from orthoplex.models.pipelines import StableDiffusionPipeline
from orthoplex.models.quiet import quiet

RECIPE_NAME = "recipe.json"


def save_pipeline(
    pipeline: StableDiffusionPipeline, folder: Path, *, recipe: Mapping[str, Any] | None, overwrite: bool = False
) -> Path:
    """Write the pipeline as safetensors, and the recipe beside ``model_index.json``.

    Args:
        pipeline: The pipeline as it is now, with everything that is folded in.
        folder: A new or empty folder.
        recipe: What was folded in, or None.
        overwrite: Replace a folder that holds something.

    Raises:
        ConfigurationError: If ``folder`` is a file, holds something and ``overwrite`` is False, or holds no pipeline.
    """
    folder = folder.resolve()
    if folder.is_file():
        raise ConfigurationError(f"{folder}: is a file, a folder is needed")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ConfigurationError(f"{folder}: the folder is not empty, allowed is a new or empty one, or overwrite=True")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "model_index.json").is_file():
        raise ConfigurationError(f"{folder}: holds no model_index.json, only a pipeline folder may be overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    temporary = folder.with_name(f".{folder.name}.{mark}.partial")
    replaced = folder.with_name(f".{folder.name}.{mark}.replaced")
    try:
        with quiet():
            pipeline.save_pretrained(temporary, safe_serialization=True)
        if recipe is not None:
            (temporary / RECIPE_NAME).write_text(json.dumps(recipe, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(temporary, folder)
    finally:
        if replaced.exists() and not folder.exists():
            os.replace(replaced, folder)
        for leftover in (temporary, replaced):
            if leftover.exists():
                shutil.rmtree(leftover)
    return folder
