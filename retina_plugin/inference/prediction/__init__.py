"""Detections of images, folders and videos, without a data set."""
