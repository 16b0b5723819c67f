"""Threads that share a base: every picture is the one it would be alone, and the base is as before."""

import copy
import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from orthoplex.errors import BusyError
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import PictureRequest, PictureStep, load_base
from orthoplex.models.identity import weights_hash
from orthoplex.training import ConceptDataset, TrainingConfig, checkpoint_step, loop, train
from tests.pico import linear_layers, make_concept
from tests.training.conftest import write_pictures

STEPS = 2


@pytest.fixture(scope="module")
def base(pico_folder):
    return load_base(pico_folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    pictures = write_pictures(tmp_path_factory.mktemp("threads") / "pictures")
    return ConceptDataset.from_folder(pictures, resolution=32, token="<tom>", class_word="person", kind="person")


CONFIG = TrainingConfig(
    steps=4, batch_size=2, slots=4, layers="attention", erasure=0.0, erasure_form="activation", mixed_precision="no"
)


def pixels(base, prompt, change):
    return np.asarray(generate(base, prompt, merge=change, num_inference_steps=STEPS)[0])


def whole_hash(base):
    return (
        weights_hash(base.family.components()),
        weights_hash({"vae": base.pipeline.vae}),
        base.pipeline.tokenizer.get_vocab(),
    )


def test_mixed_requests_of_eight_threads_give_the_pictures_of_one(base, dataset, tmp_path):
    anna, rex = make_concept(base, "anna", scale=0.5), make_concept(base, "rex", seed=1, scale=0.5, num_vectors=2)
    keyed = make_concept(base, "bob", selection="none", keys_values=True, seed=2)
    wide = make_concept(base, "liv", selection="none", layerwise=True, seed=3)
    prompts = {
        "anna": ("<anna> person", merge([(anna, 1.0)])),
        "rex": ("<rex> person in a room", merge([(rex, 1.0)])),
        "both": ("<anna> person and <rex> dog", merge([(anna, 1.0), (rex, 0.7)])),
        "keys": ("<bob> person", keyed),
        "layers": ("<liv> person", wide),
        "plain": ("a person in a room", None),
    }
    before = whole_hash(base)
    alone = {name: pixels(base, *asked) for name, asked in prompts.items()}
    assert len({picture.tobytes() for picture in alone.values()}) == len(alone)  # no two are mistaken for one another
    abandoned = []

    def request(number):
        rng = random.Random(number)
        if number % 8 == 7:
            steps = train(base, dataset, CONFIG, output=tmp_path / f"{number}.safetensors")
            abandoned.append((steps, list(islice(steps, 3))))  # kept, and never gone on with
            return True
        name = rng.choice(list(prompts))
        return np.array_equal(pixels(base, *prompts[name]), alone[name])

    with ThreadPoolExecutor(8) as pool:
        right = list(pool.map(request, range(48)))
    assert all(right) and len(abandoned) == 6
    assert whole_hash(base) == before and base.tokens == () and base.recipe is None


def test_a_training_that_is_left_half_way_holds_nothing(base, dataset, tmp_path):
    before = whole_hash(base)
    records = train(base, dataset, CONFIG, output=tmp_path / "tom.safetensors")
    with closing(records):
        list(islice(records, 2))
        assert base.tokens == () and whole_hash(base) == before
        assert not any(layer._forward_hooks for layer in linear_layers(base, "linear").values())
        done = []
        other = threading.Thread(target=lambda: done.append(generate(base, "a person", num_inference_steps=1)))
        other.start()
        other.join(timeout=60)
        assert done
        assert base.save(tmp_path / "whole").is_dir()


def test_two_trainings_on_one_base_take_turns(base, dataset, tmp_path):
    def trained(name, seed):
        return train(base, dataset, replace(CONFIG, seed=seed), output=tmp_path / f"{name}.safetensors")

    alone = [list(trained(f"alone-{seed}", seed)) for seed in (1, 2)]
    first, second = trained("first", 1), trained("second", 2)
    turns = [(next(first), next(second)) for _ in range(len(alone[0]))]
    for place, steps in enumerate(alone):
        assert [turn[place].loss for turn in turns] == [record.loss for record in steps]
    for seed, name in ((1, "first"), (2, "second")):
        contents = [(tmp_path / f"{one}.safetensors").read_bytes()[-4000:] for one in (name, f"alone-{seed}")]
        assert contents[0] == contents[1]


def test_a_change_that_stays_in_stops_a_training_and_loses_nothing(base, dataset, tmp_path):
    output = tmp_path / "tom.safetensors"
    records = train(base, dataset, CONFIG, output=output)
    list(islice(records, 3))
    with base.fold(make_concept(base, "anna")), pytest.raises(BusyError, match="has anna folded in; .* step 2 is kept"):
        next(records)
    assert [record.step for record in train(base, dataset, CONFIG, output=output, resume=True)] == [3, 4]


def test_others_wait_while_a_thread_has_a_change_in(base):
    anna = make_concept(base, "anna", scale=0.5)
    plain, asked, drawn = pixels(base, "a person", None), threading.Event(), []

    def draw():
        asked.set()
        drawn.append(pixels(base, "a person", None))

    with base.folded(anna):
        other = threading.Thread(target=draw)
        other.start()
        asked.wait(timeout=60)
        other.join(timeout=0.2)
        assert drawn == []
        inside = pixels(base, "a person", None)  # this thread's own
    other.join(timeout=60)
    assert np.array_equal(drawn[0], plain) and not np.array_equal(inside, plain)


def test_a_call_leaves_nothing_in_the_pipeline(base):
    scheduler, before = base.pipeline.scheduler, dict(vars(base.pipeline))
    timesteps = scheduler.timesteps.clone()
    generate(base, "a person", num_inference_steps=STEPS)
    assert base.pipeline.scheduler is scheduler and torch.equal(scheduler.timesteps, timesteps)
    assert vars(base.pipeline).keys() == before.keys()


def test_pictures_left_half_way_leave_nothing_in_the_pipeline(base):
    scheduler, before = base.pipeline.scheduler, dict(vars(base.pipeline))
    request = PictureRequest(["a person"], torch.Generator().manual_seed(0), num_inference_steps=3, guidance_scale=4.0)
    with base.locked():
        steps = base.family.picture(request)
        assert next(steps) == PictureStep(1, 3)
        steps.close()
    assert base.pipeline.scheduler is scheduler and vars(base.pipeline) == before


def test_a_change_that_is_in_at_the_first_step_writes_no_checkpoint(base, dataset, tmp_path):
    output = tmp_path / "tom.safetensors"
    records = train(base, dataset, CONFIG, output=output)
    with base.fold(make_concept(base, "anna")), pytest.raises(BusyError, match="has anna folded in"):
        next(records)
    assert not list(tmp_path.glob("*.safetensors"))
    assert len(list(train(base, dataset, CONFIG, output=output))) == CONFIG.steps + 1


def test_a_change_that_is_in_at_the_end_loses_no_step(base, dataset, tmp_path):
    output = tmp_path / "tom.safetensors"
    records = train(base, dataset, CONFIG, output=output)
    list(islice(records, CONFIG.steps))

    def fold_after_the_last_step(state, path, identity, **options):
        save(state, path, identity, **options)
        if not undo:
            undo.append(base.fold(make_concept(base, "anna")))

    save, undo = loop.save_checkpoint, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", fold_after_the_last_step)
        with pytest.raises(BusyError, match="has anna folded in"):
            next(records)
    undo[0].restore()
    assert list(train(base, dataset, CONFIG, output=output, resume=True))[-1].output == output


def test_a_copy_of_a_base_is_another_base(base):
    anna = make_concept(base, "anna", scale=0.5)
    plain = pixels(base, "a person", None)
    for copied in (copy.deepcopy(base), pickle.loads(pickle.dumps(base))):
        with base.folded(anna):
            assert np.array_equal(pixels(copied, "a person", None), plain)
        assert np.array_equal(pixels(copied, "<anna> person", anna), pixels(base, "<anna> person", anna))


def test_a_training_that_is_there_when_the_program_ends_keeps_its_checkpoint(pico_folder, tmp_path):
    write_pictures(tmp_path / "pictures")
    code = f"""
from orthoplex.models import load_base
from orthoplex.training import ConceptDataset, TrainingConfig, train
dataset = ConceptDataset.from_folder({str(tmp_path / "pictures")!r}, resolution=32, token="<tom>", class_word="man")
config = TrainingConfig(steps=9, batch_size=1, slots=4)
records = train(load_base({str(pico_folder)!r}), dataset, config, output="tom.safetensors")
next(records), next(records)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert checkpoint_step(tmp_path / "tom.checkpoint.safetensors") == 1
