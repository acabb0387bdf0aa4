"""Steps of a data pipeline that mmcv, mmdet and mmseg lack."""

from swin_mm.datasets.transforms.multi_band import LoadMultiBandImage, RandomBandGain

__all__ = ["LoadMultiBandImage", "RandomBandGain"]
