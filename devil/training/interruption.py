"""Ctrl-C during training: the step is finished and saved, then the run stops, in all processes after the same step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import torch
from accelerate import Accelerator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAID = b"stopping after this step; once more stops at once\n"


class Interruption:
    """Puts SIGINT and SIGTERM off to the end of a step while its block runs.

    A single process stops at once when it is told a second time. Several do not: they are told by the terminal and by
    what started them, and one that left alone would leave the others waiting for it.
    """

    def __init__(self, accelerator: Accelerator):
        self._accelerator = accelerator
        self._asked = False
        self._former: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if callable(signal.getsignal(number)):  # what is ignored, as in the background, stays ignored
                    self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any process was told to stop; all processes call this together."""
        if self._accelerator.num_processes == 1:
            return self._asked
        told = torch.tensor(float(self._asked), device=self._accelerator.device)
        return bool(self._accelerator.reduce(told, "sum") > 0)

    def _ask(self, _signal: int, _frame: object) -> None:
        if self._accelerator.num_processes == 1:
            if self._asked:
                raise KeyboardInterrupt
            with contextlib.suppress(OSError):  # Ctrl-C ends what stderr is piped into, too
                os.write(2, _SAID)  # a handler may not wait for a stream that is being written
        self._asked = True
