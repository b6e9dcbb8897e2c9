"""The same layers computed otherwise: norms folded, branches merged, activations recomputed."""
