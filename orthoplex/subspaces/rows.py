"""Rows of the shared basis: the choice of a concept's rows, a layer's capacity, and the overlap of two concepts."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from orthoplex.errors import CapacityError, ConfigurationError
from orthoplex.subspaces.stream import draw_below, draw_normals, draw_subset, hash_words


def capacity(width: int, rank: int) -> int:
    """Return ``⌊width / rank⌋``: how many concepts of one rank fit a layer without sharing a direction.

    Raises:
        ConfigurationError: when the rank is below 1.
    """
    if rank < 1:
        raise ConfigurationError(f"rank is {rank}; allowed are whole numbers from 1")
    return width // rank


def proportional_rank(width: int, slots: int) -> int:
    """Return ``max(1, ⌊width / slots⌋)``: the rank at which a layer of this width holds ``slots`` concepts.

    Raises:
        ConfigurationError: when the number of slots is below 1.
    """
    if slots < 1:
        raise ConfigurationError(f"slots is {slots}; allowed are whole numbers from 1")
    return max(1, width // slots)


def choose_rows(choice: str, *, width: int, rank: int, concept_id: str, layer: str, slot: int | None = None) -> Tensor:
    """Return the rows of the shared basis that a concept takes at one layer.

    Choice ``"slot"``: rows ``slot · r … (slot + 1) · r − 1``; different slots share no row.
    Choice ``"random"``: r different rows drawn by SHA-256 of (concept_id, layer); two concepts share ``r² / width``
    rows in the mean. Reference: Po et al., arXiv 2312.02432, section 4.2 (randomized orthogonal basis).

    Two more are worse on purpose, for the ablation of the same paper. Choice ``"identical"``: rows ``0 … r − 1``,
    whatever the slot. Choice ``"half"``: with ``c = ⌊r / 2⌋``, rows ``0 … c − 1``, which all concepts share, and rows
    ``c + slot · (r − c) … c + (slot + 1) · (r − c) − 1``, which no other slot has; two concepts share c rows, and the
    capacity is ``⌊(width − c) / (r − c)⌋``.

    Args:
        choice: ``"slot"``, ``"random"``, ``"identical"`` or ``"half"``.
        width: the inputs of the layer.
        rank: r, how many rows.
        concept_id: decides the random rows, with ``layer``.
        layer: the layer's name; errors name it too.
        slot: the slot; needed for ``"slot"`` and ``"half"`` only.

    Returns:
        ``(r,)`` int64.

    Raises:
        CapacityError: when the slot lies beyond the layer's capacity.
        ConfigurationError: when the choice is unknown, the rank exceeds the width, or the slot is missing.
    """
    if not 1 <= rank <= width:
        raise ConfigurationError(f"layer {layer}: rank is {rank}; allowed are 1 to {width}, the layer's width")
    if choice == "random":
        return torch.tensor(draw_subset(hash_words("random rows", concept_id, layer), width, rank), dtype=torch.int64)
    if choice == "identical":
        return torch.arange(rank, dtype=torch.int64)
    if choice not in ("slot", "half"):
        allowed = "slot, random, identical, half"
        raise ConfigurationError(f"layer {layer}: choice of rows is {choice!r}; allowed are {allowed}")
    if slot is None:
        raise ConfigurationError(f"layer {layer}: slot is None; choice {choice!r} needs a whole number from 0")
    common = rank // 2 if choice == "half" else 0
    own = rank - common
    slots = capacity(width - common, own)
    if not 0 <= slot < slots:
        raise CapacityError(
            f"layer {layer}: slot is {slot}; at width {width} and rank {rank} the capacity is {slots}, "
            f"so allowed are 0 to {slots - 1}"
        )
    first = common + slot * own
    return torch.cat([torch.arange(common), torch.arange(first, first + own)])


def gaussian_rows(*, width: int, rank: int, concept_id: str, layer: str) -> Tensor:
    """Return rows with independent entries N(0, 1/width), orthogonal in the mean only.

    Reference: Po et al., arXiv 2312.02432, section 4.2 (randomized Gaussian).

    Args:
        width: the inputs of the layer.
        rank: r, how many rows.
        concept_id: decides the entries, with ``layer``.
        layer: the layer's name.

    Returns:
        ``(r, width)`` float32.

    Raises:
        ConfigurationError: when the rank is not 1 … width.
    """
    if not 1 <= rank <= width:
        raise ConfigurationError(f"layer {layer}: rank is {rank}; allowed are 1 to {width}, the layer's width")
    normals = draw_normals(hash_words("gaussian rows", concept_id, layer, str(width)), rank * width)
    return (torch.tensor(normals, dtype=torch.float64) / math.sqrt(width)).float().reshape(rank, width)


def overlap(down_a: Tensor, down_b: Tensor) -> float:
    """Return ``‖A Bᵀ‖_F / √r`` of two sets of directions: 0 is orthogonal, 1 is the same subspace.

    The rows are brought to length 1 first; r is the smaller number of rows.

    Args:
        down_a: ``(r_a, in)``.
        down_b: ``(r_b, in)``.

    Raises:
        ConfigurationError: when the widths differ.
    """
    if down_a.shape[1] != down_b.shape[1]:
        raise ConfigurationError(f"directions of widths {down_a.shape[1]} and {down_b.shape[1]}; one width is allowed")
    a, b = (functional.normalize(down.detach().double(), dim=1) for down in (down_a, down_b))
    return math.sqrt(float((a @ b.T).square().sum()) / min(len(a), len(b)))


def slot_from_id(concept_id: str, slots: int) -> int:
    """Return the slot of 0 … slots − 1 that SHA-256 derives from an id; two ids may get the same one.

    Raises:
        ConfigurationError: when the number of slots is below 1.
    """
    if slots < 1:
        raise ConfigurationError(f"slots is {slots}; allowed are whole numbers from 1")
    return draw_below(hash_words("slot", concept_id), slots)
