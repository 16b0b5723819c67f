"""Subspaces: the directions of a layer that a concept may use."""

from orthoplex.subspaces.basis import BASIS_ID, shared_basis, shared_basis_rows
from orthoplex.subspaces.blocks import block
from orthoplex.subspaces.dual_directions import dual_rows
from orthoplex.subspaces.rows import capacity, choose_rows, gaussian_rows, overlap, proportional_rank, slot_from_id
from orthoplex.subspaces.seeding import seeded

__all__ = [
    "BASIS_ID",
    "block",
    "capacity",
    "choose_rows",
    "dual_rows",
    "gaussian_rows",
    "overlap",
    "proportional_rank",
    "seeded",
    "shared_basis",
    "shared_basis_rows",
    "slot_from_id",
]
