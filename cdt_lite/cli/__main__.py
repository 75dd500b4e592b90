"""Runs the command line as python -m cdt_lite.cli."""

import sys

from cdt_lite.cli import main

sys.exit(main())
