"""A side in a process of its own, so that what one sets up in its process helps no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from impon_hpo.errors import ImponHpoError


class SideProcess:
    """Builds a side in a new process, and runs it there whenever it is called.

    It ends with the process that made it. `peak_gpu_bytes` is what it has held of a GPU's memory at
    most, 0 without one.

    Args:
        build: Returns what is run; a function of a module, since it is sent to the process.
        arguments: Keyword arguments of `build`.

    Raises:
        ImponHpoError: The side cannot be built; when called: it cannot be run.
    """

    def __init__(self, build: Callable[..., Callable[[], Any]], arguments: dict[str, Any]) -> None:
        # Forked from a process that has imported `build` and torch and done nothing with them: as
        # clean as a new one, without the seconds that importing takes.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([build.__module__])
        self.peak_gpu_bytes = 0
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, build, arguments, torch.get_num_threads())
        )
        self._process.start()
        theirs.close()
        self._receive()

    def __call__(self) -> Any:
        """Run the side once and return what it returned."""
        self._pipe.send(True)
        said, self.peak_gpu_bytes = self._receive()
        return said

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()  # which ends the process
        self._process.join()

    def _receive(self) -> Any:
        try:
            done, said = self._pipe.recv()
        except EOFError:
            self._process.join()
            done, said = False, f"its process ended with code {self._process.exitcode}"
        if not done:
            raise ImponHpoError(f"One side of the benchmark failed: {said}")
        return said


def _serve(
    pipe: Connection,
    build: Callable[..., Callable[[], Any]],
    arguments: dict[str, Any],
    n_threads: int,
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(n_threads)
    try:
        run = build(**arguments)
        pipe.send((True, None))
        while pipe.recv():
            done = run()
            held = torch.cuda.max_memory_reserved() if torch.cuda.is_initialized() else 0
            pipe.send((True, (done, held)))
    except EOFError:  # the other end has closed it
        return
    except Exception as error:
        pipe.send((False, f"{type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    # Not by the kernel's signal: it would come from the server that forks, which lives on.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
