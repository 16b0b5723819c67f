"""The fixed parts of a training: the layers, the concept's id, and the finished concept's manifest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from orthoplex.adapters import METHODS, Adapter, LowRank, create_adapter, owned_slot, share_directions
from orthoplex.concepts import Concept, Manifest, Token, encode_thumbnail, token_names
from orthoplex.concepts.tokens import RARE_WORD, TOKENS, learning_class, learnings
from orthoplex.concepts.tokens.learning import TokenGround, TokenLearning
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import ConfigurationError
from orthoplex.models import Base
from orthoplex.models.relatives import WeightSample
from orthoplex.models.words.rare_words import rare_word
from orthoplex.subspaces import BASIS_ID, seeded
from orthoplex.training.checkpoint import TrainingState
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import ConceptDataset
from orthoplex.training.key_value_units import key_value_units
from orthoplex.training.presets import nearest_in_words
from orthoplex.training.sampling import thumbnail_of
from orthoplex.training.starting_vectors import initial_vectors


@dataclass(frozen=True, eq=False)
class Run:
    """The fixed parts of a training.

    Attributes:
        config: All knobs.
        name: The concept's name.
        concept_id: ``<name>-<first 16 digits of the data set's hash>``.
        linears: Layer name to the base's layer, for all layers that change.
        learning: How its tokens learn.
        lengthened_from: The numbers of steps that it had before it was lengthened.
    """

    config: TrainingConfig
    name: str
    concept_id: str
    linears: Mapping[str, nn.Linear]
    learning: TokenLearning
    lengthened_from: tuple[int, ...] = ()

    @staticmethod
    def of(
        base: Base, dataset: ConceptDataset, config: TrainingConfig, *, lengthened_from: tuple[int, ...] = ()
    ) -> "Run":
        """Name the concept, find its layers, and draw what its tokens start from.

        Raises:
            ConfigurationError: When the options do not fit the base or the pictures.
        """
        _check_pictures(dataset, config)
        name = dataset.token.strip("<>")
        concept_id = f"{name}-{dataset.dataset_hash[:16]}"
        _check_tokens(base, config)
        start = torch.zeros(0, base.family.words.width)
        if config.num_tokens:
            start = _starting_vectors(base, config, concept_id, dataset.class_word, config.num_tokens)
        ground = TokenGround(base.key_widths, lambda: key_value_units(base, dataset.class_word))
        learning = learning_class(config.token_vectors)(base.family.words.split(start), ground)
        return Run(config, name, concept_id, changed_layers(base, config), learning, lengthened_from)

    def called(self, base: Base, dataset: ConceptDataset, foreign_prompts: Sequence[str]) -> ConceptDataset:
        """Return the pictures as they are learned: with a rare word in the place of the token where it has no vectors.

        Raises:
            ConfigurationError: If the base has no word that stands in none of these captions, those of class pictures
                and foreign prompts.
        """
        if self.config.num_tokens:
            return dataset
        sampled = (*self.config.sample_prompts, dataset.class_word, self.name)
        of_class = (caption for picture in dataset.class_pictures for caption in picture.captions)
        avoided = (*dataset.captions, *of_class, *foreign_prompts, *sampled)
        return dataset.called(rare_word(base.family.readers, self.concept_id, avoided))

    def adapters(self, device: torch.device) -> dict[str, Adapter]:
        """Untrained adapters of all layers; a slot chosen automatically comes from the concept's id."""
        untrained = _untrained_adapters(self.config, self.linears, self.concept_id)
        adapters = {layer: adapter.to(device) for layer, adapter in untrained}
        share_directions(adapters.values())
        return adapters

    def tokens(self, rows: Tensor) -> dict[str, Token]:
        """Return the tokens that numbers make, as a concept holds them: apart from any graph, on the CPU.

        Args:
            rows: The learned rows of the tokens, as ``learning`` begins them.
        """
        own = rows.detach().cpu().clone()
        return dict(zip(self._names(own), self.learning.tokens(own), strict=True))

    def put_in(self, base: Base, rows: Tensor) -> AbstractContextManager[None]:
        """Inside, the base works with the learned rows of the tokens, and gradients flow into them.

        Args:
            base: The base, with the tokens in.
            rows: The learned rows of the tokens, as ``learning`` begins them.
        """
        return base.replaced_tokens(dict(zip(self._names(rows), self.learning.tokens(rows), strict=True)))

    def _names(self, rows: Tensor) -> tuple[str, ...]:
        return token_names(self.name, len(rows)) if len(rows) else ()

    def identity(self, base: Base, dataset: ConceptDataset, foreign_prompts: Sequence[str]) -> dict[str, object]:
        """Return the values that a checkpoint must agree on."""
        config = {key: value for key, value in self.config.to_json().items() if not key.endswith("_every")}
        del (
            config["thumbnail"],
            config["preset"],
            config["gradient_checkpointing"],
            config["report_to"],
        )  # they change no step
        if not dataset.num_masks:  # then it changes none, either
            del config["mask_weight"]
        return {
            "name": self.name,
            "base": base.identity.hash,
            "data type of the base": str(base.dtype).removeprefix("torch."),
            "autoencoder, tokens and schedule": base.family.inputs_hash(),
            "dataset": dataset.dataset_hash,
            "foreign prompts": list(foreign_prompts),
            "learning rate": self.config.weight_learning_rate,
            "config": config,
            **({"lengthened_from": list(self.lengthened_from)} if self.lengthened_from else {}),
        }

    def concept(self, base: Base, dataset: ConceptDataset, state: TrainingState) -> Concept:
        """Return the trained concept; its manifest leaves out erasure that is solved for later, at the end.

        A thumbnail that is generated is left out, too.
        """
        thumbnail = thumbnail_of(self.config, dataset.kind)
        in_slot = self.config.steps_after_erasure == 0  # directions after erasure are no slot's
        config, changes_weights = self.config.adapter, self.config.layers != "none"
        slot = owned_slot(config, self.concept_id) if changes_weights else None
        uses_basis = changes_weights and METHODS[config.method].uses_basis(config)
        manifest = Manifest(
            name=self.name,
            kind=dataset.kind,
            class_word=dataset.class_word,
            trigger=dataset.trigger,
            base=base.identity,
            method=config.method if changes_weights else "none",
            adapter=asdict(replace(config, slot=slot)) if changes_weights else {},
            basis_id=BASIS_ID if uses_basis and in_slot else None,
            slot=slot if in_slot else None,
            training={
                **self.config.while_training.to_json(),
                "sample_prompts": [],  # they decide no weight, and are nobody else's business
                "report_to": "none",  # likewise
                "thumbnail": thumbnail,
                "concept_id": self.concept_id,
                "num_pictures": len(dataset),
                **({"rare_word": dataset.word} if dataset.word else {}),
            },
            base_sample=WeightSample.of(base.family.components()).encode(),
            lengthened_from=self.lengthened_from,
            dataset_hash=dataset.dataset_hash,
            thumbnail=encode_thumbnail(dataset.image(0)) if thumbnail == "photo" else "",
        )
        layers = {layer: _on_cpu(adapter) for layer, adapter in state.adapters.items()}
        return Concept(manifest, layers, self.tokens(state.vectors))


