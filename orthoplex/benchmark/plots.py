"""Bars, curves and maps as SVG text, drawn by matplotlib: retentions in merges, and confusion of concepts."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from orthoplex.errors import MissingExtraError
from orthoplex.evaluation import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_STYLE: Any = {
    "svg.hashsalt": "orthoplex",  # the same numbers give the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": "#8a8f98",
    "axes.labelcolor": "#8a8f98",
    "axes.edgecolor": "#8a8f98",
    "xtick.color": "#8a8f98",
    "ytick.color": "#8a8f98",
    "legend.labelcolor": "#8a8f98",
}
"""Grey text on nothing: readable on light and dark pages."""
_LINES, _MARKS = ("-", "--", ":", "-."), ("o", "s", "^", "x")


def bars(groups: Mapping[str, Mapping[str, Interval]], *, title: str, reference: float | None = None) -> str:
    """Draw horizontal bars with their intervals in named groups, from the top; equal names have equal colours.

    Args:
        groups: Group -> name of a bar -> its value.
        title: Above the bars.
        reference: Where a line is drawn, or None.

    Returns:
        A whole SVG document.
    """
    names = list(dict.fromkeys(name for row in groups.values() for name in row))
    drawn: dict[str, Any] = {}
    places, top = [], 0.0
    with figures() as new_figure:
        count = sum(len(row) + 1 for row in groups.values())
        figure = new_figure(figsize=(8.0, 1.2 + 0.16 * count), layout="constrained")
        axes = figure.add_subplot()
        for row in groups.values():
            places.append(top - (len(row) - 1) / 2)
            for name, interval in row.items():
                bar = axes.barh(top, interval.value, height=0.85, color=f"C{names.index(name) % 10}")
                drawn.setdefault(name, bar)
                axes.plot(
                    [interval.low, interval.high], [top, top], color="#8a8f98", linewidth=1, marker="|", markersize=4
                )
                end, beside = (max(interval.high, 0.0), top), {"xytext": (4, 0), "textcoords": "offset points"}
                axes.annotate(f"{interval.value:.2f}", end, va="center", fontsize=7, color="#8a8f98", **beside)
                top -= 1
            top -= 1
        axes.axvline(0.0, color="#8a8f98", linewidth=1)
        if reference is not None:
            axes.axvline(reference, color="#8a8f98", linestyle=":", linewidth=1)
        axes.set_yticks(places, labels=[plain(group) for group in groups])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(top + 1, 1)
        axes.spines[["top", "right", "left"]].set_visible(False)
        figure.suptitle(plain(title))
        _legend(figure, drawn)
        return _svg(figure)


def curves(
    panels: Mapping[str, Mapping[str, Mapping[int, Interval]]], *, title: str, capacity: int | None = None
) -> str:
    """Draw retentions against the number of concepts in a merge, one panel for each measure.

    Args:
        panels: Measure -> variant -> concepts in a merge -> retention, with its interval.
        title: Above the panels.
        capacity: The size at which a line marks the end of exact slots, or None.

    Returns:
        A whole SVG document.
    """
    names = list(dict.fromkeys(name for variants in panels.values() for name in variants))
    lines: dict[str, Line2D] = {}
    with figures() as new_figure:
        figure = new_figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
        figure.suptitle(plain(title))
        for axes, (measure, variants) in zip(_row(figure, len(panels)), panels.items(), strict=True):
            for variant, points in variants.items():
                sizes = sorted(points)
                intervals = [points[size] for size in sizes]
                look, means = _look(names.index(variant)), [point.value for point in intervals]
                (line,) = axes.plot(sizes, means, marker="o", markersize=3, **look)
                lines.setdefault(variant, line)
                low, high = [point.low for point in intervals], [point.high for point in intervals]
                axes.fill_between(sizes, low, high, color=look["color"], alpha=0.12, linewidth=0)
            axes.axhline(1.0, color="#8a8f98", linestyle=":", linewidth=1)
            if capacity is not None:
                axes.axvline(capacity, color="#8a8f98", linestyle="--", linewidth=1)
                place = {"xycoords": axes.get_xaxis_transform(), "rotation": 90, "ha": "right", "va": "bottom"}
                axes.annotate("exact slots end", (capacity, 0.02), fontsize=7, **place)
            ticks = sorted({size for points in variants.values() for size in points})
            axes.set_xscale("log")
            axes.set_xticks(ticks, labels=[str(size) for size in ticks], minor=False)
            axes.set_xticks([], minor=True)
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.set_xlabel("concepts in the merge")
            axes.set_title(f"{measure}, merged / alone")
        _legend(figure, {name: lines[name] for name in names})
        return _svg(figure)


def heat_maps(panels: Mapping[str, tuple[Sequence[str], Sequence[str], Tensor]], *, title: str) -> str:
    """Draw matrices of shares, prompted concept against recognised concept, one panel each.

    Args:
        panels: Panel title -> names of the rows, of the columns, and their shares in [0, 1].
        title: Above the panels.

    Returns:
        A whole SVG document.
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    with figures() as new_figure:
        figure = new_figure(figsize=(2.6 * columns, 2.8 * rows), layout="constrained")
        figure.suptitle(plain(title))
        for number, (name, (prompted, recognised, matrix)) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(rows, columns, number)
            axes.imshow(matrix.numpy(), vmin=0, vmax=1, cmap="Blues")
            axes.set_title(plain(name), fontsize=8)
            axes.set_xticks(range(len(recognised)), labels=list(recognised), rotation=90, fontsize=6)
            axes.set_yticks(range(len(prompted)), labels=list(prompted), fontsize=6)
            if len(recognised) <= 12:
                _write_shares(axes, matrix)
        return _svg(figure)


