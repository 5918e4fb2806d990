"""``python -m trainer`` is ``npnet``."""

import sys

from trainer.commands.cli import main

sys.exit(main())
