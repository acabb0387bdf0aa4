"""Drop-ins for heads of mmdet and mmseg that take whole batches, with the operators they need."""
