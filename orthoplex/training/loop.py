"""Pictures to a concept: one visible loop that yields a record for every step."""

import atexit
import logging
import math
import time
import weakref
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor

from orthoplex.activations.concept_erasure import with_erasure
from orthoplex.activations.general_prompts import default_foreign_prompts
from orthoplex.activations.stored_inputs import with_inputs
from orthoplex.concepts import Concept, save_concept
from orthoplex.errors import BusyError, ConfigurationError, OrthoplexError, OutputError
from orthoplex.files import check_writable
from orthoplex.files.interrupt import deferred_interrupt
from orthoplex.models import Base, chosen_precision, precision
from orthoplex.training.batches import Batch, TrainingData
from orthoplex.training.checkpoint import (
    TrainingState,
    checkpoint_path,
    checkpoint_step,
    load_checkpoint,
    save_checkpoint,
)
from orthoplex.training.config import TrainingConfig
from orthoplex.training.continuation import FREE_IF_LENGTHENED, Continuation, is_finished
from orthoplex.training.dataset import ConceptDataset
from orthoplex.training.erasure import Erasure, is_due
from orthoplex.training.event_files import check_event_files, with_event_files
from orthoplex.training.learned_captions import check_captions
from orthoplex.training.records import (
    StepRecord,
    append_log,
    begin_log,
    begin_samples,
    log_path,
    sample_name,
    samples_folder,
)
from orthoplex.training.run import Run
from orthoplex.training.sampling import (
    check_sample_prompts,
    make_pictures,
    sample_prompts,
    thumbnail_of,
    with_generated_thumbnail,
)
from orthoplex.training.shared_base import SharedBase, at_resolution, refuse_folded
from orthoplex.training.stages import Stage, StageWork, prepared_foreign, ready_stage, stages
from orthoplex.training.tensor_cache import TensorCache

_LOG = logging.getLogger(__name__)


