"""Bar charts as SVG text, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_COLOURS = ("#3b82c4", "#e08a3c", "#5aa469", "#a05fb0", "#c0504d", "#6b7f99")
_GREY = "#8a8f98"
_PLOT, _BAR, _GAP, _TOP, _LETTER = 460, 14, 16, 64, 7.2


@dataclass(frozen=True)
class Bar:
    """One bar: its name in the legend, its length, and the ends of its whisker."""

    name: str
    value: float
    low: float
    high: float


def bar_chart(groups: Mapping[str, Sequence[Bar]], *, title: str, reference: float | None = None) -> str:
    """Draw horizontal bars in named groups; equal names have equal colours everywhere.

    Args:
        groups: Group name -> bars, drawn from the top.
        title: Above the chart.
        reference: Where a dashed line is drawn.

    Returns:
        A whole SVG document. Bars start at zero; what lies below zero is cut off there.
    """
    names = list(dict.fromkeys(bar.name for bars in groups.values() for bar in bars))
    ends = [bar.high for bars in groups.values() for bar in bars] + ([reference] if reference else [])
    label = 24 + round(_LETTER * max(map(len, groups), default=0))
    scale = _PLOT / (max(ends, default=0.0) or 1.0) / 1.02
    parts = [_text(0, 18, title, size=15, weight=600), *_legend(names, label)]
    top = _TOP
    for group, bars in groups.items():
        parts.append(_text(label - 12, top + len(bars) * _BAR / 2 + 4, group, anchor="end"))
        for bar in bars:
            parts += _bar(bar, label, top, scale, _COLOURS[names.index(bar.name) % len(_COLOURS)])
            top += _BAR
        top += _GAP
    if reference is not None:
        x = label + reference * scale
        parts.append(f'<path d="M{x:.1f} {_TOP - 8}V{top - _GAP + 8}" stroke="{_GREY}" stroke-dasharray="4 3"/>')
    width = label + _PLOT + 60
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}" '
        f'font-family="system-ui, sans-serif">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _legend(names: Sequence[str], left: int) -> list[str]:
    parts = []
    for index, name in enumerate(names):
        colour = _COLOURS[index % len(_COLOURS)]
        parts.append(f'<rect x="{left}" y="32" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(_text(left + 18, 42, name))
        left += 40 + 8 * len(name)
    return parts


def _bar(bar: Bar, left: int, top: float, scale: float, colour: str) -> list[str]:
    low, value, high = (max(0.0, number) * scale + left for number in (bar.low, bar.value, bar.high))
    middle = top + _BAR / 2
    return [
        f'<rect x="{left}" y="{top + 1}" width="{value - left:.1f}" height="{_BAR - 2}" rx="2" fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{_GREY}"/>',
        f'<path d="M{low:.1f} {middle - 3}v6M{high:.1f} {middle - 3}v6" stroke="{_GREY}"/>',
        _text(high + 6, middle + 4, f"{bar.value:.2f}", size=11),
    ]


def _text(x: float, y: float, text: str, *, size: int = 13, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{_GREY}">{escape(text)}</text>'
    )
