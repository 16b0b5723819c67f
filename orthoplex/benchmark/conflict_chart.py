"""Two maps of a set of files: the input overlap of every pair, and where in the model each file meets the others."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from orthoplex.benchmark.plots import figures, plain
from orthoplex.errors import ConfigurationError
from orthoplex.files import written_atomically
from orthoplex.merging import ConflictReport

SUFFIXES = (".png", ".svg")
_BLOCK = re.compile(r"[^.]+\.[^.]+(\.\d+)?")
"""Of a layer's name, as ``unet.up_blocks.1`` and ``unet.mid_block``."""
_MOST_BLOCKS = 24
"""Blocks up to which each has a row; above, those that differ in their number share one."""
_MOST_WRITTEN = 12
"""Files up to which numbers are written into the maps."""


def check_chart_name(path: Path) -> None:
    """Refuse a chart that is no picture of a known sort.

    Raises:
        ConfigurationError: When the name does not end in ``.png`` or ``.svg``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"chart is {path}; allowed are names that end in {' or '.join(SUFFIXES)}")


def write_conflict_chart(report: ConflictReport, path: Path) -> None:
    """Draw a report's maps into a file.

    Args:
        report: The report.
        path: ``*.png`` or ``*.svg``.

    Raises:
        ConfigurationError: See ``check_chart_name``.
        MissingExtraError: When matplotlib is not installed.
        OutputError: When the file cannot be written.
    """
    check_chart_name(path)
    names = [file.name for file in report.files]
    blocks, where = block_overlaps(report)
    side, height = 1.6 + 0.42 * len(names), 1.2 + 0.32 * max(len(names), len(blocks))
    with figures() as new_figure:
        figure = new_figure(figsize=(2 * side + 2.4, height + 1.0), layout="constrained")
        figure.suptitle(f"Conflict: {report.level} ({report.quantity} {report.score:.2f})")
        panels = (
            ("input overlap of two files", names, pair_overlaps(report)),
            ("with all others, by block", blocks, where),
        )
        for number, (title, rows, matrix) in enumerate(panels, start=1):
            axes = figure.add_subplot(1, 2, number)
            axes.imshow(matrix.numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
            axes.set_title(title, fontsize=8)
            axes.set_xticks(range(len(names)), labels=[plain(name) for name in names], rotation=90, fontsize=6)
            axes.set_yticks(range(len(rows)), labels=[plain(row) for row in rows], fontsize=6)
            if len(names) <= _MOST_WRITTEN:
                for i, j in matrix.isfinite().nonzero().tolist():
                    value = float(matrix[i, j])
                    colour = "white" if value > 0.5 else "#305070"
                    axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=5, color=colour)
        with written_atomically(path) as temporary:
            if path.suffix.lower() == ".svg":
                figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})
            else:
                figure.savefig(temporary, format="png", dpi=200, facecolor="white")


def pair_overlaps(report: ConflictReport) -> Tensor:
    """Input overlaps of all pairs, ``(k, k)``; not a number on the diagonal."""
    number = {file.name: i for i, file in enumerate(report.files)}
    matrix = torch.full((len(number), len(number)), torch.nan)
    for pair in report.pairs:
        i, j = number[pair.first], number[pair.second]
        matrix[i, j] = matrix[j, i] = pair.input_overlap
    return matrix


def block_overlaps(report: ConflictReport) -> tuple[list[str], Tensor]:
    """Return the blocks of the model, and each file's mean input overlap there with all others, weighted by energy.

    Returns:
        n blocks, and ``(n, k)``; not a number where a file and the others have no layer in common.
    """
    names = {layer.layer for pair in report.pairs for layer in pair.layers}
    block_of = {name: _block(name) for name in names}
    if len(set(block_of.values())) > _MOST_BLOCKS:
        block_of = {name: block.rstrip("0123456789").rstrip(".") for name, block in block_of.items()}
    sums: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair in report.pairs:
        for layer in pair.layers:
            block = block_of[layer.layer]
            for name in (pair.first, pair.second):
                entry = sums[block, name]
                entry[0] += layer.share * layer.input_overlap
                entry[1] += layer.share
    blocks = sorted({block for block, _ in sums})
    matrix = torch.full((len(blocks), len(report.files)), torch.nan)
    for (block, name), (overlap, share) in sums.items():
        column = next(i for i, file in enumerate(report.files) if file.name == name)
        if share > 0:
            matrix[blocks.index(block), column] = overlap / share
    return blocks, matrix


def _block(layer: str) -> str:
    match = _BLOCK.match(layer)
    return layer if match is None else match[0]
