"""Jobs on all cores: the answers of a plain loop, in order, and threads as they were before."""

import threading

import pytest
import torch

from autointerp.metrics.probe_threads import in_threads


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_answers_come_in_order_and_threads_are_given_back(threads: int) -> None:
    seen = set()

    def squared(job: int) -> tuple[int, int]:
        seen.add(threading.get_ident())
        return job * job, torch.get_num_threads()

    found = in_threads(squared, range(200), device=torch.device("cpu"))
    assert [answer for answer, _ in found] == [job * job for job in range(200)]
    assert {count for _, count in found} == {1}
    assert (seen == {threading.get_ident()}) == (threads == 1)
    assert torch.get_num_threads() == threads
    assert in_threads(squared, [], device=torch.device("cpu")) == []


def test_a_job_that_fails_fails_the_whole(threads: int) -> None:
    def fails(job: int) -> int:
        if job == 5:
            raise ValueError("five")
        return job

    with pytest.raises(ValueError, match="five"):
        in_threads(fails, range(20), device=torch.device("cpu"))
    assert torch.get_num_threads() == threads


def test_a_job_may_have_jobs(threads: int) -> None:
    cpu = torch.device("cpu")
    found = in_threads(lambda row: in_threads(lambda x: row * x, range(3), device=cpu), range(4), device=cpu)
    assert found == [[row * x for x in range(3)] for row in range(4)]
