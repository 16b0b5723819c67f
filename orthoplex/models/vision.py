"""Networks that pictures are measured with: CLIP and DINOv2, from a folder or the model hub, frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from orthoplex.errors import ConfigurationError
from orthoplex.models.identity import weights_hash
from orthoplex.models.quiet import quiet

with quiet():
    from transformers import AutoConfig, CLIPModel, CLIPTokenizer, Dinov2Model

_Network = TypeVar("_Network", CLIPModel, Dinov2Model)


@dataclass(frozen=True, eq=False)
class ClipNetwork:
    """Pictures and texts in one space.

    Attributes:
        network: The model itself.
        tokenizer: Its tokenizer.
        picture_size: Side in pixels that pictures must have.
        label: Name and the first digits of the hash of its weights; can be part of a file's name.
    """

    network: CLIPModel
    tokenizer: CLIPTokenizer
    picture_size: int
    label: str

    def pictures(self, pixels: Tensor) -> Tensor:
        """Projected features of normalised pictures: `(n, 3, s, s)` -> `(n, d)`."""
        return self.network.visual_projection(self.network.vision_model(pixel_values=pixels).pooler_output)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Projected features of texts, `(n, d)`; what is longer than the tokenizer allows is cut off."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        output = self.network.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return self.network.text_projection(output.pooler_output)


@dataclass(frozen=True, eq=False)
class DinoNetwork:
    """Pictures alone.

    Attributes:
        network: The model itself.
        patch_size: Side in pixels of a patch; the side of a picture is a multiple of it.
        label: See `ClipNetwork`.
    """

    network: Dinov2Model
    patch_size: int
    label: str

    def pictures(self, pixels: Tensor) -> Tensor:
        """The class token after the last norm: `(n, 3, s, s)` -> `(n, d)`."""
        return self.network(pixel_values=pixels).pooler_output


def load_clip(model: str) -> ClipNetwork:
    """Load a CLIP model with its tokenizer.

    Args:
        model: A folder as `save_pretrained` writes it, or a name on the model hub.

    Raises:
        ConfigurationError: when it is neither, is another model, or its weights are not whole.
    """
    network = _load(CLIPModel, model, "clip")
    try:
        with quiet():
            tokenizer = CLIPTokenizer.from_pretrained(_place(model))
    except Exception as error:  # noqa: BLE001  (a damaged folder makes the libraries raise anything)
        raise _unusable(model, "clip", f"its tokenizer cannot be loaded: {_first_line(error)}") from error
    config: Any = network.config  # its parts are typed as what they may be given as
    read = config.text_config.max_position_embeddings
    if tokenizer.model_max_length > read:
        raise _unusable(model, "clip", f"its tokenizer gives up to {tokenizer.model_max_length} tokens of {read}")
    return ClipNetwork(network, tokenizer, config.vision_config.image_size, _label(model, network))


def load_dino(model: str) -> DinoNetwork:
    """Load a DINOv2 model; see `load_clip` for arguments and errors."""
    network = _load(Dinov2Model, model, "dinov2")
    config: Any = network.config
    return DinoNetwork(network, config.patch_size, _label(model, network))


def _load(kind: type[_Network], model: str, model_type: str) -> _Network:
    place = _place(model)
    if not model.strip() or ((place.startswith(".") or Path(place).is_absolute()) and not Path(place).is_dir()):
        raise _unusable(model, model_type, "there is no such folder")
    try:
        with quiet():
            stored_type = AutoConfig.from_pretrained(place).model_type
            if stored_type != model_type:
                raise _unusable(model, model_type, f"it is a {stored_type!r} model")
            loaded: Any = kind.from_pretrained(place, output_loading_info=True, dtype=torch.float32)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001  (a damaged folder makes the libraries raise anything)
        raise _unusable(model, model_type, f"{type(error).__name__}: {_first_line(error)}") from error
    network, report = loaded
    if report["missing_keys"]:
        raise _unusable(model, model_type, f"its weights lack {min(report['missing_keys'])}")
    return network.eval().requires_grad_(False)


def _place(model: str) -> str:
    """The folder, with the home folder in the place of `~`; or the name on the hub as it is."""
    return str(Path(model).expanduser()) if model.startswith("~") else model


def _unusable(model: str, model_type: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"encoder model {model!r} cannot be used: {reason}; allowed: a folder of a {model_type!r} model, or the name "
        "of one on the model hub"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _label(model: str, network: nn.Module) -> str:
    return f"{Path(_place(model)).resolve().name}-{weights_hash({'encoder': network})[:8]}"
