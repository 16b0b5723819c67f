"""What is fixed throughout a training: the layers, the concept's id, and what the finished concept says of itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor, nn

from orthoplex.adapters import METHODS, Adapter, LowRank, create_adapter, owned_slot
from orthoplex.concepts import Concept, Manifest, encode_thumbnail, token_names
from orthoplex.errors import ConfigurationError
from orthoplex.models import Base
from orthoplex.subspaces import BASIS_ID
from orthoplex.training.batches import seeded
from orthoplex.training.checkpoint import TrainingState
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import ConceptDataset
from orthoplex.training.text import initial_vectors


@dataclass(frozen=True, eq=False)
class Run:
    """What is fixed throughout a training.

    Attributes:
        config: All knobs.
        name: The concept's name.
        concept_id: ``<name>-<first 16 digits of the data set's hash>``.
        linears: Layer name to the base's layer, for all layers that change.
    """

    config: TrainingConfig
    name: str
    concept_id: str
    linears: Mapping[str, nn.Linear]

    @staticmethod
    def of(base: Base, dataset: ConceptDataset, config: TrainingConfig) -> "Run":
        """Name the concept and find its layers."""
        name = dataset.token.strip("<>")
        return Run(config, name, f"{name}-{dataset.dataset_hash[:16]}", changed_layers(base, config))

    def adapters(self, device: torch.device) -> dict[str, Adapter]:
        """Untrained adapters of all layers; a slot chosen automatically comes from the concept's id."""
        untrained = _untrained_adapters(self.config, self.linears, self.concept_id)
        return {layer: adapter.to(device) for layer, adapter in untrained}

    def vectors(self, base: Base, class_word: str) -> Tensor:
        """Untrained token vectors, ``(num_vectors, dim)``, or ``(num_vectors, L, dim)``, equal in all layers."""
        config = self.config
        vectors = _starting_vectors(base, config, self.concept_id, class_word, config.num_vectors)
        if config.token_vectors != "layer-wise":
            return vectors
        return vectors.unsqueeze(1).repeat(1, len(base.cross_attention_layers), 1)

    def identity(self, base: Base, dataset: ConceptDataset, foreign_prompts: Sequence[str]) -> dict[str, object]:
        """What a checkpoint must agree on."""
        config = {key: value for key, value in self.config.to_json().items() if not key.endswith("_every")}
        return {
            "name": self.name,
            "base": base.identity.hash,
            "dataset": dataset.dataset_hash,
            "foreign prompts": list(foreign_prompts),
            "config": config,
        }

    def concept(self, base: Base, dataset: ConceptDataset, state: TrainingState) -> Concept:
        """The finished concept."""
        config, changes_weights = self.config.adapter, self.config.layers != "none"
        slot = owned_slot(config, self.concept_id) if changes_weights else None
        uses_basis = changes_weights and METHODS[config.method].uses_basis(config)
        tokens = token_names(self.name, len(state.vectors))
        manifest = Manifest(
            name=self.name,
            kind=dataset.kind,
            class_word=dataset.class_word,
            trigger=dataset.trigger,
            base=base.identity,
            method=config.method if changes_weights else "none",
            adapter=asdict(replace(config, slot=slot)) if changes_weights else {},
            basis_id=BASIS_ID if uses_basis else None,
            slot=slot,
            training={**self.config.to_json(), "concept_id": self.concept_id, "num_pictures": len(dataset)},
            dataset_hash=dataset.dataset_hash,
            thumbnail=encode_thumbnail(dataset.image(0)),
        )
        layers = {layer: _on_cpu(adapter) for layer, adapter in state.adapters.items()}
        vectors = state.vectors.detach().cpu()
        token_layers = base.cross_attention_layers if self.config.token_vectors == "layer-wise" else ()
        return Concept(manifest, layers, {token: vectors[i].clone() for i, token in enumerate(tokens)}, token_layers)


def changed_layers(base: Base, config: TrainingConfig) -> Mapping[str, nn.Linear]:
    """Return the base's layers that a training changes, by name; none where token vectors learn alone.

    Raises:
        ConfigurationError: When the base has no such layers.
    """
    return {} if config.layers == "none" else base.linear_layers(config.layers, config.text_encoder)


def check_layers(base: Base, config: TrainingConfig, concept_id: str) -> None:
    """Build the adapters of a training one by one, and keep none.

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


def starting_tokens(base: Base, concept: Concept) -> dict[str, Tensor]:
    """Return a trained concept's tokens as they were before training, from what its manifest says of it.

    Raises:
        ConfigurationError: When its manifest holds no training configuration of this version.
    """
    training = concept.manifest.training
    if "concept_id" not in training:
        raise ConfigurationError(f"concept {concept.name} does not say how it was trained; allowed are those that do")
    known = {item.name for item in fields(TrainingConfig)}
    config = TrainingConfig.from_mapping({key: value for key, value in training.items() if key in known})
    word, count = concept.manifest.class_word, len(concept.tokens)
    vectors = _starting_vectors(base, config, training["concept_id"], word, count)
    return {
        token: vector.expand_as(learned).clone()
        for (token, learned), vector in zip(concept.tokens.items(), vectors, strict=True)
    }


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
