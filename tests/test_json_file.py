"""Plain values from files that somebody else may have written."""

import tracemalloc

import pytest

from synclones.base.json_file import read_json, read_regular


def test_the_bound_of_a_file_costs_no_memory(tmp_path):
    """With a bound of a gigabyte, a small index could not be read where a gigabyte was not to be had."""
    (tmp_path / "index.json").write_text('{"a": 1}')
    tracemalloc.start()
    try:
        assert read_json(tmp_path / "index.json", max_bytes=2**30) == {"a": 1}
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_what_is_larger_than_its_bound_is_not_read(tmp_path):
    (tmp_path / "ten").write_bytes(b"x" * 10)
    assert read_regular(tmp_path / "ten", 10) == b"x" * 10
    with pytest.raises(ValueError, match="more than 9 bytes"):
        read_regular(tmp_path / "ten", 9)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="more than"):
        read_regular(tmp_path / "sparse")
    with pytest.raises(ValueError, match="no regular file"):
        read_regular(tmp_path)
