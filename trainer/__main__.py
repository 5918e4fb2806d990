"""``python -m trainer`` is ``npnet``."""

import sys

from .cli import main

sys.exit(main())
