"""The layers of families, and what they are called: what the layer tables are written from.

A family whose pipelines are loaded has its layout as ``Family.layout``, from here or from its own file. A new table of
a family whose pipelines are not loaded is a file here with a ``LAYOUT``, and a line in ``LAYOUTS``.
"""

from __future__ import annotations

from collections.abc import Mapping

from orthoplex.models.families.layouts.anima import LAYOUT as ANIMA
from orthoplex.models.families.layouts.chroma import LAYOUT as CHROMA
from orthoplex.models.families.layouts.flux import LAYOUT as FLUX
from orthoplex.models.families.layouts.flux2 import LAYOUT as FLUX2
from orthoplex.models.families.layouts.ideogram4 import LAYOUT as IDEOGRAM4
from orthoplex.models.families.layouts.krea2 import LAYOUT as KREA2
from orthoplex.models.families.layouts.layout import Layout
from orthoplex.models.families.layouts.qwen_image import LAYOUT as QWEN_IMAGE
from orthoplex.models.families.layouts.stable_diffusion import LAYOUT as STABLE_DIFFUSION
from orthoplex.models.families.layouts.stable_diffusion_xl import LAYOUT as STABLE_DIFFUSION_XL
from orthoplex.models.families.layouts.z_image import LAYOUT as Z_IMAGE

LAYOUTS: Mapping[str, Layout] = {
    "stable_diffusion": STABLE_DIFFUSION,
    "stable_diffusion_xl": STABLE_DIFFUSION_XL,
    "flux": FLUX,
    "chroma": CHROMA,
    "flux2": FLUX2,
    "qwen_image": QWEN_IMAGE,
    "z_image": Z_IMAGE,
    "krea2": KREA2,
    "anima": ANIMA,
    "ideogram4": IDEOGRAM4,
}
"""Family, by the name of its table, to its layout."""
