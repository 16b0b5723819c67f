"""What learns when: the token vectors first, then the weights; or both at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from orthoplex.adapters import Adapter, Dual
from orthoplex.models import Base
from orthoplex.subspaces import dual_rows
from orthoplex.training.batches import seeded
from orthoplex.training.checkpoint import TrainingState
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import ConceptDataset
from orthoplex.training.erasure import ActivationErasure, Erasure
from orthoplex.training.foreign import (
    ForeignInputs,
    PriorPictures,
    compose_foreign_prompts,
    draw_foreign_inputs,
    gather_statistics,
    make_prior_pictures,
    random_vectors,
)
from orthoplex.training.prediction_erasure import PredictionErasure
from orthoplex.training.run import Run
from orthoplex.training.text import encode_ids, replaced_vectors, text_features

_BATCH = 32


@dataclass(frozen=True)
class Stage:
    """Steps in which the same things learn.

    Attributes:
        start: Its first step.
        stop: One past its last step.
        tokens: Whether the token vectors learn.
        weights: Whether the weights learn.
    """

    start: int
    stop: int
    tokens: bool
    weights: bool


def stages(config: TrainingConfig) -> tuple[Stage, ...]:
    """The stages of a training, one after the other."""
    first = config.first_steps
    if first == 0:
        return (Stage(0, config.steps, tokens=True, weights=True),)
    return (
        Stage(0, first, tokens=True, weights=False),
        Stage(first, config.steps, tokens=False, weights=True),
    )


def foreign_material(
    base: Base, dataset: ConceptDataset, run: Run, foreign_prompts: Sequence[str]
) -> tuple[PriorPictures | None, ForeignInputs | None]:
    """Prior pictures, and the inputs that erasure works on, as far as the configuration asks for them."""
    config = run.config
    if config.erasure == 0 and config.prior_weight == 0:
        return None, None
    generator = seeded("foreign", run.concept_id, config.seed)
    prompts = compose_foreign_prompts(
        config, token=dataset.token, class_word=dataset.class_word, prompts=foreign_prompts, generator=generator
    )
    prior = make_prior_pictures(base, config, prompts.plain) if config.prior_pictures > 0 else None
    if config.erasure == 0:
        return prior, None
    vectors = random_vectors(
        base,
        class_word=dataset.class_word,
        count=len(prompts.tokened),
        num_vectors=config.num_vectors,
        generator=generator,
    )
    latents = None if prior is None else prior.latents
    return prior, draw_foreign_inputs(base, prompts=prompts, vectors=vectors, latents=latents, generator=generator)


@contextmanager
def in_stage(
    base: Base,
    dataset: ConceptDataset,
    run: Run,
    state: TrainingState,
    stage: Stage,
    token_ids: Sequence[int],
    inputs: ForeignInputs | None,
    foreign_prompts: Sequence[str],
) -> Iterator[Erasure | None]:
    """Inside, what the stage trains is in the base, and nothing else gets a gradient; yields erasure, if it is on."""
    config = run.config
    vectors = state.vectors if stage.tokens else state.vectors.detach()
    with ExitStack() as stack:
        erasure = None
        if stage.weights:
            aim_duals(
                base,
                state.adapters,
                dataset,
                vectors.detach(),
                token_ids,
                foreign_prompts=foreign_prompts,
                ridge=config.dual_ridge,
            )
            if inputs is not None:
                erasure = _erasure(base, run, state.adapters, inputs, token_ids)
            stack.enter_context(base.attached(state.adapters))
        stack.enter_context(replaced_vectors(base, token_ids, vectors))
        yield erasure


def _erasure(
    base: Base, run: Run, adapters: Mapping[str, Adapter], inputs: ForeignInputs, token_ids: Sequence[int]
) -> Erasure:
    """Erasure in the form that the configuration asks for; no adapter is attached yet."""
    if run.config.erasure_form == "prediction":
        return PredictionErasure.prepare(base, run.config, inputs, token_ids, run.concept_id)
    statistics = gather_statistics(base, run.config, adapters, run.linears, inputs=inputs, token_ids=token_ids)
    return ActivationErasure(adapters, statistics)


@torch.no_grad()
def aim_duals(
    base: Base,
    adapters: Mapping[str, Adapter],
    dataset: ConceptDataset,
    vectors: Tensor,
    token_ids: Sequence[int],
    *,
    foreign_prompts: Sequence[str],
    ridge: float,
) -> None:
    """Aim every ``dual`` adapter at the concept's tokens; other adapters are left alone.

    What a layer sees of a token is the mean of its text features over the concept's captions.

    Args:
        base: The base, with no adapter attached; its tokenizer knows the tokens.
        adapters: Layer name to adapter.
        dataset: For its captions.
        vectors: Token vectors, ``(k, dim)``; they do not learn any more.
        token_ids: The k ids of the tokens.
        foreign_prompts: Prompts of the base's own words, on which the directions shall be silent.
        ridge: See ``dual_rows``.
    """
    duals = [adapter for adapter in adapters.values() if isinstance(adapter, Dual)]
    if not duals:
        return
    ids = encode_ids(base, dataset.captions)
    with replaced_vectors(base, token_ids, vectors):
        features = _features(base, ids)
    seen = torch.stack([features[ids == token].mean(0) for token in token_ids])
    heard = _features(base, encode_ids(base, list(dict.fromkeys(foreign_prompts)))).flatten(0, 1)
    rows = dual_rows(seen, heard.T @ heard / len(heard), ridge=ridge)
    for adapter in duals:
        adapter.aim(rows)


def _features(base: Base, ids: Tensor) -> Tensor:
    return torch.cat([text_features(base, part).float().cpu() for part in ids.split(_BATCH)])
