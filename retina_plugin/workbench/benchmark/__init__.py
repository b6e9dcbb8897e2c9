"""What ``retina benchmark`` measures: a detector against Detectron2's own and against the floor."""
