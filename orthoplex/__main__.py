"""The command ``orthoplex``, and ``python -m orthoplex``; Ctrl-C is quiet from the first import on."""

import sys

from orthoplex.files.reports import summary_of, write_report

try:
    from orthoplex.cli import main
except KeyboardInterrupt:
    sys.exit(130)
except BaseException as error:  # a broken installation: the guard of the door is not there yet
    report = write_report(error, sys.argv)
    sys.exit(f"Error: orthoplex cannot be loaded: {summary_of(error)}; the full report is in {report}")

if __name__ == "__main__":
    main()
