"""Store beside the embedded base what its layers see under its foreign prompts: `python -m pretraining.foreign_inputs`.

Merges of its concepts then need no model (`orthoplex.merging.foreign_store`).
"""

from __future__ import annotations

from orthoplex import vignette
from orthoplex.activations import foreign_gram
from orthoplex.merging import store_foreign_gram
from orthoplex.models import EMBEDDED, load_base


def main() -> None:
    """Command line."""
    base, file = load_base(EMBEDDED), vignette.foreign_inputs_file()
    store_foreign_gram(base.identity.hash, foreign_gram(base), file)
    print(file)


if __name__ == "__main__":
    main()
