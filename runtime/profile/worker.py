"""A contender in a process of its own: its memory is its own, and what aborts there is one line here.

Contenders wait for each other, so they can be measured in turns on the same cores.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from devil.errors import DevilError, EngineError
from devil.runtime.profile.contender import Contender, Setup
from devil.signals import signal_name

_PATIENCE_SECONDS = 10  # for a process to end by itself


class Worker:
    """Calls the methods of a `Contender` in another process. A context manager.

    Raises:
        EngineError: what the contender raised, under its name, or that its process died.
    """

    def __init__(self, name: str, setup: Setup):
        self.name = name
        spawn = multiprocessing.get_context("spawn")  # a fork would share threads and GPU contexts that do not survive
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, setup), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer("opening")
        except BaseException:
            self.close(patience=0)
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """What `Contender.method(*arguments)` returns."""
        try:
            self._connection.send((method, arguments))
        except OSError:
            raise self._died(method) from None
        return self._answer(method)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(_PATIENCE_SECONDS if kind is None else 0)

    def close(self, patience: float) -> None:
        """Ends the process, by force after `patience` seconds."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._connection.close()
        self._process.join(patience)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _answer(self, what: str) -> Any:
        try:
            good, value = self._connection.recv()
        except (EOFError, OSError):
            raise self._died(what) from None
        if not good:
            raise EngineError(f"{self.name}: {value[0]}", value[1])
        return value

    def _died(self, what: str) -> EngineError:
        self._process.join(_PATIENCE_SECONDS)
        code = self._process.exitcode or 0
        of = f"of {signal_name(-code)}" if code < 0 else f"with exit code {code}"
        return EngineError(f"{self.name}: its process died {of} ({what})", "run devil-doctor")


def _serve(connection: Connection, setup: Setup) -> None:
    """Answers calls until the other side has no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    contender: Contender | None = None

    def answer(method: str, arguments: tuple[Any, ...]) -> Any:
        nonlocal contender
        if contender is None:
            contender = Contender(setup)
            return None
        return getattr(contender, method)(*arguments)

    call: tuple[str, tuple[Any, ...]] | None = ("", ())
    while call is not None:
        try:
            result = True, answer(*call)
        except DevilError as error:
            result = False, (error.message, error.mend)
        except Exception as error:
            result = False, (f"unexpected {type(error).__name__}: {error}", "")
        connection.send(result)
        try:
            call = connection.recv()
        except EOFError:
            return
