"""What a person does around a run: doctor, anchors, report, compare, benchmark, replay."""
