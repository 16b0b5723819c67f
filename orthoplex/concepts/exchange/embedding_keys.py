"""Where a file keeps embeddings of tokens: told by keys and widths, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from orthoplex.concepts.exchange.payloads import split_key
from orthoplex.errors import ConfigurationError

BUNDLE = "bundle_emb."
"""The beginning of the keys of embeddings that lie in a LoRA file."""
TOKEN_KEY = "orthoplex_token"
"""Of the header's text pair with the token of a file of one embedding, where keys name text encoders."""
_UNNAMED = ("emb_params", "string_to_param.*")
"""Keys that name neither the token nor the text encoder."""
_OUTPUT = "_out"
_ALIASES = {"t5xxl": ("t5",), "clip_l": ("clip_h",)}
"""Name in ComfyUI -> other names of the same text encoder: OneTrainer's for T5, ComfyUI's for that of SD 2."""


@final
@dataclass(frozen=True)
class EncoderKeys:
    """How files name a text encoder, and how wide its embeddings are.

    Attributes:
        names: Keys that stand for it; the first is written.
        widths: The widths of its embeddings that tell it where a key does not.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]


CLIP_ENCODERS: Mapping[str, EncoderKeys] = {
    "text_encoder": EncoderKeys(("clip_l", "clip_h"), (768, 1024)),
    "text_encoder_2": EncoderKeys(("clip_g",), (1280,)),
}
"""Text encoder to its keys, for Stable Diffusion 1, 2 and XL: one width is one encoder."""


@final
@dataclass(frozen=True)
class EmbeddingPlace:
    """What one tensor of a file is.

    Attributes:
        token: The token.
        encoder: The text encoder that reads it.
    """

    token: str
    encoder: str


@final
@dataclass(frozen=True)
class EmbeddingPlaces:
    """What the tensors of a file are.

    Attributes:
        places: Key to its place.
        refused: Key to the reason why it is no embedding that can be read.
    """

    places: Mapping[str, EmbeddingPlace]
    refused: Mapping[str, str]


def encoder_keys(names: Mapping[str, str], widths: Mapping[str, int]) -> dict[str, EncoderKeys]:
    """Return the keys of a family's text encoders.

    Args:
        names: Text encoder to its name in ComfyUI, such as ``clip_l``.
        widths: Text encoder to the width of its embeddings, as far as it is known.
    """
    return {
        encoder: EncoderKeys((name, *_ALIASES.get(name, ())), (widths[encoder],) if encoder in widths else ())
        for encoder, name in names.items()
    }


def bundled_places(
    shapes: Mapping[str, tuple[int, ...]], encoders: Mapping[str, EncoderKeys] = CLIP_ENCODERS
) -> EmbeddingPlaces:
    """Return the embeddings that are bundled with a LoRA; keys of other things are left out.

    Args:
        shapes: Key to shape, of the whole file.
        encoders: Text encoder to its keys.
    """
    bundle = {key: shape for key, shape in shapes.items() if key.startswith(BUNDLE)}
    named = {key: _split_bundled(key.removeprefix(BUNDLE)) for key in bundle}
    return _places(bundle, named, encoders)


def embedding_places(
    shapes: Mapping[str, tuple[int, ...]], token: str, encoders: Mapping[str, EncoderKeys] = CLIP_ENCODERS
) -> EmbeddingPlaces | None:
    """Return the embeddings of a file of embeddings; None if a file with such keys is another.

    Args:
        shapes: Key to shape, of the whole file.
        token: The token where keys do not name it: the file's name without its suffix, as A1111 and ComfyUI have it.
        encoders: Text encoder to its keys.
    """
    if not shapes:
        return None
    if all(key.startswith(BUNDLE) for key in shapes):
        return bundled_places(shapes, encoders)
    names = {name for keys in (*CLIP_ENCODERS.values(), *encoders.values()) for name in keys.names}
    if all(key in _UNNAMED or key.removesuffix(_OUTPUT) in names for key in shapes):
        return _places(shapes, {key: (token, key) for key in shapes}, encoders)
    widths = {width for keys in (*CLIP_ENCODERS.values(), *encoders.values()) for width in keys.widths}
    if all(len(shape) in (1, 2) and max(shape[-1:]) in widths and not split_key(key) for key, shape in shapes.items()):
        return _places(shapes, {key: (key, _UNNAMED[0]) for key in shapes}, encoders)
    return None


def place_keys(
    tokens: Mapping[str, Mapping[str, object]], style: str, encoders: Mapping[str, EncoderKeys] = CLIP_ENCODERS
) -> dict[str, EmbeddingPlace]:
    """Return the keys under which a file of a style has embeddings, the reverse of reading.

    Args:
        tokens: Token to text encoder to anything.
        style: ``comfy`` (also A1111, Forge): one token, named by the file; ``diffusers``: keys are tokens, of one text
            encoder; ``bundle``: inside a LoRA file.
        encoders: Text encoder to its keys.

    Raises:
        ConfigurationError: when the style does not hold so many tokens or encoders, a text encoder has no key, or there
            is no such style.
    """
    places = [EmbeddingPlace(token, encoder) for token, vectors in tokens.items() for encoder in vectors]
    for place in places:
        if place.encoder not in encoders:
            raise ConfigurationError(
                f"token '{place.token}' is of {place.encoder}; allowed are {', '.join(encoders)}, which have a key"
            )
    if style == "bundle":
        return {f"{BUNDLE}{place.token}.{encoders[place.encoder].names[0]}": place for place in places}
    if style == "comfy":
        if len(tokens) != 1:
            raise ConfigurationError(f"a comfy embedding file has one token; these are {', '.join(tokens) or 'none'}")
        if [place.encoder for place in places] == ["text_encoder"]:
            return {places[0].token: places[0]}  # diffusers reads the token there, other programs the only tensor
        return {encoders[place.encoder].names[0]: place for place in places}
    if style == "diffusers":
        used = sorted({place.encoder for place in places})
        if len(used) != 1:
            raise ConfigurationError(
                f"a diffusers embedding file has one text encoder; these are {', '.join(used) or 'none'}; write one "
                "file for each"
            )
        return {place.token: place for place in places}
    raise ConfigurationError(f"embedding style '{style}' is unknown; allowed are comfy, diffusers, bundle")


def _split_bundled(rest: str) -> tuple[str, str]:
    """Return the token, which may have dots, and the key behind it."""
    for name in _UNNAMED:
        if rest.endswith(f".{name}"):
            return rest.removesuffix(f".{name}"), name
    token, _, name = rest.rpartition(".")
    return token, name


def _places(
    shapes: Mapping[str, tuple[int, ...]], named: Mapping[str, tuple[str, str]], encoders: Mapping[str, EncoderKeys]
) -> EmbeddingPlaces:
    places: dict[str, EmbeddingPlace] = {}
    refused: dict[str, str] = {}
    for key, (token, name) in sorted(named.items()):
        encoder, reason = _encoder(name, shapes[key], encoders)
        place = EmbeddingPlace(token, encoder)
        if not token:
            refused[key] = "names no token"
        elif reason:
            refused[key] = reason
        elif place in places.values():
            refused[key] = f"is a second embedding of '{token}' for {encoder}"
        else:
            places[key] = place
    return EmbeddingPlaces(places, refused)


def _encoder(name: str, shape: tuple[int, ...], encoders: Mapping[str, EncoderKeys]) -> tuple[str, str]:
    """Return the text encoder of a key, and the reason why it has none."""
    if not shape or len(shape) > 2 or 0 in shape:
        return "", f"has shape {shape}; allowed are (vectors, width) and (width,)"
    width = max(shape[-1:])
    if name in _UNNAMED:
        fits = [encoder for encoder, keys in encoders.items() if width in keys.widths]
        if len(fits) == 1:
            return fits[0], ""
        allowed = "; ".join(f"{encoder} {', '.join(map(str, keys.widths))}" for encoder, keys in encoders.items())
        what = f"that of several text encoders ({', '.join(fits)})" if fits else "that of no text encoder"
        return "", f"has width {width}, {what}; known are {allowed}"
    if name.endswith(_OUTPUT):
        return "", "is a vector that OneTrainer puts behind the text encoder; no other program reads it"
    for encoder, keys in encoders.items():
        if name in keys.names:
            if keys.widths and width not in keys.widths:
                allowed = " or ".join(map(str, keys.widths))
                return "", f"has width {width}; {encoder} has {allowed}"
            return encoder, ""
    allowed = ", ".join((*_UNNAMED, *(name for keys in encoders.values() for name in keys.names)))
    return "", f"is of a text encoder '{name}' that the family has not; allowed are {allowed}"
