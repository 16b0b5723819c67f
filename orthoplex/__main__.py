"""The command ``orthoplex``, and ``python -m orthoplex``; Ctrl-C is quiet from the first import on."""

import sys

try:
    from orthoplex.cli import main
except KeyboardInterrupt:
    sys.exit(130)
except BaseException as error:  # a broken installation, in which the guard of the door is not there
    from orthoplex.files.error_text import summary_of
    from orthoplex.files.reports import reported

    sys.stderr.write(f"Error: orthoplex cannot be loaded: {summary_of(error)}\n{reported(error, sys.argv)}\n")
    sys.exit(70)

if __name__ == "__main__":
    main()
