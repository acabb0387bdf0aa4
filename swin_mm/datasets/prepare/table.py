"""The data sets that can be prepared: what is fetched from where, and what must be there then.

The folders are those that mmdet's and mmseg's configs name. None of the publishers states checksums
for everybody (Cityscapes does behind its login, where its own tool checks them), so these come from
programs that check what they download by them:

- COCO: TensorFlow Datasets, `tensorflow_datasets/url_checksums/coco.txt`
  (https://github.com/tensorflow/datasets);
- ADE20K: GluonCV, `scripts/datasets/ade20k.py` (https://github.com/dmlc/gluon-cv);
- Pascal VOC: torchvision, `torchvision/datasets/voc.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack.

    Attributes:
        name: Its file name; `.zip`, `.tar` or `.tar.gz`.
        contents: What it brings: patterns of paths below the data set's folder, and how many files
            match each.
        url: Where it is; None where a login is needed, so that users fetch it themselves.
        checksum: Algorithm and hexadecimal digest, such as `md5:c52e...`; empty if not known.
        part: Word by which an archive that few need is asked for; empty for those that all need.
        into: Folder below the data set's that it is unpacked into.
        inner: Archives within it, unpacked where they lie and then left out.
    """

    name: str
    contents: dict[str, int]
    url: str | None = None
    checksum: str = ""
    part: str = ""
    into: str = "."
    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublicData:
    """One data set: what it is, where configs look for it, and the page with its terms of use.

    Attributes:
        login: What to do where archives need a login; empty where none does.
    """

    title: str
    folder: str
    home: str
    archives: tuple[Archive, ...]
    login: str = ""

    def parts(self) -> list[str]:
        """Lists the words by which archives are asked for that few need."""
        return sorted({archive.part for archive in self.archives if archive.part})


COCO_SERVER = "http://images.cocodataset.org"

COCO = PublicData(
    title="COCO 2017: 118,287 training and 5,000 validation images; boxes, masks",
    folder="data/coco",
    home="https://cocodataset.org",
    archives=(
        Archive(
            "annotations_trainval2017.zip",
            url=f"{COCO_SERVER}/annotations/annotations_trainval2017.zip",
            checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            contents={
                "annotations/instances_train2017.json": 1,
                "annotations/instances_val2017.json": 1,
            },
        ),
        Archive(
            "val2017.zip",
            url=f"{COCO_SERVER}/zips/val2017.zip",
            checksum="sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            contents={"val2017/*.jpg": 5_000},
        ),
        Archive(
            "train2017.zip",
            url=f"{COCO_SERVER}/zips/train2017.zip",
            checksum="sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            contents={"train2017/*.jpg": 118_287},
        ),
        Archive(
            "panoptic_annotations_trainval2017.zip",
            url=f"{COCO_SERVER}/annotations/panoptic_annotations_trainval2017.zip",
            checksum="sha256:c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370",
            part="panoptic",
            contents={
                "annotations/panoptic_train2017.json": 1,
                "annotations/panoptic_val2017.json": 1,
                "annotations/panoptic_train2017/*.png": 118_287,
                "annotations/panoptic_val2017/*.png": 5_000,
            },
            inner=("annotations/panoptic_train2017.zip", "annotations/panoptic_val2017.zip"),
        ),
        Archive(
            "stuffthingmaps_trainval2017.zip",  # mmdet's HTC trains on these as well
            url="http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
            "stuffthingmaps_trainval2017.zip",
            part="stuff",
            into="stuffthingmaps",
            contents={
                "stuffthingmaps/train2017/*.png": 118_287,
                "stuffthingmaps/val2017/*.png": 5_000,
            },
        ),
        Archive(
            "test2017.zip",
            url=f"{COCO_SERVER}/zips/test2017.zip",
            checksum="sha256:c7908c3c9f94ba2f3340ebbeec58c25db6be8774f18d68c2f15d0e369d95baba",
            part="test",
            contents={"test2017/*.jpg": 40_670},
        ),
        Archive(
            "image_info_test2017.zip",
            url=f"{COCO_SERVER}/annotations/image_info_test2017.zip",
            checksum="sha256:e52f412dd7195ac8f98d782b44c6dd30ea10241e9f42521f67610fbe055a74f8",
            part="test",
            contents={
                "annotations/image_info_test2017.json": 1,
                "annotations/image_info_test-dev2017.json": 1,
            },
        ),
    ),
)

ADE20K = PublicData(
    title="ADE20K scene parsing, 150 classes: 20,210 training and 2,000 validation images",
    folder="data/ade",
    home="http://sceneparsing.csail.mit.edu",
    archives=(
        Archive(
            "ADEChallengeData2016.zip",
            url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            checksum="sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
            contents={
                "ADEChallengeData2016/images/training/*.jpg": 20_210,
                "ADEChallengeData2016/images/validation/*.jpg": 2_000,
                "ADEChallengeData2016/annotations/training/*.png": 20_210,
                "ADEChallengeData2016/annotations/validation/*.png": 2_000,
            },
        ),
    ),
)

CITYSCAPES = PublicData(
    title="Cityscapes, fine annotations: 2,975 training and 500 validation images",
    folder="data/cityscapes",
    home="https://www.cityscapes-dataset.com",
    archives=(
        Archive(
            "gtFine_trainvaltest.zip",
            contents={
                "gtFine/train/*/*_gtFine_labelIds.png": 2_975,
                "gtFine/val/*/*_gtFine_labelIds.png": 500,
                "gtFine/test/*/*_gtFine_labelIds.png": 1_525,
            },
        ),
        Archive(
            "leftImg8bit_trainvaltest.zip",
            contents={
                "leftImg8bit/train/*/*_leftImg8bit.png": 2_975,
                "leftImg8bit/val/*/*_leftImg8bit.png": 500,
                "leftImg8bit/test/*/*_leftImg8bit.png": 1_525,
            },
        ),
    ),
    login="register at https://www.cityscapes-dataset.com/register/ (free for research), then "
    "`pip install cityscapesscripts` and `csDownload -d {folder} {names}` (or fetch them in a "
    "browser from https://www.cityscapes-dataset.com/downloads/ into {folder})",
)

VOC2012 = PublicData(
    title="Pascal VOC 2012: 17,125 images with boxes, 2,913 of them with label maps",
    folder="data",
    home="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    archives=(
        Archive(
            "VOCtrainval_11-May-2012.tar",
            url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
            contents={
                "VOCdevkit/VOC2012/JPEGImages/*.jpg": 17_125,
                "VOCdevkit/VOC2012/Annotations/*.xml": 17_125,
                "VOCdevkit/VOC2012/SegmentationClass/*.png": 2_913,
            },
        ),
    ),
)

DATA_SETS = {"coco": COCO, "ade20k": ADE20K, "cityscapes": CITYSCAPES, "voc2012": VOC2012}
