"""`python -m devil.export` is `devil-export`."""

import sys

from devil.export.cli import main

sys.exit(main())
