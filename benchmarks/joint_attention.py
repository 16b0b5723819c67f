"""What erasure and merges still give where text and picture share layers: ``python -m benchmarks.joint_attention``.

Closed-form erasure is exact where layers see the text alone. In joint-attention transformers most layers see text that
pictures are mixed into, and pictures. So a pico pipeline of every family is trained from scratch for a minute on a
world of coloured shapes, and then on four concepts (textures), each without erasure and with it. No published weights
are at hand: the numbers compare kinds of networks, not bases that people use.

Crosstalk is measured twice, on *general* prompts, which erasure is solved for, and on prompts of *concepts*. In layers:
``√(E‖ΔW_j x‖² / E‖ΔW_i x‖²)``, the mean over layers; below the stroke x are inputs under prompts of concept i, above it
the same inputs, of another concept i than j, or inputs under general prompts, i then being j. In predictions: how far
the velocity, or noise, that the base predicts for prompts of concept i moves when the other concepts are merged in, or
for general prompts when all are, as a share of how far a concept alone moves what is predicted for its own prompts.
Writes ``results/joint-attention.json`` and ``results/joint-attention.svg``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from orthoplex.activations import gather_grams, merge_for
from orthoplex.activations.own_prompts import own_prompts
from orthoplex.benchmark.plots import bars
from orthoplex.concepts import Concept, load_concept
from orthoplex.evaluation import Interval, bootstrap
from orthoplex.files import read_json, write_json
from orthoplex.models import Base, load_base
from orthoplex.subspaces import seeded
from orthoplex.training import ConceptDataset, TrainingConfig, train
from tests.families import BUILDERS

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
SHAPES = ("cat", "dog", "car")
"""Words that the pico tokenizers know, for a disc, a square and a triangle."""
CONCEPTS = ("<ada>", "<bob>", "<cleo>", "<dan>")
ALGORITHMS = ("sum", "least-squares", "ssr")
ERASURES: Mapping[str, Mapping[str, Any]] = {
    "none": {"erasure": 0.0, "erasure_form": "activation", "erasure_steps": 0},
    "closed-form": {},
}
SELECTIONS = ("cross-attention-kv", "attention")
_BATCH = 16


def scene(colour: str, shape: str, side: int, generator: torch.Generator) -> Image.Image:
    """Draw a shape of a colour on grey, at a place and of a size that the generator decides."""
    image = Image.new("RGB", (side, side), (128, 128, 128))
    size = int(side * (0.4 + 0.3 * float(torch.rand(1, generator=generator))))
    x, y = (int((side - size) * float(torch.rand(1, generator=generator))) for _ in range(2))
    draw, box = ImageDraw.Draw(image), (x, y, x + size, y + size)
    if shape == "cat":
        draw.ellipse(box, fill=COLOURS[colour])
    elif shape == "dog":
        draw.rectangle(box, fill=COLOURS[colour])
    else:
        draw.polygon([(x, y + size), (x + size, y + size), (x + size // 2, y)], fill=COLOURS[colour])
    return image


def texture(number: int, side: int, generator: torch.Generator) -> Image.Image:
    """Draw a picture of concept ``number``: stripes, dots, rings or a checkerboard, moved a little each time."""
    image, step = Image.new("RGB", (side, side), (250, 250, 210)), max(4, side // 5)
    draw, offset = ImageDraw.Draw(image), int(step * float(torch.rand(1, generator=generator)))
    for at in range(-step, side + step, step):
        place = at + offset
        if number == 0:
            draw.line((place, 0, place, side), fill=(180, 0, 160), width=step // 2)
        elif number == 1:
            for row in range(0, side, step):
                draw.ellipse((place, row, place + step // 2, row + step // 2), fill=(0, 90, 90))
        elif number == 2:
            draw.ellipse((-place, -place, side + place, side + place), outline=(230, 120, 0), width=2)
        else:
            for row in range(0, side, 2 * step):
                draw.rectangle((place, row + (at // step % 2) * step, place + step, row + step), fill=(20, 20, 60))
    return image


def pixels_of(images: Sequence[Image.Image]) -> Tensor:
    """Return pictures as ``(n, 3, side, side)`` in [-1, 1]."""
    rows = [torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8) for image in images]
    side = images[0].width
    return torch.stack(rows).view(-1, side, side, 3).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def pretrain(base: Base, seconds: float) -> list[float]:
    """Train all weights of a base but the autoencoder's on coloured shapes; return the loss of every 50 steps."""
    family, generator = base.family, torch.Generator().manual_seed(0)
    side = family.resolution
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    images = [scene(*pair, side, generator) for pair in pairs for _ in range(16)]
    ids = family.words.ids([f"a {colour} {shape}" for colour, shape in pairs for _ in range(16)])
    latents = torch.cat([family.latents(part) for part in pixels_of(images).split(_BATCH)])
    networks = {*base.family.components().values(), *(reader.network for reader in family.readers)}
    parameters = [values.requires_grad_() for network in networks for values in network.parameters()]
    optimizer, losses, started = torch.optim.AdamW(parameters, lr=2e-3), [], time.monotonic()
    schedule, recent = family.schedule, []
    for step in count():
        if time.monotonic() - started > seconds:
            break
        chosen = torch.randint(len(latents), (_BATCH,), generator=generator)
        noise = torch.randn(latents[chosen].shape, generator=generator)
        times = schedule.draw(_BATCH, generator)
        noisy = schedule.add_noise(latents[chosen], noise, times)
        prediction = family.predict(noisy, times, family.condition(ids[chosen]))
        loss = schedule.losses(prediction, latents[chosen], noise, times, None).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent.append(loss.item())
        if step % 50 == 49:
            losses.append(fmean(recent))
            recent = []
    for values in parameters:
        values.requires_grad_(False)
    return losses


