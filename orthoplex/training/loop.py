"""Pictures to a concept: one visible loop that yields a record for every step."""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor, nn

from orthoplex.adapters import Adapter, LowRank, create_adapter
from orthoplex.concepts import Concept, Manifest, check_writable, encode_thumbnail, save_concept, token_names
from orthoplex.errors import ConfigurationError, OrthoplexError, OutputError
from orthoplex.models import Base
from orthoplex.subspaces import BASIS_ID
from orthoplex.training.batches import Batch, TrainingData, seeded
from orthoplex.training.checkpoint import (
    TrainingState,
    checkpoint_path,
    checkpoint_step,
    load_checkpoint,
    save_checkpoint,
)
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import CAPTION_TEMPLATES, ConceptDataset
from orthoplex.training.erasure import ActivationErasure, Erasure, is_due
from orthoplex.training.foreign import (
    PriorPictures,
    compose_foreign_prompts,
    default_foreign_prompts,
    draw_foreign_inputs,
    gather_statistics,
    make_prior_pictures,
    random_vectors,
)
from orthoplex.training.interrupt import deferred_interrupt
from orthoplex.training.precision import precision
from orthoplex.training.prediction_erasure import PredictionErasure
from orthoplex.training.records import StepRecord, append_log, begin_log, log_path, samples_folder
from orthoplex.training.sampling import run_pipeline
from orthoplex.training.text import check_captions, initial_vectors, replaced_vectors


def train(
    base: Base,
    dataset: ConceptDataset,
    config: TrainingConfig,
    *,
    output: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    foreign_prompts: Sequence[str] | None = None,
) -> Generator[StepRecord, None, None]:
    """Train a concept, yield a record for every step, and write the concept file at the end.

    The loss is the mean squared error of the base's prediction on noised latents of the pictures, plus
    ``prior_weight`` times the same on pictures of the base's own, plus ``erasure`` times the mean over layers of
    ``E‖ΔW x‖² / E‖W x‖²`` on foreign inputs. Only adapters and token vectors learn. Every step draws its data from
    (seed, step), so a resumed run gives the tensors of an unbroken one, bit for bit.

    Ctrl-C (or closing the iterator) writes a checkpoint and ends the iterator; the last record then has no ``output``.
    A file that cannot be written ends it with an error, and with a checkpoint where there is room for one.
    Beside ``<stem>.safetensors`` lie ``<stem>.log.jsonl``, ``<stem>.samples/`` and, until it is done,
    ``<stem>.checkpoint.safetensors``, and ``.<stem>.lock`` while it runs: one process at a time trains one file.

    Args:
        base: The base, with nothing folded in; it is as before afterwards.
        dataset: The pictures; its token, class word and kind become the concept's.
        config: All knobs.
        output: The concept file to write, ``*.safetensors``.
        resume: Continue from the checkpoint if there is one.
        overwrite: Begin anew although there is a checkpoint, which is lost then.
        foreign_prompts: Prompts of the base's own words, for erasure and prior pictures; None takes those that
            come with the base, or general ones.

    Raises:
        ConfigurationError: When an option does not fit the base, the checkpoint belongs to another run, or is neither
            resumed nor overwritten, or the same file is being trained already.
        CapacityError: When a layer has no room for the slot.
        DatasetError: When a caption is so long that the base does not see the concept's token in it.
        OutputError: When a file cannot be written; names the checkpoint that was kept.
        OrthoplexError: When the loss is no longer finite; names the step.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ConfigurationError(f"output is {output}; allowed are names that end in .safetensors")
    if base.recipe is not None:
        raise ConfigurationError("the base has concepts folded in; allowed is training on the base alone")
    _check_inference_steps(base, config)
    foreign = default_foreign_prompts(base) if foreign_prompts is None else tuple(foreign_prompts)
    run = _Run.of(base, dataset, config)
    vectors = run.vectors(base, dataset.class_word).to(base.device)
    state = TrainingState.begin(config, run.adapters(base.device), vectors)
    _check_outputs(output, resume=resume, overwrite=overwrite)
    return _alone(output, _steps(base, dataset, run, state, output=output, resume=resume, foreign_prompts=foreign))


def _check_inference_steps(base: Base, config: TrainingConfig) -> None:
    used = {
        "num_inference_steps": config.sample_every > 0,
        "prior_inference_steps": config.prior_pictures > 0 and (config.erasure > 0 or config.prior_weight > 0),
    }
    for name, is_used in used.items():
        if is_used:
            base.check_inference_steps(name, getattr(config, name))


def _check_outputs(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse what would only fail, or be lost, at the end."""
    checkpoint, samples = checkpoint_path(output), samples_folder(output)
    for path in (output, checkpoint, log_path(output)):
        check_writable(path)
    if samples.is_file():
        raise OutputError(f"{samples} is a file; allowed is a folder for sample pictures")
    if checkpoint.is_file() and not resume and not overwrite:
        raise ConfigurationError(
            f"checkpoint {checkpoint} holds step {checkpoint_step(checkpoint)} of an interrupted training; "
            "resume (--resume) continues it, overwrite (--overwrite) begins anew"
        )


