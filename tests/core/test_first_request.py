"""Whether the first request waits for embeddings, by the option and the size of the pool."""

import pytest

from camera_trap_al.core.steps import waits_for_embeddings


@pytest.mark.parametrize(
    ("first", "small", "large"),
    [("auto", True, False), ("embedded", True, True), ("now", False, False), ("wait", False, False)],
)
def test_a_small_pool_waits_unless_told_otherwise(first: str, small: bool, large: bool) -> None:
    assert [waits_for_embeddings(first, n) for n in (0, 10_000, 10_001, 1_000_000)] == [small, small, large, large]
