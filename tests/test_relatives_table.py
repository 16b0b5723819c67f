"""The table of relatives in `docs/bases.md` is that of `results/relatives.json`."""

from pathlib import Path

from benchmarks.relatives import write_table

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_shows_the_results(tmp_path):
    page = ROOT / "docs" / "bases.md"
    copy = tmp_path / "bases.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    write_table(ROOT / "results" / "relatives.json", copy)
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
