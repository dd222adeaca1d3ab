"""Lets tests import the helpers beside them (`from tests.… import …`) wherever pytest is started."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.append(ROOT)  # behind everything else: ./devil must not shadow an installed package
