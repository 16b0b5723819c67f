"""An experiment: its concepts, training, merges and pictures; read from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from orthoplex.adapters import check_config, owned_slot
from orthoplex.benchmark.experiment_file import read_tables
from orthoplex.benchmark.group_pictures import Combination, GroupPictures, combinations
from orthoplex.benchmark.merges import MergeGroup, MergeSettings, merge_groups
from orthoplex.benchmark.settings import OWN_SEED, PLACEHOLDER, EncoderSettings, PictureSettings, Published, Variant
from orthoplex.benchmark.sources import ConceptSource, indexed_sources, sample_sources
from orthoplex.errors import ConfigurationError
from orthoplex.models import Base, BaseChoice, load_base
from orthoplex.options import FILLED, Limits, check_field_names, check_fields, check_keys, checked, limited
from orthoplex.training import TrainingConfig

_TABLE = Mapping[str, Any]
_FILE: Mapping[str, Any] = {
    "sample_concepts": Literal["all"] | tuple[str, ...],
    "concepts": tuple[_TABLE, ...],
    "collections": tuple[_TABLE, ...],
    "pictures": _TABLE,
    "encoder": _TABLE | tuple[_TABLE, ...],
    "merges": _TABLE,
    "together": tuple[_TABLE, ...],
    "published": _TABLE,
    "variants": tuple[_TABLE, ...],
}
"""Keys of the file that are no plain fields of an experiment, and their types."""
_COLLECTION: Mapping[str, Any] = {"index": str, "names": tuple[str, ...], "kinds": tuple[str, ...]}


@dataclass(frozen=True)
class Experiment:
    """The options of an experiment, which `run` computes.

    Attributes:
        name: Also the name of the result files.
        base: The base model.
        resolution: Side of the training pictures in pixels; None is the base's own.
        seeds: Training seeds; every variant is trained once for each.
        concepts: Where the concepts' pictures are.
        training: Training options that every variant shares.
        prompts: Kind -> prompts; `{trigger}` is what the concept is called, or the class word for the base alone.
        pictures: How pictures are made.
        encoder: The features that measure pictures; concepts of kinds that they do not read are trained and merged, and
            not measured.
        variants: The rows of the result.
        merges: The merges; by default one of all concepts.
        together: Pictures of several concepts.
        crosstalk: True measures the effect of each change on the other concepts' inputs, layer by layer.
        published: Figures of others for the report.
        share_slots: True lets concepts beyond the `slots` share slots from slot 0 on; False refuses them.
        sheet: True writes a sheet of pictures beside the tables.
        further_encoders: More features; each of them has a result of its own (see `parts`).
        defaults: Training options that the base has other defaults of, once it is known (see `on`).
    """

    name: str
    base: str = field(metadata=limited(FILLED))
    resolution: int | None = field(metadata=limited(Limits(lowest=1)))
    seeds: tuple[int, ...] = field(metadata=limited(Limits(lowest=0)))
    concepts: tuple[ConceptSource, ...]
    training: Mapping[str, Any]
    prompts: Mapping[str, tuple[str, ...]]
    pictures: PictureSettings
    encoder: EncoderSettings
    variants: tuple[Variant, ...]
    merges: MergeSettings = field(default_factory=MergeSettings)
    together: tuple[GroupPictures, ...] = ()
    crosstalk: bool = False
    published: Published | None = None
    share_slots: bool = False
    sheet: bool = False
    further_encoders: tuple[EncoderSettings, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Refuse experiments that could not be run to their end."""
        check_fields(self)
        if "seed" in self.training:
            raise ConfigurationError(f"training {OWN_SEED}")
        for what, values in (("seeds", self.seeds), ("concepts", self.concepts), ("variants", self.variants)):
            if not values:
                raise ConfigurationError(f"experiment {self.name!r} has 0 {what}; allowed: 1 or more")
        for what, items in (("concept", self.concepts), ("variant", self.variants), ("together", self.together)):
            names = [item.name for item in items]
            for name in names:
                if names.count(name) > 1:
                    raise ConfigurationError(
                        f"experiment {self.name!r} has {names.count(name)} {what}s {name!r}; allowed: 1"
                    )
        for kind in {concept.kind for concept in self.concepts}:
            for prompt in self.prompts.get(kind, ()) or [""]:
                if PLACEHOLDER not in prompt:
                    raise ConfigurationError(
                        f"experiment {self.name!r}: kind {kind!r} has the prompt {prompt!r}; "
                        f"allowed: 1 or more prompts with {PLACEHOLDER}"
                    )
        for seed in self.seeds:
            if self.seeds.count(seed) > 1:
                raise ConfigurationError(
                    f"experiment {self.name!r} has the seed {seed} {self.seeds.count(seed)} times; allowed: once"
                )
        self.merges.check([concept.name for concept in self.concepts])
        self._check_encoders()
        self.combinations  # noqa: B018  (refuses what cannot be drawn)
        for variant in self.variants:
            for seed in self.seeds:
                config = self.training_config(variant, self.trained[0], seed)
                self._check_blocks(variant, config)

    def _check_encoders(self) -> None:
        """Refuse two encoders of one kind, whose results would have one name, and encoders that measure nothing."""
        kinds = [encoder.kind for encoder in (self.encoder, *self.further_encoders)]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ConfigurationError(
                    f"experiment {self.name!r} has {kinds.count(kind)} encoders of kind {kind!r}; allowed: 1"
                )
        if not self.measured:
            raise ConfigurationError(
                f"experiment {self.name!r}: encoder {self.encoder.kind!r} measures concepts of kind "
                f"{', '.join(self.encoder.kinds)}; there are none among those to be measured"
            )

    def _check_blocks(self, variant: Variant, config: TrainingConfig) -> None:
        """Refuse fewer blocks than trained concepts; the slots of other methods end where the base's layers do."""
        needed, limit = len(self.trained), check_config(config.adapter).slot_limit(config.adapter)
        if not self.share_slots and limit is not None and config.slot == 0 and limit < needed:
            raise ConfigurationError(
                f"variant {variant.name!r} has slots = {limit}, so many blocks, for {needed} concepts; "
                f"allowed: {needed} or more"
            )

    def training_config(self, variant: Variant, concept: ConceptSource, seed: int) -> TrainingConfig:
        """The training options of a concept that is trained.

        Where it takes a slot, the slot is its place among those that are trained (see `share_slots`).

        Raises:
            ConfigurationError: for an unknown option or a value that is not allowed; names the variant.
        """
        values = {"sample_every": 0, **self.training, **variant.training, "seed": seed}
        try:
            config = TrainingConfig.from_mapping(values, defaults=self.defaults)
            if owned_slot(config.adapter, concept.name) is not None and "slot" not in values:
                place = self.trained.index(concept)
                config = replace(config, slot=place % config.slots if self.share_slots else place)
        except ConfigurationError as error:
            raise ConfigurationError(f"variant {variant.name!r}: {error}") from error
        return config

    @cached_property
    def groups(self) -> dict[int, tuple[MergeGroup, ...]]:
        """Size of a merge -> the merges of that size."""
        drawn = merge_groups(self.merges, [concept.name for concept in self.concepts])
        names = {concept.name for concept in self.measured}
        return {
            size: tuple(
                replace(group, measured=tuple(name for name in group.measured if name in names)) for group in groups
            )
            for size, groups in drawn.items()
        }

    @cached_property
    def capacity(self) -> int | None:
        """The number of slots of the first variant with slots; None if no variant has slots."""
        for variant in self.variants:
            config = self.training_config(variant, self.trained[0], self.seeds[0])
            if owned_slot(config.adapter, self.trained[0].name) is not None:
                return config.slots
        return None

    @cached_property
    def combinations(self) -> dict[str, tuple[Combination, ...]]:
        """Name of a table `[[together]]` -> the combinations of measured concepts that are pictured."""
        return {table.name: combinations(table, self.measured) for table in self.together}

    @cached_property
    def trained(self) -> tuple[ConceptSource, ...]:
        """The concepts in at least one merge; the others are only in the galleries."""
        merges = [*self.groups.values(), *self.combinations.values()]
        members = {name for groups in merges for group in groups for name in group.members}
        return tuple(concept for concept in self.concepts if concept.name in members)

    @cached_property
    def measured(self) -> tuple[ConceptSource, ...]:
        """The concepts that are pictured and measured."""
        names = self.merges.measured
        return tuple(concept for concept in self.comparable if not names or concept.name in names)

    @cached_property
    def comparable(self) -> tuple[ConceptSource, ...]:
        """The concepts whose real pictures the encoder reads."""
        return tuple(concept for concept in self.concepts if concept.kind in self.encoder.kinds)

    @property
    def parts(self) -> tuple[Experiment, ...]:
        """The experiment, or one for every encoder where there are several: all of them train and picture alike.

        An encoder that reads no kind that is measured has none. Tables `[[together]]`, crosstalk and the sheet are
        those of the first.
        """
        if not self.further_encoders:
            return (self,)
        alone = replace(self, name=f"{self.name}-{self.encoder.kind}", further_encoders=())
        kinds = {concept.kind for concept in self.measured}
        others = [encoder for encoder in self.further_encoders if kinds & {*encoder.kinds}]
        plain = replace(alone, together=(), crosstalk=False, sheet=False)
        return (alone, *(replace(plain, name=f"{self.name}-{other.kind}", encoder=other) for other in others))

    def on(self, base: Base) -> Experiment:
        """The experiment on its base, whose training options it takes where it has none of its own."""
        return replace(self, defaults=base.training_defaults)

    @cached_property
    def measured_prompts(self) -> dict[str, tuple[str, ...]]:
        """The prompts of the kinds that are measured."""
        kinds = {concept.kind for concept in self.measured}
        return {kind: prompts for kind, prompts in self.prompts.items() if kind in kinds}

    def to_json(self) -> dict[str, Any]:
        """The experiment as plain JSON values; of folders only their last part, which is the same everywhere."""
        values = asdict(self)
        for concept in values["concepts"]:
            concept["folder"] = Path(concept["folder"]).name
            if concept["held_out"] is None:
                del concept["held_out"]
        values["base"] = folder_name(self.base)
        for encoder in (values["encoder"], *values["further_encoders"]):
            encoder["model"] = encoder["model"] and folder_name(encoder["model"])
        return values


