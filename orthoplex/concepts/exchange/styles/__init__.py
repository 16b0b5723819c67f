"""Styles: how programs name the layers of a family. They are read without torch."""

from orthoplex.concepts.exchange.styles.bare import Bare
from orthoplex.concepts.exchange.styles.comfy import Comfy
from orthoplex.concepts.exchange.styles.diffusers import Diffusers
from orthoplex.concepts.exchange.styles.kohya import Kohya
from orthoplex.concepts.exchange.styles.style import Spelling, Style

STYLES: dict[str, Style] = {style.name: style for style in (Kohya(), Comfy(), Diffusers(), Bare())}
"""Name to style; a name of a module that several styles have is the first's."""

__all__ = ["STYLES", "Spelling", "Style"]
