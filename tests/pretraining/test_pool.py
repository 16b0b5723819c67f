"""An index of the pool is written once its pictures are the listed ones."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pretraining import concept_pictures, pool
from pretraining.concept_pictures import Sample, write
from pretraining.samples import SAMPLES
from pretraining.vocabulary import LEADING_STYLE

EVERY = [*SAMPLES, *pool.pool(), *pool.more(), *pool.folk()]
CONCEPT = Sample("koala", "subject", "animal", ("emoji", "noto", "koala"), "Noto")
FURTHER = Sample("crow", "subject", "animal", ("emoji", "noto", "crow"), "Noto")
THIRD = Sample("folk-00", "person", "person", ("toon-head", {}), "Toon Head", close=True)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command, with two concepts whose checksums are given."""
    sums = {"koala": "1", "crow": "2", "folk-00": "3"}

    def build(folder: Path, samples: list[Sample], workers: int) -> dict[str, str]:
        folder.mkdir(parents=True, exist_ok=True)
        return {sample.name: sums[sample.name] for sample in samples}

    monkeypatch.setattr(pool, "pool", lambda: [CONCEPT])
    monkeypatch.setattr(pool, "more", lambda: [FURTHER])
    monkeypatch.setattr(pool, "folk", lambda: [THIRD])
    monkeypatch.setattr(pool, "build", build)

    def command(*arguments: str, **changed: str) -> None:
        sums.update(changed)
        paths = ["--output", str(tmp_path / "pool"), "--checksums", str(tmp_path / "pool.json")]
        monkeypatch.setattr("sys.argv", ["pool", *paths, *arguments])
        pool.main()

    return command


def indices(folder: Path) -> list[str]:
    files = [folder / "pool" / part / "concepts.json" for part in ("", "more", "folk")]
    return [row["name"] for file in files if file.exists() for row in json.loads(file.read_text())]


def test_the_index_comes_with_the_listed_pictures(run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run("--write")
    assert json.loads((tmp_path / "pool.json").read_text()) == {"koala": "1", "crow": "2", "folk-00": "3"}
    run()
    assert indices(tmp_path) == ["koala", "crow", "folk-00"]
    assert "3 concepts, 3 as listed" in capsys.readouterr().out


def test_other_pictures_are_named_and_have_no_index_unless_asked_for(
    run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "pool.json").write_text(json.dumps({"koala": "1", "crow": "2", "folk-00": "3"}))
    with pytest.raises(SystemExit) as stopped:
        run(crow="4")
    shown = capsys.readouterr()
    assert stopped.value.code == 1 and indices(tmp_path) == []
    assert "1 of 3 concepts have other pictures than listed: crow" in shown.out and "--any takes them" in shown.err
    run("--any")
    assert indices(tmp_path) == ["koala", "crow", "folk-00"]
    assert "3 concepts, 2 as listed" in capsys.readouterr().out


def test_what_is_missing_on_either_side_differs() -> None:
    assert pool.differing({"a": "1", "b": "2"}, {"b": "2", "c": "3"}) == ["a", "c"]


def test_no_picture_of_a_concept_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(sample: Sample, number: int) -> tuple[Image.Image, str]:
        shade = number if number != 5 else 3  # the sixth is drawn like the fourth
        return Image.new("RGB", (8, 8), (10 * shade, 0, 0)), f"number {number}"

    monkeypatch.setattr(concept_pictures, "draw", draw)
    write(CONCEPT, tmp_path / "koala")
    lines = [json.loads(line)["text"] for line in (tmp_path / "koala" / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == concept_pictures.PICTURES
    assert lines[5] == f"number {5 + concept_pictures.PICTURES}" and lines[4] == "number 4"
    monkeypatch.setattr(concept_pictures, "draw", lambda sample, number: (Image.new("RGB", (8, 8)), ""))
    with pytest.raises(ValueError, match="koala has 1 different pictures; 16 are needed"):
        write(CONCEPT, tmp_path / "again")


def test_the_pool_has_forty_concepts_beyond_the_samples_two_hundred_more_and_forty_people() -> None:
    kinds = {"person": 12, "subject": 12, "scene": 8, "style": 8}
    assert Counter(sample.kind for sample in pool.pool()) == kinds
    assert Counter(sample.kind for sample in pool.more()) == {"person": 100, "subject": 100}
    assert Counter((sample.kind, sample.source[0]) for sample in pool.folk()) == {("person", LEADING_STYLE): 40}
    assert len({sample.name for sample in EVERY}) == len(EVERY)
    sources = [json.dumps(sample.source) for sample in EVERY if sample.source[0] != "emoji"]
    assert len(set(sources)) == len(sources)
    drawn = [sample.source[2] for sample in EVERY if sample.source[0] == "emoji"]
    assert len(set(drawn)) == len(drawn)
    assert pool.held_out_person("person-00", "micah") == pool.pool()[0]


def test_checksums_of_all_pool_concepts_are_kept() -> None:
    kept = json.loads(Path("results/vignette/pool.json").read_text())
    assert set(kept) == {sample.name for sample in (*pool.pool(), *pool.more(), *pool.folk())}
    assert len(set(kept.values())) == len(kept)
