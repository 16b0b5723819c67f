"""What a machine can do: types by what the processor says, families by what is free, and ten lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from orthoplex.models import doctor
from orthoplex.models.doctor import DeviceFacts, FamilyFit, MachineReport, cuda_types, machine_report
from orthoplex.models.families.sizes import COUNTED, FAMILY_SIZES, FamilySize
from orthoplex.models.mixed_precision import cpu_types
from tests.models.test_hub import put

BILLION = 10**9


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((7, 5), ("float32", "float16")),
        ((8, 0), ("float32", "float16", "bfloat16")),
        ((8, 9), ("float32", "float16", "bfloat16", "float8")),
        ((12, 0), ("float32", "float16", "bfloat16", "float8")),
    ],
)
def test_types_of_cards(capability, expected):
    assert cuda_types(capability) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("float32",)),
        ({"avx2": True, "amx_bf16": False}, ("float32",)),
        ({"amx_bf16": True}, ("float32", "bfloat16")),
        ({"avx512_bf16": True, "avx512_fp16": True}, ("float32", "bfloat16", "float16")),
    ],
)
def test_types_of_processors(flags, expected):
    assert cpu_types(flags) == expected


@pytest.mark.parametrize(
    ("memory", "draws", "trains"),
    [
        (22 * BILLION, False, False),
        (23 * BILLION, True, False),
        (26 * BILLION, True, False),
        (27 * BILLION, True, True),
    ],
)
def test_a_family_fits_where_weights_and_work_do(memory, draws, trains):
    size = FamilySize("one", "One", "StableDiffusionPipeline", 8 * BILLION, BILLION, BILLION)
    fit = FamilyFit.of(size, memory)
    assert (fit.weights_bytes, fit.drawing_bytes, fit.training_bytes) == (20 * BILLION, 23 * BILLION, 27 * BILLION)
    assert (fit.draws, fit.trains, fit.is_loaded) == (draws, trains, True)


def test_the_report_of_a_card_is_ten_lines():
    card = DeviceFacts("cuda:0", "H200", 20 * BILLION, 24 * BILLION, ("float32", "float16", "bfloat16"))
    sizes = [FamilySize(str(n), f"Family {n}", "FluxPipeline", n * BILLION, 0, 0) for n in (2, 8, 9, 20)]
    sizes.append(FamilySize("5", "Family 5", "UnknownPipeline", BILLION, 0, 0))
    fits = [FamilyFit.of(size, card.free_bytes) for size in sizes]
    extras = {"charts": (), "faces": ("insightface", "onnxruntime"), "costs": ()}
    versions = {"orthoplex": "1", "torch": "2", "diffusers": None}
    report = MachineReport(versions, [card], extras, Path("/c"), 3, Path("/h"), tuple("abcd"), 7 * BILLION, fits)
    assert list(report.lines()) == [
        "orthoplex 1, torch 2, diffusers is missing",
        "cuda:0: H200, 20.0 of 24.0 GB free, fast in float32, float16, bfloat16",
        "extras: charts, costs",
        "extras that are not installed: faces (insightface, onnxruntime)",
        "cache: /c, 3 hashes of bases; 7.0 GB of disk free",
        "hub: /h, 4 pipelines: a, b, c, …",
        "by estimates for 16 bits a number on cuda:0, without quantising or offloading:",
        "trains and draws: Family 2 (7 GB)",
        "draws alone: Family 8 (19 GB)",
        "too large: Family 9 (21 GB), Family 20 (45 GB)",
    ]
    assert report.to_json()["cache"] == "/c" and len(report.to_json()["fits"]) == 5


def test_this_machine_has_a_report(tmp_path, monkeypatch, pico_folder):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert machine_report().hub_cache is None
    put(tmp_path / "hub", pico_folder, name="somebody/one--two")
    (tmp_path / "hub" / "models--a--b").mkdir()
    report = machine_report()
    assert report.hub_names == ("somebody/one--two",)
    assert report.devices[-1].kind == "cpu" and 0 < report.devices[-1].free_bytes <= report.devices[-1].total_bytes
    assert report.versions["torch"] == torch.__version__ and len(report.fits) == len(FAMILY_SIZES)
    assert report.disk_free_bytes > 0 and "dev" not in report.extras


def test_a_card_goes_before_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (10, 20))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (9, 0))
    first, *_ = doctor._devices()
    assert first == DeviceFacts("cuda:0", "card", 10, 20, ("float32", "float16", "bfloat16", "float8"))


def test_a_machine_without_metadata_names_no_extras(monkeypatch):
    def missing(name):
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", missing)
    assert doctor._extras() == {}


@pytest.mark.slow
def test_sizes_are_those_of_the_networks():
    from orthoplex.models.families.tables import layouts

    counted = {}
    for layout in layouts().values():
        networks = layout.published()
        for version, parts in networks.items():
            if not isinstance(parts, str):
                counted[version] = {
                    name: sum(values.numel() for values in part.parameters()) for name, part in parts.items()
                }
    for size in FAMILY_SIZES:
        parts = counted[size.version]
        encoders = sum(number for name, number in parts.items() if name.startswith("text_encoder"))
        assert sum(parts.values()) - encoders == size.denoiser
        assert not encoders or (encoders == size.text_encoders and size.source == COUNTED)
