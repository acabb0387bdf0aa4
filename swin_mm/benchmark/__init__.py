"""Measures time and memory of backbones, necks and whole models beside other libraries'.

`work.py` says what is measured, `backbones.py`, `necks.py` and `whole.py` build it, `step.py`
makes a step of it, `measure.py` takes the times, `floor.py` says what the device would need at
least, and `report.py` and `plot.py` show the result. `run.py` puts them together.
"""
