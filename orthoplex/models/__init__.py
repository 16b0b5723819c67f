"""The diffusion models: load, attach, fold, tokens, save; the only room that imports diffusers."""

from orthoplex.models.base import Base, Undo
from orthoplex.models.families import EMBEDDED, FAMILIES, load_base
from orthoplex.models.folding import Foldable
from orthoplex.models.layers import SELECTIONS

__all__ = ["EMBEDDED", "FAMILIES", "SELECTIONS", "Base", "Foldable", "Undo", "load_base"]
