"""Device, threads, and batches that fit into memory."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global BatchLimit, pick_device, torch
    import torch

    from camera_trap_al.learn.device import BatchLimit, pick_device


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


def test_other_words_for_short_memory_are_known():
    class OfOnnxruntime(Exception):
        pass

    def compute(start, stop):
        if stop - start > 1:
            raise OfOnnxruntime("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bad allocation")
        return stop

    assert BatchLimit(4).run(compute, 3) == [1, 2, 3]
