"""A page to play with: ``python serve.py`` opens it on this machine alone."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from experiments.command_line.errors import debugging, explain, report
from experiments.command_line.one_line_parser import OneLineParser, whole_number
from experiments.command_line.project import SHIPPED_GENERATOR, SHIPPED_JUDGE, shipped
from experiments.sample.sample_command import add_guidance, guidance_of

HOST, PORT = "127.0.0.1", 7860
_PORTS = 20
_NEEDED = "gradio>=6.31,<7"


def main(args: Sequence[str] | None = None) -> int:
    """Serves the page until Ctrl-C, or until it is told to end.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr where the page cannot be made.
    """
    options = _parser().parse_args(args)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)  # what was uploaded is removed then too
    try:
        address, close = start(options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        line = None if debugging() else explain(error, any_origin=True)
        if line is None:
            raise
        report(line)
        return 2
    print(f"page: {address} (for this machine alone; Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    finally:
        close()
    return 0


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def start(options: argparse.Namespace) -> tuple[str, Any]:
    """Loads what is asked for and opens the page.

    Returns:
        its address, and a function that closes it and removes what was uploaded.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: gradio is missing, a checkpoint does not fit, or the port is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(f"serve: found no package gradio, expected it: pip install '{_NEEDED}'")
    port = _free_port(options.port)
    uploads = tempfile.mkdtemp(prefix="synfer-page-")  # faces of people do not stay behind
    # Before gradio is imported: no word to its makers, no tunnel.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=uploads, GRADIO_SHARE="False")
    try:
        page = _page(options)
        from experiments.serve.face_cards import STYLE
        from experiments.serve.page import theme

        blocks = page.blocks()
        _, address, _ = blocks.queue(default_concurrency_limit=1).launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=options.open,
            prevent_thread_lock=True,
            show_error=True,
            quiet=True,
            ssr_mode=False,
            max_file_size="20mb",
            footer_links=[],
            theme=theme(),
            css=STYLE,
        )
    except BaseException:
        shutil.rmtree(uploads, ignore_errors=True)
        raise

    def close() -> None:
        blocks.close(verbose=False)
        shutil.rmtree(uploads, ignore_errors=True)

    return address, close


def _page(options: argparse.Namespace) -> Any:
    from experiments.sample.face_maker import FaceMaker, suit_threads
    from experiments.serve.face_readers import FaceReaders
    from experiments.serve.page import FacePage

    maker = FaceMaker(options.checkpoint, options.guide, options.device, **guidance_of(options))
    suit_threads(maker)
    of_drawn_faces = options.checkpoint == SHIPPED_GENERATOR and not options.judge
    judge = options.judge or (SHIPPED_JUDGE if of_drawn_faces and shipped(SHIPPED_JUDGE).is_dir() else None)
    hint = "This judge has seen drawn faces alone; of photographs it knows nothing. --judge takes another."
    return FacePage(maker, FaceReaders(judge, options.voter, maker), hint if of_drawn_faces and judge else "")


def _free_port(wanted: int | None) -> int:
    """Returns the port that was asked for, or else the first free one of some.

    Raises:
        ValueError: it is taken, or all are.
    """
    for port in range(PORT, PORT + _PORTS) if wanted is None else [wanted]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return port
            except (OSError, OverflowError):
                continue
    expected = f"a free one of {PORT} … {PORT + _PORTS - 1}" if wanted is None else "a free one (0 … 65535)"
    raise ValueError(f"--port: found {'all taken' if wanted is None else f'{wanted} taken'}, expected {expected}")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="serve.py",
        description="A page in the browser to play with a generator and a classifier. No option is needed.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        default=SHIPPED_GENERATOR,
        metavar="PATH",
        help="checkpoint, run folder, folder of weights, Stable Diffusion (default: the generator of drawn faces)",
    )
    add("--judge", metavar="PATH", help="classifier whose bars are shown (default: that of drawn faces)")
    add("--voter", action="append", default=[], metavar="PATH", help="another one; may be repeated")
    add("--guide", metavar="PATH", help="classifier that guides the generator; not the judge")
    add_guidance(parser)
    add("--port", type=whole_number, help=f"on {HOST} (default: the first free one from {PORT} on)")
    add("--open", action="store_true", help="open it in the browser")
    add("--device", metavar="NAME", help="cpu or cuda (default: an accelerator where there is one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