def _check_pictures(dataset: ConceptDataset, config: TrainingConfig) -> None:
    """Refuse pictures that were not read as the options say."""
    if config.resolution not in (None, dataset.resolution):
        raise ConfigurationError(f"resolution is {config.resolution}; allowed is {dataset.resolution}, the pictures'")
    if dataset.class_pictures and config.prior_weight == 0:
        raise ConfigurationError(
            f"prior_weight is {config.prior_weight} and {len(dataset.class_pictures)} class pictures are given; "
            "allowed is above 0, or none of them"
        )
    if config.buckets != dataset.has_buckets:
        words = "are in buckets" if dataset.has_buckets else "are cut to squares"
        allowed = str(dataset.has_buckets).lower()
        raise ConfigurationError(
            f"buckets is {str(config.buckets).lower()} and the pictures {words}; allowed is {allowed}"
        )


def _check_tokens(base: Base, config: TrainingConfig) -> None:
    """Refuse tokens that the base has no layers for, or that its text encoders cannot get.

    Raises:
        ConfigurationError: Names the base, what it has, and what was allowed.
    """
    fixed = base.family.words.fixed
    if config.num_tokens and fixed:
        raise ConfigurationError(
            f"token_vectors is {config.token_vectors!r}, and {' and '.join(fixed)} of base '{base.identity.name}' "
            f"cannot get new words: it is quantised or not there; allowed is {RARE_WORD!r}"
        )
    per_layer = {option for row in TOKENS.values() if row.description for option in row.learnings}
    if config.token_vectors in per_layer and not base.key_widths:
        allowed = ", ".join(repr(option) for option in learnings() if option not in per_layer)
        raise ConfigurationError(
            f"token_vectors is {config.token_vectors!r} and base '{base.identity.name}' has no cross-attention layers; "
            f"allowed are {allowed}{nearest_in_words(config.preset, 'token_vectors')}"
        )


