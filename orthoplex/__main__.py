"""The command ``orthoplex``, and ``python -m orthoplex``; Ctrl-C is quiet from the first import on."""

import sys

from orthoplex.files.error_text import summary_of
from orthoplex.files.reports import write_report

try:
    from orthoplex.cli import main
except KeyboardInterrupt:
    sys.exit(130)
except BaseException as error:  # a broken installation, in which the guard of the door is not there
    report = write_report(error, sys.argv)
    sys.stderr.write(f"Error: orthoplex cannot be loaded: {summary_of(error)}\nThe full report is in {report}\n")
    sys.exit(70)

if __name__ == "__main__":
    main()
