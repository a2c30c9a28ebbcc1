"""`python -m trioshim.cli`: the command without its script."""

import sys

from ._entry import main

sys.exit(main())
