"""The pico pipelines of every family whose bases are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.pico import build_pico
from tests.pico_anima import build_anima
from tests.pico_flow import build_chroma, build_flux
from tests.pico_qwen import build_klein, build_z_image
from tests.pico_qwen_image import build_krea2, build_qwen_image
from tests.pico_xl import build_pico_xl

BUILDERS: Mapping[str, Callable[[Path], Path]] = {
    "stable_diffusion": build_pico,
    "stable_diffusion_xl": build_pico_xl,
    "flux": build_flux,
    "chroma": build_chroma,
    "z_image": build_z_image,
    "flux2_klein": build_klein,
    "qwen_image": build_qwen_image,
    "krea2": build_krea2,
    "anima": build_anima,
}
"""Family, by the name of its file, to what saves a pico pipeline of it into a folder."""