def train(
    base: Base,
    dataset: ConceptDataset,
    config: TrainingConfig,
    *,
    output: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    foreign_prompts: Sequence[str] | None = None,
    keep_checkpoint: bool = True,
    cache_dir: str | Path | None = None,
) -> Generator[StepRecord, None, None]:
    """Train a concept, yield a record for every step, and write the concept file at the end.

    The loss is the mean squared error of the base's prediction on noised latents of the pictures, plus
    ``prior_weight`` times the same on pictures of the base's own, plus ``erasure`` times what the update does
    to foreign inputs. In closed form, erasure is solved for instead: at the end, after the last sample pictures, or
    before the last steps, in which the adapters learn on in directions after erasure (``erasure_steps``). Only
    adapters and token vectors learn: at once, or the vectors first and then the adapters (``token_steps``), or one of
    them alone (``layers``, ``token_vectors``). Every step draws its data from (seed, step), so a resumed run gives the
    tensors of an unbroken one, bit for bit.

    Ctrl-C (or closing the iterator) writes a checkpoint and ends the iterator; the last record then has no ``output``.
    A file that cannot be written ends it with an error, and with a checkpoint where there is room for one.
    Beside ``<stem>.safetensors`` lie ``<stem>.log.jsonl``, ``<stem>.samples/``, ``<stem>.tensorboard/`` where it is
    asked for, and ``<stem>.checkpoint.safetensors``, from which ``resume`` with more steps lengthens a finished run;
    and ``.<stem>.lock`` while it runs: one process at a time trains one file. The base is locked while a step is
    computed, and between two records it is as it was: others may draw, fold and train on it in the meantime.

    Args:
        base: The base, with nothing folded in; it is as before afterwards.
        dataset: The pictures; its token, class word and kind become the concept's. The base works at its resolution.
        config: All knobs.
        output: The concept file to write, ``*.safetensors``.
        resume: Continue from the checkpoint if there is one; more steps than it was begun with lengthen the run (see
            ``Continuation``).
        overwrite: Begin anew although there is a checkpoint, which is lost then.
        foreign_prompts: Prompts of the base's own words, for erasure, prior pictures and the directions of ``dual``;
            None takes those that come with the base, or general ones.
        keep_checkpoint: True leaves the checkpoint of a finished run, so that it can be lengthened.
        cache_dir: A folder for latents and text features that do not change, which later trainings read.

    Raises:
        ConfigurationError: When an option does not fit the base, its weights are float16, or the checkpoint belongs to
            another run, is neither resumed nor overwritten, or is finished and no more steps are asked for.
        BusyError: When the same file is being trained already, or something was folded into the base meanwhile.
        CapacityError: When a layer has no room for the slot.
        DatasetError: When a caption is so long that the base does not see the concept's token in it.
        PromptError: When a sample prompt cannot be read; likewise ``MissingExtraError``.
        OutputError: When a file cannot be written; names the checkpoint that was written.
        OrthoplexError: When the loss is no longer finite; names the step.
    """
    output = Path(output)
    if resume and overwrite:
        raise ConfigurationError("resume and overwrite are both given; allowed is one: go on, or begin anew")
    if output.suffix != ".safetensors":
        raise ConfigurationError(f"output is {output}; allowed are names that end in .safetensors")
    if base.dtype == torch.float16:
        raise ConfigurationError(
            "the base's weights are float16, in which gradients vanish; allowed are float32 and bfloat16"
        )
    base.check_trainable()
    _check_inference_steps(base, config)
    precise = chosen_precision(config.mixed_precision, base.device)
    continuation = Continuation.of(config, output) if resume else Continuation(config)
    config = continuation.config
    config = replace(config, mixed_precision=precise, erasure_steps=config.steps_after_erasure)  # as files store it
    foreign = default_foreign_prompts(base) if foreign_prompts is None else tuple(foreign_prompts)
    if config.uses_foreign_prompts and not foreign:
        raise ConfigurationError("foreign_prompts holds 0 prompts; allowed is a list of at least 1")
    with at_resolution(base, dataset.resolution):
        if base.recipe is not None:
            raise ConfigurationError("the base has concepts folded in; allowed is training on the base alone")
        run = Run.of(base, dataset, config, lengthened_from=continuation.lengthened_from)
        dataset = run.called(base, dataset, foreign)
        check_sample_prompts(base, dataset, config, run.tokens(vectors := run.learning.initial().to(base.device)))
        _check_outputs(output, resume=resume, overwrite=overwrite)
        cache = TensorCache.of(cache_dir, base)
    of_text_encoders = frozenset(filter(base.family.is_text_encoders, run.linears))
    state = TrainingState.begin(config, run.adapters(base.device), vectors, of_text_encoders)
    if reports := config.report_to == "tensorboard":
        check_event_files(output)
    steps = _steps(
        base,
        dataset,
        run,
        state,
        output=output,
        resume=resume,
        foreign_prompts=foreign,
        keep_checkpoint=keep_checkpoint,
        cache=cache,
    )
    records = _alone(output, with_event_files(steps, output) if reports else steps)
    _LIVE.add(records)
    return records


