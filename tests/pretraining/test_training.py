"""The denoiser's loop resumes, refuses and averages as it says, whenever it is killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pretraining.denoiser import DenoiserConfig, Progress, Rhythm, schedule, train
from pretraining.train import _begin_log
from tests.pretraining.tiny import TinySamples, small_denoiser

STATE = ("weights", "average", "first", "second")


def run(config: DenoiserConfig, checkpoint: Path, samples: TinySamples | None = None, **more: object) -> list[Progress]:
    return list(_run(config, checkpoint, samples, **more))


def _run(config: DenoiserConfig, checkpoint: Path, samples: TinySamples | None, **more: object) -> Iterator[Progress]:
    return train(config, samples or TinySamples(), small_denoiser(), checkpoint, "cpu", compiled=False, **more)


def state(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=True)


def assert_same(one: Path, other: Path) -> None:
    assert state(one)["samples"] == state(other)["samples"]
    for name in STATE:
        torch.testing.assert_close(state(one)[name], state(other)[name], rtol=0, atol=0)


def test_the_rate_rises_stays_and_falls() -> None:
    config = DenoiserConfig(samples=1000, warmup_samples=100, decay_share=0.5)
    assert schedule(config, 49) == pytest.approx(0.5)
    assert schedule(config, 400) == pytest.approx(1.0)
    assert schedule(config, 750) == pytest.approx(0.51)
    assert schedule(config, 1000) == pytest.approx(0.02)


def test_after_a_restart_the_rate_rises_to_its_schedule_and_never_above_it() -> None:
    config = DenoiserConfig(samples=1000, warmup_samples=100, decay_share=0.5, restart_samples=50)
    assert schedule(config, 700, restarted=700) == pytest.approx(schedule(config, 700) / 50)
    assert schedule(config, 749, restarted=700) == schedule(config, 749)
    for restarted in (20, 300, 700):
        for seen in range(restarted, 1000):
            assert schedule(config, seen, restarted) <= schedule(config, seen)


def test_a_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    config = DenoiserConfig(samples=8, batch_size=2, warmup_samples=1, decay_share=1e-9)
    every_step = Rhythm(log=1, save=1)
    for line in _run(config, tmp_path / "a.pt", None, rhythm=every_step):
        if line.samples == 6:  # its checkpoint is not yet written: the one of the step before stays
            break
    assert state(tmp_path / "a.pt")["samples"] == 4
    assert [line.samples for line in run(config, tmp_path / "a.pt", rhythm=every_step)] == [6, 8]
    run(config, tmp_path / "b.pt")
    assert_same(tmp_path / "a.pt", tmp_path / "b.pt")


def test_another_total_needs_to_be_asked_for_and_nothing_else_changes(tmp_path: Path) -> None:
    config = DenoiserConfig(samples=2, batch_size=2)
    run(config, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"samples is 4; allowed is 2, with which .*a.pt began; --other-total"):
        run(replace(config, samples=4), tmp_path / "a.pt")
    for other_total in (False, True):
        with pytest.raises(ValueError, match=r"batch_size is 4; allowed is 2, with which .*a.pt began"):
            run(replace(config, batch_size=4), tmp_path / "a.pt", other_total=other_total)
    run(replace(config, samples=4), tmp_path / "a.pt", other_total=True)
    assert state(tmp_path / "a.pt")["samples"] == 4


def test_a_loss_that_is_not_finite_leaves_the_checkpoint(tmp_path: Path) -> None:
    config = DenoiserConfig(samples=4, batch_size=2)
    with pytest.raises(StopIteration):
        next(_run(replace(config, samples=2), tmp_path / "a.pt", None))
    before = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(FloatingPointError, match="the loss is nan after 2 samples; the last checkpoint is untouched"):
        run(config, tmp_path / "a.pt", TinySamples(fill=torch.nan), other_total=True)
    assert (tmp_path / "a.pt").read_bytes() == before


def test_a_checkpoint_of_another_form_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}, "samples": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt was written for another vocabulary, or by another version"):
        run(DenoiserConfig(), tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["vocabulary", "latent_space"])
def test_a_checkpoint_for_other_words_or_latents_is_refused(tmp_path: Path, name: str) -> None:
    config = DenoiserConfig(samples=2, batch_size=2)
    run(config, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a.pt was written for another {name}"):
        run(config, tmp_path / "a.pt", replace(TinySamples(), **{name: "another"}))


def test_the_loss_is_the_plain_one_where_weights_are_even_and_counts_what_is_weighed() -> None:
    model, data = small_denoiser(), TinySamples().batch(0, 6)

    def loss(weights: torch.Tensor) -> float:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            return float(model.loss(model.unet, data.latents, data.ids, weights, generator))

    half = torch.zeros(6, 16, 16)
    half[:, :8] = 2.0
    assert loss(torch.ones(6, 16, 16)) == pytest.approx((loss(half) + loss(2 - half)) / 2, rel=1e-5)
    assert loss(half) != pytest.approx(loss(2 - half), rel=1e-3)


def test_a_log_is_cut_back_to_the_checkpoint_and_loses_a_line_that_a_crash_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "denoiser.jsonl"
    log.write_text('{"samples": 2}\n{"samples": 4}\n{"samples": 6}\n{"samp')
    _begin_log(log, 4)
    assert log.read_text() == '{"samples": 2}\n{"samples": 4}\n'
    _begin_log(log, 0)
    assert log.read_text() == ""


KILLED = """
import sys
from pathlib import Path
from pretraining.denoiser import DenoiserConfig, Rhythm, train
from tests.pretraining.tiny import TinySamples, small_denoiser
config = DenoiserConfig(samples=240, batch_size=2, warmup_samples=10)
rhythm = Rhythm(log=1, save=1)
for line in train(config, TinySamples(), small_denoiser(), Path(sys.argv[1]), "cpu", compiled=False, rhythm=rhythm):
    print(line.samples, flush=True)
"""


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    """Half of its time goes into writing checkpoints: some of the kills meet one that is half written."""
    for kill_after in (30, 75, 120, 170):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "a.pt")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= kill_after:
                break
        time.sleep(0.013 * (kill_after % 4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.pt")], check=True, capture_output=True)
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "b.pt")], check=True, capture_output=True)
    assert_same(tmp_path / "a.pt", tmp_path / "b.pt")
