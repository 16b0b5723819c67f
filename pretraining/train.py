"""Train the embedded base: `python -m pretraining.train denoiser|decoder|refine|export`, on CPU or GPU, resumable.

    denoiser   the U-Net and text encoder, on latents that are known before any training (see autoencoder.py)
    decoder    the convolutional half of the autoencoder
    refine     the decoder once more, also on latents that the trained denoiser made (see refine.py)
    export     write the pipeline folder that the package ships (fp16 safetensors)

Everything it keeps lies in `--work` (pictures, checkpoints); the record goes to `results/vignette/`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretraining import autoencoder, pictures, tokenizer
from pretraining.checkpoint import save
from pretraining.decoder import DecoderConfig, DecoderProgress, DenoisedLatents, train_decoder
from pretraining.denoiser import Denoiser, DenoiserConfig, train
from pretraining.export import DECODER, REFINED, export, loss_curve, pipeline, sample_sheet
from pretraining.muon import Shared
from pretraining.refine import RefineConfig, denoised_latents

CAPTIONS_PER_PICTURE = 8


def prepare(work: Path) -> tuple[autoencoder.PatchPca, Tensor, Tensor]:
    """PCA, latents (n, 12, 16, 16) half and ids (n, 8, 32) of the pictures; made once for the same ones, then read.

    Pictures of subjects are there twice, with other captions: they are the hardest to learn.
    The PCA outlives a rebuilt collection, so that what was trained in its latent space goes on.
    """
    data, factors = pictures.load(work / "pictures")
    pca_file = work / "pca.pt"
    if not pca_file.exists():
        fitted = autoencoder.fit_pca(data[:4000])
        save(pca_file, {"mean": fitted.mean, "components": fitted.components})
    pca = autoencoder.PatchPca(**torch.load(pca_file, weights_only=True))
    words = tokenizer.build(work / "tokenizer")
    key = hashlib.sha256(data.tobytes() + repr((factors, sorted(words.get_vocab().items()))).encode())
    key.update(pca.components.numpy().tobytes())
    cache = work / f"latents-{key.hexdigest()[:16]}.pt"
    if cache.exists():
        state = torch.load(cache, weights_only=True)
        return pca, state["latents"], state["ids"]
    rows = np.array([i for i, row in enumerate(factors) for _ in range(2 if row.foreground == "subject" else 1)])
    factors = [factors[i] for i in rows]
    parts = (autoencoder.picture_tensor(data[part]) for part in np.array_split(rows, 24))
    latents = torch.cat([pca.encode(part).half() for part in parts])
    rng = random.Random(0)
    texts = [pictures.caption(row, rng) for row in factors for _ in range(CAPTIONS_PER_PICTURE)]
    ids = words(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    ids = ids.reshape(len(factors), CAPTIONS_PER_PICTURE, -1)
    save(cache, {"latents": latents, "ids": ids})
    return pca, latents, ids


def denoiser_command(options: argparse.Namespace) -> None:
    """Train the denoiser, print a line per interval, append the loss curve."""
    _, latents, ids = prepare(options.work)
    config = DenoiserConfig(batch_size=options.batch_size)
    if options.samples:
        config = replace(config, samples=options.samples)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "denoiser.json").write_text(
        json.dumps({**asdict(config), "rows": len(latents)}, indent=1) + "\n"
    )
    if options.processes == 1:
        _run_denoiser(0, config, latents, ids, options, None, None)
        return
    torch.manual_seed(config.seed)
    shared = Shared(Denoiser(int(ids.max()) + 1), options.processes)
    barrier = torch.multiprocessing.get_context("spawn").Barrier(options.processes)
    arguments = (config, latents.share_memory_(), ids.share_memory_(), options, shared, barrier)
    torch.multiprocessing.spawn(_run_denoiser, arguments, nprocs=options.processes)


def _run_denoiser(
    rank: int,
    config: DenoiserConfig,
    latents: Tensor,
    ids: Tensor,
    options: argparse.Namespace,
    shared: Shared | None,
    barrier: Barrier | None,
) -> None:
    if shared is not None:
        torch.set_num_threads(1)
    checkpoint = options.work / "denoiser.pt"
    records = train(config, latents, ids, checkpoint, options.device, shared=shared, rank=rank, barrier=barrier)
    for record in records:
        if rank:
            continue
        with (options.results / "denoiser.jsonl").open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        left = (config.samples - record.samples) / record.samples_per_second / 60
        print(
            f"{record.samples} samples  loss {record.loss:.4f}  {record.samples_per_second:.0f}/s  {left:.0f} min left",
            flush=True,
        )


def decoder_command(options: argparse.Namespace) -> None:
    """Train the decoder, print a line per interval."""
    pca, _, _ = prepare(options.work)
    config = DecoderConfig()
    if options.samples:
        config = replace(config, samples=options.samples)
    data, _ = pictures.load(options.work / "pictures")
    _follow(train_decoder(config, data, pca, options.work / DECODER, options.device), options, "decoder")


def refine_command(options: argparse.Namespace) -> None:
    """Let the denoiser make latents of training pictures, and train the decoder on them too."""
    pca, _, _ = prepare(options.work)
    data, factors = pictures.load(options.work / "pictures")
    cache = options.work / "denoised.pt"
    if not cache.exists():
        config = RefineConfig()
        made = []
        for part in denoised_latents(config, pipeline(options.work), data, factors):
            made.append(part)
            print(f"{len(made) * config.batch_size} of {config.pictures} pictures denoised", flush=True)
        rows = torch.cat([part.rows for part in made])
        save(cache, {"latents": torch.cat([part.latents for part in made]), "rows": rows})
    denoised = DenoisedLatents(**torch.load(cache, weights_only=True))
    training = DecoderConfig(samples=options.samples or 32_000, learning_rate=1e-3)
    initial = torch.load(options.work / DECODER, weights_only=True)["average"]
    checkpoint = options.work / REFINED
    records = train_decoder(training, data, pca, checkpoint, options.device, denoised=denoised, initial=initial)
    _follow(records, options, "refine")


def _follow(records: Iterator[DecoderProgress], options: argparse.Namespace, stage: str) -> None:
    """Print every record and append it to the stage's log."""
    log = options.results / f"{stage}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    for record in records:
        with log.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        print(
            f"{record.samples} crops  loss {record.loss:.4f}  PSNR {record.psnr:.2f} dB  "
            f"{record.samples_per_second:.0f}/s",
            flush=True,
        )


def export_command(options: argparse.Namespace) -> None:
    """Write the pipeline folder, a sheet of samples and the loss curves."""
    export(options.work, options.output)
    sample_sheet(options.output, options.results / "samples.png")
    for stage in ("denoiser", "decoder", "refine"):
        loss_curve(options.results / f"{stage}.jsonl", options.results / f"{stage}.svg")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("denoiser", "decoder", "refine", "export"))
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--results", type=Path, default=Path("results/vignette"))
    parser.add_argument("--output", type=Path, default=Path("orthoplex/vignette/base"))
    parser.add_argument("--samples", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--processes", type=int, default=1, help="of the denoiser, on a CPU; one thread each")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.processes < 1 or options.batch_size % options.processes:
        parser.error(f"--batch-size {options.batch_size} is not shared evenly by --processes {options.processes}")
    if options.processes > 1 and options.device != "cpu":
        parser.error(f"--processes {options.processes} needs --device cpu; on {options.device} one process does")
    if options.threads:
        torch.set_num_threads(options.threads)
    commands = {
        "denoiser": denoiser_command,
        "decoder": decoder_command,
        "refine": refine_command,
        "export": export_command,
    }
    commands[options.stage](options)


if __name__ == "__main__":
    main()
