"""The demo's page: pictures and numbers in one HTML file that needs nothing else than the pictures beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from orthoplex.benchmark.summary import Summary
from orthoplex.concepts import write_text
from orthoplex.evaluation import Interval


@dataclass(frozen=True)
class Row:
    """One concept's line; pictures are paths relative to the page.

    Attributes:
        name: Concept name.
        kind: Concept kind.
        prompt: Of the generated pictures.
        live: Whether it was trained by the demo itself.
        references: Real pictures it never saw.
        alone: The concept alone.
        merged: In the merge of all.
        lora: In the merge of all, trained as plain LoRA.
    """

    name: str
    kind: str
    prompt: str
    live: bool
    references: tuple[str, ...]
    alone: tuple[str, ...]
    merged: tuple[str, ...]
    lora: tuple[str, ...]


@dataclass(frozen=True)
class Combination:
    """Pictures of several concepts at once; paths relative to the page."""

    prompt: str
    merged: tuple[str, ...]
    lora: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Everything on the page.

    Attributes:
        rows: One for each concept.
        combinations: Pictures of several concepts.
        summaries: The numbers of each method.
        seconds: What took how long.
    """

    rows: tuple[Row, ...]
    combinations: tuple[Combination, ...]
    summaries: tuple[Summary, ...]
    seconds: Mapping[str, float]


def write_gallery(gallery: Gallery, folder: Path) -> None:
    """Write `index.html` into the folder that holds the pictures."""
    write_text(folder / "index.html", _page(gallery))


def _page(gallery: Gallery) -> str:
    count = len(gallery.rows)
    live = [row.name for row in gallery.rows if row.live]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Orthoplex: {count} concepts in one model</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{count} concepts, trained apart, in one model</h1>
