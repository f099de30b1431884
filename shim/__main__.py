"""``python -m shim`` is ``ca-shim``."""

import sys

from shim.cli import main

sys.exit(main())
