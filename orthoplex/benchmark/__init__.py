"""Experiments to results, the demo's gallery, and what training and merging cost."""

from orthoplex.benchmark.demo_run import DemoMaterial, run_demo
from orthoplex.benchmark.demo_settings import DemoSettings
from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.experiment import Experiment, load_experiment
from orthoplex.benchmark.runner import run
from orthoplex.benchmark.settings import PictureSettings, Variant
from orthoplex.benchmark.sources import ConceptSource, Split, sample_sources, split_pictures

__all__ = [
    "BenchmarkEvent",
    "ConceptSource",
    "DemoMaterial",
    "DemoSettings",
    "Experiment",
    "PictureSettings",
    "Split",
    "Variant",
    "load_experiment",
    "run",
    "run_demo",
    "sample_sources",
    "split_pictures",
]
