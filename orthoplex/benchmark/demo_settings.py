"""The options of the demo, and the variants of training and merging that it compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orthoplex.benchmark.settings import EncoderSettings, PictureSettings
from orthoplex.concepts import KINDS
from orthoplex.merging import AUTO


@dataclass(frozen=True)
class DemoVariant:
    """A training method and a merging algorithm for all concepts.

    Attributes:
        name: Its name on the page and in `demo.json`.
        method: Training method of the concept files.
        algorithm: A name in `orthoplex.merging.ALGORITHMS`, or `auto` for the default of the concepts.
    """

    name: str
    method: str
    algorithm: str


OURS = DemoVariant("Orthoplex", "orthogonal", AUTO)
LORA_SUM = DemoVariant("plain LoRA, summed", "lora", "sum")
LORA_BEST = DemoVariant("plain LoRA, merged by SSR", "lora", "ssr")
"""SSR keeps most alignment of plain LoRA in merges of nine and of fifteen (results/how-many-lora.json)."""
VARIANTS = (OURS, LORA_SUM, LORA_BEST)


@dataclass(frozen=True)
class DemoSettings:
    """Options of the demo.

    Attributes:
        live: Concepts that are trained now; empty takes the first person, subject and style.
        prompts: Kind -> prompt of the pictures that are compared.
        combinations: Prompts of several concepts: `{clara}` is the trigger of clara, `{person}` that of the next
            person, and so on; a prompt that names a missing concept is left out.
        pictures: How compared pictures are made; all of them are measured.
        num_combined: Pictures of every combination.
        num_shown: Pictures of every cell of the gallery.
        encoder: Frozen features that pictures are measured in.
    """

    live: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=lambda: {name: kind.example for name, kind in KINDS.items()})
    combinations: tuple[str, ...] = (
        "{clara} on the left and {pip} on the right",
        "{pip} in {piazza}",
        "{clara} in {lolli}",
        "{bruno}, {umbra}",
        "{pip}, {viola}",
        "{person} in {scene}, {style}",
    )
    pictures: PictureSettings = PictureSettings()
    num_combined: int = 2
    num_shown: int = 2
    encoder: EncoderSettings = EncoderSettings()
