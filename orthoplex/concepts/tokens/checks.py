"""Checks that the tokens of one concept fit together."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from orthoplex.concepts.tokens.token import Placement, Token
from orthoplex.errors import ConceptFileError


def check_tokens(tokens: Mapping[str, Token]) -> None:
    """Refuse tokens of several kinds, of different layers or shapes, or of shapes that no base takes.

    Raises:
        ConceptFileError: Names the token, the value, and what was allowed.
    """
    if not tokens:
        return
    (first, model), *_ = tokens.items()
    for token, item in tokens.items():
        if item.kind != model.kind:
            raise ConceptFileError(
                f"token '{token}' is of kind {item.kind}, allowed is that of '{first}', {model.kind}"
            )
        _check_vectors(token, item.placement)
        _check_keys_values(token, item.placement)
        _check_maps(token, item.placement)
        _check_alike(token, item.placement, first, model.placement)


def _check_vectors(token: str, placement: Placement) -> None:
    layers = placement.layers
    if len(set(layers)) < len(layers):
        raise ConceptFileError(f"token '{token}' names a layer twice, allowed is once")
    if not placement.vectors:
        raise ConceptFileError(f"token '{token}' has vectors of no text encoder, allowed is at least one")
    for vectors in placement.vectors.values():
        shape = tuple(vectors.shape)
        if len(shape) != (2 if layers else 1) or (layers and shape[0] != len(layers)):
            allowed = f"({len(layers)}, dim), a row for each of the token_layers" if layers else "(dim,)"
            raise ConceptFileError(f"token '{token}' has shape {shape}, allowed is {allowed}")


def _check_keys_values(token: str, placement: Placement) -> None:
    for layer, values in placement.keys_values.items():
        if values.ndim != 2 or len(values) != 2:
            raise ConceptFileError(
                f"keys_values of token '{token}' in layer '{layer}' have shape {tuple(values.shape)}, allowed is "
                "(2, out), a key and a value"
            )


def _check_maps(token: str, placement: Placement) -> None:
    for layer, (down, up) in placement.key_value_maps.items():
        are_pairs = down.ndim == up.ndim == 3 and len(down) == len(up) == 2
        if not are_pairs or down.shape[1] != up.shape[2]:
            raise ConceptFileError(
                f"maps of token '{token}' in layer '{layer}' have shapes {tuple(down.shape)} and {tuple(up.shape)}, "
                "allowed are (2, r, in) and (2, out, r)"
            )


def _check_alike(token: str, placement: Placement, first: str, model: Placement) -> None:
    """Refuse a token whose layers or shapes differ from those of the concept's first token."""
    if placement.layers != model.layers:
        raise ConceptFileError(
            f"token '{token}' has vectors for layers {', '.join(placement.layers) or 'none'}, allowed are those of "
            f"token '{first}', {', '.join(model.layers) or 'none'}"
        )
    of_vectors = [
        ", ".join(f"{tuple(vectors.shape)} of {encoder}" for encoder, vectors in sorted(side.vectors.items()))
        for side in (placement, model)
    ]
    if of_vectors[0] != of_vectors[1]:
        raise ConceptFileError(
            f"token '{token}' has vectors {of_vectors[0]}, allowed are those of token '{first}', {of_vectors[1]}"
        )
    for name in ("keys_values", "key_value_maps"):
        own, shapes = (
            {layer: _shape(value) for layer, value in getattr(side, name).items()} for side in (placement, model)
        )
        for layer in sorted(own.keys() | shapes.keys()):
            if own.get(layer) != shapes.get(layer):
                raise ConceptFileError(
                    f"{name} of token '{token}' in layer '{layer}' have shape {own.get(layer, 'none')}, allowed is "
                    f"that of token '{first}', {shapes.get(layer, 'none')}"
                )


def _shape(value: Tensor | tuple[Tensor, Tensor]) -> tuple[object, ...]:
    return tuple(tuple(part.shape) for part in value) if isinstance(value, tuple) else tuple(value.shape)
