"""`python -m tests.parity --cases DIR --weights A=DIR [--weights B=DIR]`"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.parity.cases import read_cases
from tests.parity.runners import Weights, run


def main() -> int:
    """Prints a line per case and a last line of counts; 1 on a failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="a cases/ folder in the format of FORMAT.md")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=DIR", help="a weights/ folder, by name")
    arguments = parser.parse_args()
    pairs = [given.partition("=") for given in arguments.weights]
    for name, _, folder in pairs:
        if not Path(folder or "-").is_dir():
            parser.error(f"--weights takes NAME=DIR with a folder that is there, not {name}={folder}")
    weights = {name: Weights(Path(folder)) for name, _, folder in pairs}
    cases = read_cases(arguments.cases)
    if not cases:
        parser.error(f"there are no cases in {arguments.cases}")
    counts: Counter[str] = Counter()
    for case in cases:
        verdict = run(case, weights)
        counts[verdict.status] += 1
        print(verdict.line(case.name), flush=True)
    print(f"{counts['pass']} passed, {counts['accepted']} accepted, {counts['fail']} failed")
    return 1 if counts["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
