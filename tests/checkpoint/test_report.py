from retina_plugin.checkpoint.report import WeightReport, counted, first


def test_says_counts_and_first_names():
    report = WeightReport(
        source="r50.pth",
        target="backbone.bottom_up",
        layout="torchvision's",
        total=10,
        missing=["a", "b", "c", "d"],
        wrong_shape=[("e", (64, 3), (64, 4))],
        unexpected=["fc.weight"],
        notes=["inflated"],
    )
    assert (report.matched, report.share, report.complete) == (5, 0.5, False)
    assert str(report) == (
        "5 of 10 tensors of backbone.bottom_up from r50.pth (torchvision's); "
        "4 missing: a, b, c, ...; 1 of another shape: e (64, 3) for (64, 4); "
        "1 unexpected: fc.weight; inflated"
    )


def test_all_matched_is_one_short_line():
    report = WeightReport(source="f", target="t", layout="l", total=2)
    assert str(report) == "2 of 2 tensors of t from f (l)"
    assert report.complete
    assert WeightReport(source="f", target="t", layout="l", total=0).share == 1.0


def test_counters_of_batch_norms_do_not_count():
    assert counted(["bn.weight", "bn.num_batches_tracked"]) == ["bn.weight"]
    assert first(["a", "b"]) == "a, b"
