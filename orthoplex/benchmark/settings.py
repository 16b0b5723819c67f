"""The tables of an experiment file: training, merges, pictures, encoders; each is checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import LARGEST_PICTURE, PRETRAINED, Encoder, MobileNetEncoder
from orthoplex.merging import check_options
from orthoplex.options import FILLED, MOBILENET, EncoderKind, Precision, check_fields, limited, option

PLACEHOLDER = "{trigger}"
OWN_SEED = "has the key 'seed'; allowed: the experiment's list 'seeds', which decides it for all variants"
_MOBILENET = {"layer": "bottleneck", "picture_size": 128, "grid": 1}


@dataclass(frozen=True)
class PictureSettings:
    """Options of pictures; all variants share them, so only the concepts differ.

    Attributes:
        num_images: Pictures of every prompt.
        seed: Of the first picture's noise.
        num_inference_steps: Denoising steps.
        guidance_scale: Weight of the prompt against no prompt.
        negative_prompt: Text of things not to show.
        mixed_precision: `no`, `bf16` (autocast), or `auto` (bf16 where the processor is fast at it).
    """

    num_images: int = option(4, lowest=1)
    seed: int = option(1000, lowest=0, highest=2**63 - 1)
    num_inference_steps: int = option(20, lowest=1)
    guidance_scale: int | float = option(4.0, lowest=0)
    negative_prompt: str = ""
    mixed_precision: Precision = "no"

    def __post_init__(self) -> None:
        """Refuse options that no pictures could be made with."""
        check_fields(self)


@dataclass(frozen=True)
class EncoderSettings:
    """Options of the encoder whose frozen features measure pictures.

    128 pixels, the vignette's own size, tell the sample concepts apart as well as 224 and with more contrast
    (docs/evaluation.md).

    Attributes:
        layer: See `orthoplex.evaluation.MobileNetEncoder`; None for its bottleneck, or with another kind.
        picture_size: See there; None for 128, or with another kind.
        grid: See there; None for 1, or with another kind.
        kind: `mobilenet`, or one of `orthoplex.evaluation.PRETRAINED`.
        model: Of the other kinds: a folder, or a name where the kind finds models; None for the usual one.
    """

    layer: str | None = None
    picture_size: int | None = option(None, lowest=1, highest=LARGEST_PICTURE)
    grid: int | None = option(None, lowest=1)
    kind: EncoderKind = MOBILENET
    model: str | None = option(None, filled=True)

    def __post_init__(self) -> None:
        """Refuse wrong types and what the kind does not have; which values of the right type there are, it knows."""
        check_fields(self, "encoder")
        for name in (*_MOBILENET, "model"):
            value = getattr(self, name)
            if value is not None:
                if (self.kind == MOBILENET) == (name == "model"):
                    allowed = ", ".join(_MOBILENET) if self.kind == MOBILENET else "model"
                    raise ConfigurationError(
                        f"encoder {name} is {value!r}, which the kind {self.kind!r} does not have; allowed: {allowed}"
                    )
            elif self.kind == MOBILENET and name in _MOBILENET:
                object.__setattr__(self, name, _MOBILENET[name])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of concepts that it measures."""
        return (MobileNetEncoder if self.kind == MOBILENET else PRETRAINED[self.kind]).kinds

    def build(self) -> Encoder:
        """The encoder itself.

        Raises:
            ConfigurationError: when there is no such layer, size or model, or an extra is not installed.
        """
        if self.kind != MOBILENET:
            return PRETRAINED[self.kind](self.model) if self.model else PRETRAINED[self.kind]()
        assert self.layer is not None and self.picture_size is not None and self.grid is not None
        return MobileNetEncoder(layer=self.layer, picture_size=self.picture_size, grid=self.grid)


@dataclass(frozen=True)
class Published:
    """Figures of others that a report sets beside its own.

    Attributes:
        source: Their publication, and the method of measurement.
        columns: Names of the measures.
        rows: Method -> one number for each column.
    """

    source: str = field(metadata=limited(FILLED))
    columns: tuple[str, ...] = field(metadata=limited(FILLED))
    rows: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        """Refuse values of the wrong type, and rows that are no longer or shorter than the columns."""
        check_fields(self, "published:")
        for name, numbers in self.rows.items():
            if len(numbers) != len(self.columns):
                raise ConfigurationError(
                    f"published: {name!r} has {len(numbers)} numbers; allowed: {len(self.columns)}, one a column"
                )


@dataclass(frozen=True)
class Variant:
    """A training configuration and a merging algorithm, compared with others.

    Attributes:
        name: Its row in the tables.
        training: Training options that differ from the experiment's.
        algorithm: How the concepts are merged, a name in `orthoplex.merging.ALGORITHMS`.
        options: The algorithm's options that differ from its defaults.
        scale: Strength of all concepts in the merge; a concept alone always has strength 1.
        parts: `"both"`; or `"tokens"` or `"weights"`: only these of a trained concept are shown, alone and merged. What
            is left out is as before training: no change of weights, or the tokens' starting vectors alone.
    """

    name: str = field(metadata=limited(FILLED))
    training: Mapping[str, Any] = field(default_factory=dict)
    algorithm: str = "sum"
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: int | float = 1.0
    parts: Literal["both", "tokens", "weights"] = "both"

    def __post_init__(self) -> None:
        """Refuse values of the wrong type, an unknown algorithm and options that it has not."""
        check_fields(self, f"variant {self.name!r}:")
        if "seed" in self.training:
            raise ConfigurationError(f"variant {self.name!r}: training {OWN_SEED}")
        try:
            check_options(algorithm=self.algorithm, options=self.options)
        except ConfigurationError as error:
            raise ConfigurationError(f"variant {self.name!r}: {error}") from error
