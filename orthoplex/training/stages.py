"""The stages of a training: token vectors first, then weights; or both at once; or only one of the two."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orthoplex.activations.concept_erasure import erasure_directions, foreign_grams
from orthoplex.activations.erasure_options import ErasureOptions
from orthoplex.activations.erasure_statistics import gather_statistics
from orthoplex.activations.foreign_inputs import ForeignInputs, draw_foreign_inputs
from orthoplex.activations.grams import gather_grams
from orthoplex.activations.prior_pictures import PriorPictures, make_prior_pictures
from orthoplex.activations.random_concepts import foreign_material, replaced_vectors
from orthoplex.adapters import Adapter, Dual, LowRank
from orthoplex.concepts import KINDS
from orthoplex.errors import ConfigurationError
from orthoplex.files.interrupt import deferred_interrupt
from orthoplex.models import Base
from orthoplex.subspaces import dual_rows, seeded
from orthoplex.training.batches import encode_latents
from orthoplex.training.checkpoint import TrainingState
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import ConceptDataset, pixels_of
from orthoplex.training.erasure import ActivationErasure, Erasure
from orthoplex.training.prediction_erasure import PredictionErasure
from orthoplex.training.run import Run
from orthoplex.training.shared_base import SharedBase

_LOG = logging.getLogger(__name__)
_BATCH = 32
_RANDOM_CONCEPTS = 256
"""Random concepts that dual directions are made silent on; more than text features have dimensions, or nearly so."""


@dataclass(frozen=True)
class Stage:
    """Steps in which the same things learn.

    Attributes:
        start: Its first step.
        stop: One past its last step.
        tokens: True if the token vectors learn.
        weights: True if the weights learn.
        after_erasure: True if the directions are those after erasure, which are silent on foreign prompts.
    """

    start: int
    stop: int
    tokens: bool
    weights: bool
    after_erasure: bool = False


def stages(config: TrainingConfig) -> tuple[Stage, ...]:
    """The stages of a training, one after the other."""
    first, last = config.first_steps, config.steps - config.steps_after_erasure
    tokens = first == 0 and config.token_moves != "nothing"
    every = (
        Stage(0, first, tokens=True, weights=False),
        Stage(first, last, tokens=tokens, weights=True),
        Stage(last, config.steps, tokens=False, weights=True, after_erasure=True),
    )
    return tuple(stage for stage in every if stage.start < stage.stop)


def prepared_foreign(
    base: Base, dataset: ConceptDataset, run: Run, foreign_prompts: Sequence[str]
) -> tuple[PriorPictures | None, ForeignInputs | None]:
    """Return prior pictures and the foreign inputs of erasure, as far as the configuration asks for them."""
    config = run.config
    if not config.trains_erasure and config.prior_weight == 0:
        return None, None
    generator = seeded("foreign", run.concept_id, config.seed)
    options = config.erasure_options
    prompts, vectors = foreign_material(
        base,
        options,
        token=dataset.token,
        class_word=dataset.class_word,
        prompts=foreign_prompts,
        num_vectors=config.num_tokens,
        generator=generator,
    )
    prior_prompts = prompts.plain if config.prior_weight == 0 else prompts.about_class or prompts.plain
    needs_prior = config.prior_pictures > 0 and _uses_prior(base, run)
    prior = _prior(base, dataset, options, prior_prompts) if needs_prior else None
    if not config.trains_erasure:
        return prior, None
    latents = None if prior is None else prior.latents
    return prior, draw_foreign_inputs(base, prompts=prompts, vectors=vectors, latents=latents, generator=generator)


@torch.no_grad()
def _prior(base: Base, dataset: ConceptDataset, options: ErasureOptions, prompts: Sequence[str]) -> PriorPictures:
    """Return the class pictures, and of the base's own as many as are missing."""
    given, missing = dataset.class_pictures, options.prior_pictures - len(dataset.class_pictures)
    if not given:
        return make_prior_pictures(base, options, prompts)
    latents = encode_latents(base, pixels_of(given), options.batch_size)
    ids = base.family.words.ids([text for picture in given for text in picture.captions])
    sizes = tuple(picture.sizes for picture in given)
    if missing <= 0:
        return PriorPictures(latents, ids, sizes)
    made = make_prior_pictures(base, replace(options, prior_pictures=missing), prompts)
    return PriorPictures(torch.cat([latents, made.latents]), torch.cat([ids, made.ids]), sizes + made.sizes)


