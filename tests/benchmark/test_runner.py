"""A whole experiment on a pico pipeline: computed once, resumable, shared between variants."""

import json
import multiprocessing
import os
import signal
import sys
import time
from itertools import pairwise

import pytest
from safetensors import safe_open

from orthoplex.benchmark import run, runner
from orthoplex.benchmark.experiment import load_experiment
from orthoplex.benchmark.parallel import _stop
from orthoplex.benchmark.study import fill_prompts
from orthoplex.errors import CapacityError, ConfigurationError, MissingExtraError, OrthoplexError, PromptError
from orthoplex.models import Brought, Family, load_base
from orthoplex.models.brought import brought_by_vignette
from tests.benchmark.tiny import experiment_file


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(pico_folder, sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    path = experiment_file(folder, pico_folder, sources)
    return path, folder, list(run(path, results=folder / "results", work=folder / "work"))


def test_events_tell_every_stage(finished, sources):
    _, folder, events = finished
    stages = [event.stage for event in events]
    assert [stage for before, stage in pairwise(["", *stages]) if stage != before][0] == "train"
    assert stages[-1] == "report"
    assert all(0 <= event.done <= event.total for event in events)
    last_steps = [event for event in events if event.stage == "train" and event.done == event.total]
    assert len({event.message for event in last_steps}) == 2 * len(sources)  # the two lora variants share theirs
    assert events[-1].message == str(folder / "results" / "tiny.json")


def test_too_many_concepts_for_a_layer_are_refused_before_training(pico_folder, sources, tmp_path):
    path = experiment_file(tmp_path, pico_folder, sources)
    path.write_text(path.read_text().replace("rank = 2", "rank = 16"))
    events = run(path, results=tmp_path / "results", work=tmp_path / "work")
    with pytest.raises(CapacityError, match=r"variant 'slots', concept boro: .* slot is 2"):
        next(events)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("before", "after", "error", "message"),
    [
        (
            "num_inference_steps = 1",
            "num_inference_steps = 2000",
            ConfigurationError,
            "num_inference_steps is 2000; all",
        ),
        (
            "in a forest",
            "in a {red|green} forest",
            PromptError,
            r"^variant 'slots': prompt holds '\{red\|green\}', a choice in other programs; write one of its texts",
        ),
        (
            "in a forest",
            "in a (forest:1.2",
            PromptError,
            r"'slots': prompt holds '\(forest:1.2', whose bracket is never",
        ),
        (
            "in a forest",
            "with <max>",
            PromptError,
            "'slots': prompt names '<max>', which is not loaded; known concepts: <",
        ),
        (
            "num_inference_steps = 1",
            'num_inference_steps = 1\nnegative_prompt = "a AND b"',
            PromptError,
            "'slots': negative_prompt holds 'AND', two prompts at once",
        ),
    ],
)
def test_pictures_that_cannot_be_made_are_refused_before_training(
    pico_folder, sources, tmp_path, before, after, error, message
):
    path = experiment_file(tmp_path, pico_folder, sources)
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(error, match=message):
        next(run(path, results=tmp_path / "results", work=tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_long_and_weighted_prompts_are_allowed_where_they_can_be_read(pico_folder, sources, tmp_path, monkeypatch):
    path = experiment_file(tmp_path, pico_folder, sources)
    path.write_text(path.read_text().replace("in a forest", "in a (forest:1.2)" + " wood" * 99))
    experiment, base = load_experiment(path), load_base(pico_folder)
    runner.check_pictures(experiment, base)
    assert base.tokens == ()
    monkeypatch.setitem(sys.modules, "compel.embeddings_provider", None)
    with pytest.raises(MissingExtraError, match=r"install the extra: pip install 'orthoplex\[prompts\]'"):
        runner.check_pictures(experiment, base)
    monkeypatch.setattr(type(base.family), "condition_weighted", Family.condition_weighted)
    with pytest.raises(PromptError, match="variant 'slots': prompt .* has weights or BREAK, which base"):
        runner.check_pictures(experiment, base)


MORE = """
crosstalk = true

[[together]]
name = "pairs"
kinds = ["person", "subject"]
prompts = ["{1} and {2}"]
draws = 2

[published]
source = "A paper, table 2"
columns = ["identity single", "merged"]
rows = { "theirs" = [0.5, 0.25] }

[[variants]]
name = "no weights"
training = { layers = "none", token_vectors = "layer-wise" }

[[variants]]
name = "keys and values"
training = { method = "lora", token_vectors = "keys-and-values" }
parts = "tokens"

[[variants]]
name = "keys and values, weights"
training = { method = "lora", token_vectors = "keys-and-values" }
parts = "weights"

[[variants]]
name = "lora tokens"
training = { method = "lora" }
parts = "tokens"

[[variants]]
name = "lora weights"
training = { method = "lora" }
parts = "weights"

[[variants]]
name = "half"
training = { method = "lora" }
scale = 0.5
"""


def test_together_crosstalk_and_parts(pico_folder, sources, tmp_path):
    path = experiment_file(tmp_path, pico_folder, sources)
    head, tables = MORE.strip().split("\n", 1)
    path.write_text(f"{head}\n{path.read_text()}{tables}\n")
    events = list(run(path, results=tmp_path / "results", work=tmp_path / "work"))
    trained = {event.message for event in events if event.stage == "train"}
    assert not any(
        "lora tokens" in message or "lora weights" in message for message in trained
    )  # they share the lora variants'
    values = json.loads((tmp_path / "results" / "tiny.json").read_text())
    rows = values["together"]
    assert len(rows) == 2 * 9 and {tuple(row["shown"]) for row in rows} == {("anna", "boro"), ("rex", "boro")}
    assert all(0 <= row["all_recognised"] <= min(row["recognised"]) <= 1 for row in rows)
    layers = {row["layer"] for row in values["crosstalk"]}
    assert layers and all(set(row["own"]) >= {"slots", "lora sum"} for row in values["crosstalk"])
    for left_out in ("lora tokens", "half"):  # no weights, no crosstalk; and of half a merge it would not tell
        assert all(left_out not in row["own"] for row in values["crosstalk"])
    assert all(row["shared"]["slots"] < 1e-6 < row["shared"]["lora sum"] for row in values["crosstalk"])
    text = (tmp_path / "results" / "tiny.md").read_text()
    assert "## Together: pairs" in text and "## Crosstalk" in text and next(iter(layers)) in text
    assert "A paper, table 2" in text and "| theirs | 0.500 | 0.250 |" in text
    for name in ("tiny-together.svg", "tiny-crosstalk.svg", "tiny-silence.svg"):
        assert (tmp_path / "results" / name).read_text().lstrip().startswith("<")
    again = list(run(path, results=tmp_path / "results", work=tmp_path / "work"))
    assert not [event for event in again if event.stage in ("train", "pictures")]


def test_the_result_holds_every_measurement(finished, sources):
    values = json.loads((finished[1] / "results" / "tiny.json").read_text())
    rows = values["measurements"]
    assert [(row["variant"], row["concept"]) for row in rows] == [
        (variant, source.name) for variant in ("slots", "lora sum", "lora mean") for source in sources
    ]
    assert [summary["variant"] for summary in values["summary"]] == ["slots", "lora sum", "lora mean"]
    assert set(values["ceilings"]) == {"anna", "rex", "boro"}
    assert values["encoder"] == "mobilenetv2-block-3-32px-grid1"
    # what does not depend on the merge is the same for both lora variants
    sums, means = ([row for row in rows if row["variant"] == name] for name in ("lora sum", "lora mean"))
    for one, other in zip(sums, means, strict=True):
        assert one["single_alignment"] == other["single_alignment"]
        assert one["base_alignment"] == other["base_alignment"]
    assert all(row["training"] > 0 for row in values["seconds"])


def test_tables_and_chart_are_written(finished):
    page = (finished[1] / "results" / "tiny.md").read_text()
    assert page.count("| slots |") == 4
    assert "| boro | subject |" in page
    assert "| slots | – | – | – | – | – | – | – | – |" in page  # no heads for this base's words
    chart = (finished[1] / "results" / "tiny.svg").read_text()
    assert "<svg" in chart and "lora mean" in chart


def test_where_heads_know_the_words_text_alignment_is_measured(finished, monkeypatch, tmp_path):
    path, folder, _ = finished

    def bringing_heads(name, device):
        base = load_base(name, device=device)
        base.brought = Brought(heads=brought_by_vignette().heads)
        return base

    monkeypatch.setattr(sys.modules["orthoplex.benchmark.experiment"], "load_base", bringing_heads)
    list(run(path, results=tmp_path, work=folder / "work"))
    values = json.loads((tmp_path / "tiny.json").read_text())
    assert "scene and style that linear heads read off mobilenetv2-bottleneck-128px-grid1" in values["text"]
    for row in values["measurements"]:
        read = [row[f"{state}_text"] for state in ("base", "single", "merged")]
        if row["kind"] == "person":  # of their two prompts one asks for a forest
            assert all(value in (0.0, 1.0) for value in read)
        else:
            assert read == [None] * 3
        assert row["base_choice"] is None  # one name is no choice
    assert all(0 <= summary["base_text"]["value"] <= 1 for summary in values["summary"])
    assert values["ceilings"]["anna"]["text"] is None  # its captions name no scene
    assert (
        "Text alignment, what prompts ask for besides the concept: scene and style"
        in (tmp_path / "tiny.md").read_text()
    )


def test_a_second_run_computes_nothing_and_says_the_same(finished):
    path, folder, _ = finished
    before, result = times(folder / "work"), (folder / "results" / "tiny.json").read_text()
    stages = {event.stage for event in run(path, results=folder / "results", work=folder / "work")}
    assert stages == {"measure", "report"}
    assert times(folder / "work") == before
    assert (folder / "results" / "tiny.json").read_text() == result


def test_only_what_changed_is_computed(finished):
    path, folder, _ = finished
    changed = path.with_name("changed.toml")
    changed.write_text(path.read_text().replace('algorithm = "mean"', 'algorithm = "mean"\nscale = 2.0'))
    events = list(run(changed, results=folder / "results", work=folder / "work"))
    pictures = [event for event in events if event.stage == "pictures"]
    assert "train" not in {event.stage for event in events}
    assert {event.message for event in pictures} == {"merge of 3, lora mean, seed 0"}
    assert len(pictures) == 5  # two prompts for each person, one for the subject


def test_merges_of_several_sizes_are_measured_beside_each_other(finished):
    path, folder, _ = finished
    sizes = path.with_name("sizes.toml")
    sizes.write_text(path.read_text() + '\n[merges]\nsizes = [2, 3]\ndraws = 2\nmeasured = ["anna", "rex"]\n')
    list(run(sizes, results=folder / "results", work=folder / "work"))
    values = json.loads((folder / "results" / "sizes.json").read_text())
    assert [(row["size"], row["variant"]) for row in values["summary"]] == [
        (size, variant) for size in (2, 3) for variant in ("slots", "lora sum", "lora mean")
    ]
    assert {row["concept"] for row in values["measurements"]} == {"anna", "rex"}
    for row in values["measurements"]:
        assert sum(row["merged_as"].values()) == pytest.approx(1)
        assert row["merged_as"].get(row["concept"], 0.0) == row["merged_recognised"]
    page = (folder / "results" / "sizes.md").read_text()
    assert "## Merges of 2" in page and "2 of 3 concepts measured" in page
    assert "concepts in the merge" in (folder / "results" / "sizes.svg").read_text()
    assert "Prompted (rows)" in (folder / "results" / "sizes-recognised.svg").read_text()


def test_a_data_aware_merge_gathers_its_inputs_once(finished):
    path, folder, _ = finished
    aware = path.with_name("aware.toml")
    told = 'algorithm = "least-squares"\noptions = { foreign = 1.5 }'
    aware.write_text(path.read_text().replace('algorithm = "mean"', told))
    assert not (folder / "work" / "grams").exists()  # no algorithm asked for them so far
    list(run(aware, results=folder / "results", work=folder / "work"))
    made = times(folder / "work" / "grams")
    assert len(made) == 1  # of foreign prompts; the concepts keep their own
    spent = sum(float(safe_open(path, "pt").metadata()["seconds"]) for path in made)
    known = json.loads((folder / "results" / "aware.json").read_text())["experiment"]["variants"]
    assert known[2]["options"] == {"foreign": 1.5}
    aware.write_text(aware.read_text().replace("1.5", "2.5"))
    events = list(run(aware, results=folder / "results", work=folder / "work"))
    assert times(folder / "work" / "grams") == made
    assert {event.message for event in events if event.stage == "pictures"} == {"merge of 3, lora mean, seed 0"}
    found = json.loads((folder / "results" / "aware.json").read_text())["seconds"]
    took = {row["variant"]: row["merging"] for row in found}
    assert 0 < took["lora sum"] < spent <= took["lora mean"]  # what is known already counts all the same


def test_a_stopped_run_goes_on(pico_folder, sources, tmp_path):
    path = experiment_file(tmp_path, pico_folder, sources[:2])
    events = run(path, results=tmp_path / "results", work=tmp_path / "work")
    for event in events:
        if event.message.startswith("rex, slots") and event.done == 1:
            break
    events.close()
    (anna,) = (tmp_path / "work").rglob("anna.safetensors")
    stamp = os.stat(anna).st_mtime_ns
    rest = list(run(path, results=tmp_path / "results", work=tmp_path / "work"))
    assert os.stat(anna).st_mtime_ns == stamp
    assert rest[0].message.startswith("rex, slots")
    assert (tmp_path / "results" / "tiny.json").is_file()


def test_an_error_in_a_process_ends_all_and_is_told(finished, tmp_path):
    changed = tmp_path / "changed.toml"
    changed.write_text(finished[0].read_text().replace("rank = 2", "rank = 999"))
    with pytest.raises(OrthoplexError, match="999"):
        list(run(changed, results=tmp_path / "results", work=tmp_path / "work", processes=2))
    assert not list((tmp_path / "work").rglob("*.safetensors"))
    assert not multiprocessing.active_children()


@pytest.fixture
def background():
    """As a script's background starts a process: deaf to SIGINT, which the processes it starts inherit."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.slow
def test_a_stopped_run_of_processes_leaves_none_goes_on_and_gives_what_one_process_gives(
    finished, tmp_path, background
):
    path, folder, _ = finished
    events = run(path, results=tmp_path / "results", work=tmp_path / "work", processes=2)
    assert next(events).stage == "train"
    events.close()
    assert not multiprocessing.active_children()
    done = times(tmp_path / "work")
    assert 0 < sum(path.suffix == ".safetensors" for path in done) < 6
    events = list(run(path, results=tmp_path / "results", work=tmp_path / "work", processes=2))
    jobs = {event.stage: event.total for event in events if event.message.endswith("side by side")}
    assert jobs == {"train": 6, "pictures": 3}  # the two lora variants share their concepts
    assert {event.stage for event in events[sum(jobs.values()) :]} == {"measure", "report"}
    one, two = (json.loads((place / "results" / "tiny.json").read_text()) for place in (folder, tmp_path))
    assert [row["concept"] for row in one["measurements"]] == [row["concept"] for row in two["measurements"]]
    for ours, theirs in zip(one["measurements"], two["measurements"], strict=True):
        numbers = {key: value for key, value in ours.items() if isinstance(value, float)}
        assert numbers and {key: theirs[key] for key in numbers} == pytest.approx(numbers, abs=1e-3)


def test_a_process_that_hears_no_signal_is_killed(background):
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(120,))
    worker.start()
    began = time.monotonic()
    _stop([worker], grace=1.0)
    assert time.monotonic() - began < 60
    assert worker.exitcode == -signal.SIGKILL


def test_a_resolution_below_one_latent_pixel_is_refused_at_once(finished, tmp_path):
    changed = tmp_path / "changed.toml"
    changed.write_text(finished[0].read_text().replace("resolution = 32", "resolution = 3"))
    with pytest.raises(ConfigurationError, match="resolution is 3; allowed are whole numbers from 4"):
        next(run(changed, results=tmp_path / "results", work=tmp_path / "work"))


def test_no_processes_are_refused(finished, tmp_path):
    with pytest.raises(ConfigurationError, match="processes is 0; allowed are whole numbers from 1"):
        next(run(finished[0], results=tmp_path, work=tmp_path, processes=0))


def test_prompts_are_filled():
    assert fill_prompts(["{trigger}", "a photo of {trigger} in a {x}"], "<a> cat") == (
        "<a> cat",
        "a photo of <a> cat in a {x}",
    )
