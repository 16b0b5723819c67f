"""Pictures and merged changes are those of version 0.1; all of them by `python -m tests.goldens.compare`."""

import pytest

from orthoplex.generation import generate
from orthoplex.models import load_base
from tests.goldens import compare, make

PSNR, DIFFERENCE = 60.0, 1e-4


@pytest.fixture(scope="module")
def base():
    return load_base("vignette")


@pytest.mark.parametrize("state", make.STATES)
def test_pictures_are_those_of_version_0_1(base, state):
    concepts = make.shipped_concepts(base)
    anna = concepts["anna"]
    prompt = make.PROMPTS["person"][0].format(anna.manifest.trigger)
    now = generate(base, prompt, merge=make.changes(base, concepts, "anna")[state], num_images=len(make.SEEDS))
    then = make.read_sheets(compare.FOLDER)["anna"][state][: len(make.SEEDS)]
    assert min(map(compare.psnr, now, then)) >= PSNR
    assert compare.psnr(now[0], then[1]) < PSNR  # other noise is another picture


def test_merged_changes_are_those_of_version_0_1():
    assert max(compare.change_differences().values()) < DIFFERENCE
