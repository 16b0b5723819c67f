"""What prompts of the families become: identities of text encoders, and how much text they read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orthoplex.errors import BaseModelError
from orthoplex.models import Base, PictureRequest, load_base, precision
from orthoplex.models.families.flow_check import check_flow_reader
from orthoplex.models.flow_schedule import check_flow_scheduler
from orthoplex.models.words.prompt_forms import Marked
from orthoplex.models.words.words import Reader, Words
from orthoplex.training.learned_captions import caption_fit
from orthoplex.training.tensor_cache import TensorCache
from tests.families import BUILDERS


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    """Family to its pico base, each loaded once."""
    bases: dict[str, Base] = {}

    def load(family: str) -> Base:
        if family not in bases:
            folder: Path = BUILDERS[family](tmp_path_factory.mktemp(family) / "pipeline")
            bases[family] = load_base(folder)
        return bases[family]

    return load


@pytest.mark.parametrize("family", ["anima", "z_image", "krea2"])
def test_another_text_encoder_is_another_ground(base_of, family, tmp_path):
    """Concepts leave it alone, so it is in no base's hash; features depend on it."""
    base = base_of(family)
    (reader,) = (reader for reader in base.family.readers if reader.component not in base.family.changed)
    table = reader.table
    weight = next(value for value in reader.network.parameters() if value is not table and value.dim() == 2)
    before, first = base.family.inputs_hash(), TensorCache.of(tmp_path, base).ground
    weight.data += 0.5
    assert base.family.inputs_hash() != before and TensorCache.of(tmp_path, base).ground != first
    weight.data -= 0.5


def test_the_states_that_are_read_are_part_of_the_ground(base_of):
    family = base_of("krea2").family
    before, layers = family.inputs_hash(), family.pipeline.config.text_encoder_select_layers
    family.pipeline.register_to_config(text_encoder_select_layers=[*layers[:-1], 0])
    assert family.inputs_hash() != before
    family.pipeline.register_to_config(text_encoder_select_layers=layers)


def test_a_cache_knows_the_resolution(base_of, tmp_path):
    """Stable Diffusion XL reads the size of the picture with the prompt."""
    base, ids = base_of("stable_diffusion_xl"), base_of("stable_diffusion_xl").family.words.ids(["a cat"])
    sizes = []
    for side in (32, 64):
        base.family.use_resolution(side)
        cached = TensorCache.of(tmp_path, base).conditioning(ids, "no", base.family.condition)
        sizes.append(cached.extras["sizes"][0].tolist())
    base.family.use_resolution(None)
    assert sizes == [[32, 32, 0, 0, 32, 32], [64, 64, 0, 0, 64, 64]]


def test_a_prompt_may_be_longer_than_a_text_encoder_that_is_pooled_reads(base_of):
    """FLUX.1 reads one vector of CLIP for the whole prompt, as diffusers' pipeline does, and every word with T5."""
    base = base_of("flux")
    pipeline = base.pipeline
    clip = Reader(pipeline, form=Marked(max_length=8), is_pooled=True)
    words = Words((clip, base.family.readers[1]), seen="text_encoder_2")
    long = "cat " * 12
    assert words.room(long).length <= words.room(long).limit
    assert words.ids([long]).shape[1] == 8 + base.family.readers[1].length
    whole = Words((Reader(pipeline, form=Marked(max_length=8)), base.family.readers[1]), seen="text_encoder_2")
    assert whole.room(long).length > whole.room(long).limit


@pytest.mark.parametrize("family", ["flux", "anima", "stable_diffusion"])
def test_what_stands_in_for_a_token_is_one_in_every_tokenizer(base_of, family):
    words = base_of(family).family.words
    assert words.room(f"a {words.stand_in(3)} cat").length == words.room("a cat").length + 3


def test_captions_of_many_vectors_fit_where_every_tokenizer_has_room(base_of):
    fit = caption_fit(base_of("flux"), {"a.png": ["a photo of <anna> person"]}, "<anna>", 8)
    assert fit.errors == () and fit.warnings == ()


@pytest.mark.parametrize("setting", ["invert_sigmas", "stochastic_sampling"])
def test_schedulers_that_draw_or_run_backwards_are_refused(base_of, setting):
    scheduler = base_of("flux").pipeline.scheduler
    other = type(scheduler).from_config({**scheduler.config, setting: True})
    with pytest.raises(BaseModelError, match=f"scheduler {setting} is True; allowed is false"):
        check_flow_scheduler(other)


@pytest.mark.parametrize("family", ["qwen_image", "krea2"])
def test_a_template_may_not_hold_what_fills_up(base_of, family):
    (reader,) = base_of(family).family.readers
    before = reader.tokenizer.pad_token
    reader.tokenizer.pad_token = "<|im_end|>"  # noqa: S105  (a token of words)
    with pytest.raises(BaseModelError, match=r"tokenizer pad_token is '<\|im_end\|>', which its chat template has"):
        check_flow_reader(reader)
    reader.tokenizer.pad_token = before
    check_flow_reader(reader)


@pytest.mark.parametrize("family", ["flux", "anima"])
def test_latents_stay_exact_between_steps(base_of, family):
    """Whatever the networks compute in, steps add up in the type of the latents."""
    family = base_of(family).family
    scheduler_type, seen = type(family.pipeline.scheduler), []
    original = scheduler_type.step

    def step(self, prediction, time, latents, **options):
        seen.append((prediction.dtype, latents.dtype))
        return original(self, prediction, time, latents, **options)

    with pytest.MonkeyPatch.context() as patch, precision("bf16", torch.device("cpu")):
        patch.setattr(scheduler_type, "step", step)
        list(family.picture(request_of(family)))
    assert len(seen) == 2 and {dtype for pair in seen for dtype in pair} == {torch.float32}


def request_of(family):
    return PictureRequest([family.condition(["a cat"])], [torch.Generator().manual_seed(0)], 2, 1.0)
