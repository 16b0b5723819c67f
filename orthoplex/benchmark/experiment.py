"""An experiment: its concepts, training, merges and pictures; read from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
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
from orthoplex.options import FILLED, Limits, check_field_names, check_fields, check_keys, checked, limited
from orthoplex.training import TrainingConfig

_TABLE = Mapping[str, Any]
_FILE: Mapping[str, Any] = {
    "sample_concepts": Literal["all"] | tuple[str, ...],
    "concepts": tuple[_TABLE, ...],
    "collections": tuple[_TABLE, ...],
    "pictures": _TABLE,
    "encoder": _TABLE,
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
        resolution: Side of the training pictures in pixels.
        seeds: Training seeds; every variant is trained once for each.
        concepts: Where the concepts' pictures are.
        training: Training options that every variant shares.
        prompts: Kind -> prompts; `{trigger}` is what the concept is called, or the class word for the base alone.
        pictures: How pictures are made.
        encoder: The features that measure pictures.
        variants: The rows of the result.
        merges: The merges; by default one of all concepts.
        together: Pictures of several concepts.
        crosstalk: True measures the effect of each change on the other concepts' inputs, layer by layer.
        published: Figures of others for the report.
        share_slots: True lets concepts beyond the `slots` share slots from slot 0 on; False refuses them.
        sheet: True writes a sheet of pictures beside the tables.
    """

    name: str
    base: str = field(metadata=limited(FILLED))
    resolution: int = field(metadata=limited(Limits(lowest=1)))
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
        self.combinations  # noqa: B018  (refuses what cannot be drawn)
        for variant in self.variants:
            for seed in self.seeds:
                config = self.training_config(variant, self.trained[0], seed)
                self._check_blocks(variant, config)

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
            config = TrainingConfig.from_mapping(values)
            if owned_slot(config.adapter, concept.name) is not None and "slot" not in values:
                place = self.trained.index(concept)
                config = replace(config, slot=place % config.slots if self.share_slots else place)
        except ConfigurationError as error:
            raise ConfigurationError(f"variant {variant.name!r}: {error}") from error
        return config

    @cached_property
    def groups(self) -> dict[int, tuple[MergeGroup, ...]]:
        """Size of a merge -> the merges of that size."""
        return merge_groups(self.merges, [concept.name for concept in self.concepts])

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
        return tuple(concept for concept in self.concepts if not names or concept.name in names)

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
        model = self.encoder.model
        if model is not None and Path(model).expanduser().is_dir():
            values["encoder"]["model"] = Path(model).expanduser().resolve().name
        return values


def load_experiment(path: Path) -> Experiment:
    """Read an experiment from a TOML file (see `experiments/merge-of-twelve.toml`).

    `sample_concepts` is a list of names, or `"all"`; `[[concepts]]` entries name folders of one's own,
    `[[collections]]` entries an `index` of many (see `indexed_sources`) and perhaps the `names` or `kinds` wanted;
    paths are relative to the file. The experiment is called as the file. What several experiments share may stand in a
    file that they name (see `orthoplex.benchmark.experiment_file`).

    Raises:
        ConfigurationError: when the file cannot be read, or a key or value is not allowed; names the file.
    """
    try:
        return _experiment(path, read_tables(path))
    except ConfigurationError as error:
        raise ConfigurationError(f"experiment {path}: {error}") from error


def _experiment(path: Path, values: Mapping[str, Any]) -> Experiment:
    plain = [item.name for item in fields(Experiment) if item.name != "name"]
    check_keys(values, [*plain, *(key for key in _FILE if key not in plain), "common", "methods"], "the experiment")
    for key in values.keys() & _FILE.keys():
        checked(key, values[key], _FILE[key], FILLED)
    samples = values.get("sample_concepts", ())
    concepts = sample_sources(() if samples == "all" else samples) if samples else ()
    return Experiment(
        name=path.stem,
        base=values.get("base", "vignette"),
        resolution=values.get("resolution", 128),
        seeds=values.get("seeds", (0,)),
        concepts=(
            *concepts,
            *(_source(path.parent, row) for row in values.get("concepts", ())),
            *(source for row in values.get("collections", ()) for source in _collection(path.parent, row)),
        ),
        training=values.get("training", {}),
        prompts=values.get("prompts", {}),
        pictures=_build(PictureSettings, values.get("pictures", {}), "pictures"),
        encoder=_build(EncoderSettings, values.get("encoder", {}), "encoder"),
        merges=_build(MergeSettings, values.get("merges", {}), "merges"),
        together=tuple(_build(GroupPictures, row, "together") for row in values.get("together", ())),
        crosstalk=values.get("crosstalk", False),
        share_slots=values.get("share_slots", False),
        sheet=values.get("sheet", False),
        published=_build(Published, values["published"], "published") if "published" in values else None,
        variants=tuple(_build(Variant, row, "a variant") for row in values.get("variants", ())),
    )


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
