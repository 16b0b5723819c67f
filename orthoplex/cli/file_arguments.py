"""LoRA files on the command line: ``FILE``, ``FILE@0.8``, ``FILE@0.8:0.5``, ``FILE@0.8;blocks=MIDD``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from orthoplex.cli.console import parse_strength
from orthoplex.cli.streams import warn
from orthoplex.errors import ConfigurationError

if TYPE_CHECKING:
    from orthoplex.concepts.exchange import LoraFile
    from orthoplex.merging import Strengths


def warn_left_out(lora: LoraFile) -> None:
    """Warn of every key of a file that was not read, which ``--partial`` allows."""
    for key, reason in lora.left_out.items():
        warn(f"{lora.label}: left out: '{key}' {reason}")


def parse_file(text: str) -> tuple[Path, Strengths]:
    """Read a file with its strengths; the suffix ``.safetensors`` may be left out.

    Behind the ``@`` stands the strength, a second one of text encoders behind a colon, and all else that
    ``Strengths.read`` knows behind semicolons.

    Raises:
        ConfigurationError: When a strength cannot be read, or the file has no name.
    """
    from orthoplex.merging import Strengths

    name, separator, tail = text.rpartition("@")
    if not separator or os.sep in tail or not any(mark in tail for mark in ":;="):
        _refuse_parts_without_strength(text)
        path, strength = parse_strength(text)
        return path, Strengths(whole=strength)
    whole, *others = (part.strip() for part in tail.split(";"))
    numbers = [number.strip() for number in whole.split(":")]
    if len(numbers) > 2:
        raise ConfigurationError(
            f"strengths of {name} are {whole!r}; allowed are one number, or two as in 0.8:0.5, the second for text "
            "encoders"
        )
    if len(numbers) == 2:
        for number in numbers:
            parse_strength(f"{name}@{number}")  # which refuses all but numbers
    parts = [numbers[0], *(f"te={number}" for number in numbers[1:]), *others]
    path = parse_strength(name)[0]
    try:
        return path, Strengths.read("; ".join(part for part in parts if part))
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _refuse_parts_without_strength(text: str) -> None:
    """Refuse ``FILE;blocks=MIDD``, whose parts would be read as the file's name."""
    name, separator, parts = text.partition(";")
    if separator and "=" in parts and not Path(text).expanduser().exists() and "@" not in text:
        raise ConfigurationError(
            f"file is {text!r}; strengths stand behind an @, as in {name.strip()}@1;{parts.strip()}"
        )