def folder_name(name: str) -> str:
    """The last part of a folder's path; any other name as it is."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() else name


@dataclass(frozen=True)
class Choices:
    """What stands in the place of a file's own, where an experiment is run.

    Attributes:
        base: The base.
        pictures: A folder with `concepts.json` (see `indexed_sources`), whose concepts take the place of the file's.
        encoders: The features that measure pictures.
        device: Where the base computes.
    """

    base: BaseChoice | None = None
    pictures: Path | None = None
    encoders: tuple[EncoderSettings, ...] = ()
    device: str = "cpu"

    def load(self, experiment: Experiment) -> Base:
        """Load the base of an experiment."""
        return load_base(self.base or experiment.base, device=self.device)


def load_experiment(path: Path, choices: Choices | None = None) -> Experiment:
    """Read an experiment from a TOML file (see `experiments/merge-of-twelve.toml`).

    `sample_concepts` is a list of names, or `"all"`; `[[concepts]]` entries name folders of one's own,
    `[[collections]]` entries an `index` of many (see `indexed_sources`) and perhaps the `names` or `kinds` wanted;
    `[encoder]` is one, `[[encoder]]` one of several;
    paths are relative to the file. The experiment is called as the file. What several experiments share may stand in a
    file that they name (see `orthoplex.benchmark.experiment_file`).

    Raises:
        ConfigurationError: when the file cannot be read, or a key or value is not allowed; names the file.
    """
    try:
        return _experiment(path, read_tables(path), choices or Choices())
    except ConfigurationError as error:
        raise ConfigurationError(f"experiment {path}: {error}") from error


def _experiment(path: Path, values: Mapping[str, Any], choices: Choices) -> Experiment:
    plain = [item.name for item in fields(Experiment) if item.name not in ("name", "further_encoders", "defaults")]
    check_keys(values, [*plain, *(key for key in _FILE if key not in plain), "common", "methods"], "the experiment")
    for key in values.keys() & _FILE.keys():
        checked(key, values[key], _FILE[key], FILLED)
    encoders = choices.encoders or _encoders(values.get("encoder", {}))
    if choices.pictures is not None:
        values = {key: value for key, value in values.items() if key not in ("sample_concepts", "concepts")}
        values["collections"] = ({"index": str(choices.pictures.absolute() / "concepts.json")},)
    samples = values.get("sample_concepts", ())
    concepts = sample_sources(() if samples == "all" else samples) if samples else ()
    return Experiment(
        name=path.stem,
        base=values.get("base", "vignette") if choices.base is None else choices.base.name,
        resolution=values.get("resolution"),
        seeds=values.get("seeds", (0,)),
        concepts=(
            *concepts,
            *(_source(path.parent, row) for row in values.get("concepts", ())),
            *(source for row in values.get("collections", ()) for source in _collection(path.parent, row)),
        ),
        training=values.get("training", {}),
        prompts=values.get("prompts", {}),
        pictures=_build(PictureSettings, values.get("pictures", {}), "pictures"),
        encoder=encoders[0],
        further_encoders=encoders[1:],
        merges=_build(MergeSettings, values.get("merges", {}), "merges"),
        together=tuple(_build(GroupPictures, row, "together") for row in values.get("together", ())),
        crosstalk=values.get("crosstalk", False),
        share_slots=values.get("share_slots", False),
        sheet=values.get("sheet", False),
        published=_build(Published, values["published"], "published") if "published" in values else None,
        variants=tuple(_build(Variant, row, "a variant") for row in values.get("variants", ())),
    )


def _encoders(values: _TABLE | Sequence[_TABLE]) -> tuple[EncoderSettings, ...]:
    tables = (values,) if isinstance(values, Mapping) else values
    return tuple(_build(EncoderSettings, table, "encoder") for table in tables) or (EncoderSettings(),)


def _source(folder: Path, row: Mapping[str, Any]) -> ConceptSource:
    check_field_names(row, ConceptSource, "a concept")
    checked("a concept's folder", row["folder"], str, FILLED)
    return ConceptSource(**{**row, "folder": folder / row["folder"]})


def _collection(folder: Path, row: Mapping[str, Any]) -> tuple[ConceptSource, ...]:
    check_keys(row, list(_COLLECTION), "a collection", required=["index"])
    for key, value in row.items():
        checked(f"a collection's {key}", value, _COLLECTION[key], FILLED)
    return indexed_sources(folder / row["index"], names=row.get("names", ()), kinds=row.get("kinds", ()))


_Table = TypeVar("_Table", PictureSettings, EncoderSettings, MergeSettings, GroupPictures, Published, Variant)


def _build(table: type[_Table], values: Mapping[str, Any], what: str) -> _Table:
    check_field_names(values, table, what)
    return table(**values)
