"""Operators of the heads: boxes, samples, masks and pooling for all images at once."""
