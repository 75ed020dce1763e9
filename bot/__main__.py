"""`python -m bot`: the same as `sandpiper`."""

import sys

from bot.cli import main

sys.exit(main())
