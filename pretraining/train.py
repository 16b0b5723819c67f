"""Train the embedded base: `python -m pretraining.train STAGE`, on CPU or GPU, resumable.

The stages:

    denoiser   the U-Net and text encoder, on latents that are known before any training (see autoencoder.py)
    pack       the denoiser's run in few megabytes, from which it goes on (see packing.py)
    decoder    the convolutional half of the autoencoder; --samples 0 keeps that of --initial
    refine     the decoder once more, also on latents that the trained denoiser made (see refine.py)
    export     write the pipeline folder that the package ships (fp16 safetensors), and prompts in its words

Everything it keeps lies in `--work` (pictures, checkpoints); the record goes to `results/vignette/`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from orthoplex.files import write_json, write_text
from pretraining import captions, foreign_prompts, pictures, tokenizer
from pretraining.ahead import MadeAhead
from pretraining.autoencoder import PatchPca, build
from pretraining.carry_over import carry_over, with_more_channels
from pretraining.checkpoint import kept_number, save
from pretraining.decoder import DecoderConfig, DecoderProgress, DenoisedLatents, train_decoder
from pretraining.denoiser import Denoiser, DenoiserConfig, Rhythm, Samples, train, working_type
from pretraining.export import (
    DECODER,
    denoiser_average,
    denoiser_key,
    export,
    folder_hash,
    loss_curve,
    pipeline,
    refined_decoder,
    sample_sheet,
)
from pretraining.muon import Shared
from pretraining.packing import LOG, RUN, log_until, pack, unpack
from pretraining.refine import REFINING, RefineConfig, denoised_latents
from pretraining.training_set import TrainingSamples, keep_latent_space, patch_pca


def denoiser_command(options: argparse.Namespace) -> None:
    """Train the denoiser, print a line per interval, append the loss curve."""
    config = DenoiserConfig(batch_size=options.batch_size, painted_window=options.painted_window)
    if options.samples:
        config = replace(config, samples=options.samples)
    words = tokenizer.build(options.work / "tokenizer")
    torch.manual_seed(config.seed)
    model = Denoiser(len(words))
    if not (options.work / "denoiser.pt").exists() and (options.packed / RUN).exists():
        seen = unpack(options.packed, model, config, options.work, other_total=options.other_total)
        print(f"goes on from {options.packed}: {seen} samples", flush=True)
    elif options.initial is not None:
        keep_latent_space(options.work, options.initial)
    elif not PatchPca.file(options.work).exists():
        patch_pca(options.work, pictures.load(options.work / "pictures")[0])
    data = TrainingSamples(words, PatchPca.load(options.work), options.work, config)
    seen = kept_number(options.work / "denoiser.pt", "samples")
    _begin_log(options.work / "denoiser.jsonl", seen)
    _note_denoiser(options, config, seen)
    if options.initial is not None and not seen:
        _begin_with(model, words, options)
    if options.workers:
        data = MadeAhead(data, options.workers, config.samples)
    if options.processes == 1:
        _run_denoiser(0, config, data, model, options, None, None)
        return
    dtype = working_type(options.device)
    shared = Shared(model, options.processes, dtype=dtype, rounding_steps=config.rounding_steps)
    barrier = torch.multiprocessing.get_context("spawn").Barrier(options.processes)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the daemonic processes end with this one
    torch.multiprocessing.spawn(
        _run_denoiser, (config, data, model, options, shared, barrier), nprocs=options.processes, daemon=True
    )


def _begin_with(model: Denoiser, words: CLIPTokenizer, options: argparse.Namespace) -> None:
    """Carry over the networks of a pipeline folder; the captions that teach new words are the collection's."""
    before, texts = CLIPTokenizer.from_pretrained(options.initial, subfolder="tokenizer"), []
    if before.get_vocab() != words.get_vocab():
        rng = random.Random(0)
        texts = [captions.caption(row, rng) for row in pictures.load_factors(options.work / "pictures")]
    for step, loss in enumerate(carry_over(model, options.initial, words, texts), start=1):
        if step % 100 == 0:
            print(f"text encoder, new words: {step} steps  loss {loss:.4f}", flush=True)


def _begin_log(log: Path, seen: int) -> None:
    """Keep the lines of a log up to the checkpoint that is gone on from; none at the beginning of a run."""
    log.parent.mkdir(parents=True, exist_ok=True)
    write_text(log, log_until(log, seen))


def _note_denoiser(options: argparse.Namespace, config: DenoiserConfig, seen: int) -> None:
    """Write how the denoiser is trained; what it began with is what was noted at its beginning."""
    file = options.work / "denoiser.json"
    initial = options.initial and {"folder": options.initial.name, "hash": folder_hash(options.initial)}
    if seen and file.exists():
        initial = json.loads(file.read_text())["initial"]
    write_json(file, {**asdict(config), "initial": initial})


def _run_denoiser(
    rank: int,
    config: DenoiserConfig,
    data: Samples,
    model: Denoiser,
    options: argparse.Namespace,
    shared: Shared | None,
    barrier: Barrier | None,
) -> None:
    if shared is not None:
        torch.set_num_threads(1)
    checkpoint = options.work / "denoiser.pt"
    records = train(
        config,
        data,
        model,
        checkpoint,
        options.device,
        shared=shared,
        rank=rank,
        barrier=barrier,
        compiled=not options.eager,
        rhythm=Rhythm(options.log_every, options.save_every),
        other_total=options.other_total,
    )
    for record in records:
        if rank:
            continue
        with (options.work / "denoiser.jsonl").open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        left = (config.samples - record.samples) / record.samples_per_second / 60
        print(
            f"{record.samples} samples  loss {record.loss:.4f}  {record.samples_per_second:.0f}/s  {left:.0f} min left",
            flush=True,
        )


