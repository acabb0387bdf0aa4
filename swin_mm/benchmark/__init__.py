"""Measures time and memory of backbones, necks, data loaders and whole models, beside peers.

`workload.py` says what is measured, `peers.py` and `whole.py` build it, `step.py` turns it into
steps, `measure.py` times them, `profile.py` splits a training step into its parts, and `report.py`
and `plot.py` show the result.
"""
