"""An experiment: which concepts, trained how, merged how, pictured how; read from a TOML file."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from orthoplex.benchmark.sources import ConceptSource, sample_sources
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import Encoder
from orthoplex.merging import ALGORITHMS
from orthoplex.training import TrainingConfig

PLACEHOLDER = "{trigger}"


def check_whole_number(what: str, value: object, lowest: int) -> None:
    """Refuse anything but a whole number from `lowest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ConfigurationError(f"{what} is {value!r}; allowed: whole numbers from {lowest}")


@dataclass(frozen=True)
class PictureSettings:
    """How pictures are made; the same for every variant, so that only the concepts differ.

    Attributes:
        num_images: Pictures of every prompt.
        seed: Of the first picture's noise.
        num_inference_steps: Denoising steps.
        guidance_scale: Weight of the prompt against no prompt.
        negative_prompt: What not to show.
    """

    num_images: int = 4
    seed: int = 1000
    num_inference_steps: int = 20
    guidance_scale: float = 4.0
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        """Refuse what no pictures could be made with."""
        for key, lowest in (("num_images", 1), ("seed", 0), ("num_inference_steps", 1)):
            check_whole_number(key, getattr(self, key), lowest)
        guidance = self.guidance_scale
        if isinstance(guidance, bool) or not isinstance(guidance, int | float) or not math.isfinite(guidance):
            raise ConfigurationError(f"guidance_scale is {guidance!r}; allowed: finite numbers")


@dataclass(frozen=True)
class EncoderSettings:
    """Which frozen features pictures are measured in; the arguments of `orthoplex.evaluation.Encoder`.

    128 pixels, the vignette's own size, tell the sample concepts apart as well as 224 and with more contrast
    (docs/evaluation.md).
    """

    layer: str = "bottleneck"
    picture_size: int = 128
    grid: int = 1

    def build(self) -> Encoder:
        """The encoder itself."""
        return Encoder(layer=self.layer, picture_size=self.picture_size, grid=self.grid)


@dataclass(frozen=True)
class Variant:
    """One way of training and merging.

    Attributes:
        name: Its row in the tables.
        training: Training options that differ from the experiment's.
        algorithm: How the concepts are merged, a name in `orthoplex.merging.ALGORITHMS`.
        scale: Strength of all concepts in the merge; a concept alone always has strength 1.
    """

    name: str
    training: Mapping[str, Any] = field(default_factory=dict)
    algorithm: str = "sum"
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an unknown algorithm."""
        if self.algorithm not in ALGORITHMS:
            raise ConfigurationError(
                f"variant {self.name!r} has algorithm {self.algorithm!r}; allowed: {', '.join(ALGORITHMS)}"
            )


@dataclass(frozen=True)
class Experiment:
    """What `run` computes.

    Attributes:
        name: Also the name of the result files.
        base: The base model.
        resolution: Side of the training pictures in pixels.
        seeds: Training seeds; every variant is trained once for each.
        concepts: Where the concepts' pictures are.
        training: Training options that every variant shares.
        prompts: Kind -> prompts; `{trigger}` is what the concept is called, or the class word for the base alone.
        pictures: How pictures are made.
        encoder: What they are measured with.
        variants: The rows of the result.
    """

    name: str
    base: str
    resolution: int
    seeds: tuple[int, ...]
    concepts: tuple[ConceptSource, ...]
    training: Mapping[str, Any]
    prompts: Mapping[str, tuple[str, ...]]
    pictures: PictureSettings
    encoder: EncoderSettings
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        """Refuse what could not be run to its end."""
        for what, values in (("seeds", self.seeds), ("concepts", self.concepts), ("variants", self.variants)):
            if not values:
                raise ConfigurationError(f"experiment {self.name!r} has 0 {what}; allowed: 1 or more")
        for what, names in (("concept", [c.name for c in self.concepts]), ("variant", [v.name for v in self.variants])):
            for name in names:
                if names.count(name) > 1:
                    raise ConfigurationError(
                        f"experiment {self.name!r} has {names.count(name)} {what}s {name!r}; allowed: 1"
                    )
        check_whole_number("resolution", self.resolution, 1)
        for seed in self.seeds:
            check_whole_number("a seed", seed, 0)
        for kind in {concept.kind for concept in self.concepts}:
            for prompt in self.prompts.get(kind, ()) or [""]:
                if PLACEHOLDER not in prompt:
                    raise ConfigurationError(
                        f"experiment {self.name!r}: kind {kind!r} has the prompt {prompt!r}; "
                        f"allowed: 1 or more prompts with {PLACEHOLDER}"
                    )
        for variant in self.variants:
            self.training_config(variant, self.concepts[0], self.seeds[0])

    def training_config(self, variant: Variant, concept: ConceptSource, seed: int) -> TrainingConfig:
        """The training options of one concept; where it takes a slot, the slot is its place among the concepts.

        Raises:
            ConfigurationError: for an unknown option or a value that is not allowed; names the variant.
        """
        values = {"sample_every": 0, **self.training, **variant.training, "seed": seed}
        try:
            config = TrainingConfig.from_mapping(values)
            if config.adapter.slot_of(concept.name) is not None and "slot" not in values:
                config = TrainingConfig.from_mapping({**values, "slot": self.concepts.index(concept)})
        except ConfigurationError as error:
            raise ConfigurationError(f"variant {variant.name!r}: {error}") from error
        return config

    def of_kind(self, kind: str) -> tuple[ConceptSource, ...]:
        """The concepts of one kind."""
        return tuple(concept for concept in self.concepts if concept.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """The experiment as plain JSON values; of folders only their last part, which is the same everywhere."""
        values = asdict(self)
        for concept in values["concepts"]:
            concept["folder"] = Path(concept["folder"]).name
        return values


def load_experiment(path: Path) -> Experiment:
    """Read an experiment from a TOML file (see `experiments/merge-of-twelve.toml`).

    `sample_concepts` is a list of names, or `"all"`; `[[concepts]]` entries name folders of one's own, relative to the
    file. The experiment is called as the file.

    Raises:
        ConfigurationError: when the file cannot be read, or a key or value is not allowed; names the file.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"experiment {path} cannot be read: {error}") from error
    try:
        return _experiment(path, values)
    except ConfigurationError as error:
        raise ConfigurationError(f"experiment {path}: {error}") from error


_KEYS = (
    "base", "resolution", "seeds", "sample_concepts", "concepts", "training", "prompts", "pictures", "encoder",
    "variants",
)  # fmt: skip


def _experiment(path: Path, values: Mapping[str, Any]) -> Experiment:
    _check_keys(values, _KEYS, "the experiment")
    for key, kind in (("training", dict), ("prompts", dict), ("variants", list), ("concepts", list), ("seeds", list)):
        if not isinstance(values.get(key, kind()), kind):
            raise ConfigurationError(f"{key} is {values[key]!r}; allowed: a {kind.__name__}")
    samples = values.get("sample_concepts", ())
    concepts = sample_sources(() if samples == "all" else samples) if samples else ()
    for row in values.get("concepts", ()):
        _check_keys(row, ("name", "kind", "class_word", "folder"), "a concept", complete=True)
        concepts += (ConceptSource(row["name"], row["kind"], row["class_word"], path.parent / row["folder"]),)
    return Experiment(
        name=path.stem,
        base=values.get("base", "vignette"),
        resolution=values.get("resolution", 128),
        seeds=tuple(values.get("seeds", (0,))),
        concepts=concepts,
        training=values.get("training", {}),
        prompts={kind: tuple(prompts) for kind, prompts in values.get("prompts", {}).items()},
        pictures=_build(PictureSettings, values.get("pictures", {}), "pictures"),
        encoder=_build(EncoderSettings, values.get("encoder", {}), "encoder"),
        variants=tuple(_build(Variant, row, "a variant") for row in values.get("variants", ())),
    )


_Table = TypeVar("_Table", PictureSettings, EncoderSettings, Variant)


def _build(table: type[_Table], values: Mapping[str, Any], what: str) -> _Table:
    _check_keys(values, [item.name for item in fields(table)], what)
    try:
        return table(**values)
    except TypeError as error:
        raise ConfigurationError(f"{what} is {dict(values)!r}: {error}") from error


def _check_keys(
    values: Mapping[str, Any], known: tuple[str, ...] | list[str], what: str, complete: bool = False
) -> None:
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ConfigurationError(f"{what} has the key {key!r}; did you mean {nearest!r}?")
    for key in known if complete else ():
        if key not in values:
            raise ConfigurationError(f"{what} lacks the key {key!r}; allowed: all of {', '.join(known)}")