def changed_layers(base: Base, config: TrainingConfig) -> Mapping[str, nn.Linear]:
    """Return the base's layers that a training changes, by name; none where token vectors learn alone.

    Raises:
        ConfigurationError: When the base has no such layers.
    """
    if config.layers == "none":
        return {}
    chosen = base.family.layers(config.layers, text_encoder=config.text_encoder)
    return {name: layer.linear for name, layer in chosen.items()}


def check_layers(base: Base, config: TrainingConfig, concept_id: str) -> None:
    """Build the adapters of a training one by one, and drop each.

    Args:
        base: The base.
        config: All knobs.
        concept_id: The concept's id; a slot chosen automatically comes from it.

    Raises:
        ConfigurationError: When the base has no such layers, or the rank exceeds a layer's width.
        CapacityError: When a layer has no room for the slot.
    """
    for _ in _untrained_adapters(config, changed_layers(base, config), concept_id):
        pass


def starting_tokens(base: Base, concept: Concept) -> dict[str, Token]:
    """Return a trained concept's tokens as they were before training, from what its manifest says of it.

    Raises:
        ConfigurationError: When its manifest holds no training configuration of this version.
    """
    training = concept.manifest.training
    if "concept_id" not in training:
        raise ConfigurationError(f"concept {concept.name} does not say how it was trained; allowed are those that do")
    config = TrainingConfig.recorded(training)
    word, count = concept.manifest.class_word, len(concept.tokens)
    vectors = _starting_vectors(base, config, training["concept_id"], word, count)
    names = token_names(concept.name, count)  # the file has them in the order of their letters
    return {token: Vector(base.family.words.split(vector)) for token, vector in zip(names, vectors, strict=True)}


def _untrained_adapters(
    config: TrainingConfig, linears: Mapping[str, nn.Linear], concept_id: str
) -> Iterator[tuple[str, Adapter]]:
    """Yield every layer's name and its adapter, on the CPU."""
    for layer, linear in linears.items():
        yield (
            layer,
            create_adapter(
                config.adapter,
                layer=layer,
                out_features=linear.out_features,
                in_features=linear.in_features,
                concept_id=concept_id,
                seed=config.seed,
            ),
        )


def _starting_vectors(base: Base, config: TrainingConfig, concept_id: str, class_word: str, count: int) -> Tensor:
    """Draw untrained token vectors, ``(count, dim)``."""
    generator = seeded("token vectors", concept_id, config.seed)
    return initial_vectors(base, class_word, count, generator, start=config.token_start)


def _on_cpu(adapter: Adapter) -> LowRank:
    factors = adapter.factors()
    return replace(factors, up=factors.up.cpu(), down=factors.down.cpu())
