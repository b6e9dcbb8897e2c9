import threading

import pytest

from retina_plugin.inference.prediction.read_ahead import in_chunks, read_ahead


def test_in_order_and_no_further_ahead_than_asked():
    taken = []

    def items():
        for index in range(20):
            taken.append(index)
            yield index

    release = threading.Event()

    def read(index):
        if index % 2:
            release.wait(0.01)
        return index * 10

    results = read_ahead(items(), read, ahead=3)
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert list(results) == [10 * x for x in range(1, 20)]


def test_an_error_comes_where_its_item_would():
    def read(index):
        if index == 2:
            raise KeyError("two")
        return index

    results = read_ahead(range(5), read, ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(results)


def test_nothing():
    assert list(read_ahead([], str, ahead=2)) == []


def test_chunks():
    assert list(in_chunks(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
