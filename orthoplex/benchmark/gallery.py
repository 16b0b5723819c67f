"""The demo's page: pictures and figures in one HTML file that needs nothing but the pictures beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from orthoplex.benchmark.gallery_style import STYLE
from orthoplex.benchmark.summary import Summary
from orthoplex.evaluation import Interval
from orthoplex.files import write_text

REAL, ALONE, MERGED, LORA_SUM, LORA_BEST = "real", "alone", "merged", "plain LoRA, summed", "plain LoRA, best merge"
"""Titles of the five columns."""
Columns = Mapping[str, Sequence[str]]
"""Title of a column -> pictures, paths relative to the page."""


@dataclass(frozen=True)
class Row:
    """Pictures of one concept; paths are relative to the page.

    Attributes:
        name: Concept name.
        kind: Concept kind.
        prompt: Prompt of the generated pictures.
        live: True if the demo itself trained it.
        real: Real pictures that training never saw.
        alone: The concept alone.
        merged: In the merge of all.
        lora_sum: In the sum of all, trained as plain LoRA.
        lora_best: In the best merge of all, trained as plain LoRA.
    """

    name: str
    kind: str
    prompt: str
    live: bool
    real: tuple[str, ...]
    alone: tuple[str, ...]
    merged: tuple[str, ...]
    lora_sum: tuple[str, ...]
    lora_best: tuple[str, ...]

    @property
    def columns(self) -> Columns:
        """All pictures, in the order in which they are shown."""
        return {
            REAL: self.real,
            ALONE: self.alone,
            MERGED: self.merged,
            LORA_SUM: self.lora_sum,
            LORA_BEST: self.lora_best,
        }


@dataclass(frozen=True)
class CombinationRow:
    """Pictures of several concepts at once; paths are relative to the page."""

    prompt: str
    merged: tuple[str, ...]
    lora_sum: tuple[str, ...]
    lora_best: tuple[str, ...]

    @property
    def columns(self) -> Columns:
        """All pictures, in the order in which they are shown."""
        return {MERGED: self.merged, LORA_SUM: self.lora_sum, LORA_BEST: self.lora_best}


@dataclass(frozen=True)
class Gallery:
    """Everything on the page.

    Attributes:
        rows: One for each concept.
        combinations: Pictures of several concepts.
        summaries: The figures of each variant; empty where they could not be measured.
        seconds: Task -> its wall time.
        side: Side of the base's pictures in pixels.
        best: Name of the merging algorithm of the last column.
        missing: Why there are no figures; empty where there are.
    """

    rows: tuple[Row, ...]
    combinations: tuple[CombinationRow, ...]
    summaries: tuple[Summary, ...]
    seconds: Mapping[str, float]
    side: int = 128
    best: str = "SSR"
    missing: str = ""


def write_gallery(gallery: Gallery, folder: Path) -> None:
    """Write `index.html` into the folder that holds the pictures."""
    write_text(folder / "index.html", _page(gallery))


def duration(seconds: float) -> str:
    """Seconds with a fitting unit and three digits or fewer."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"


