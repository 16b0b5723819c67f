"""What the layer tables say of families besides what their classes know; only the command that writes tables reads it.

A new table of a family whose pipelines are not loaded is a file here with a ``LAYOUT``, and a line in ``LAYOUTS``.
"""

from __future__ import annotations

from collections.abc import Mapping

from orthoplex.models.families.layouts import (
    anima,
    chroma,
    flux,
    flux2,
    ideogram4,
    krea2,
    qwen_image,
    stable_diffusion,
    stable_diffusion_xl,
    z_image,
)
from orthoplex.models.families.layouts.layout import Layout, Names

NAMES: Mapping[str, Names] = {"stable_diffusion": stable_diffusion.NAMES}
"""Family whose pipelines are loaded to the names that other programs have for its layers."""
LAYOUTS: Mapping[str, Layout] = {
    "stable_diffusion_xl": stable_diffusion_xl.LAYOUT,
    "flux": flux.LAYOUT,
    "chroma": chroma.LAYOUT,
    "flux2": flux2.LAYOUT,
    "qwen_image": qwen_image.LAYOUT,
    "z_image": z_image.LAYOUT,
    "krea2": krea2.LAYOUT,
    "anima": anima.LAYOUT,
    "ideogram4": ideogram4.LAYOUT,
}
"""Family whose pipelines are not loaded to its layout."""
