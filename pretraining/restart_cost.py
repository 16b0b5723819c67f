"""What a restart from packed files costs: `python -m pretraining.restart_cost`.

The checkpoint under `--work` and what `pack` makes of it are each trained for `--steps` on the same samples, in folders
of their own. The loss of both, before and after, is that of the averaged weights and of the last ones on samples that
come much later in the run. The record is appended to `--output`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from orthoplex.files import write_json
from pretraining.autoencoder import PatchPca
from pretraining.checkpoint import kept_number
from pretraining.denoiser import Denoiser, DenoiserConfig, Rhythm, focus_weights, train
from pretraining.muon import named
from pretraining.packing import pack, unpack
from pretraining.rounding import rounded
from pretraining.training_set import TrainingSamples


@torch.no_grad()
def loss(work: Path, part: str, words: int, data: TrainingSamples, config: DenoiserConfig, batches: int) -> float:
    """Mean loss of a checkpoint's `weights` or `average`, rounded as they ship, on a run's last samples."""
    kept, model, found = torch.load(work / "denoiser.pt", weights_only=True), Denoiser(words), []
    weights = named(model, kept[part])
    model.load_state_dict(
        {name: rounded(value, value.shape, config.rounding_steps) for name, value in weights.items()}, strict=False
    )
    for number in range(batches):
        start = config.samples - (number + 1) * config.batch_size
        batch, generator = data.batch(start, start + config.batch_size), torch.Generator().manual_seed(number)
        even = focus_weights(batch.inside, config.focus)
        found.append(float(model.loss(model.unet, batch.latents.float(), batch.ids.long(), even, generator)))
    return sum(found) / len(found)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--output", type=Path, default=Path("results/vignette/next/restart-cost.json"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batches", type=int, default=8, help="that the loss is measured on")
    options = parser.parse_args()
    if options.steps < 1 or options.steps % Rhythm.save:
        parser.error(
            f"--steps {options.steps}; allowed are multiples of {Rhythm.save}, after which a checkpoint is kept"
        )
    words, pca = CLIPTokenizer.from_pretrained(options.work / "tokenizer"), PatchPca.load(options.work)
    with tempfile.TemporaryDirectory() as name:
        folders = {"checkpoint": Path(name) / "kept", "packed": Path(name) / "fresh"}
        folders["checkpoint"].mkdir()
        for file in ("denoiser.pt", "denoiser.json", "denoiser.jsonl", "pca.pt"):
            shutil.copyfile(options.work / file, folders["checkpoint"] / file)
        state = torch.load(folders["checkpoint"] / "denoiser.pt", weights_only=True, mmap=True)
        config = DenoiserConfig(**state["config"])
        size = pack(folders["checkpoint"], Denoiser(len(words)), Path(name) / "packed")
        unpack(Path(name) / "packed", Denoiser(len(words)), config, folders["packed"])
        seen = kept_number(folders["packed"] / "denoiser.pt", "samples")
        # composites alone: both read the same, and no painted picture has to be made for the run's end
        data = TrainingSamples(words, pca, options.work, replace(config, painted_share=0.0))
        told: dict[str, object] = {"samples": seen, "steps": options.steps, "bytes_of_packed_weights": size}
        for label, folder in folders.items():
            found = {part: loss(folder, part, len(words), data, config, options.batches) for part in PARTS}
            rhythm = Rhythm(log=1)
            begun = Denoiser(len(words))
            for number, line in enumerate(train(config, data, begun, folder / "denoiser.pt", "cpu", rhythm=rhythm), 1):
                print(label, number, line.loss, flush=True)
                if line.samples >= seen + (options.steps + 1) * config.batch_size:
                    break
            after = {part: loss(folder, part, len(words), data, config, options.batches) for part in PARTS}
            reached = kept_number(folder / "denoiser.pt", "samples")
            told[label] = {"before": found, "after": after, "samples_after": reached}
        kept = json.loads(options.output.read_text())["restarts"] if options.output.exists() else []
        write_json(options.output, {"restarts": [*kept, told]})
        print(json.dumps(told, indent=1))


PARTS = ("weights", "average")

if __name__ == "__main__":
    main()