def _page(gallery: Gallery) -> str:
    count = len(gallery.rows)
    several = ""
    if gallery.combinations:
        several = f"""<section class="several">
<h2>Several concepts in one picture</h2>
<p>The same three merges, asked for two or three concepts at once. Most prompts were chosen by
eye: a base this small seldom draws two things well.</p>
<div class="cards">
{"".join(map(_combination, gallery.combinations))}</div>
</section>
"""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Orthoplex: {count} concepts in one model</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{count} concepts, trained apart, in one model</h1>
<p>Each concept was taught to the base from a few pictures, without sight of the others. Then all {count} were added
to one model. {_live_sentence([row.name for row in gallery.rows if row.live])}</p>
<p class="base">All pictures come from a <em>{gallery.side}-pixel laptop base</em>, a Stable Diffusion small enough
for a laptop's processor, so they are small and simple.</p>
</header>
<section class="concepts">
<h2>Every concept</h2>
<p>Does <b>{MERGED}</b> still show what <b>{ALONE}</b> shows? Prompt and noise are the same in all columns but the
first.</p>
{_legend(count, gallery.best)}
{"".join(map(_row, gallery.rows))}</section>
{several}<section class="figures">
<h2>In figures</h2>
{_figures(gallery)}</section>
</body>
</html>
"""


def _live_sentence(live: Sequence[str]) -> str:
    if not live:
        return "All of them ship with the package, trained."
    names = ", ".join(f"<b>{escape(name)}</b>" for name in live)
    return f"{names} {'was' if len(live) == 1 else 'were'} trained on this machine just now."


def _legend(count: int, best: str) -> str:
    meanings = {
        REAL: "pictures of the concept that training never saw",
        ALONE: "the base with this concept only",
        MERGED: f"the base with all {count} concepts, merged by Orthoplex",
        LORA_SUM: f"all {count} concepts trained as plain LoRA, and added up",
        LORA_BEST: f"the same LoRAs merged by {best}, which keeps most of plain LoRA among the merges we measured",
    }
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(meaning)}</dd></div>" for name, meaning in meanings.items())
    return f'<dl class="legend">{items}</dl>'


def _row(row: Row) -> str:
    badge = ' <span class="live">trained here</span>' if row.live else ""
    return (
        f'<article class="row"><h3>{escape(row.name)} <small>{escape(row.kind)}</small>{badge}</h3>\n'
        f'<div class="columns">{_columns(row.columns, row.name)}</div>\n'
        f'<p class="prompt">“{escape(row.prompt)}”</p></article>\n'
    )


def _combination(combination: CombinationRow) -> str:
    return (
        f'<article class="card"><div class="columns">{_columns(combination.columns, combination.prompt)}</div>\n'
        f'<p class="prompt">“{escape(combination.prompt)}”</p></article>\n'
    )


def _columns(columns: Columns, subject: str) -> str:
    return "".join(
        f"<figure><figcaption>{title}</figcaption><div>{_pictures(files, f'{subject}, {title}')}</div></figure>"
        for title, files in columns.items()
    )


def _pictures(files: Iterable[str], description: str) -> str:
    alt = escape(description, quote=True)
    return "".join(f'<img src="{escape(file, quote=True)}" alt="{alt}" loading="lazy">' for file in files)


_FIGURES: dict[str, Callable[[Summary], tuple[Interval | None, Interval | None, Interval | None]]] = {
    "likeness": lambda row: (row.single_alignment, row.merged_alignment, row.alignment_retention),
    "recognised": lambda row: (row.single_recognised, row.merged_recognised, row.recognised_retention),
    "identity": lambda row: (row.single_identity, row.merged_identity, row.identity_retention),
}


def _figures(gallery: Gallery) -> str:
    if not gallery.summaries:
        return f"<p>{escape(gallery.missing)}</p>\n{_times(gallery.seconds)}"
    first = gallery.summaries[0]
    return f"""<p>A frozen image encoder that took no part in training compares the pictures with real ones. <b>Kept</b>
is merged divided by alone: 1 is everything. In brackets: the 95 % interval over concepts.</p>
<div class="cards">
{"".join(map(_figure_card, gallery.summaries))}</div>
<ul class="meanings">
<li><b>Likeness</b>: how near pictures are to real ones of their concept; 1 is the same. The base alone, asked for the
class word only, has {_value(first.base_alignment)}.</li>
<li><b>Added</b>: the share of the likeness beyond the base's own that is still there.</li>
<li><b>Recognised</b>: the share of pictures that are nearest to their own concept among all of its kind. The base alone
has {_value(first.base_recognised)}.</li>
<li><b>Identity</b>: the share of pictures that pass as their concept where at most one impostor in twenty does.</li>
</ul>
{_times(gallery.seconds)}"""


def _figure_card(summary: Summary) -> str:
    lines = [
        f"<div><dt>{name}</dt><dd>{_value(single)} → {_value(merged)}, kept <b>{_share(retention)}</b></dd></div>"
        for name, (single, merged, retention) in ((name, pick(summary)) for name, pick in _FIGURES.items())
    ]
    lines.insert(1, f"<div><dt>added</dt><dd>kept <b>{_share(summary.gain_retention)}</b></dd></div>")
    return f'<article class="card"><h3>{escape(summary.variant)}</h3><dl>{"".join(lines)}</dl></article>\n'


def _value(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.value:.2f}"


def _share(retention: Interval | None) -> str:
    if retention is None:
        return "–"
    return f"{retention.value:.2f} <small>({retention.low:.2f} to {retention.high:.2f})</small>".replace("-", "−")


def _times(seconds: Mapping[str, float]) -> str:
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd><b>{duration(value)}</b></dd></div>" for name, value in seconds.items()
    )
    return f'<dl class="times">{items}</dl>\n'
