"""The command ``orthoplex``, and ``python -m orthoplex``; Ctrl-C is quiet from the first import on."""

import sys

try:
    from orthoplex.cli import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    main()