def _uses_prior(base: Base, run: Run) -> bool:
    """Return True if prior pictures make a difference; they make none for erasure of layers that see the text alone."""
    of_text = run.config.erasure_form == "activation" and base.family.see_text_alone(run.linears)
    return run.config.prior_weight > 0 or not of_text


@dataclass(frozen=True, eq=False)
class StageWork:
    """A stage that is ready for its steps.

    Attributes:
        erasure: The penalty on foreign inputs, where erasure is a part of the loss.
        own: Layer to its Gram matrix under the concept's own prompts, where erasure needed it; None elsewhere.
    """

    base: Base
    run: Run
    shared: SharedBase
    adapters: Mapping[str, Adapter]
    vectors: Tensor
    erasure: Erasure | None = None
    own: Mapping[str, Tensor] | None = None

    @contextmanager
    def put_in(self) -> Iterator[None]:
        """Inside, the base belongs to this thread and holds the stage's trained parts; nothing else gets a gradient."""
        with (
            self.shared.with_tokens(),
            self.base.attached(self.adapters),
            self.run.put_in(self.base, self.vectors),
        ):
            yield


@contextmanager
def ready_stage(
    base: Base,
    dataset: ConceptDataset,
    run: Run,
    state: TrainingState,
    stage: Stage,
    shared: SharedBase,
    inputs: ForeignInputs | None,
    foreign_prompts: Sequence[str],
) -> Iterator[StageWork]:
    """Inside, directions are those of the stage; the base holds parts of it only within ``StageWork.put_in``."""
    vectors = state.vectors if stage.tokens else state.vectors.detach()
    if not stage.weights:
        yield StageWork(base, run, shared, {}, vectors)
        return
    own = None
    with ExitStack() as stack:
        with shared.with_tokens() as tokens:
            set_dual_directions(base, dataset, run, state.adapters, vectors, tokens, foreign_prompts)
            if stage.after_erasure:
                changes = {layer: _change(adapter) for layer, adapter in state.adapters.items()}
                own, foreign = _own_and_foreign(base, dataset, run, changes, vectors, tokens, foreign_prompts)
                directions = erasure_directions(run.name, changes, own, foreign, run.config.erasure_options)
                stack.enter_context(_set_directions(state, stage, directions))
            erasure = _erasure(base, run, state.adapters, inputs, tokens) if inputs is not None else None
        yield StageWork(base, run, shared, state.adapters, vectors, erasure, own)


def _change(adapter: Adapter) -> LowRank:
    """Return an adapter's factors on the CPU, without its scaling, which does not concern directions."""
    return LowRank(adapter.up.detach().cpu(), adapter.down.cpu())


