"""Device, threads, and batches that fit into memory."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global BatchLimit, pick_device, torch, use_threads
    import torch

    from camera_trap_al.learn.device import BatchLimit, pick_device, use_threads


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_batches_halve_when_memory_is_short():
    tried = []

    def compute(start, stop):
        tried.append(stop - start)
        if stop - start > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return list(range(start, stop))

    limit = BatchLimit(10)
    assert sum(limit.run(compute, 10), []) == list(range(10))
    assert tried[:3] == [10, 5, 3] and limit.size == 3
    with pytest.raises(RuntimeError, match="other"):
        limit.run(lambda a, b: (_ for _ in ()).throw(RuntimeError("other")), 4)


def test_without_a_gpu_the_cpu_is_taken_and_a_warning_says_so(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    assert "No GPU was detected; using CPU instead" in caplog.text


def test_the_number_of_threads_can_be_set(monkeypatch):
    assert use_threads(2) == torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert use_threads() == torch.get_num_threads() == 1
