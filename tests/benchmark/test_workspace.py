"""The work folder: what decides a name, what is kept, what an interruption leaves behind."""

import json
import signal
from dataclasses import replace

import pytest
import torch

from orthoplex.benchmark import PictureSettings
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.benchmark.sources import training_folder
from orthoplex.benchmark.study import finished
from orthoplex.benchmark.workspace import Workspace, _Clock, content_key
from orthoplex.concepts import load_concept
from orthoplex.errors import PromptError
from orthoplex.merging import merge
from orthoplex.models import Brought, load_base
from orthoplex.training import ConceptDataset, TrainingConfig, train

CONFIG = TrainingConfig(
    rank=2,
    slot=0,
    steps=3,
    batch_size=2,
    layers="cross-attention-kv",
    num_vectors=1,
    erasure=0.0,
    erasure_form="activation",
    mixed_precision="no",
)
ONE_STEP = PictureSettings(num_images=2, num_inference_steps=1)


def finish(generator):
    """Run a generator to its end: its events, and what it returns."""
    events = []
    while True:
        try:
            events.append(next(generator))
        except StopIteration as end:
            return events, end.value


@pytest.fixture
def workspace(pico_folder, tmp_path):
    return Workspace(load_base(pico_folder), tmp_path)


def trained(workspace, source, config=CONFIG):
    return finish(workspace.concept(source, config, resolution=32, message="m"))


def pictured(workspace, merged, *prompts, settings=ONE_STEP):
    return finish(workspace.pictures(merged, prompts, settings, message="m"))


def test_keys_do_not_depend_on_the_order_of_names():
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
    assert len(content_key({})) == 24


def test_a_concept_is_trained_once(workspace, sources):
    events, first = trained(workspace, sources[0])
    assert [event.done for event in events] == [0, 1, 2, 3]
    assert first.seconds > 0
    assert load_concept(first.path).manifest.name == "anna"
    assert trained(workspace, sources[0]) == ([], first)


def test_what_decides_a_concept_is_in_its_name_and_written_beside_it(workspace, sources):
    _, first = trained(workspace, sources[0])
    _, other_seed = trained(workspace, sources[0], replace(CONFIG, seed=1))
    _, other_pictures = trained(workspace, sources[1])
    assert len({one.path.parent.name for one in (first, other_seed, other_pictures)}) == 3
    request = json.loads((first.path.parent / "request.json").read_text())
    assert request["name"] == "anna"
    assert request["training"]["steps"] == 3


def test_another_base_has_another_name(workspace, sources):
    name = workspace._key({"x": 1})
    workspace.base.identity = replace(workspace.base.identity, hash="1" * 64)
    assert workspace._key({"x": 1}) != name


def test_another_decoder_makes_other_pictures_of_the_same_concepts(workspace):
    concepts, pictures = workspace._key({}), workspace._picture_folder(None, "a", PictureSettings())
    next(workspace.base.pipeline.vae.decoder.parameters()).data.flatten()[0] += 0.1
    other = Workspace(workspace.base, workspace.folder)
    assert other._key({}) == concepts
    assert other._picture_folder(None, "a", PictureSettings()) != pictures


def test_another_encoder_or_schedule_has_other_names(workspace):
    names = {workspace._key({})}
    next(workspace.base.pipeline.vae.encoder.parameters()).data.flatten()[0] += 0.1
    names.add(Workspace(workspace.base, workspace.folder)._key({}))
    workspace.base.pipeline.scheduler.register_to_config(timestep_spacing="leading")
    names.add(Workspace(workspace.base, workspace.folder)._key({}))
    assert len(names) == 3
    assert Workspace(workspace.base, workspace.folder)._key({}) in names