<p>Each concept was taught to the base from a few pictures, without sight of the others. Then all {count} were brought
into its weights at once. {_live_sentence(live)}</p>
</header>
<section>
<h2>What is left of a concept in the merge</h2>
{_retention_table(gallery.summaries)}
<p class="note">Measured with a frozen image encoder that took no part in training. <em>Alignment</em>: mean cosine to
real pictures the concept never saw. <em>Recognised</em>: share of pictures nearest to their own concept among those of
its kind. <em>Identity</em>: share above a threshold that at most one in twenty of
either sort of impostors passes, the base's pictures and real ones of others. Each cell: alone → in the
merge, and the retention, merged / alone, with its 95 % interval over concepts. The base's own pictures, with the class
word in the concept's place, show where both start. <em>Gain kept</em>: (merged − base) / (alone − base) of alignment,
what is left of what the concept added.</p>
{_seconds_table(gallery.seconds)}
</section>
<section>
<h2>Several concepts in one picture</h2>
<div class="combinations">{"".join(map(_combination, gallery.combinations))}</div>
</section>
<section>
<h2>Every concept</h2>
<p>Look along a row: do the pictures of the merge still show what the concept alone shows? Then compare with the last
column, the same {count} concepts as plain LoRA, added up. Prompt and noise are the same in every column.</p>
<div class="scroll"><table class="concepts">
<thead><tr><th>concept</th><th>real pictures</th><th>alone</th><th>in the merge of {count}</th>
<th>plain LoRA, merge of {count}</th></tr></thead>
<tbody>
{"".join(map(_row, gallery.rows))}</tbody>
</table></div>
</section>
</body>
</html>
"""


def _live_sentence(live: list[str]) -> str:
    if not live:
        return "All of them ship with the package, trained."
    names = ", ".join(f"<b>{escape(name)}</b>" for name in live)
    return f"{names} {'was' if len(live) == 1 else 'were'} trained on this machine just now."


_NUMBERS: dict[str, Callable[[Summary], tuple[Interval | None, Interval | None, Interval | None]]] = {
    "alignment": lambda row: (row.single_alignment, row.merged_alignment, row.alignment_retention),
    "recognised": lambda row: (row.single_recognised, row.merged_recognised, row.recognised_retention),
    "identity": lambda row: (row.single_identity, row.merged_identity, row.identity_retention),
}


def _retention_table(summaries: Iterable[Summary]) -> str:
    head = "<th>alignment of the base</th><th>recognised of the base</th><th>gain kept</th>" + "".join(
        f"<th>{name}</th>" for name in _NUMBERS
    )
    lines = []
    for summary in summaries:
        cells = [f"<td>{_value(start)}</td>" for start in (summary.base_alignment, summary.base_recognised)]
        cells.append(f"<td><b>{_share(summary.gain_retention)}</b></td>")
        for pick in _NUMBERS.values():
            single, merged, kept = pick(summary)
            cells.append(f"<td>{_value(single)} → {_value(merged)}<br><b>{_share(kept)}</b></td>")
        lines.append(f"<tr><th>{escape(summary.variant)}</th>{''.join(cells)}</tr>")
    return f'<table class="numbers"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _value(found: Interval | None) -> str:
    return "–" if found is None else f"{found.value:.2f}"


def _share(kept: Interval | None) -> str:
    return "–" if kept is None else f"{kept.value:.2f} <small>({kept.low:.2f}–{kept.high:.2f})</small>"


def _seconds_table(seconds: Mapping[str, float]) -> str:
    cells = "".join(f"<td><b>{_duration(value)}</b><br>{escape(name)}</td>" for name, value in seconds.items())
    return f'<table class="numbers"><tbody><tr>{cells}</tr></tbody></table>'


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"


def _combination(combination: Combination) -> str:
    return (
        f"<figure><div>{_pictures(combination.merged, combination.prompt)}</div>"
        f'<div class="lora">{_pictures(combination.lora, combination.prompt)}<span>plain LoRA</span></div>'
        f"<figcaption>{escape(combination.prompt)}</figcaption></figure>\n"
    )


def _row(row: Row) -> str:
    badge = ' <span class="live">trained here</span>' if row.live else ""
    cells = "".join(
        f"<td>{_pictures(files, f'{row.name}, {what}')}</td>"
        for what, files in (
            ("real", row.references),
            ("alone", row.alone),
            ("merged", row.merged),
            ("plain LoRA", row.lora),
        )
    )
    return (
        f'<tr><th>{escape(row.name)}{badge}<br><small>{escape(row.kind)}<br>"{escape(row.prompt)}"</small></th>'
        f"{cells}</tr>\n"
    )


def _pictures(files: Iterable[str], description: str) -> str:
    alt = escape(description, quote=True)
    return "".join(f'<img src="{escape(file, quote=True)}" alt="{alt}" loading="lazy">' for file in files)


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5d6673; --line: #d9dde3; --ground: #fbfbfa; --mark: #2f6fb3 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9aa3ae; --line: #343a43; --ground: #16191e; --mark: #7db4ea }
}
body { max-width: 1180px; margin: 0 auto; padding: 2rem 1.2rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .8rem }
p { max-width: 46rem }
small, .note, figcaption, thead th { color: var(--soft); font-weight: 400 }
.note { font-size: .88rem }
img { width: 128px; height: 128px; object-fit: cover; border-radius: 6px; margin: 2px; vertical-align: middle }
table { border-collapse: collapse }
th, td { padding: .5rem .7rem; text-align: left; vertical-align: middle; border-bottom: 1px solid var(--line) }
.numbers td { white-space: nowrap }
.concepts th:first-child { min-width: 10rem; max-width: 13rem }
.concepts td { min-width: 272px }
.scroll { overflow-x: auto }
.live { color: var(--mark); font-size: .75rem; font-weight: 600; border: 1px solid; border-radius: 4px;
  padding: 0 .3rem; white-space: nowrap }
.combinations { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 1.2rem }
figure { margin: 0 }
figure .lora { display: flex; align-items: center; gap: .3rem }
figure .lora img { width: 64px; height: 64px; opacity: .85 }
figure .lora span { color: var(--soft); font-size: .8rem }
figcaption { font-size: .9rem; margin-top: .3rem }
"""
