"""The tables of `docs/lora-files.md` are those of the results."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_shows_the_results():
    spec = importlib.util.spec_from_file_location("lora_page", ROOT / ".ci" / "lora_page.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "docs" / "lora-files.md").read_text(encoding="utf-8")
    assert script.up_to_date(text) == text, "python .ci/lora_page.py brings docs/lora-files.md up to date"


def test_every_cell_is_a_test():
    from tests.concepts.exchange import test_merge_support, test_support

    text = (ROOT / "docs" / "lora-files.md").read_text(encoding="utf-8")
    table = text.partition("<!-- support -->")[2].partition("<!-- /support -->")[0]
    for cells in (test_support.CELLS, test_merge_support.CELLS):
        assert re.findall(r"\[(.*?)\]", table) == ["-".join(cell) for cell in cells]
