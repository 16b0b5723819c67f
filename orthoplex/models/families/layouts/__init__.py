"""What the layer tables say of families besides what their classes know; only the command that writes tables reads it.

A new family of tables is a file here with a ``LAYOUT``, and a line in ``LAYOUTS``.
"""

from __future__ import annotations

from collections.abc import Mapping

from orthoplex.models.families.layouts import stable_diffusion
from orthoplex.models.families.layouts.layout import Layout, Names

NAMES: Mapping[str, Names] = {"stable_diffusion": stable_diffusion.NAMES}
"""Family whose pipelines are loaded to the names that other programs have for its layers."""
LAYOUTS: Mapping[str, Layout] = {}
"""Family whose pipelines are not loaded to its layout."""