def train_concepts(base: Base, folder: Path, selection: str, erasure: Mapping[str, Any], steps: int) -> list[Concept]:
    """Train the four concepts apart, in slots of their own, and return them."""
    concepts, side = [], base.family.resolution
    for number, token in enumerate(CONCEPTS):
        pictures, generator = folder / f"pictures-{number}", torch.Generator().manual_seed(number)
        pictures.mkdir(parents=True, exist_ok=True)
        for index in range(8):
            texture(number, side, generator).save(pictures / f"{index}.png")
        data = ConceptDataset.from_folder(pictures, token=token, class_word="cat", kind="subject", resolution=side)
        values = {"layers": selection, "steps": steps, "batch_size": 8, "slots": 4, "slot": number, **erasure}
        quick = {"erasure_prompts": 64, "prior_pictures": 16, "prior_inference_steps": 8, "mixed_precision": "no"}
        config = TrainingConfig.from_mapping({**values, **quick, "thumbnail": "none"}, defaults=base.training_defaults)
        output = folder / f"{token.strip('<>')}.safetensors"
        for _ in train(base, data, config, output=output, foreign_prompts=foreign_prompts(), overwrite=True):
            pass
        concepts.append(load_concept(output))
    return concepts


def foreign_prompts() -> tuple[str, ...]:
    """Prompts of the world that the bases were trained on."""
    return tuple(f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES)


def layer_crosstalk(base: Base, concepts: Sequence[Concept]) -> dict[str, list[float]]:
    """Return what is added to inputs that are not a concept's own over what it adds to these, the mean over layers.

    Returns:
        ``"concepts: "`` or ``"general: "`` and the kind of the layers' inputs, to a number for every ordered pair of
        concepts, or every concept.
    """
    ratios: dict[str, list[float]] = {}

    def add(whose: str, above: Concept, on: Mapping[str, Tensor], below: Concept, own: Mapping[str, Tensor]) -> None:
        by_kind: dict[str, list[float]] = {}
        for layer in own:
            energies = float(above.layers[layer].energy(on[layer])), float(below.layers[layer].energy(own[layer]))
            share = energies[0] / max(energies[1], 1e-30)
            by_kind.setdefault(base.family.table.sees(layer), []).append(share**0.5)
        for kind, shares in by_kind.items():
            ratios.setdefault(f"{whose}: {kind}", []).append(fmean(shares))

    layers = list(concepts[0].layers)
    general = gather_grams(base, layers, foreign_prompts(), num_inference_steps=4)
    for own in concepts:
        grams = gather_grams(base, layers, own_prompts(base, own.manifest), change=own, num_inference_steps=4)
        add("general", own, general, own, grams)
        for other in concepts:
            if other is not own:
                add("concepts", other, grams, own, grams)
    return ratios


@dataclass(frozen=True)
class Probe:
    """Noised pictures of one concept, and prompts that name it."""

    prompts: tuple[str, ...]
    noisy: Tensor
    times: Tensor

    @torch.no_grad()
    def prediction(self, base: Base) -> Tensor:
        """Return what the base predicts, with whatever is folded in now."""
        return base.family.predict(self.noisy, self.times, base.family.condition(self.prompts)).float()


def probe_of(base: Base, images: Sequence[Image.Image], prompts: Sequence[str], generator: torch.Generator) -> Probe:
    """Noise pictures, the prompts in turn."""
    latents, schedule = base.family.latents(pixels_of(images)), base.family.schedule
    times = schedule.draw(len(latents), generator)
    noise = torch.randn(latents.shape, generator=generator)
    chosen = tuple(prompts[index % len(prompts)] for index in range(len(latents)))
    return Probe(chosen, schedule.add_noise(latents, noise, times), times)


