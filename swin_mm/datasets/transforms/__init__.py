"""Steps of a data pipeline that mmcv, mmdet and mmseg lack."""

from swin_mm.datasets.transforms.multi_band import LoadMultiBandImage, RandomBandGain, load_picture

__all__ = ["LoadMultiBandImage", "RandomBandGain", "load_picture"]
