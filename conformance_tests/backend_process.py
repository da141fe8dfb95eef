"""Runs hosts and checks in other processes: a Keras backend or a set of XLA devices is chosen once per process."""

import builtins
import importlib
import multiprocessing
import os
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from conformance_tests.matrix.cases import Setup
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.hosts.run import Run


def open_here(host: Host, setup: Setup, params: list[np.ndarray]) -> Run:
    module = importlib.import_module(f"conformance_tests.matrix.hosts.{host.module}")
    return module.open_run(setup, params, **host.options)


def serve(connection: Connection) -> None:
    """Answer requests until the connection closes: (run or None, name, arguments) -> (succeeded, result)."""
    runs: dict[int, Run] = {}
    while True:
        try:
            handle, name, arguments = connection.recv()
        except EOFError:
            return
        try:
            if name == "open":
                handle = len(runs)
                runs[handle] = open_here(*arguments)
                result: Any = handle
            elif handle is None:
                module, function = name.split(":")
                result = getattr(importlib.import_module(module), function)(*arguments)
            else:
                result = getattr(runs[handle], name)(*arguments)
            connection.send((True, result))
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            connection.send((False, (kinds, str(error), traceback.format_exc())))


@dataclass
class Worker:
    """A process with environment variables of its own."""

    env: dict[str, str]
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in self.env}
        os.environ.update(self.env)
        try:
            self.process = context.Process(target=serve, args=(theirs,), daemon=True)
            self.process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()

    def request(self, handle: int | None, name: str, *arguments: Any) -> Any:
        self.connection.send((handle, name, arguments))
        succeeded, result = self.connection.recv()
        if succeeded:
            return result
        kinds, message, trace = result
        kind = next(getattr(builtins, name) for name in kinds if hasattr(builtins, name))
        error = kind(message)
        error.add_note(f"in the worker with {self.env}:\n{trace}")
        raise error

    def call(self, function: str, *arguments: Any) -> Any:
        """Call ``"module:function"`` over there."""
        return self.request(None, function, *arguments)

    def open(self, host: Host, setup: Setup, params: list[np.ndarray]) -> Run:
        """Open a run over there; its methods work from here."""
        return RemoteRun(self, self.request(None, "open", host, setup, params))  # type: ignore[return-value]

    def close(self) -> None:
        self.connection.close()
        self.process.join(10)


class RemoteRun:
    def __init__(self, worker: Worker, handle: int) -> None:
        self._worker, self._handle = worker, handle

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._worker.request(self._handle, name, *arguments)
