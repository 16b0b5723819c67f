"""What a style leaves of the base's own things: `python -m pretraining.stylised`.

The base draws a fox, a house and a person in several places; then the same prompts and noise with a shipped style in,
alone and in the merge of all shipped concepts, and its trigger at the end of the prompt. Readers on MobileNetV2, as in
`pretraining.measure`, say whether the fox is still read as a fox: of the pictures in which it is without the style, the
share in which it is with it. The same share of real composites that the style network painted, in every style that is
held out, is the ceiling: what strokes wipe out there, no concept can show. Writes `results/vignette/stylised.json`, a
table and a sheet.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from orthoplex import vignette
from orthoplex.activations import merge_for
from orthoplex.concepts import Concept, load_concept
from orthoplex.evaluation import MobileNetEncoder, mean_interval
from orthoplex.files import markdown_table, write_json, write_text
from orthoplex.generation import generate
from orthoplex.merging import Merge
from orthoplex.models import Base, load_base
from pretraining import held_out
from pretraining.assets import emoji
from pretraining.compose import CANVAS, SIZE, Box, head_and_shoulders, paste, stylise, usual_view
from pretraining.export import sheet
from pretraining.measure import ENCODED
from pretraining.mix import NEXT
from pretraining.people import random_person
from pretraining.readers import Readers, fit_readers
from pretraining.real_pictures import real_features
from pretraining.vocabulary import LEADING, LEADING_STYLE, SUBJECTS
from pretraining.vocabulary import SCENES as PLACES

#: what is drawn -> the head that reads it, and the name that it should read
THINGS = {"a fox": ("subject", "fox"), "a house": ("subject", "house"), "a person": ("class", "person")}
SCENES = ("a meadow", "a forest", "a beach", "green hills")
#: share of the pictures read rightly without a style that must be so with it
GOAL = 0.7


@dataclass(frozen=True)
class Drawing:
    """Pictures of one thing: without and with a style, of the same prompts and noise."""

    thing: str
    style: str
    state: str
    plain: Sequence[bool]
    styled: Sequence[bool]

    def row(self) -> dict[str, object]:
        """The share read rightly without and with the style, and of the former that of the latter."""
        still = [styled for plain, styled in zip(self.plain, self.styled, strict=True) if plain]
        left = mean_interval(torch.tensor(still, dtype=torch.float64)[:, None]) if still else None
        return {
            "thing": self.thing,
            "style": self.style,
            "state": self.state,
            "pictures": len(self.plain),
            "plain": sum(self.plain) / len(self.plain),
            "styled": sum(self.styled) / len(self.styled),
            "left": None if left is None else {"value": left.value, "low": left.low, "high": left.high},
        }


def draw(base: Base, thing: str, ending: str, change: Concept | Merge | None, number: int) -> list[Image.Image]:
    """As many pictures of a thing in each place, all prompts with the same ending; `change` is folded in."""
    prompts = [f"{thing} in {scene}{ending}" for scene in SCENES]
    return [
        picture
        for prompt in prompts
        for picture in generate(
            base, prompt, merge=change, num_images=number, seed=0, mixed_precision="auto", expect_names=False
        )
    ]


def real(thing: str, style: int | None, number: int) -> list[Image.Image]:
    """As many composites of a thing in each place, in its usual place and view; painted in a numbered style."""
    made = []
    for place in SCENES:
        for index in range(number):
            rng = random.Random(f"{thing}/{place}/{index}")
            if thing == "a person":
                cutout = head_and_shoulders(random_person(rng, LEADING_STYLE), rng, CANVAS)
            else:
                cutout = emoji(LEADING, SUBJECTS[THINGS[thing][1]][0])
            box = Box(*NEXT.usual["person" if thing == "a person" else "subject", "middle"])
            picture = paste(usual_view(*PLACES[place]), cutout, box)
            if style is not None:
                picture = stylise(picture, style)
            made.append(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    return made


def ceilings(readers: Readers, encoder: MobileNetEncoder, number: int) -> list[Drawing]:
    """What is read off real composites, plain and in every style that is held out."""
    rows = []
    for thing in THINGS:
        plain = is_read(readers, encoder, thing, real(thing, None, number))
        for style in sorted(held_out.STYLES):
            painted = is_read(readers, encoder, thing, real(thing, style, number))
            rows.append(Drawing(thing, f"style {style}", "real", plain, painted))
    return rows


def is_read(readers: Readers, encoder: MobileNetEncoder, thing: str, pictures: Sequence[Image.Image]) -> list[bool]:
    """Whether each picture is read as showing the thing."""
    factor, name = THINGS[thing]
    return [guess == name for guess in readers.heads[factor].predict(encoder.encode(list(pictures)))]


def measured(
    base: Base,
    readers: Readers,
    encoder: MobileNetEncoder,
    changes: Mapping[str, Mapping[str, Concept | Merge]],
    number: int,
) -> tuple[list[Drawing], dict[str, list[Image.Image]]]:
    """All drawings, and a few pictures of each kind; `changes` is style to state to what is folded in."""
    rows, shown = [], {}
    triggers = {concept.name: f", <{concept.name}> {concept.class_word}" for concept in vignette.sample_concepts()}
    for thing in THINGS:
        plain = draw(base, thing, "", None, number)
        shown[thing] = plain[:: len(plain) // 4][:4]
        as_plain = is_read(readers, encoder, thing, plain)
        for style, states in changes.items():
            for state, change in states.items():
                pictures = draw(base, thing, triggers[style], change, number)
                shown[f"{thing}, {style}, {state}"] = pictures[:: len(pictures) // 4][:4]
                rows.append(Drawing(thing, style, state, as_plain, is_read(readers, encoder, thing, pictures)))
                print(f"{thing}, {style} {state}: {rows[-1].row()}", flush=True)
    return rows, shown


def table(rows: Sequence[dict]) -> str:
    """The rows as Markdown."""
    lines = []
    for row in rows:
        left = row["left"]
        told = "–" if left is None else f"{left['value']:.2f} ({left['low']:.2f}–{left['high']:.2f})"
        shares = [f"{row[name]:.2f}" for name in ("plain", "styled")]
        lines.append([row["thing"], row["style"], row["state"], *shares, told])
    header = ["thing", "style", "in the base", "read without it", "read with it", "still read, of the former"]
    return markdown_table(header, lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--results", type=Path, default=Path("results/vignette"))
    parser.add_argument("--fit", type=int, default=12_000, help="real composites the readers are fitted on")
    parser.add_argument("--pictures", type=int, default=8, help="of each thing in each place")
    options = parser.parse_args()
    encoder = MobileNetEncoder(picture_size=ENCODED)
    readers = fit_readers(*real_features(options.work, options.fit, encoder), encoder.name)
    base = load_base("vignette")
    concepts = {
        sample.name: load_concept(vignette.concept_file(sample.name, method="orthogonal"), base=base.identity)
        for sample in vignette.sample_concepts()
    }
    merged = merge_for(base, [(concept, 1.0) for concept in concepts.values()])
    styles = [sample.name for sample in vignette.sample_concepts() if sample.kind == "style"]
    changes = {style: {"alone": concepts[style], f"merge of {len(concepts)}": merged} for style in styles}
    drawings, shown = measured(base, readers, encoder, changes, options.pictures)
    rows = [drawing.row() for drawing in (*drawings, *ceilings(readers, encoder, options.pictures))]
    write_json(options.results / "stylised.json", {"goal": GOAL, "fitted_on": options.fit, "rows": rows})
    write_text(options.results / "stylised.md", table(rows))
    pairs = [(picture, label) for label, pictures in shown.items() for picture in pictures]
    sheet([picture for picture, _ in pairs], [label for _, label in pairs], 28, options.results / "stylised.jpg")
    print(table(rows))


if __name__ == "__main__":
    main()
