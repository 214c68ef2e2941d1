"""`python -m benchmarks --synthetic tiny [--json]`: how much faster than the original's way of computing."""

import argparse
import dataclasses
import json
import logging
import os
import sys

# Before PyTorch starts its threads: spinning ones make every other process on the machine, and so all figures, slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")


def main() -> int:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--synthetic",
        choices=["smallest", "tiny", "sdxl"],
        help="random networks like SDXL, narrow or full size; smallest is for tests",
    )
    what.add_argument("--model", help="a real model through the engine: pocket, sdxl, a folder, a file")
    parser.add_argument("--face", help="photo for --model; an example of the program's own if left out")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--single", action="store_true", help="measure each exact saving alone as well")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well, which takes minutes")
    parser.add_argument(
        "--openvino", action="store_true", help="convert for OpenVINO first (once; later runs measure it by themselves)"
    )
    parser.add_argument("--only", help="names of modes, with commas; the reference always runs")
    parser.add_argument("--budget", type=float, default=None, help="seconds after which no new round starts")
    parser.add_argument("--rounds", type=int, default=6, help="rounds at most")
    parser.add_argument("--side", type=int, default=None, help="of the picture, pixels")
    arguments = parser.parse_args()

    from instantid_demo import quiet
    from instantid_demo.request import RequestError

    quiet.libraries()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    try:
        return _measured(arguments)
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2


def _measured(arguments: argparse.Namespace) -> int:
    if arguments.model:
        from benchmarks import real

        report = real.measure(arguments.model, arguments.face, arguments.rounds, arguments.device)
        print(json.dumps(report, indent=1) if arguments.json else real.table(report))
        return 0

    from benchmarks import modes, synthetic
    from benchmarks.models import SIZES
    from instantid_demo.method.loading import choose_device
    from instantid_demo.settings import Settings

    device = choose_device(None if arguments.device == "auto" else arguments.device)
    size = SIZES[arguments.synthetic]
    if arguments.side:
        size = dataclasses.replace(size, side=arguments.side)
    cache = Settings().home / "benchmarks" / f"{size.name}-{size.side}"  # type: ignore[call-arg]
    openvino = device.type == "cpu" and (arguments.openvino or synthetic.is_converted(cache))
    chosen = [*modes.MODES, *(modes.OPENVINO if openvino else []), *modes.MORE]
    chosen += [*(modes.SINGLE if arguments.single else []), *(modes.COMPILED if arguments.compile else [])]
    if arguments.only:
        wanted = arguments.only.split(",")
        needed = {"reference", *wanted, *(mode.compared_with for mode in chosen if mode.name in wanted)}
        chosen = [mode for mode in chosen if mode.name in needed]
    chosen = modes.on(device.type, chosen)
    tiny = size.name != "sdxl"
    report = synthetic.compare(
        size,
        chosen,
        budget=arguments.budget or (36.0 if tiny else 1.0),
        most=arguments.rounds,
        cache=cache,
        device=device,
        say=say if sys.stderr.isatty() or not tiny else lambda said: None,
    )
    print(json.dumps(report, indent=1) if arguments.json else synthetic.table(report))
    return 0


def say(said: str) -> None:
    """One line of progress beside the report."""
    print(said, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