def dots(panels: Mapping[str, Mapping[str, Mapping[str, float]]], *, title: str) -> str:
    """Draw values by row, one panel for each measure, one colour for each series.

    Args:
        panels: Measure -> series -> row -> its value. Rows stand in the order in which they first come, from the top.
        title: Above the panels.

    Returns:
        A whole SVG document.
    """
    rows = list(dict.fromkeys(row for panel in panels.values() for series in panel.values() for row in series))
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    drawn: dict[str, Any] = {}
    with figures() as new_figure:
        figure = new_figure(figsize=(3.2 + 3.0 * len(panels), 1.6 + 0.17 * len(rows)), layout="constrained")
        figure.suptitle(plain(title))
        for place, (axes, (measure, series)) in enumerate(zip(_row(figure, len(panels)), panels.items(), strict=True)):
            for name, points in series.items():
                heights, number = [-rows.index(row) for row in points], names.index(name)
                colour, marker = f"C{number % 10}", _MARKS[number // 10 % len(_MARKS)]
                drawn.setdefault(name, axes.scatter(list(points.values()), heights, s=12, color=colour, marker=marker))
            axes.axvline(0.0, color="#8a8f98", linestyle=":", linewidth=1)
            labels = rows if place == 0 else []
            axes.set_yticks([-number for number in range(len(labels))], labels=labels, fontsize=6)
            axes.set_ylim(-len(rows) + 0.5, 0.5)
            axes.set_title(plain(measure), fontsize=8)
        _legend(figure, drawn)
        return _svg(figure)


def scatter(panels: Mapping[str, Mapping[str, tuple[float, Interval]]], *, across: str, title: str) -> str:
    """Draw one point for each series, with its interval upwards, one panel for each measure.

    Args:
        panels: Measure -> series -> (where it stands across, its value).
        across: What the horizontal axis is.
        title: Above the panels.

    Returns:
        A whole SVG document.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    drawn: dict[str, Any] = {}
    with figures() as new_figure:
        figure = new_figure(figsize=(4.2 * len(panels), 3.4 + 0.09 * len(names)), layout="constrained")
        figure.suptitle(plain(title))
        for axes, (measure, points) in zip(_row(figure, len(panels)), panels.items(), strict=True):
            for name, (place, interval) in points.items():
                number = names.index(name)
                bounds = [[max(0.0, interval.value - interval.low)], [max(0.0, interval.high - interval.value)]]
                look = {"color": f"C{number % 10}", "marker": _MARKS[number // 10 % len(_MARKS)], "markersize": 4}
                drawn.setdefault(
                    name, axes.errorbar([place], [interval.value], bounds, linestyle="", elinewidth=1, **look)
                )
            axes.axhline(1.0, color="#8a8f98", linestyle=":", linewidth=1)
            axes.set_xlim(left=0)
            axes.set_xlabel(plain(across))
            axes.set_title(plain(measure))
        _legend(figure, drawn)
        return _svg(figure)


def check_charts() -> None:
    """Refuse charts that could not be drawn; callers check before the work whose results they show.

    Raises:
        MissingExtraError: When matplotlib is not installed.
    """
    with figures():
        pass


def font_file() -> Path:
    """The TrueType file of the letters in charts, which has all signs that names and numbers here are made of.

    Raises:
        MissingExtraError: When matplotlib, which brings it, is not installed.
    """
    check_charts()
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@contextmanager
def figures() -> Iterator[type[Figure]]:
    """Inside, charts are drawn in the style of all; yields the class of figures."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a chart", "matplotlib", "charts") from error
    with matplotlib.rc_context(_STYLE):
        yield Figure


def _legend(figure: Figure, drawn: Mapping[str, Any]) -> None:
    """Below the panels, once for all: what was drawn, by its name."""
    names = [plain(name) for name in drawn]
    figure.legend(list(drawn.values()), names, loc="outside lower center", ncols=3, frameon=False)


def _look(number: int) -> dict[str, Any]:
    """Colour and line of the curve so numbered: ten colours, then the same with other lines."""
    return {"color": f"C{number % 10}", "linestyle": _LINES[number // 10 % len(_LINES)]}


def plain(text: str) -> str:
    """Text as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def _row(figure: Figure, count: int) -> list[Axes]:
    return [figure.add_subplot(1, count, number + 1) for number in range(count)]


def _write_shares(axes: Axes, matrix: Tensor) -> None:
    for i, row in enumerate(matrix.tolist()):
        for j, share in enumerate(row):
            if share >= 0.005:
                colour = "white" if share > 0.5 else "#305070"
                axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=5, color=colour)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
