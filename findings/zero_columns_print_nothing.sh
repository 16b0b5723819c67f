#!/usr/bin/env bash
# Library: rich 15.0.0.
# Behaviour: with COLUMNS=0 in the environment, a console prints nothing: no
#   table, no text, no error.
# Expected: the width that is taken where COLUMNS is not set (80), or the text unwrapped.
# Seen: "COLUMNS=0: 0 letters, COLUMNS unset: 5 letters".
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install rich==15.0.0 2> /dev/null
cd "$folder"
program='from rich.console import Console; Console().print("hello")'
none=$(COLUMNS=0 "$folder/venv/bin/python" -c "$program" | tr -d '\n')
all=$(env -u COLUMNS "$folder/venv/bin/python" -c "$program" | tr -d '\n')
echo "COLUMNS=0: ${#none} letters, COLUMNS unset: ${#all} letters" | tee seen.txt
grep -qx "COLUMNS=0: 0 letters, COLUMNS unset: 5 letters" seen.txt
