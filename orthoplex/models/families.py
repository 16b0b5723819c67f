"""Which pipelines can be a base, and how one is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from orthoplex import vignette
from orthoplex.concepts import BaseIdentity
from orthoplex.errors import BaseModelError
from orthoplex.models.base import COMPONENTS, Base
from orthoplex.models.identity import weights_hash
from orthoplex.models.pipelines import StableDiffusionPipeline
from orthoplex.models.quiet import quiet

EMBEDDED = "vignette"
FAMILIES = {"StableDiffusionPipeline": "sd1"}
"""Pipeline class, as ``model_index.json`` names it, to family."""
_WIDTH_OF_SD2 = 1024
"""Numbers of a token's features in Stable Diffusion 2, whose pipelines are of the same class; 768 in version 1."""


def load_base(
    name_or_path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Base:
    """Load a base model from a pipeline folder, or the embedded one by the name ``"vignette"``.

    Args:
        name_or_path: ``"vignette"`` or a folder with ``model_index.json``.
        dtype: Data type of the weights.
        device: Where the weights go.

    Raises:
        BaseModelError: If the folder is missing, is no pipeline, is of an unsupported class, or is damaged; or if the
            device is not there.
    """
    place = _device(device)
    embedded = str(name_or_path) == EMBEDDED
    folder = vignette.folder() if embedded else Path(name_or_path)
    family = _family(folder, name_or_path)
    # bfloat16 rounds more coarsely than the float16 that the hash sees, so it comes after the hash.
    first_dtype = torch.float16 if dtype == torch.float16 else torch.float32
    try:
        with quiet():
            pipeline = StableDiffusionPipeline.from_pretrained(
                folder,
                dtype=first_dtype,
                safety_checker=None,
                requires_safety_checker=False,
                local_files_only=True,
            )
    except Exception as error:  # noqa: BLE001  (a damaged folder makes the libraries raise anything)
        raise BaseModelError(
            f"base '{name_or_path}' cannot be loaded: {_damaged_weights(folder)}{type(error).__name__}: {error}"
        ) from error
    _check_tokenizer(pipeline, name_or_path)
    pipeline.set_progress_bar_config(disable=True)
    name = EMBEDDED if embedded else folder.resolve().name
    weights = weights_hash({component: pipeline.components[component] for component in COMPONENTS})
    with quiet():
        pipeline.to(place)
        if dtype != first_dtype:
            pipeline.to(dtype)
    for component in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        component.requires_grad_(False).eval()
    family = EMBEDDED if embedded else _version(family, pipeline)
    return Base(pipeline, BaseIdentity(family=family, hash=weights, name=name))


def _device(device: str | torch.device) -> torch.device:
    try:
        probe = torch.zeros(1, device=device)
        probe.cpu()  # the device "meta" holds no data to give back
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BaseModelError(f"device is '{device}', allowed are cpu and what this torch has: {reason}") from error


def _family(folder: Path, name_or_path: str | Path) -> str:
    index = folder / "model_index.json"
    if not folder.is_dir() or not str(name_or_path):
        raise BaseModelError(f"base '{name_or_path}' is no folder, allowed are '{EMBEDDED}' and pipeline folders")
    try:
        name = json.loads(index.read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BaseModelError(f"base '{name_or_path}' is no pipeline folder: no class name in {index.name}") from error
    if not isinstance(name, str) or name not in FAMILIES:
        raise BaseModelError(f"base '{name_or_path}' is a {name}, supported are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def _version(family: str, pipeline: StableDiffusionPipeline) -> str:
    """Tell Stable Diffusion 2 from version 1, whose bases take none of its LoRAs; readers of headers should know."""
    if pipeline.unet.config.cross_attention_dim != _WIDTH_OF_SD2:
        return family
    return "sd2-v" if pipeline.scheduler.config.prediction_type == "v_prediction" else "sd2"


def _damaged_weights(folder: Path) -> str:
    """Name the first weights whose header cannot be read; the libraries do not."""
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return f"{path.relative_to(folder)} is damaged: "
    return ""


def _check_tokenizer(pipeline: StableDiffusionPipeline, name_or_path: str | Path) -> None:
    """Refuse a tokenizer that gives more tokens than are read; one from a missing folder knows no limit at all."""
    given, read = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings
    if given > read:
        raise BaseModelError(
            f"base '{name_or_path}': tokenizer gives up to {given} tokens, allowed are the {read} that the encoder "
            "reads; is the folder 'tokenizer' whole?"
        )
