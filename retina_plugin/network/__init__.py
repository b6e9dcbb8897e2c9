"""The same network computed otherwise: norms folded, activations recomputed."""
