"""Several configs trained for the same number of images, and their results side by side."""
