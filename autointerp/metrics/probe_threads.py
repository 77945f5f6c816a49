"""Many small jobs on all cores: each has a core to itself, so that none waits after every sum."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["in_threads"]

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def in_threads(
    function: Callable[[Job], Answer], jobs: Iterable[Job], *, device: torch.device
) -> list[Answer]:
    """What a function says of each job, in order; on a GPU, and within a job, one after the other.

    Sums over what a core's cache holds take some 50 microseconds. Two threads that share each of them and
    wait for one another are hardly faster, and 100 times slower where somebody else uses the cores, too.
    Torch lets other work run meanwhile, so as many jobs run at a time as torch was given threads.
    """
    count = torch.get_num_threads()
    if count == 1 or device.type != "cpu":
        return [function(job) for job in jobs]
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with pool:
            return list(pool.map(function, jobs))
    finally:
        torch.set_num_threads(count)  # a thread's own number is also that of the libraries below torch
