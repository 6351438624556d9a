"""`python -m sdk` is the command `kerf`."""

import sys

from sdk.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
