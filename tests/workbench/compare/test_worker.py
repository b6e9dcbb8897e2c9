from retina_plugin.workbench.compare.worker import scores_by_name


def test_scores_of_one_test_set_and_of_several():
    one, other = {"bbox": {"AP": 1.0}}, {"bbox": {"AP": 2.0}}
    assert scores_by_name(one, ["a"]) == {"a": {"AP": 1.0}}
    assert scores_by_name({"a": one, "b": other}, ["a", "b"]) == {
        "a": {"AP": 1.0},
        "b": {"AP": 2.0},
    }


def test_the_trained_weights_beside_the_average_are_no_test_set():
    """``raw`` of SOLVER.WEIGHT_AVERAGE.EVALUATE_BOTH."""
    one, other = {"bbox": {"AP": 1.0}}, {"bbox": {"AP": 2.0}}
    both = {"a": one, "b": other, "raw": {"a": other, "b": one}}
    assert scores_by_name(both, ["a", "b"]) == {"a": {"AP": 1.0}, "b": {"AP": 2.0}}
    assert scores_by_name({**one, "raw": other}, ["a"]) == {"a": {"AP": 1.0}}