def probes(base: Base, concepts: Sequence[Concept]) -> Iterator[Probe]:
    """Yield the probe of every concept."""
    for number, concept in enumerate(concepts):
        generator = seeded("probe", str(number), 1)
        images = [texture(number, base.family.resolution, generator) for _ in range(24)]
        yield probe_of(base, images, own_prompts(base, concept.manifest), generator)


def general_probe(base: Base) -> Probe:
    """The probe of what the base was trained on."""
    generator = seeded("probe", "general", 1)
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES] * 3
    images = [scene(*pair, base.family.resolution, generator) for pair in pairs]
    return probe_of(base, images, foreign_prompts(), generator)


def prediction_crosstalk(base: Base, concepts: Sequence[Concept], algorithm: str) -> dict[str, list[float]]:
    """Return how far a merge moves what each concept predicts, and what the base does, as a share of its own effect."""
    merged = merge_for(base, [(concept, 1.0) for concept in concepts], algorithm=algorithm)
    general = general_probe(base)
    plain = general.prediction(base)
    with base.folded(merged):
        moved = float((general.prediction(base) - plain).norm() / plain.norm())
    shares: dict[str, list[float]] = {"concepts": [], "general": []}
    for concept, probe in zip(concepts, probes(base, concepts), strict=True):
        predictions = []
        for change in (Concept(concept.manifest, {}, concept.tokens), concept, merged):
            with base.folded(change):
                predictions.append(probe.prediction(base))
        without, alone, together = predictions
        own = (alone - without).norm().clamp(min=1e-12)
        shares["concepts"].append(float((together - alone).norm() / own))
        shares["general"].append(moved / float(own / without.norm()))
    return shares


def measure(name: str, seconds: float, steps: int) -> list[dict[str, Any]]:
    """Return one family's rows: one for each selection of layers that concepts may change."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        losses = pretrain(base := load_base(BUILDERS[name](folder / "raw")), seconds)
        base = load_base(base.save(folder / "base"))  # with the hash of the trained weights
        rows = []
        for selection in SELECTIONS if base.family.cross_attention() else SELECTIONS[-1:]:
            sees = [layer.sees for layer in base.family.layers(selection).values()]
            row: dict[str, Any] = {
                "family": name,
                "selection": selection,
                "loss of the base, first and last": [losses[0], losses[-1]],
                "layers by what they see": {kind: sees.count(kind) for kind in sorted(set(sees))},
            }
            for erasure, options in ERASURES.items():
                concepts = train_concepts(base, folder / selection / erasure, selection, options, steps)
                layers = layer_crosstalk(base, concepts)
                predictions = {kind: prediction_crosstalk(base, concepts, kind) for kind in ALGORITHMS}
                row[f"erasure {erasure}"] = {
                    "layers": {kind: interval(values) for kind, values in layers.items()},
                    "predictions": {
                        f"{whose}: {kind}": interval(values)
                        for kind, by_prompts in predictions.items()
                        for whose, values in by_prompts.items()
                    },
                }
            rows.append(row)
        return rows


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean of values with its 95 % bootstrap interval, as JSON values."""
    return asdict(bootstrap(torch.tensor(values).unsqueeze(1), lambda block: block.flatten(1).mean(1)))


def chart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the crosstalk in predictions of every row, as SVG."""
    groups = {
        f"{row['family']}, {row['selection']}": {
            f"{prompts}: {algorithm}, erasure {erasure}": Interval(
                **row[f"erasure {erasure}"]["predictions"][f"{prompts}: {algorithm}"]
            )
            for prompts, algorithm in (("general", "sum"), ("concepts", "sum"), ("concepts", "ssr"))
            for erasure in ERASURES
        }
        for row in rows
    }
    title = "How far other concepts move a prediction, as a share of a concept's own effect"
    return bars(groups, title=title, reference=1)


def others_rows(output: Path, families: Sequence[str], settings: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the rows of a file that are of other families and of the same settings; none where there is no file."""
    values = read_json(output) if output.is_file() else {}
    if any(values.get(name) != value for name, value in settings.items()):
        return []
    return [row for row in values["rows"] if row["family"] not in families]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the families named, or all, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help=f"of {', '.join(BUILDERS)}; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the base's own training")
    parser.add_argument("--steps", type=int, default=150, help="of every concept's training")
    parser.add_argument("--output", type=Path, default=Path("results/joint-attention.json"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    families, settings = given.families or list(BUILDERS), {"seconds": given.seconds, "steps": given.steps}
    rows = others_rows(given.output, families, settings)
    for name in families:
        rows += measure(name, given.seconds, given.steps)
        print(name, "is measured", flush=True)
        write_json(given.output, {**settings, "rows": rows}, indent=1)
        given.output.with_suffix(".svg").write_text(chart(rows), "utf-8")


if __name__ == "__main__":
    main()
