"""Processes of a run: start, agreement on decisions, and notice of a preemption."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from nutime_jax.errors import DivergenceError, InputError, LostProcessError, PreemptedError

log = logging.getLogger(__name__)

PROCESS, PROCESSES = "NUTIME_PROCESS", "NUTIME_PROCESSES"
"""Environment variables with index and number of processes, for clusters that JAX does not recognise."""
MAX_TEXT_BYTES = 4096
"""Limit of a text that is broadcast."""
CONNECT_TIMEOUT_S = 300
"""Time in which all processes have to connect; then each of them ends with status 4."""
LOST_PEER = ("DEADLINE_EXCEEDED", "UNAVAILABLE", "Connection closed by peer", "Connection reset by peer")
"""Parts of the messages of JAX's errors after which a process has lost another one."""


def is_collective_error(error: BaseException) -> bool:
    """Return whether an operation of all processes has failed. Errors of Gloo, which connects CPUs, have several types."""
    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


def _never(step: int) -> bool:
    return False


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, and the index of this one.

    index, count: index of this process, and number of processes.
    preempted: number of steps since the start of the processes -> whether to stop after that step. All processes get the
        same answer. It must be called after every step, with 1, 2, …: JAX agrees on the step that follows the last call,
        counted from 0.
    """

    index: int = 0
    count: int = 1
    preempted: Callable[[int], bool] = _never

    @property
    def is_primary(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.index == 0

    def broadcast_from_primary(self, decide: Callable[[], str]) -> str:
        """Return the result of `decide` on process 0, on every process. All processes must call it.

        Raises:
            InputError: process 0 raised it; then all processes do.
        """
        if self.count == 1:
            return decide()
        text, failed = "", False
        if self.is_primary:
            try:
                text = decide()
            except InputError as error:
                text, failed = str(error), True
        content = np.frombuffer(text.encode()[:MAX_TEXT_BYTES].ljust(MAX_TEXT_BYTES, b"\0"), np.uint8)
        failed, content = multihost_utils.broadcast_one_to_all((np.array(failed), content))
        text = np.asarray(content).tobytes().rstrip(b"\0").decode(errors="ignore")
        if failed:
            raise InputError(text)
        return text


SINGLE_PROCESS = ProcessGroup()


@contextlib.contextmanager
def initialize_distributed(multihost: str) -> Iterator[ProcessGroup]:
    """Connect the processes of a run for the duration of the context. SIGTERM then requests a checkpoint and an exit.

    A SIGTERM that the command line has blocked until now is received here.

    Args:
        multihost: "off" (a single process), "auto" (Cloud TPU, Slurm, Kubernetes and Open MPI), or "host:port" of
            process 0. With host:port the index comes from the cluster, or from NUTIME_PROCESS and NUTIME_PROCESSES.

    Raises:
        InputError: another value, no cluster, or no answer from process 0.
    """
    signalled = threading.Event()
    previous_handler = _set_on_sigterm(signalled)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if multihost == "off":
        try:
            yield ProcessGroup(preempted=lambda step: signalled.is_set())
        finally:
            if previous_handler is not None:
                signal.signal(signal.SIGTERM, previous_handler)
        return
    if jax.config.jax_compilation_cache_dir is None:
        # A process waits for the others if only process 0 finds a compiled function; users have to choose a shared directory.
        jax.config.update("jax_enable_compilation_cache", False)
    coordinator = _coordinator(multihost)
    log.info("connecting (--multihost=%s); this process ends if the others have not connected in %d s", multihost, CONNECT_TIMEOUT_S)
    try:
        with _deadline(CONNECT_TIMEOUT_S, f"--multihost={multihost}: not all processes have connected in {CONNECT_TIMEOUT_S} s"):
            jax.distributed.initialize(**coordinator, initialization_timeout=2 * CONNECT_TIMEOUT_S)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        accepted = "choose off, or host:port of process 0"
        raise InputError(f"--multihost={multihost} does not work ({reason}); {accepted}") from error
    if signalled.is_set():
        signal.raise_signal(signal.SIGTERM)  # received before JAX had its handler
    shut_down = True
    try:
        yield ProcessGroup(jax.process_index(), jax.process_count(), multihost_utils.reached_preemption_sync_point)
    except (PreemptedError, DivergenceError):
        raise  # in every process, after the same step
    except BaseException as error:
        shut_down = False  # shutdown would wait for the other processes, which wait for this one
        if is_collective_error(error) and any(code in str(error) for code in LOST_PEER):
            reason = str(error).splitlines()[0][:300]
            advice = "see their output, and rerun the same command to resume"
            raise LostProcessError(f"another process has ended, or cannot be reached ({reason}); {advice}") from error
        raise
    finally:
        if shut_down:
            jax.distributed.shutdown()


@contextlib.contextmanager
def _deadline(seconds: float, problem: str) -> Iterator[None]:
    """End the process with a sentence if the block takes longer. JAX would abort it with a C++ stack."""

    def give_up() -> None:
        print(f"nutime: {problem}; see their output, and rerun the same command in each", file=sys.stderr, flush=True)
        os._exit(LostProcessError.STATUS)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _set_on_sigterm(event: threading.Event) -> Callable | int | None:
    """Make SIGTERM set the event, and return the previous handler. Python allows this only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, lambda *_: event.set())


def _coordinator(multihost: str) -> dict:
    """Return the arguments of `jax.distributed.initialize`."""
    if multihost == "auto":
        return {}
    host, _, port = multihost.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--multihost={multihost} is unknown; choose off, auto, or host:port of process 0")
    index, count = os.environ.get(PROCESS), os.environ.get(PROCESSES)
    if index is None and count is None:
        return {"coordinator_address": multihost}
    if not (index and count and index.isdigit() and count.isdigit()) or not int(index) < int(count):
        accepted = "set them to an index and a number of processes, such as 0 and 4"
        raise InputError(f"{PROCESS} is {index} and {PROCESSES} is {count}; {accepted}")
    return {"coordinator_address": multihost, "process_id": int(index), "num_processes": int(count)}
