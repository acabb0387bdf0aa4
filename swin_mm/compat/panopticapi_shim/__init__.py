"""The package that `import panopticapi` gives where it is not installed: what mmdet uses of it."""