def test_other_foreign_prompts_are_another_concept_where_they_matter(workspace, sources, monkeypatch):
    erasing = replace(CONFIG, steps=1, erasure=1.0, erasure_prompts=4, prior_pictures=0)
    plain, erased = trained(workspace, sources[0])[1], trained(workspace, sources[0], erasing)[1]
    monkeypatch.setattr("orthoplex.benchmark.workspace.default_foreign_prompts", lambda base: ("a boat",))
    assert trained(workspace, sources[0])[1].path != plain.path  # of their words tokens take how far they may begin
    assert trained(workspace, sources[0], erasing)[1].path != erased.path
    monkeypatch.setattr(workspace.base, "brought", Brought(foreign_prompts=("a boat",)))
    bringing = trained(workspace, sources[0])[1]  # prompts that come with a base are always the same
    monkeypatch.setattr("orthoplex.benchmark.workspace.default_foreign_prompts", lambda base: ("a car",))
    assert trained(workspace, sources[0])[1] == bringing


def test_an_interrupted_training_gives_the_same_concept(workspace, sources):
    _, whole = trained(workspace, sources[0])
    expected = load_concept(whole.path).content_hash
    other = Workspace(workspace.base, workspace.folder / "other")
    training = other.concept(sources[0], CONFIG, resolution=32, message="m")
    next(training), next(training)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        list(training)
    training.close()
    events, resumed = trained(other, sources[0])
    assert events[-1].done == 3
    assert load_concept(resumed.path).content_hash == expected


def test_one_training_serves_every_weight_of_erasure_in_closed_form(workspace, sources, tmp_path):
    config = replace(CONFIG, erasure_form="closed-form", erasure_steps=0)
    events, first = trained(workspace, sources[0], replace(config, erasure=2.0))
    assert [event.done for event in events] == [0, 1, 2, 3]
    events, second = trained(workspace, sources[0], replace(config, erasure=8.0))
    assert events == [] and second.seconds > 0
    events, plain = trained(workspace, sources[0])
    assert events == [] and len({one.path for one in (first, second, plain)}) == 3
    found = [load_concept(one.path) for one in (first, second)]
    assert [concept.manifest.training["erasure"] for concept in found] == [2.0, 8.0]
    assert found[0].content_hash != found[1].content_hash


@pytest.mark.parametrize("steps", [0, 1])
def test_what_erasure_in_closed_form_makes_is_what_training_would_have_made(workspace, sources, tmp_path, steps):
    config = replace(CONFIG, erasure=2.0, erasure_form="closed-form", erasure_steps=steps)
    _, kept = trained(workspace, sources[0], config)
    source, output = sources[0], tmp_path / "anna.safetensors"
    folder = training_folder(source, workspace.folder)
    dataset = ConceptDataset.from_folder(
        folder, resolution=32, token=source.token, class_word=source.class_word, kind=source.kind
    )
    for _ in train(workspace.base, dataset, config, output=output):
        pass
    assert load_concept(output).content_hash == load_concept(kept.path).content_hash


def test_how_many_steps_are_silent_names_a_training_only_where_some_are(workspace, sources):
    path = trained(workspace, sources[0])[1].path
    assert trained(workspace, sources[0], replace(CONFIG, erasure_steps=0))[1].path == path
    config = replace(CONFIG, steps=4, erasure=2.0, erasure_form="closed-form")
    told = trained(workspace, sources[0], config)[1].path  # three tenths
    assert trained(workspace, sources[0], replace(config, erasure_steps=1))[1].path == told
    assert trained(workspace, sources[0], replace(config, erasure_steps=2))[1].path != told


def test_what_another_process_trains_is_waited_for(workspace, sources, monkeypatch):
    monkeypatch.setattr("orthoplex.benchmark.workspace.POLL_SECONDS", 0.0)
    other = Workspace(workspace.base, workspace.folder)
    first = workspace.concept(sources[0], CONFIG, resolution=32, message="m")
    next(first)  # it holds the file
    second = other.concept(sources[0], CONFIG, resolution=32, message="m")
    waiting = [next(second).message for _ in range(3)]
    assert waiting == ["m: waiting for another process"] * 3
    done = finished(first)
    assert finished(second) == done  # and its time is the first one's
    assert done.seconds > 0