_LIVE: weakref.WeakSet[Generator[StepRecord, None, None]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close unfinished trainings when the interpreter ends, while a checkpoint can still be written."""
    for records in list(_LIVE):
        with suppress(ValueError):  # of another thread, which is at work on it
            records.close()


def _check_inference_steps(base: Base, config: TrainingConfig) -> None:
    used = {
        "num_inference_steps": config.sample_every > 0 or config.thumbnail == "generated",
        "prior_inference_steps": config.prior_pictures > 0 and (config.erasure > 0 or config.prior_weight > 0),
    }
    for name, is_used in used.items():
        if is_used:
            base.check_inference_steps(name, getattr(config, name))


def _check_outputs(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse outputs that would fail, or be lost, at the end."""
    checkpoint, samples = checkpoint_path(output), samples_folder(output)
    for path in (output, checkpoint, log_path(output)):
        check_writable(path)
    if samples.is_file():
        raise OutputError(f"{samples} is a file; allowed is a folder for sample pictures")
    if checkpoint.is_file() and not resume and not overwrite and not is_finished(output):
        raise ConfigurationError(
            f"checkpoint {checkpoint} holds step {checkpoint_step(checkpoint)} of an interrupted training; "
            "resume (--resume) continues it, overwrite (--overwrite) begins anew"
        )


def _alone(output: Path, steps: Generator[StepRecord, None, None]) -> Generator[StepRecord, None, None]:
    """The same steps, refused while others are taken towards the same file."""
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
        raise BusyError(f"{output} is being trained already; allowed is one training of it at a time") from error


def _steps(
    base: Base,
    dataset: ConceptDataset,
    run: Run,
    state: TrainingState,
    *,
    output: Path,
    resume: bool,
    foreign_prompts: tuple[str, ...],
    keep_checkpoint: bool,
    cache: TensorCache,
) -> Generator[StepRecord, None, None]:
    config, began, checkpoint = run.config, time.monotonic(), checkpoint_path(output)
    with base.locked():
        refuse_folded(base, run.name)
        identity = run.identity(base, dataset, foreign_prompts)
        shared = SharedBase(base, run.name, run.tokens(state.vectors), dataset.resolution)
    if resume and checkpoint.is_file():
        load_checkpoint(state, checkpoint, identity, free=FREE_IF_LENGTHENED if run.lengthened_from else ())

    def record(loss: float | None, erasure: float | None, rate: float | None) -> StepRecord:
        return StepRecord(state.step, config.steps, loss, erasure, rate, time.monotonic() - began)

    try:
        with shared.with_tokens() as tokens:
            check_captions(base, dataset, tokens)
            prior, inputs = prepared_foreign(base, dataset, run, foreign_prompts)
            data = TrainingData.prepare(base, dataset, config, prior, cache)
        begin_log(log_path(output), state.step)
        begin_samples(samples_folder(output), state.step)
        done, images, own = record(None, None, None), (), None
        for stage in stages(config):
            if state.step >= stage.stop < config.steps:
                continue
            with ready_stage(base, dataset, run, state, stage, shared, inputs, foreign_prompts) as work:
                if state.step == 0:
                    append_log(log_path(output), done)
                    yield replace(done, images=_samples(base, dataset, work, output, 0))
                while state.step < stage.stop:
                    with work.put_in():  # and out again before the record is yielded
                        loss, erasure = _gradients(base, data, work, state.step)
                    factor = _update(state, config, stage)
                    done = record(loss, erasure, config.recorded_learning_rate * factor)
                    append_log(log_path(output), done)
                    if config.checkpoint_every and state.step % config.checkpoint_every == 0:
                        _try_to_keep(state, checkpoint, identity)
                    if state.step < config.steps:
                        yield replace(done, images=_samples(base, dataset, work, output, state.step))
                if stage.stop == config.steps:
                    images, own = _samples(base, dataset, work, output, state.step), work.own
        _try_to_keep(state, checkpoint, identity)  # whatever goes wrong now, the steps are not lost
        save_concept(_finished(base, dataset, run, state, foreign_prompts, own), output)
        if keep_checkpoint:
            _try_to_keep(state, checkpoint, identity, is_finished=True)
        else:
            checkpoint.unlink(missing_ok=True)
    except (KeyboardInterrupt, GeneratorExit):
        with deferred_interrupt():
            save_checkpoint(state, checkpoint, identity)
        return
    except (OSError, OutputError, BusyError) as error:
        kind = BusyError if isinstance(error, BusyError) else OutputError
        raise kind(f"{error}; {_keep(state, checkpoint, identity)}") from error
    except Exception:
        if state.step > 0:  # the steps are not lost with whatever failed in the next one
            _LOG.warning("training of %s ends by an error; %s", run.name, _keep(state, checkpoint, identity))
        raise
    yield replace(done, seconds=time.monotonic() - began, images=images, output=output)


def _finished(
    base: Base,
    dataset: ConceptDataset,
    run: Run,
    state: TrainingState,
    foreign_prompts: tuple[str, ...],
    own: Mapping[str, Tensor] | None,
) -> Concept:
    """The trained concept, with erasure that is solved for at the end, and with what its layers see (``own``)."""
    with at_resolution(base, dataset.resolution):
        refuse_folded(base, run.name)
        concept = run.concept(base, dataset, state)
        if run.config.solves_at_end:
            concept = with_erasure(base, concept, run.config.erasure_options, foreign_prompts=foreign_prompts)
        else:
            concept = with_inputs(base, concept, own=own)
        if thumbnail_of(run.config, dataset.kind) != "generated":
            return concept
        return with_generated_thumbnail(base, concept, run.config)


def _keep(state: TrainingState, checkpoint: Path, identity: Mapping[str, Any]) -> str:
    """Try to write a checkpoint although something else could not be written; says what came of it."""
    try:
        save_checkpoint(state, checkpoint, identity)
    except OutputError as error:
        return f"nor could step {state.step} be kept: {error}"
    return f"step {state.step} is kept in {checkpoint}, resume continues it"


def _try_to_keep(
    state: TrainingState, checkpoint: Path, identity: Mapping[str, Any], *, is_finished: bool = False
) -> None:
    """Write a checkpoint; where there is no room for it, there may be for the concept, so that is a warning."""
    try:
        save_checkpoint(state, checkpoint, identity, is_finished=is_finished)
    except OutputError as error:
        _LOG.warning("step %d is not kept: %s", state.step, error)


def _update(state: TrainingState, config: TrainingConfig, stage: Stage) -> float:
    """Take one optimizer step, which no Ctrl-C breaks in two; returns the factor of its learning rate."""
    factor = _learning_rate_factor(config, stage, state.step)
    with deferred_interrupt():
        state.update(
            learning_rate_factor=factor,
            gradient_clip=config.gradient_clip,
            token_norm_limit=config.token_norm_limit,
        )
    return factor


def _check_finite(loss: Tensor, run: Run, step: int) -> None:
    if not math.isfinite(loss.item()):
        raise OrthoplexError(
            f"step {step} of {run.name!r}: the loss is {loss.item()}; it must be finite "
            f"(learning_rate is {run.config.weight_learning_rate}, "
            f"token_learning_rate is {run.config.token_learning_rate}; lower ones may help)"
        )


def _denoising_loss(base: Base, data: TrainingData, config: TrainingConfig, batch: Batch) -> Tensor:
    """Loss of the concept's own items, plus ``prior_weight`` times that of the prior pictures."""
    with precision(config.mixed_precision, base.device):
        conditioning = data.conditioning(base, batch)
        noisy = data.schedule.add_noise(batch.latents, batch.noise, batch.times)
        prediction = base.family.predict(noisy, batch.times, conditioning)
    losses = data.losses(prediction, batch, config)
    own = losses[: batch.own].mean()
    return own if batch.own == len(losses) else own + config.prior_weight * losses[batch.own :].mean()


def _gradients(base: Base, data: TrainingData, work: StageWork, step: int) -> tuple[float, float | None]:
    """Add up the gradients of a step's batches; returns the mean loss, and the penalty of a step that has one."""
    config, count, losses, erasure = work.run.config, work.run.config.gradient_accumulation_steps, [], None
    with base.family.recomputed() if config.gradient_checkpointing else nullcontext():
        for number in range(count):
            loss = _denoising_loss(base, data, config, data.batch(config, step * count + number))
            losses.append(loss.item())
            total = loss if count == 1 else loss / count
            if number == 0:
                total, erasure = _with_penalty(total, work.erasure, config, step)
            _check_finite(total, work.run, step + 1)
            total.backward()
    return sum(losses) / count, erasure


def _with_penalty(
    loss: Tensor, foreign: Erasure | None, config: TrainingConfig, step: int
) -> tuple[Tensor, float | None]:
    """The loss with the penalty of a step that has one, and the penalty alone."""
    if foreign is None or not is_due(step, config.erasure_share):
        return loss, None
    penalty = foreign.penalty(step)
    return loss + config.erasure * penalty, penalty.item()


def _learning_rate_factor(config: TrainingConfig, stage: Stage, step: int) -> float:
    done, steps = step - stage.start, stage.stop - stage.start
    rise = min(1.0, (done + 1) / max(1, config.warmup))
    fall = 0.5 * (1.0 + math.cos(math.pi * done / steps)) if config.schedule == "cosine" else 1.0
    return rise * fall * (config.erasure_rate if stage.after_erasure else 1.0)


def _samples(base: Base, dataset: ConceptDataset, work: StageWork, output: Path, step: int) -> tuple[Image.Image, ...]:
    """Sample pictures of a step that has them, written to the samples folder too; always of the same noise."""
    config = work.run.config
    due = config.sample_every > 0 and (step % config.sample_every == 0 or step == config.steps)
    if not due:
        return ()
    prompts = sample_prompts(dataset, config)
    with work.put_in():
        images = make_pictures(base, config, prompts, seed=config.seed, key="sample_prompts").images()
    folder = samples_folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / sample_name(step, number))
    return tuple(images)
