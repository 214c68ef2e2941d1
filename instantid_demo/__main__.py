"""The command line's entry."""

import sys

from instantid_demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