def _alone(output: Path, steps: Generator[StepRecord, None, None]) -> Generator[StepRecord, None, None]:
    """The same steps, refused while another process takes steps towards the same file."""
    path = output.with_name(f".{output.stem}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0, thread_local=False):
            try:
                yield from steps
            finally:
                with suppress(OSError):  # Windows keeps the name of an open file
                    path.unlink()
    except Timeout as error:
        raise ConfigurationError(
            f"{output} is being trained already; allowed is one training of it at a time"
        ) from error


@dataclass(frozen=True, eq=False)
class _Run:
    """What is fixed throughout a training."""

    config: TrainingConfig
    name: str
    concept_id: str
    linears: Mapping[str, nn.Linear]

    @staticmethod
    def of(base: Base, dataset: ConceptDataset, config: TrainingConfig) -> "_Run":
        name = dataset.token.strip("<>")
        linears = base.linear_layers(config.layers, config.text_encoder)
        return _Run(config, name, f"{name}-{dataset.dataset_hash[:16]}", linears)

    def adapters(self, device: torch.device) -> dict[str, Adapter]:
        """Untrained adapters of all layers; a slot chosen automatically comes from the concept's id."""
        return {
            layer: create_adapter(
                self.config.adapter,
                layer=layer,
                out_features=linear.out_features,
                in_features=linear.in_features,
                concept_id=self.concept_id,
                seed=self.config.seed,
            ).to(device)
            for layer, linear in self.linears.items()
        }

    def vectors(self, base: Base, class_word: str) -> Tensor:
        """Untrained token vectors, ``(num_vectors, dim)``."""
        generator = seeded("token vectors", self.concept_id, self.config.seed)
        return initial_vectors(base, class_word, self.config.num_vectors, generator)

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
        config = self.config.adapter
        slot = config.slot_of(self.concept_id)
        tokens = token_names(self.name, len(state.vectors))
        manifest = Manifest(
            name=self.name,
            kind=dataset.kind,
            class_word=dataset.class_word,
            trigger=dataset.trigger,
            base=base.identity,
            method=config.method,
            adapter=asdict(replace(config, slot=slot)),
            basis_id=BASIS_ID if config.method == "orthogonal" and config.basis != "gaussian" else None,
            slot=slot,
            training={**self.config.to_json(), "concept_id": self.concept_id, "num_pictures": len(dataset)},
            dataset_hash=dataset.dataset_hash,
            thumbnail=encode_thumbnail(dataset.image(0)),
        )
        layers = {layer: _on_cpu(adapter) for layer, adapter in state.adapters.items()}
        vectors = state.vectors.detach().cpu()
        return Concept(manifest, layers, {token: vectors[i].clone() for i, token in enumerate(tokens)})


def _steps(
    base: Base,
    dataset: ConceptDataset,
    run: _Run,
    state: TrainingState,
    *,
    output: Path,
    resume: bool,
    foreign_prompts: tuple[str, ...],
) -> Generator[StepRecord, None, None]:
    config, began = run.config, time.monotonic()
    identity, checkpoint = run.identity(base, dataset, foreign_prompts), checkpoint_path(output)
    vectors = state.vectors.detach().cpu().clone()
    if resume and checkpoint.is_file():
        load_checkpoint(state, checkpoint, identity)

    def record(loss: float | None, erasure: float | None, rate: float | None) -> StepRecord:
        return StepRecord(state.step, config.steps, loss, erasure, rate, time.monotonic() - began)

    try:
        with ExitStack() as stack:
            names = token_names(run.name, config.num_vectors)
            ids = list(stack.enter_context(base.with_tokens(dict(zip(names, vectors, strict=True)))).values())
            check_captions(base, dataset, ids)
            prior, foreign = _foreign(base, dataset, run, state.adapters, ids, foreign_prompts)
            data = TrainingData.prepare(base, dataset, config, prior)
            stack.enter_context(base.attached(state.adapters))
            stack.enter_context(replaced_vectors(base, ids, state.vectors))
            begin_log(log_path(output), state.step)
            done = record(None, None, None)
            if state.step == 0:
                append_log(log_path(output), done)
                yield replace(done, images=_samples(base, dataset, config, output, 0))
            while state.step < config.steps:
                loss = _denoising_loss(base, data, config, data.batch(config, state.step))
                total, erasure = loss, None
                if foreign is not None and is_due(state.step, config.erasure_share):
                    penalty = foreign.penalty(state.step)
                    total, erasure = loss + config.erasure * penalty, penalty.item()
                _check_finite(total, run, state.step + 1)
                total.backward()
                factor = _update(state, config)
                done = record(loss.item(), erasure, config.weight_learning_rate * factor)
                append_log(log_path(output), done)
                if config.checkpoint_every and state.step % config.checkpoint_every == 0:
                    save_checkpoint(state, checkpoint, identity)
                if state.step < config.steps:
                    yield replace(done, images=_samples(base, dataset, config, output, state.step))
            images = _samples(base, dataset, config, output, state.step)
            save_concept(run.concept(base, dataset, state), output)
            checkpoint.unlink(missing_ok=True)
    except (KeyboardInterrupt, GeneratorExit):
        save_checkpoint(state, checkpoint, identity)
        return
    except (OSError, OutputError) as error:
        raise OutputError(f"{error}; {_keep(state, checkpoint, identity)}") from error
    yield replace(done, images=images, output=output)


def _keep(state: TrainingState, checkpoint: Path, identity: Mapping[str, Any]) -> str:
    """Try to write a checkpoint although something else could not be written; says what came of it."""
    try:
        save_checkpoint(state, checkpoint, identity)
    except OutputError as error:
        return f"nor could step {state.step} be kept: {error}"
    return f"step {state.step} is kept in {checkpoint}, resume continues it"


def _update(state: TrainingState, config: TrainingConfig) -> float:
    """Take one optimizer step, which no Ctrl-C breaks in two; returns the factor of its learning rate."""
    factor = _learning_rate_factor(config, state.step)
    with deferred_interrupt():
        state.update(
            learning_rate_factor=factor,
            gradient_clip=config.gradient_clip,
            token_norm_limit=config.token_norm_limit,
        )
    return factor


def _check_finite(loss: Tensor, run: _Run, step: int) -> None:
    if not math.isfinite(loss.item()):
        raise OrthoplexError(
            f"step {step} of {run.name!r}: the loss is {loss.item()}; it must be finite "
            f"(learning_rate is {run.config.weight_learning_rate}, a lower one may help)"
        )


def _foreign(
    base: Base,
    dataset: ConceptDataset,
    run: _Run,
    adapters: Mapping[str, Adapter],
    token_ids: Sequence[int],
    foreign_prompts: Sequence[str],
) -> tuple[PriorPictures | None, Erasure | None]:
    """Prior pictures and erasure, as far as the configuration asks for them."""
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
    inputs = draw_foreign_inputs(base, prompts=prompts, vectors=vectors, latents=latents, generator=generator)
    if config.erasure_form == "prediction":
        return prior, PredictionErasure.prepare(base, config, inputs, token_ids, run.concept_id)
    statistics = gather_statistics(base, config, adapters, run.linears, inputs=inputs, token_ids=token_ids)
    return prior, ActivationErasure(adapters, statistics)


def _denoising_loss(base: Base, data: TrainingData, config: TrainingConfig, batch: Batch) -> Tensor:
    """Loss of the concept's own items, plus ``prior_weight`` times that of the prior pictures."""
    unet = base.pipeline.unet
    with precision(config.mixed_precision, base.device):
        features = data.features(base, batch)
        noisy = data.schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
        prediction = unet(noisy.to(base.dtype), batch.timesteps, features.to(base.dtype)).sample
    losses = data.schedule.losses(prediction, batch.latents, batch.noise, batch.timesteps, config.min_snr_gamma)
    own = losses[: batch.own].mean()
    return own if batch.own == len(losses) else own + config.prior_weight * losses[batch.own :].mean()


def _learning_rate_factor(config: TrainingConfig, step: int) -> float:
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    fall = 0.5 * (1.0 + math.cos(math.pi * step / config.steps)) if config.schedule == "cosine" else 1.0
    return rise * fall


def _samples(
    base: Base, dataset: ConceptDataset, config: TrainingConfig, output: Path, step: int
) -> tuple[Image.Image, ...]:
    """Sample pictures of a step that has them, written to the samples folder too; always of the same noise."""
    due = config.sample_every > 0 and (step % config.sample_every == 0 or step == config.steps)
    if not due:
        return ()
    prompts = [
        prompt.replace("{trigger}", dataset.trigger)
        for prompt in config.sample_prompts or CAPTION_TEMPLATES[dataset.kind][:1]
    ]
    images = run_pipeline(base, config, prompts, seed=config.seed, output_type="pil")
    folder = samples_folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / f"step-{step:05d}-{number}.png")
    return tuple(images)


def _on_cpu(adapter: Adapter) -> LowRank:
    factors = adapter.factors()
    return replace(factors, up=factors.up.cpu(), down=factors.down.cpu())
