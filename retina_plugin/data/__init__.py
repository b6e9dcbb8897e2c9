"""Data sets: files of installed packages made into COCO json, and what reads them."""
