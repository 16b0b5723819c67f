"""Does the verdict of `orthoplex conflicts` tell the truth? `python -m benchmarks.conflicts`.

Random sets of two to six shipped concepts are merged by a plain sum and pictured (`benchmarks/conflict_pictures.py`).
Retention is a concept's alignment in the set over its alignment alone, at the same strength; a set has the mean over
its members. The seed divides the sets into two halves: one calibrates the limits of the verdict, the other tests it.
Writes `results/conflicts.json` and `results/conflicts.svg`; alignments are stored as they come, so that an interrupted
run goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.conflict_pictures import CURES, Alignments, Member, halves_of, random_sets
from orthoplex.activations import gather_inputs
from orthoplex.benchmark.layer_crosstalk import rank_correlation
from orthoplex.benchmark.plots import figures
from orthoplex.evaluation import Interval, bootstrap
from orthoplex.files import write_json, written_atomically
from orthoplex.merging import ConflictReport, InputGrams, conflicts
from orthoplex.merging.conflict_verdict import LIMITS

LOST = {"mild": 0.02, "strong": 0.1}
"""Level -> the share of alignment that a set of this level has lost; the limits are calibrated to it."""
NUM_CURED = 1
"""Sets that are cured: the first of the calibrating ones that are plain LoRAs at strength 1 and strong."""


def _by_file(report: ConflictReport, value: Callable[[int], float]) -> float:
    return fmean(value(i) for i in range(len(report.files)))


def _pairs(report: ConflictReport, values: Sequence[float | None]) -> float:
    """The mean over files of the sum over pairs that a file is in."""
    return 2 * sum(value for value in values if value is not None) / len(report.files)


QUANTITIES: dict[str, Callable[[ConflictReport], float]] = {
    "overlap of inputs": lambda report: _by_file(report, lambda i: report.files[i].overlap),
    "overlap of inputs, mean of pairs": lambda report: fmean(pair.input_overlap for pair in report.pairs),
    "overlap of outputs": lambda report: _pairs(report, [pair.output_overlap for pair in report.pairs]),
    "cosine": lambda report: _pairs(report, [abs(pair.cosine) for pair in report.pairs]),
    "cosine, mean of pairs": lambda report: fmean(abs(pair.cosine) for pair in report.pairs),
    "cosine with its sign": lambda report: _pairs(report, [pair.cosine for pair in report.pairs]),
    "sign conflict, mean of pairs": lambda report: fmean(
        pair.sign_conflict for pair in report.pairs if pair.sign_conflict is not None
    ),
    "disturbance": lambda report: _by_file(report, lambda i: report.files[i].disturbance),
    "crosstalk": lambda report: _by_file(report, lambda i: report.files[i].crosstalk or 0.0),
    "size of the sum": lambda report: report.budget.together,
    "size of the sum over the largest": lambda report: report.budget.together / report.budget.largest,
    "number of files": lambda report: len(report.files),
    "sum of strengths": lambda report: sum(file.strength for file in report.files),
}
"""Name -> a number of a set that may foretell its loss."""


@dataclass(frozen=True)
class SetResult:
    """One set: its members, what the report says, and what its pictures say.

    Attributes:
        number: Its number.
        members: As ``anna/lora@0.7``.
        half: ``calibration`` or ``test``.
        retention: The mean over members of alignment in the set over alignment alone.
        lowest_retention: The smallest of them.
        gain_retention: The same of the gain over the base, summed over members.
        quantities: Name -> number, see ``QUANTITIES``.
        level: The verdict.
    """

    number: int
    members: tuple[str, ...]
    half: str
    retention: float
    lowest_retention: float
    gain_retention: float
    quantities: dict[str, float]
    level: str

    @property
    def pool(self) -> str:
        """The methods of the members, as in ``lora and orthogonal``."""
        return " and ".join(sorted({member.partition("/")[2].partition("@")[0] for member in self.members}))


class Reports:
    """Reports of sets, with the inputs of each concept's text layers gathered once from the base.

    Args:
        alignments: Has the base.
    """

    def __init__(self, alignments: Alignments) -> None:
        self._base = alignments.base
        self._inputs: dict[str, torch.Tensor] = {}

    def of(self, members: Sequence[Member]) -> ConflictReport:
        """The report of a set.

        Args:
            members: Its members.
        """
        concepts = [member.concept() for member in members]
        reading = self._base.family.feature_layers()
        for concept in concepts:
            if concept.content_hash not in self._inputs:
                inputs = gather_inputs(self._base, [concept], with_foreign=False, only=lambda layer: layer in reading)
                self._inputs[concept.content_hash] = next(iter(inputs.concepts[concept.content_hash].values()))
        grams = {c.content_hash: dict.fromkeys(reading, self._inputs[c.content_hash]) for c in concepts}
        pairs = [(concept, member.strength) for concept, member in zip(concepts, members, strict=True)]
        return conflicts(pairs, inputs=InputGrams(grams))


def measured(alignments: Alignments, reports: Reports, count: int, seed: int) -> list[SetResult]:
    """Measure all sets.

    Args:
        alignments: Makes pictures where it has none.
        reports: Compares files.
        count: How many sets.
        seed: Decides them.
    """
    calibrating, _ = halves_of(count, seed)
    results = []
    for number, members in enumerate(random_sets(count, seed)):
        values = dict(alignments.together(number, members))
        alone = {member: alignments.alone(member) for member in members}
        without = {member: alignments.without(member) for member in members}
        kept = [values[member] / alone[member] for member in members]
        gain = sum(values[m] - without[m] for m in members) / sum(alone[m] - without[m] for m in members)
        report = reports.of(members)
        results.append(
            SetResult(
                number,
                tuple(member.key for member in members),
                "calibration" if number in calibrating else "test",
                round(fmean(kept), 4),
                round(min(kept), 4),
                round(gain, 4),
                {name: round(value(report), 4) for name, value in QUANTITIES.items()},
                report.level,
            )
        )
        print(number, results[-1].retention, report.level, round(report.score, 2), flush=True)
    return results


def limit(results: Sequence[SetResult], name: str, lost: float) -> float:
    """The value that best tells sets that lost more than a share from others: largest balanced accuracy.

    Args:
        results: Sets of the calibrating half.
        name: In ``QUANTITIES``.
        lost: The share of alignment.
    """
    values = sorted({result.quantities[name] for result in results})
    middles = [(low + high) / 2 for low, high in zip(values, values[1:], strict=False)]
    return round(max(middles, key=lambda middle: balanced_accuracy(results, name, middle, lost)), 2)


def balanced_accuracy(results: Sequence[SetResult], name: str, value: float, lost: float) -> float:
    """Mean of the shares of sets rightly above and rightly below a limit."""
    sides = []
    for is_lost in (True, False):
        side = [r for r in results if (r.retention < 1 - lost) == is_lost]
        right = [r for r in side if (r.quantities[name] >= value) == is_lost]
        sides.append(len(right) / max(1, len(side)))
    return fmean(sides)


def foretelling(results: Sequence[SetResult], name: str) -> Interval:
    """Spearman's rank correlation of a quantity with what sets lose, with its bootstrap interval over sets.

    Args:
        results: The sets.
        name: In ``QUANTITIES``.
    """
    values = torch.tensor([[[result.quantities[name], 1 - result.retention]] for result in results])

    def correlations(blocks: torch.Tensor) -> torch.Tensor:
        rows = [rank_correlation([(a, b) for a, b in block[:, 0].tolist()]) for block in blocks]
        return torch.tensor([torch.nan if row is None else row for row in rows], dtype=torch.float64)

    return bootstrap(values, correlations, draws=1000)


def cured(
    alignments: Alignments, results: Sequence[SetResult], sets: Sequence[tuple[Member, ...]]
) -> dict[str, object]:
    """Retention of a few strong sets after each cure, against each concept alone at its own strength.

    Args:
        alignments: Makes pictures where it has none.
        results: All sets.
        sets: Their members.
    """
    chosen = [
        result.number
        for result in results
        if result.half == "calibration"
        and result.level == "strong"
        and all(member.method == "lora" and member.strength == 1 for member in sets[result.number])
    ][:NUM_CURED]
    kept: dict[str, object] = {"sets": chosen, "sum": round(fmean(results[number].retention for number in chosen), 4)}
    for cure in CURES:
        shares = [
            value / alignments.alone(member)
            for number in chosen
            for member, value in alignments.cured(cure, number, sets[number])
        ]
        kept[cure] = round(fmean(shares), 4)
        print(cure, kept[cure], flush=True)
    return kept


def write_chart(results: Sequence[SetResult], path: Path) -> None:
    """Draw crosstalk against retention, one point for a set, and the limits of the verdict.

    Args:
        results: Sets that no limit was fitted to.
        path: ``*.svg``.
    """
    with figures() as new_figure, written_atomically(path) as temporary:
        figure = new_figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for pool, colour in (("lora", "C1"), ("orthogonal", "C0"), ("lora and orthogonal", "C2")):
            rows = [row for row in results if row.pool == pool]
            across = [row.quantities["crosstalk"] for row in rows]
            axes.scatter(across, [row.retention for row in rows], s=22, color=colour, label=pool)
            for row, x in zip(rows, across, strict=True):
                axes.annotate(str(len(row.members)), (x, row.retention), (4, 3), textcoords="offset points", fontsize=6)
        for level, place in zip(LOST, LIMITS["crosstalk"], strict=True):
            axes.axvline(place, color="#8a8f98", linestyle=":", linewidth=1)
            side = {"mild": ("right", -3), "strong": ("left", 3)}[level]
            where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": side[0]}
            axes.annotate(level, (place, 0.0), (side[1], 4), **where)
        axes.set_xlabel("crosstalk of all others on a file, mean")
        axes.set_ylabel("alignment in the set / alone, mean")
        axes.set_title("Sets that no limit was fitted to; the number counts their files", fontsize=9)
        axes.legend(frameon=False)
        figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})


def main() -> None:
    """Measure, calibrate, test, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=72)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=4, help="pictures of each concept")
    parser.add_argument("--steps", type=int, default=12, help="denoising steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("work/conflicts-alignments.json"))
    parser.add_argument("--output", type=Path, default=Path("results/conflicts.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    alignments = Alignments(options.work, num_images=options.pictures, steps=options.steps)
    results = measured(alignments, Reports(alignments), options.sets, options.seed)
    halves = {half: [result for result in results if result.half == half] for half in ("calibration", "test")}
    limits = {name: [limit(halves["calibration"], name, lost) for lost in LOST.values()] for name in LIMITS}
    write_json(
        options.output,
        {
            "command": "python -m benchmarks.conflicts",
            "pictures": options.pictures,
            "steps": options.steps,
            "lost": LOST,
            "calibrated limits": limits,
            "limits": LIMITS,
            "balanced accuracy": {
                half: {
                    name: [
                        round(balanced_accuracy(rows, name, value, lost), 3)
                        for value, lost in zip(LIMITS[name], LOST.values(), strict=True)
                    ]
                    for name in LIMITS
                }
                for half, rows in {**halves, "all": results}.items()
            },
            "rank correlation with the loss": {
                half: {
                    name: {k: round(v, 3) for k, v in asdict(foretelling(rows, name)).items()} for name in QUANTITIES
                }
                for half, rows in {**halves, "all": results}.items()
            },
            "retention by verdict, test": {
                level: {"sets": len(rows), "retention": round(fmean(r.retention for r in rows), 4) if rows else None}
                for level in ("none", "mild", "strong")
                for rows in [[r for r in halves["test"] if r.level == level]]
            },
            "cures": cured(alignments, results, random_sets(options.sets, options.seed)),
            "sets": [asdict(result) for result in results],
        },
        indent=1,
    )
    write_chart(halves["test"], options.output.with_suffix(".svg"))
    print(limits, {name: str(foretelling(halves["test"], name)) for name in QUANTITIES})


if __name__ == "__main__":
    main()
