"""Pictures that know how they were made: the recipe lies in the PNG's text chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from orthoplex.errors import ConfigurationError
from orthoplex.files import written_atomically

RECIPE_KEY = "orthoplex"
PARAMETERS_KEY = "parameters"


def save_png(image: Image.Image, path: str | Path, recipe: Mapping[str, Any]) -> None:
    """Write a PNG with its recipe; the file is there whole or not at all.

    The chunk ``orthoplex`` holds the recipe as JSON, the chunk ``parameters`` the line that other programs show.

    Args:
        image: The picture.
        path: A name that ends in ``.png``.
        recipe: JSON values, see ``picture_recipe``.

    Raises:
        ConfigurationError: If the name ends otherwise.
    """
    path = Path(path)
    check_png_name(path)
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(RECIPE_KEY, json.dumps(dict(recipe), sort_keys=True, ensure_ascii=False))
    chunks.add_itxt(PARAMETERS_KEY, parameters_text(recipe))
    with written_atomically(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)


def check_png_name(path: Path) -> None:
    """Refuse a name that does not end in ``.png``; callers check before they make the picture.

    Raises:
        ConfigurationError: If the name ends otherwise.
    """
    if path.suffix.lower() != ".png":
        raise ConfigurationError(f"{path}: a picture with its recipe is named '*.png', not '*{path.suffix}'")


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read the recipe back from a PNG that ``save_png`` wrote.

    Raises:
        ConfigurationError: If the file is missing, is no picture, or carries no recipe.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            text = image.info.get(RECIPE_KEY)
    except (FileNotFoundError, UnidentifiedImageError) as error:
        raise ConfigurationError(f"{path}: is no picture: {error}") from error
    try:
        recipe = json.loads(text) if text is not None else None
    except ValueError:
        recipe = None
    if not isinstance(recipe, dict):
        raise ConfigurationError(f"{path}: carries no recipe, allowed is a PNG with a JSON text chunk '{RECIPE_KEY}'")
    return recipe


def parameters_text(recipe: Mapping[str, Any]) -> str:
    """The recipe in the lines that picture viewers of the ecosystem show: prompt, negative prompt, settings."""
    lines = [str(recipe.get("prompt", ""))]
    if recipe.get("negative_prompt"):
        lines.append(f"Negative prompt: {recipe['negative_prompt']}")
    base, merge = recipe.get("base") or {}, recipe.get("merge") or {}
    settings = {
        "Steps": recipe.get("num_inference_steps"),
        "CFG scale": recipe.get("guidance_scale"),
        "Seed": recipe.get("seed"),
        "Model": base.get("name"),
        "Model hash": base.get("hash", "")[:12] or None,
        "Concepts": " ".join(f"{item['name']}@{item['strength']:g}" for item in merge.get("concepts", ())) or None,
    }
    lines.append(", ".join(f"{key}: {value}" for key, value in settings.items() if value is not None))
    return "\n".join(lines)
