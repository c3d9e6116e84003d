"""Ctrl-C and SIGTERM as a request: the stage in progress saves at its next safe point and then stops."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_LEFT = 130
_HEARD = b"\nstopping: saves at the next safe point first. Ctrl-C again leaves at once.\n"
_LEAVING = b"\nleaving at once. The same command goes on from what was saved last.\n"

_is_command = False


class Interrupted(Exception):
    """The user stopped the run; everything done so far is saved, and the text says how to go on."""


class StopRequest:
    """Whether somebody asked to stop. Stages read it where stopping is safe."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


def this_process_is_a_command() -> None:
    """Lets Ctrl-C be acknowledged, and a second one end the process at once; a notebook must not be ended like that."""
    global _is_command
    _is_command = True


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request; a second one takes its usual course.

    In a command the second Ctrl-C ends the process without the libraries' words at exit. That loses no more than a kill
    does, which every file of a run survives. Where Ray was started here, it is shut down first; a third Ctrl-C does not
    wait for that. Outside the main thread, where Python allows no handlers, nothing is ever requested.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True
        for known, handler in previous.items():
            signal.signal(known, handler)
        if _is_command:
            os.write(2, _HEARD)
            signal.signal(signal.SIGINT, _leave)

    for number in previous:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        if not (_is_command and request):  # a press while the process ends is one of those that follow
            for number, handler in previous.items():
                signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, _LEAVING)
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        os._exit(_LEFT)
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(_LEFT))
    raise KeyboardInterrupt
