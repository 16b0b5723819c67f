#!/usr/bin/env bash
# Library: Pillow 13.0.0.
# Behaviour: a JPEG's comment follows the picture through convert, resize and crop, and is written into a new JPEG that
#   is saved without naming it. EXIF data is not.
# Expected: neither is written unless it is asked for, as with EXIF data.
# Seen: "comment b'taken at 12 Elm Street', exif None".
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install pillow==13.0.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' | tee seen.txt
from PIL import Image

exif = Image.Exif()
exif[0x010E] = "a description"
Image.new("RGB", (64, 64)).save("photo.jpg", comment=b"taken at 12 Elm Street", exif=exif)
with Image.open("photo.jpg") as photo:
    photo.convert("RGB").resize((32, 32)).crop((0, 0, 16, 16)).save("small.jpg")
with Image.open("small.jpg") as small:
    print(f"comment {small.info.get('comment')}, exif {small.info.get('exif')}")
PYTHON
grep -qx "comment b'taken at 12 Elm Street', exif None" seen.txt