def test_what_another_process_finished_meanwhile_is_not_trained_again(workspace, sources, monkeypatch):
    _, done = trained(workspace, sources[0])
    kept = done.path.rename(done.path.with_suffix(".kept"))
    monkeypatch.setattr("orthoplex.benchmark.workspace.POLL_SECONDS", 0.0)
    tries = []

    def acquired(lock):
        tries.append(lock)
        if len(tries) == 1:
            return False
        kept.rename(done.path)  # the other wrote it, and let go of the lock
        return True

    monkeypatch.setattr("orthoplex.benchmark.workspace._acquired", acquired)
    events, found = trained(workspace, sources[0])
    assert [event.message for event in events] == ["m: waiting for another process"]
    assert found == done


def test_ctrl_c_inside_a_step_stops_the_whole_run(workspace, sources, monkeypatch):
    def interrupted(*arguments, **options):
        yield from ()  # what `train` does after it has written its checkpoint

    monkeypatch.setattr("orthoplex.benchmark.workspace.train", lambda *a, **o: interrupted())
    with pytest.raises(KeyboardInterrupt):
        trained(workspace, sources[0])


def test_time_adds_up_over_sessions(tmp_path):
    path = tmp_path / "seconds.json"
    first = _Clock(path)
    with pytest.raises(ZeroDivisionError), first:
        raise ZeroDivisionError
    assert first.seconds > 0
    second = _Clock(path)
    assert second.seconds == first.seconds
    with second:
        pass
    assert second.seconds > first.seconds


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": "x"}'])
def test_a_damaged_time_counts_as_none_and_is_told(tmp_path, caplog, text):
    path = tmp_path / "seconds.json"
    path.write_text(text)
    assert _Clock(path).seconds == 0.0
    assert f"{path} is damaged; the time it held counts as 0 seconds" in caplog.text


def test_a_damaged_concept_is_trained_again(workspace, sources, caplog):
    _, first = trained(workspace, sources[0])
    expected = load_concept(first.path).content_hash
    first.path.write_bytes(first.path.read_bytes()[:-100])
    (first.path.parent / "seconds.json").write_text('{"seconds": 1000.0}')
    events, again = trained(workspace, sources[0])
    assert events[-1].done == 3
    assert (again.path, load_concept(again.path).content_hash) == (first.path, expected)
    assert again.seconds < 1000  # the time of the first training went with it
    assert f"{first.path} is damaged and is made again" in caplog.text


def test_a_damaged_concept_whose_training_is_stopped_again_is_not_taken_for_whole(workspace, sources, monkeypatch):
    _, first = trained(workspace, sources[0])
    first.path.write_bytes(b"")
    monkeypatch.setattr("orthoplex.benchmark.workspace.train", lambda *a, **o: (one for one in ()))
    with pytest.raises(KeyboardInterrupt):
        trained(workspace, sources[0])


@pytest.mark.parametrize("text", ["", "[]", "{}", None])
def test_damaged_pictures_are_made_again(workspace, text):
    _, (first,) = pictured(workspace, None, "a cat")
    path = first.folder / "set.json"
    path.unlink() if text is None else path.write_text(text)
    events, (again,) = pictured(workspace, None, "a cat")
    assert len(events) == 1
    assert (again.prompt, again.files) == (first.prompt, first.files)


def test_a_lost_picture_is_made_again(workspace):
    _, (first,) = pictured(workspace, None, "a cat")
    first.files[0].unlink()
    events, (again,) = pictured(workspace, None, "a cat")
    assert len(events) == 1 and again.files == first.files and again.files[0].is_file()