def pack_command(options: argparse.Namespace) -> None:
    """Write the run into few megabytes, from which it goes on without anything else."""
    words = CLIPTokenizer.from_pretrained(options.work / "tokenizer")
    size = pack(options.work, Denoiser(len(words)), options.packed)
    print(f"{options.packed}: {kept_number(options.work / 'denoiser.pt', 'samples')} samples, {size} bytes of weights")


def decoder_command(options: argparse.Namespace) -> None:
    """Train the decoder, print a line per interval."""
    initial = None
    if options.initial is not None:
        keep_latent_space(options.work, options.initial)
        before = AutoencoderKL.from_pretrained(options.initial, subfolder="vae").decoder.state_dict()
        initial = with_more_channels(before, build(PatchPca.load(options.work)).decoder)
    data, _ = pictures.load(options.work / "pictures")
    pca = patch_pca(options.work, data)
    config = DecoderConfig()
    if options.samples is not None:
        config = replace(config, samples=options.samples)
    checkpoint = options.work / DECODER
    _begin_log(options.results / "decoder.jsonl", config.batch_size * kept_number(checkpoint, "step"))
    _follow(train_decoder(config, data, pca, checkpoint, options.device, initial=initial), options, "decoder")


def refine_command(options: argparse.Namespace) -> None:
    """Let the denoiser make latents of training pictures, and train the decoder on them too."""
    data, factors = pictures.load(options.work / "pictures")
    pca = patch_pca(options.work, data)
    key = denoiser_key(options.work, denoiser_average(options.work))
    config, training = RefineConfig(), REFINING
    if options.samples is not None:
        training = replace(training, samples=options.samples)
    grammar = Path(str(captions.__file__)).read_text()
    cache = options.work / f"denoised-{key}-{hashlib.sha256(repr((config, grammar)).encode()).hexdigest()[:8]}.pt"
    if not cache.exists():
        made = []
        for part in denoised_latents(config, pipeline(options.work), data, factors):
            made.append(part)
            print(f"{len(made) * config.batch_size} of {config.pictures} pictures denoised", flush=True)
        rows = torch.cat([part.rows for part in made])
        save(cache, {"latents": torch.cat([part.latents for part in made]), "rows": rows})
    denoised = DenoisedLatents(**torch.load(cache, weights_only=True))
    initial = torch.load(options.work / DECODER, map_location="cpu", weights_only=True)["average"]
    checkpoint = refined_decoder(options.work, key)
    _begin_log(options.results / "refine.jsonl", training.batch_size * kept_number(checkpoint, "step"))
    records = train_decoder(training, data, pca, checkpoint, options.device, denoised=denoised, initial=initial)
    _follow(records, options, "refine")


def _follow(records: Iterator[DecoderProgress], options: argparse.Namespace, stage: str) -> None:
    """Print every record and append it to the stage's log."""
    log = options.results / f"{stage}.jsonl"
    for record in records:
        with log.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        print(
            f"{record.samples} crops  loss {record.loss:.4f}  PSNR {record.psnr:.2f} dB  "
            f"{record.samples_per_second:.0f}/s",
            flush=True,
        )


def export_command(options: argparse.Namespace) -> None:
    """Write the pipeline folder, the prompts that ship with it, a sheet of samples and the loss curves."""
    export(options.work, options.output)
    foreign_prompts.write(
        pictures.load_factors(options.work / "pictures"), options.output.parent / "foreign_prompts.txt"
    )
    sample_sheet(options.output, options.results / "samples.jpg")
    write_text(options.results / LOG, (options.work / LOG).read_text())
    for stage in ("denoiser", "decoder", "refine"):
        loss_curve(options.results / f"{stage}.jsonl", options.results / f"{stage}.svg")


COMMANDS = {
    "denoiser": denoiser_command,
    "pack": pack_command,
    "decoder": decoder_command,
    "refine": refine_command,
    "export": export_command,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=tuple(COMMANDS))
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--results", type=Path, default=Path("results/vignette"))
    parser.add_argument("--output", type=Path, default=Path("orthoplex/vignette/base"))
    parser.add_argument("--samples", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--other-total", action="store_true", help="go on though --samples is another than at the start"
    )
    parser.add_argument("--packed", type=Path, default=Path("pretraining/next-base"), help="the run in few megabytes")
    parser.add_argument("--log-every", type=int, default=Rhythm.log, help="steps between log lines of the denoiser")
    parser.add_argument("--save-every", type=int, default=Rhythm.save, help="steps between its checkpoints")
    parser.add_argument("--painted-window", type=int, default=DenoiserConfig.painted_window)
    parser.add_argument("--workers", type=int, default=0, help="processes that compose pictures, beside a GPU")
    parser.add_argument("--eager", action="store_true", help="do not compile the U-Net")
    parser.add_argument("--processes", type=int, default=1, help="of the denoiser, on a CPU; one thread each")
    parser.add_argument("--batch-size", type=int, default=DenoiserConfig.batch_size)
    parser.add_argument("--initial", type=Path, help="pipeline folder whose networks are gone on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.processes < 1 or options.batch_size % options.processes:
        parser.error(f"--batch-size {options.batch_size} is not shared evenly by --processes {options.processes}")
    if options.processes > 1 and options.device != "cpu":
        parser.error(f"--processes {options.processes} needs --device cpu; on {options.device} one process does")
    if options.workers and options.processes > 1:
        parser.error(f"--workers {options.workers} needs --processes 1; several processes compose their own pictures")
    if options.threads:
        torch.set_num_threads(options.threads)
    COMMANDS[options.stage](options)


if __name__ == "__main__":
    main()
