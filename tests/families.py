"""The pico pipelines of every family whose bases are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.pico import build_pico
from tests.pico_flow import build_chroma, build_flux

BUILDERS: Mapping[str, Callable[[Path], Path]] = {
    "stable_diffusion": build_pico,
    "flux": build_flux,
    "chroma": build_chroma,
}
"""Family, by the name of its file, to what saves a pico pipeline of it into a folder."""
