"""Device, threads, and batches that fit into memory."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global BatchLimit, laid_out_for, pick_device, suits_channels_last, torch
    import torch

    from camera_trap_al.learn.device import BatchLimit, laid_out_for, pick_device, suits_channels_last


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


def test_weights_are_laid_out_with_channels_last_but_for_grouped_convolutions_on_a_gpu():
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    grouped = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=8))
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [suits_channels_last(network, gpu) for network in (plain, grouped)] == [True, False]
    assert [suits_channels_last(network, cpu) for network in (plain, grouped)] == [True, True]
    weight = laid_out_for(grouped, cpu)[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
