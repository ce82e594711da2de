"""The processes of a run: how they find each other, agree, and learn that they are about to be stopped."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from nutime_jax.errors import DivergenceError, InputError, PreemptedError

PROCESS, PROCESSES = "NUTIME_PROCESS", "NUTIME_PROCESSES"
"""Environment variables that number the processes where nothing else does."""
SENTENCE = 4096
"""Bytes of the longest text that processes agree on."""


def _never(step: int) -> bool:
    return False


@dataclass(frozen=True)
class Processes:
    """Which of the processes of a run this is.

    index, count: its number, and how many there are.
    preempted: step -> whether to stop after it: every process hears the same answer for the same step. It has to be
        asked after every step, in order.
    """

    index: int = 0
    count: int = 1
    preempted: Callable[[int], bool] = _never

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what is written once."""
        return self.index == 0

    def agree(self, decide: Callable[[], str]) -> str:
        """What the first process decides, on every process; where it refuses, all of them do. All have to call it."""
        if self.count == 1:
            return decide()
        text, refused = "", False
        if self.first:
            try:
                text = decide()
            except InputError as error:
                text, refused = str(error), True
        told = np.frombuffer(text.encode()[:SENTENCE].ljust(SENTENCE, b"\0"), np.uint8)
        refused, told = multihost_utils.broadcast_one_to_all((np.array(refused), told))
        text = np.asarray(told).tobytes().rstrip(b"\0").decode(errors="ignore")
        if refused:
            raise InputError(text)
        return text


@contextlib.contextmanager
def join_processes(multihost: str) -> Iterator[Processes]:
    """Joins the processes of a run, for as long as the context lasts; SIGTERM then means a preemption.

    Args:
        multihost: "off" (this process alone), "auto" (Cloud TPU, Slurm, Kubernetes and Open MPI say who is there), or
            "host:port" of the first process; which one this is, the cluster says or the environment variables
            NUTIME_PROCESS and NUTIME_PROCESSES.

    Raises:
        InputError: another value, no cluster, or nobody answers.
    """
    signalled = threading.Event()
    before = _listen(signalled)
    if multihost == "off":
        try:
            yield Processes(preempted=lambda step: signalled.is_set())
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)
        return
    if jax.config.jax_compilation_cache_dir is None:
        # Programs that only the first process finds make it wait for the others; a folder that all see has to be chosen.
        jax.config.update("jax_enable_compilation_cache", False)
    try:
        jax.distributed.initialize(**_explicit(multihost))
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--multihost={multihost} does not work ({reason}); write off, or host:port of the first process") from error
    if signalled.is_set():
        signal.raise_signal(signal.SIGTERM)  # came before anybody else listened
    ended = True
    try:
        yield Processes(jax.process_index(), jax.process_count(), multihost_utils.reached_preemption_sync_point)
    except (PreemptedError, DivergenceError):
        raise  # every process ends so, after the same step
    except BaseException:
        ended = False  # the others would be waited for, and they wait for this one
        raise
    finally:
        if ended:
            jax.distributed.shutdown()


def _listen(signalled: threading.Event) -> Callable | int | None:
    """SIGTERM sets the event from now on; what it did before. Only the main thread may ask for signals."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, lambda *_: signalled.set())


def _explicit(multihost: str) -> dict:
    if multihost == "auto":
        return {}
    host, _, port = multihost.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--multihost={multihost} is unknown; choose off, auto, or host:port of the first process")
    given = [os.environ.get(name) for name in (PROCESS, PROCESSES)]
    if given == [None, None]:
        return {"coordinator_address": multihost}
    if not all(number is not None and number.isdigit() for number in given) or not int(given[0]) < int(given[1]):
        raise InputError(f"{PROCESS} is {given[0]} and {PROCESSES} is {given[1]}; set them to, say, 0 and 4 for the first of four")
    return {"coordinator_address": multihost, "process_id": int(given[0]), "num_processes": int(given[1])}
