"""Draw how a concept becomes a file and how a merge reaches the weights, for docs/architecture.md.

``python .ci/flows.py`` writes both drawings. Every step names the function or class that does it, so that a test can
tell a drawing that is no longer true.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
LANE, BOX, ROW, TOP, MARGIN = 236, 216, 114, 92, 16
BOX_HEIGHT, LINE = 70, 15
ROOMS = {
    "training": "#e8f0fb",
    "generation": "#e8f0fb",
    "activations": "#eef7e6",
    "models": "#f3eafa",
    "merging": "#fdf1dd",
    "concepts": "#fbe9ea",
}
"""Lane to its colour, from the highest room to the lowest."""
INK, SOFT, LINE_COLOUR = "#1f2937", "#6b7280", "#9ca3af"


@dataclass(frozen=True)
class Step:
    """One step of a flow.

    Attributes:
        does: ``module:name`` of the function or class that does it, below ``orthoplex.``.
        text: One or two short lines, divided by ``|``.
        gives: What it hands on to the next step.
    """

    does: str
    text: str
    gives: str

    @property
    def room(self) -> str:
        """Its lane."""
        return self.does.partition(".")[0]


@dataclass(frozen=True)
class Flow:
    """A drawing.

    Attributes:
        name: Its file's name.
        title: Its title.
        begins: What goes in.
        steps: The steps, in order.
        repeated: The first and the last of steps that are repeated, and how often, in words; the outermost first.
    """

    name: str
    title: str
    begins: str
    steps: Sequence[Step]
    repeated: Sequence[tuple[int, int, str]] = ()


TRAINING = Flow(
    "pictures-to-file",
    "From pictures to a concept file: orthoplex train",
    "a folder of pictures",
    (
        Step("training.dataset:ConceptDataset", "pictures, captions and kind|of a folder", "data set"),
        Step("training.run:Run", "names the concept, asks the base|for the layers it changes", "layers"),
        Step("concepts.tokens.learning:TokenLearning", "where tokens start,|and which numbers learn", "rows"),
        Step(
            "training.stages:ready_stage",
            "tokens, then weights, then weights|in erased directions",
            "stage",
        ),
        Step(
            "activations.grams:gather_grams",
            "what layers see under own|and foreign prompts, once",
            "Gram matrices",
        ),
        Step(
            "activations.concept_erasure:erasure_directions",
            "closed form: directions|of the last stage",
            "directions",
        ),
        Step("training.batches:TrainingData", "the batch of a step,|from seed and step alone", "batch"),
        Step(
            "models.words.extension:TokenExtension",
            "tokens and adapters go in,|under the base's lock",
            "base",
        ),
        Step("models.families.family:Family", "condition and predict: the|base's family answers", "prediction"),
        Step("models.schedules:Schedule", "noise and losses|of ε, v or x₀", "loss"),
        Step("training.checkpoint:TrainingState", "one optimizer step; then the|base is as it was", "state"),
        Step("concepts.concept:Concept", "manifest, changes, tokens,|inputs of its layers", "concept"),
        Step("concepts.file:save_concept", "checked; there whole|or not at all", "anna.safetensors"),
    ),
    ((3, 10, "every stage"), (6, 10, "every step")),
)
MERGING = Flow(
    "files-to-weights",
    "From concept files to weights: orthoplex merge and generate",
    "anna.safetensors, rex.safetensors, …",
    (
        Step("concepts.file:load_concept", "header, content hash and|base are checked", "concepts"),
        Step("merging.choice:default_algorithm", "the algorithm that suits,|unless one is named", "algorithm"),
        Step(
            "activations.base_merge:inputs_for",
            "inputs of layers: of the files,|else gathered from the base",
            "Gram matrices",
        ),
        Step(
            "merging.algorithms.algorithm:WeightChanges",
            "all changes of one weight,|in one order",
            "changes",
        ),
        Step("concepts.stack:Stack", "one change a weight; owners|and strengths stay apart", "stacks"),
        Step("merging.concept_merge:Merge", "stacks, tokens and the recipe", "merge"),
        Step("models.weights.refusals:check_foldable", "refuses by name what|cannot be folded", "layers"),
        Step(
            "models.weights.folded:FoldedWeights",
            "one product a shape, one|rounding; originals are stored",
            "weights",
        ),
        Step("models.words.extension:TokenExtension", "tokens go in", "base"),
        Step("models.undo:Undo", "strengths turn, restore()|gives every bit back", "base"),
        Step("generation.drawing:generate", "the base's family pictures|the prompt", "pictures"),
    ),
    ((3, 4, "every weight"),),
)
FLOWS = (TRAINING, MERGING)


def drawing(flow: Flow) -> str:
    """Return a flow as SVG."""
    lanes = [room for room in ROOMS if any(step.room == room for step in flow.steps)]
    width = 2 * MARGIN + LANE * len(lanes)
    height = TOP + ROW * len(flow.steps) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif" role="img" aria-label="{escape(flow.title)}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(MARGIN, 22, flow.title, 16, INK, weight="bold"),
    ]
    for number, room in enumerate(lanes):
        x = MARGIN + LANE * number
        parts.append(f'<rect x="{x}" y="36" width="{LANE - 8}" height="{height - 46}" rx="8" fill="{ROOMS[room]}"/>')
        parts.append(_text(x + 10, 56, f"{room}/", 13, SOFT, weight="bold"))
    for depth, (first, last, words) in enumerate(flow.repeated):
        parts += _loop(first, last, words, width, inset=5 * depth)
    places = [(MARGIN + LANE * lanes.index(step.room) + 6, TOP + ROW * i) for i, step in enumerate(flow.steps)]
    for i, (step, (x, y)) in enumerate(zip(flow.steps, places, strict=True)):
        parts += _box(step, x, y)
        if i + 1 < len(places):
            parts += _arrow((x, y), places[i + 1], step.gives)
        else:
            parts.append(_text(x + BOX // 2, y + BOX_HEIGHT + 20, f"→ {step.gives}", 12, INK, anchor="middle"))
    first = places[0]
    parts.append(_text(first[0] + BOX // 2, first[1] - 8, f"{flow.begins} ↓", 12, INK, anchor="middle"))
    return "\n".join([*parts, "</svg>\n"])


def _text(
    x: float, y: float, text: str, size: int, colour: str, *, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


def _box(step: Step, x: int, y: int) -> list[str]:
    name = step.does.partition(":")[2]
    lines = [
        f'<rect x="{x}" y="{y}" width="{BOX}" height="{BOX_HEIGHT}" rx="6" fill="white" stroke="{LINE_COLOUR}"/>',
        f'<text x="{x + 10}" y="{y + 20}" font-size="13" fill="{INK}" font-weight="bold" '
        f'font-family="Menlo, Consolas, monospace">{escape(name)}</text>',
    ]
    for number, line in enumerate(step.text.split("|")):
        lines.append(_text(x + 10, y + 39 + LINE * number, line, 12, SOFT))
    return lines


def _arrow(start: tuple[int, int], end: tuple[int, int], label: str) -> list[str]:
    """An arrow from the bottom of one box to the top of the next, with what goes along it."""
    x, y = start[0] + BOX // 2, start[1] + BOX_HEIGHT
    to_x, to_y = end[0] + BOX // 2, end[1]
    middle = y + 19
    path = f"M {x} {y} V {middle} H {to_x} V {to_y - 6}"
    return [
        f'<path d="{path}" fill="none" stroke="{SOFT}" stroke-width="1.5"/>',
        f'<path d="M {to_x - 5} {to_y - 8} L {to_x} {to_y} L {to_x + 5} {to_y - 8} Z" fill="{SOFT}"/>',
        _text(to_x + 9, to_y - 6, label, 11, SOFT),
    ]


def _loop(first: int, last: int, words: str, width: int, *, inset: int) -> list[str]:
    """A frame around steps that are repeated."""
    y, height = TOP + ROW * first - 22 + inset, ROW * (last - first) + BOX_HEIGHT + 34 - 2 * inset
    across = width - 2 * MARGIN + 8 - 2 * inset
    return [
        f'<rect x="{MARGIN - 8 + inset}" y="{y}" width="{across}" height="{height}" rx="10" fill="none" '
        f'stroke="{INK}" stroke-dasharray="5 4"/>',
        _text(width - MARGIN - 12 - inset, y + 16, words, 12, INK, anchor="end", weight="bold"),
    ]


def main() -> int:
    """Write both drawings; return the exit status."""
    for flow in FLOWS:
        (IMAGES / f"{flow.name}.svg").write_text(drawing(flow), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
