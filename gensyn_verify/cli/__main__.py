"""`python -m gensyn_verify.cli` is `gverify`."""

import sys

from gensyn_verify.cli import main

sys.exit(main())