@torch.no_grad()
def _own_and_foreign(
    base: Base,
    dataset: ConceptDataset,
    run: Run,
    layers: Collection[str],
    vectors: Tensor,
    tokens: Sequence[str],
    foreign_prompts: Sequence[str],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return Gram matrices of layers that see the text alone, under the concept's own prompts and foreign ones."""
    options = run.config.erasure_options
    foreign = foreign_grams(
        base, options, layers, foreign_prompts, name=run.name, class_word=dataset.class_word, tokens=tokens
    )
    with run.put_in(base, vectors):
        own = gather_grams(base, list(layers), KINDS[dataset.kind].own_prompts(dataset.trigger))
    return own, foreign


@contextmanager
def _set_directions(
    state: TrainingState, stage: Stage, directions: Mapping[str, tuple[Tensor, float]]
) -> Iterator[None]:
    """Set all directions; scale ``up`` to them once, before the stage's first step, and back if no step was taken."""
    is_scaled = False

    @torch.no_grad()
    def scale_up(exponent: int) -> None:
        for layer, (_, length) in directions.items():
            state.adapters[layer].up.mul_(length**exponent)

    for layer, (rows, _) in directions.items():
        state.adapters[layer].set_directions(rows)
    try:
        if state.step == stage.start:
            with deferred_interrupt():
                for adapter in state.adapters.values():
                    state.optimizer.state.pop(adapter.up, None)  # of steps in other directions
                scale_up(-1)
                is_scaled = True
        yield
    finally:
        if is_scaled and state.step == stage.start:
            scale_up(1)


def _erasure(
    base: Base, run: Run, adapters: Mapping[str, Adapter], inputs: ForeignInputs, tokens: Sequence[str]
) -> Erasure:
    """Erasure in the form that the configuration asks for; no adapter is attached yet."""
    if run.config.erasure_form == "prediction":
        return PredictionErasure.prepare(base, run.config, inputs, tokens, run.concept_id)
    statistics = gather_statistics(
        base, adapters, run.linears, inputs=inputs, tokens=tokens, batch_size=run.config.batch_size
    )
    return ActivationErasure(adapters, statistics)


@torch.no_grad()
def set_dual_directions(
    base: Base,
    dataset: ConceptDataset,
    run: Run,
    adapters: Mapping[str, Adapter],
    vectors: Tensor,
    tokens: Sequence[str],
    foreign_prompts: Sequence[str],
) -> None:
    """Set the directions of every ``dual`` adapter to the concept's tokens; other adapters are left alone.

    A layer sees the tokens as their text features in the concept's captions. The directions shall be silent on the
    base's own words and, as much, on the tokens of concepts that do not exist: learned tokens lie where no word does,
    and so will those of other concepts.

    Args:
        base: The base, with no adapter attached; its tokenizer knows the tokens.
        dataset: For its captions.
        run: For the seed and the ridge.
        adapters: Layer name to adapter.
        vectors: Token vectors, ``(k, dim)``; they do not learn any more.
        tokens: The names of the k tokens.
        foreign_prompts: Prompts of the base's own words.
    """
    duals = [adapter for adapter in adapters.values() if isinstance(adapter, Dual)]
    if not duals:
        return
    generator = seeded("dual directions", run.concept_id, run.config.seed)
    prompts, vectors_of_others = foreign_material(
        base,
        run.config.erasure_options,
        token=dataset.token,
        class_word=dataset.class_word,
        prompts=foreign_prompts,
        num_vectors=run.config.num_vectors,
        generator=generator,
        count=_RANDOM_CONCEPTS,
    )
    holding = prompts.tokened or tuple(dataset.captions)
    tokened = [holding[i % len(holding)] for i in range(_RANDOM_CONCEPTS)]
    own = _token_features(base, dataset.captions, vectors.expand(len(dataset.captions), -1, -1), tokens)
    others = _token_features(base, tokened, vectors_of_others, tokens).flatten(0, 1)
    if not len(own) or not len(others):
        raise ConfigurationError(f"{dataset.token} stands in no caption that the base reads to it")
    batches = base.family.words.ids(prompts.plain).split(_BATCH)
    words = torch.cat([base.family.condition(part).features.float().cpu() for part in batches]).flatten(0, 1)
    gram = words.T @ words / len(words) + others.T @ others / len(others)
    rows = dual_rows(own.flatten(0, 1), gram, count=run.config.duals, ridge=run.config.dual_ridge)
    if not rows.any():
        _LOG.warning(
            "no direction responds to %s more than to other words and tokens; its weights learn little", dataset.token
        )
    for adapter in duals:
        adapter.set_token_directions(rows)


def _token_features(base: Base, prompts: Sequence[str], vectors: Tensor, tokens: Sequence[str]) -> Tensor:
    """Return the tokens' text features, ``(n, k, dim)``, in the n prompts that are not cut off before the tokens."""
    family, rows = base.family, []
    ids = family.words.ids(prompts)
    for chosen in torch.arange(len(ids)).split(_BATCH):
        with replaced_vectors(base, tokens, vectors[chosen]):
            features = family.condition(ids[chosen]).features.float().cpu()
        for row, places in zip(features, family.words.places(ids[chosen], tokens), strict=True):
            if places.any(1).all():
                rows.append(torch.stack([row[place].mean(0) for place in places]))
    return torch.stack(rows) if rows else torch.zeros(0, len(tokens), 0)
