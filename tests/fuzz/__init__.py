"""Strange files, checkpoints, arguments, command lines and answers, made at random, and what becomes of each.

Every case is a function of its kind and number. A worker process tries it, so that a crash or a hang is noticed:

    python -m tests.fuzz --cases 10000         # the long form, by hand
    python -m tests.fuzz --only files --number 17    # one case again, with its traceback
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # helpers.py
KINDS = ("files", "checkpoints", "arguments", "commands", "answers")