def test_a_picture_that_was_not_wholly_written_is_made_again(workspace):
    _, (first,) = pictured(workspace, None, "a cat")
    for damage in (b"", first.files[0].read_bytes()[:-40]):
        first.files[0].write_bytes(damage)
        events, (again,) = pictured(workspace, None, "a cat")
        assert len(events) == 1 and again.open()


def test_damaged_features_are_made_again(workspace):
    (pictures,) = pictured(workspace, None, "a cat")[1]
    encoder = EncoderSettings("block-3", 32).build()
    features = workspace.features(pictures, encoder).clone()  # what is read from a file is mapped to it
    path = pictures.folder / f"{encoder.name}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(workspace.features(pictures, encoder), features)
    assert path.is_file()


def test_pictures_are_made_once_for_each_prompt(workspace):
    events, sets = pictured(workspace, None, "a cat", "a dog")
    assert [(event.done, event.total) for event in events] == [(1, 2), (2, 2)]
    assert [one.prompt for one in sets] == ["a cat", "a dog"]
    assert [[file.name for file in one.files] for one in sets] == [["000.png", "001.png"]] * 2
    events, again = pictured(workspace, None, "a dog", "a fox", "a cat")
    assert [(event.done, event.total) for event in events] == [(1, 1)]
    assert (again[0], again[2]) == (sets[1], sets[0])


def test_settings_and_merges_have_pictures_of_their_own(workspace, sources):
    _, file = trained(workspace, sources[0])
    concept = load_concept(file.path)
    alone, half = merge([(concept, 1.0)]), merge([(concept, 0.5)])
    prompt = concept.manifest.trigger
    found = [
        pictured(workspace, alone, prompt)[1],
        pictured(workspace, half, prompt)[1],
        pictured(workspace, alone, prompt, settings=replace(ONE_STEP, seed=7))[1],
        pictured(workspace, alone, prompt, settings=replace(ONE_STEP, guidance_scale=2.0))[1],
        pictured(workspace, alone, prompt, settings=replace(ONE_STEP, mixed_precision="bf16"))[1],
    ]
    assert len({one[0].folder for one in found}) == 5
    assert workspace.base.recipe is None  # all that was folded in is out again
    assert json.loads((found[1][0].folder / "set.json").read_text())["merge"]["concepts"][0]["strength"] == 0.5


def test_what_auto_stood_for_decides_the_name(workspace, sources, monkeypatch):
    found = {}
    for able, told in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"amx_bf16": able})
        _, file = trained(workspace, sources[0], replace(CONFIG, mixed_precision="auto"))
        (pictures,) = pictured(workspace, None, "a cat", settings=replace(ONE_STEP, mixed_precision="auto"))[1]
        assert trained(workspace, sources[0], replace(CONFIG, mixed_precision=told)) == ([], file)
        assert pictured(workspace, None, "a cat", settings=replace(ONE_STEP, mixed_precision=told)) == ([], (pictures,))
        found[told] = (file.path, pictures.folder)
    assert len({*found["bf16"], *found["no"]}) == 4


def test_a_prompt_that_is_refused_leaves_nothing_behind(workspace):
    with pytest.raises(PromptError, match="<bob>"):
        pictured(workspace, None, "<bob> person")
    assert not list(workspace.folder.rglob("*.png"))
    assert workspace.base.recipe is None


def test_features_are_kept_beside_their_pictures(workspace):
    (pictures,) = pictured(workspace, None, "a cat")[1]
    encoder = EncoderSettings("block-3", 32).build()
    features = workspace.features(pictures, encoder)
    torch.testing.assert_close(features, encoder.encode(pictures.open()))
    path = pictures.folder / "mobilenetv2-block-3-32px-grid1.safetensors"
    stamp = path.stat().st_mtime_ns
    assert torch.equal(workspace.features(pictures, encoder), features)
    assert path.stat().st_mtime_ns == stamp
    assert pictured(workspace, None, "a cat")[1] == (pictures,)
