"""The embedded base `vignette` and the sample concepts that come with it: data, and the few lines that find it.

`folder()` is an ordinary diffusers pipeline folder; `sample_concepts()` are pictures with captions;
`concept_file(name, method=…)` are concepts trained on them by `orthoplex train` with the options in
`training_file(method)`; `head_file(factor)` are linear heads that read scene and painting style off pictures.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from orthoplex.errors import ConfigurationError

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class SampleConcept:
    """A concept's pictures, shipped with the package.

    Attributes:
        name: Concept name.
        kind: person, subject, scene or style.
        class_word: The ordinary word for its class.
        licence: Author and licence of the art.
        folder: Sixteen pictures and their captions in `metadata.jsonl`.
    """

    name: str
    kind: str
    class_word: str
    licence: str
    folder: Path


def folder() -> Path:
    """The pipeline folder of the embedded base."""
    return _HERE / "base"


def sample_concepts() -> list[SampleConcept]:
    """The twelve sample concepts, three each of person, subject, scene and style."""
    rows = json.loads((_HERE / "samples" / "samples.json").read_text())
    return [SampleConcept(**row, folder=_HERE / "samples" / row["name"]) for row in rows]


def concept_file(name: str, *, method: str) -> Path:
    """The shipped concept file of a sample concept.

    Args:
        name: Name of a sample concept.
        method: `orthogonal` or `lora`.

    Raises:
        ConfigurationError: When no such file is shipped.
    """
    path = _HERE / "concepts" / method / f"{name}.safetensors"
    if not path.is_file():
        shipped = sorted(f"{p.parent.name}/{p.stem}" for p in (_HERE / "concepts").glob("*/*.safetensors"))
        raise ConfigurationError(
            f"no concept file is shipped for {method}/{name}; shipped: {', '.join(shipped) or 'none'}"
        )
    return path


def training_file(method: str) -> Path:
    """The training options of the shipped concept files, a TOML file.

    Args:
        method: `orthogonal` or `lora`.

    Raises:
        ConfigurationError: When no such file is shipped.
    """
    return _shipped("training", method, ".toml", "training options are")


def head_file(factor: str) -> Path:
    """The linear head that reads a factor off pictures, fitted on real composites (`pretraining/heads.py`).

    Args:
        factor: `scene` or `style`.

    Raises:
        ConfigurationError: When no such head is shipped.
    """
    return _shipped("heads", factor, ".safetensors", "head is")


def _shipped(folder: str, name: str, ending: str, noun: str) -> Path:
    """A file of a folder, or an error that names those that are there."""
    path = _HERE / folder / f"{name}{ending}"
    if not path.is_file():
        shipped = sorted(p.stem for p in (_HERE / folder).glob(f"*{ending}"))
        raise ConfigurationError(f"no {noun} shipped for {name!r}; shipped: {', '.join(shipped) or 'none'}")
    return path


def foreign_inputs_file() -> Path:
    """The Gram matrix of the base's text features under its foreign prompts (`orthoplex.merging.foreign_store`)."""
    return _HERE / "foreign_inputs.safetensors"


def foreign_prompts() -> list[str]:
    """Prompts over the base's vocabulary (subjects, people, scenes, styles), for erasure and prior pictures."""
    return (_HERE / "foreign_prompts.txt").read_text().splitlines()
