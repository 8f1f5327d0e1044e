"""``python -m demo``: the two runs of the demo, and how they end."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import NoReturn

from demo.two_runs import DemoError, main


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    argparse.ArgumentParser(
        "python -m demo", description="The demo; it takes no options.", allow_abbrev=False
    ).parse_args()
    try:
        main()
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\nstopped; run it again to go on with the unfinished part", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
