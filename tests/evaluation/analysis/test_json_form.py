"""Dataclasses as json and back, and what is refused."""

from dataclasses import dataclass, field

import pytest

from retina_plugin.evaluation.analysis.json_form import from_json, to_json


@dataclass
class Part:
    name: str
    share: float | None = None


@dataclass
class Whole:
    key: int | str
    parts: list[Part]
    numbers: dict[str, float | None]
    first: Part | None
    counts: list[list[int]] = field(default_factory=list)


WHOLE = Whole(3, [Part("a", 0.5), Part("b")], {"x": 1.0, "y": None}, Part("c"), [[1], []])


def test_there_and_back():
    assert from_json(Whole, to_json(WHOLE)) == WHOLE
    assert from_json(Whole, {**to_json(WHOLE), "key": "three", "first": None}).key == "three"


def test_a_whole_number_is_a_float_where_one_belongs():
    assert type(from_json(Part, {"name": "a", "share": 1}).share) is float


def test_what_has_a_default_may_be_missing():
    content = to_json(WHOLE)
    del content["counts"], content["parts"][0]["share"]
    read = from_json(Whole, content)
    assert (read.counts, read.parts[0].share) == ([], None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 0.5}, r"Whole\.key: expected .*int.*, got 0\.5"),
        ({"key": None}, r"Whole\.key: expected"),
        ({"parts": [{"name": 3}]}, r"Whole\.parts\[0\]\.name: expected <class 'str'>, got 3"),
        ({"parts": [{}]}, r"Whole\.parts\[0\]: unknown keys \[\], missing keys \['name'\]"),
        ({"extra": 1}, r"Whole: unknown keys \['extra'\], missing keys \[\]"),
        ({"numbers": {"x": "1"}}, r"Whole\.numbers\.x: expected <class 'float'>, got '1'"),
        ({"first": []}, r"Whole\.first: expected a dict, got \[\]"),
        ({"counts": {}}, r"Whole\.counts: expected"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        from_json(Whole, {**to_json(WHOLE), **change})
