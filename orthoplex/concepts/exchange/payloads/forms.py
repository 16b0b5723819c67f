"""What the shapes of a payload's parts say: read from a header alone, without torch."""

from __future__ import annotations

import math

from orthoplex.concepts.exchange.payloads.row import Form, Shapes
from orthoplex.errors import ConfigurationError


def low_rank_form(shapes: Shapes) -> Form:
    """Return the form of ``up · down``, or of ``up · mid · down`` with the window in ``mid``.

    Raises:
        ConfigurationError: when the factors cannot be multiplied.
    """
    out_features, up_rank = _matrix(shapes, "up")
    down = _factor(shapes, "down")
    if "mid" not in shapes:
        _agree(shapes, ("up", up_rank), ("down", down[0]))
        return Form((out_features, *_without_ones(down[1:])), down[0], down[0])
    rank, in_features = _matrix(shapes, "down")
    mid = _factor(shapes, "mid")
    _agree(shapes, ("up", up_rank), ("mid", mid[0]))
    _agree(shapes, ("mid", mid[1]), ("down", rank))
    return Form((out_features, in_features, *mid[2:]), rank, up_rank)


def low_rank_bias_form(shapes: Shapes) -> Form:
    """Return the form of a bias beside ``up``, scaled as the product is.

    Raises:
        ConfigurationError: when the bias is no vector, or has not one number for each row of ``up``.
    """
    product = low_rank_form(shapes)
    (length,) = _vector(shapes, "up_bias")
    if length != product.shape[0]:
        raise ConfigurationError(
            f"up_bias has shape {shapes['up_bias']} beside up {shapes['up']}; allowed is ({product.shape[0]},)"
        )
    return Form((length,), product.rank, None)


def embedding_form(shapes: Shapes) -> Form:
    """Return the form of PEFT's change of an embedding, ``(up · down)ᵀ``.

    Raises:
        ConfigurationError: when the factors cannot be multiplied.
    """
    width, up_rank = _matrix(shapes, "embedding_up")
    rank, num_embeddings = _matrix(shapes, "embedding_down")
    _agree(shapes, ("embedding_up", up_rank), ("embedding_down", rank))
    return Form((num_embeddings, width), rank, rank)


def hadamard_form(shapes: Shapes) -> Form:
    """Return the form of LoHa, the product of two low-rank changes number by number.

    Raises:
        ConfigurationError: when the factors cannot be multiplied.
    """
    if ("t1" in shapes) != ("t2" in shapes):
        raise ConfigurationError("LoHa has one of t1 and t2; allowed are both or none")
    tucker = "t1" in shapes
    first, second = (_side(shapes, f"w{i}_a", f"w{i}_b", f"t{i}" if tucker else None) for i in (1, 2))
    if first != second:
        raise ConfigurationError(
            f"LoHa has sides of shape {first[:-1]} and rank {first[-1]}, and {second[:-1]} and rank {second[-1]}; "
            "allowed are two sides of one shape and one rank"
        )
    *shape, rank = first
    return Form(tuple(shape), rank, _factored(rank * rank, shape))


def kronecker_form(shapes: Shapes) -> Form:
    """Return the form of LoKr, the Kronecker product of two matrices, each whole or a low-rank product.

    Raises:
        ConfigurationError: when the factors of a side cannot be multiplied, or the ranks of both sides differ.
    """
    if {"lokr_w2", "lokr_t2"} <= shapes.keys():
        raise ConfigurationError("LoKr has lokr_t2 beside a whole lokr_w2; allowed is one of both")
    ranks, exact, sides = set(), 1, []
    for i in (1, 2):
        tucker = "lokr_t2" if i == 2 and "lokr_t2" in shapes else None
        if f"lokr_w{i}" in shapes:
            side = _matrix(shapes, "lokr_w1") if i == 1 else _factor(shapes, "lokr_w2")
        else:
            *side, rank = _side(shapes, f"lokr_w{i}_a", f"lokr_w{i}_b", tucker)
            ranks.add(rank)
        exact *= min(side[0], math.prod(side[1:]), *(ranks if f"lokr_w{i}" not in shapes else ()))
        sides.append(tuple(side))
    if len(ranks) > 1:
        raise ConfigurationError(f"LoKr has sides of ranks {sorted(ranks)}; allowed is one rank")
    (out1, *in1), (out2, in2, *window) = sides
    shape = (out1 * out2, math.prod(in1) * in2, *window)
    return Form(shape, next(iter(ranks), None), _factored(exact, shape))


def difference_form(shapes: Shapes) -> Form:
    """Return the form of a full difference: its own shape.

    Raises:
        ConfigurationError: when there are no numbers.
    """
    ((part, shape),) = shapes.items()
    if not shape or 0 in shape:
        raise ConfigurationError(f"{part} has shape {shape}; allowed is at least one size, none of them 0")
    return Form(shape, None, None)


def _factored(rank: int, shape: tuple[int, ...] | list[int]) -> int | None:
    """Return a rank that saves numbers; None where the change is smaller as a whole."""
    return rank if 2 * rank < min(shape[0], math.prod(shape[1:])) else None


def _side(shapes: Shapes, a: str, b: str, t: str | None) -> tuple[int, ...]:
    """Return the shape and, last, the rank of ``a · b``; of ``aᵀ · t · b`` where there is a ``t``."""
    if t is None:
        out_features, rank = _matrix(shapes, a)
        down = _factor(shapes, b)
        _agree(shapes, (a, rank), (b, down[0]))
        return (out_features, *_without_ones(down[1:]), rank)
    (rank, out_features), (down_rank, in_features), core = _matrix(shapes, a), _matrix(shapes, b), _factor(shapes, t)
    _agree(shapes, (a, rank), (t, core[0]))
    _agree(shapes, (t, core[1]), (b, down_rank))
    return (out_features, in_features, *core[2:], rank)


def _factor(shapes: Shapes, part: str) -> tuple[int, ...]:
    shape = shapes[part]
    if len(shape) < 2 or 0 in shape:
        raise ConfigurationError(f"{part} has shape {shape}; allowed are at least two sizes, none of them 0")
    return shape


def _matrix(shapes: Shapes, part: str) -> tuple[int, int]:
    shape = _factor(shapes, part)
    if math.prod(shape[2:]) != 1:
        raise ConfigurationError(f"{part} has shape {shape}; allowed is a matrix, or one with sizes of 1 behind")
    return shape[0], shape[1]


def _vector(shapes: Shapes, part: str) -> tuple[int]:
    shape = shapes[part]
    if len(shape) != 1 or 0 in shape:
        raise ConfigurationError(f"{part} has shape {shape}; allowed is a vector")
    return (shape[0],)


def _without_ones(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``(in, height, width)`` as it is, and ``(in,)`` for a window of one point."""
    return sizes if math.prod(sizes[1:]) != 1 else sizes[:1]


def _agree(shapes: Shapes, first: tuple[str, int], second: tuple[str, int]) -> None:
    (a, rank), (b, other) = first, second
    if rank != other:
        raise ConfigurationError(
            f"{a} has shape {shapes[a]} and {b} has shape {shapes[b]}: ranks {rank} and {other}; allowed is one rank"
        )
