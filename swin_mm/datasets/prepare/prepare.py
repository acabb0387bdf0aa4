"""Puts a data set in place: fetch, check, unpack, convert, count."""

from collections.abc import Callable, Collection
from pathlib import Path

from swin_mm.datasets.prepare.archives import PrepareError, download, has_checksum, unpack
from swin_mm.datasets.prepare.table import Archive, Recipe


def prepare_dataset(
    recipe: Recipe,
    folder: Path | None = None,
    parts: Collection[str] = (),
    archives: Path | None = None,
    mirror: str | None = None,
    check: bool = True,
    delete: bool = False,
    threads: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Puts a data set where configs look for it; what is there already is left alone.

    Args:
        recipe: The data set.
        folder: Where it goes; by default where configs look for it.
        parts: Words for archives that are fetched only if asked for.
        archives: Folder with archives that were fetched otherwise, and where others are fetched to;
            by default `downloads` in the data set's folder.
        mirror: Address to fetch archives from by name instead of the publisher's.
        check: Whether known sizes and checksums of archives are compared.
        delete: Whether to delete archives that were fetched here once they are unpacked.
        threads: How many files to convert at once.
        log: Called with a line on each step.

    Returns:
        The folder.

    Raises:
        PrepareError: It cannot be put in place; running again continues where this stopped.
    """
    folder = Path(recipe.folder if folder is None else folder)
    unknown = sorted(set(parts) - set(recipe.parts()))
    if unknown:
        raise PrepareError(f"no part {', '.join(unknown)}; there is {recipe.parts() or 'none'}")
    wanted = [archive for archive in recipe.archives if not archive.part or archive.part in parts]
    missing = [archive for archive in wanted if not is_complete(folder, archive.contents)]
    store = folder / "downloads" if archives is None else Path(archives)
    _require_fetchable(recipe, missing, store, mirror)
    for archive in wanted:
        if archive not in missing:
            log(f"{archive.name}: its files are in {folder}")
            continue
        path, fetched = store / archive.name, not (store / archive.name).exists()
        store.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        if fetched:
            url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.name}"
            assert url is not None  # by `_require_fetchable`
            log(f"{archive.name}: fetching from {url}")
            download(url, path, archive.size if check else None)
        _check_sum(archive, path, fetched, check, log)
        log(f"{archive.name}: unpacking to {folder / archive.into}")
        unpack(path, folder / archive.into, archive.inner)
        _verify(folder, archive.contents, f"delete {path} and run this again")
        if delete and fetched:
            path.unlink()
    if recipe.convert is not None:
        log("converting label maps")
        recipe.convert(folder, threads)
    published = expected(recipe, wanted)
    _verify(folder, published, "run this again")
    for pattern, count in published.items():
        log(f"{folder / pattern}: {count}, as published")
    return folder


def expected(recipe: Recipe, archives: Collection[Archive]) -> dict[str, int]:
    """Returns how many files must match each pattern once some archives are in place."""
    every = [*(archive.contents for archive in archives), recipe.converted]
    return {pattern: count for contents in every for pattern, count in contents.items()}


def is_complete(folder: Path, contents: dict[str, int]) -> bool:
    """Returns whether a folder holds as many files of each pattern as it must, or more."""
    return all(_count(folder, pattern) >= count for pattern, count in contents.items())


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern))


def _require_fetchable(
    recipe: Recipe, missing: list[Archive], store: Path, mirror: str | None
) -> None:
    """Names, before anything is fetched, all archives that users must fetch themselves."""
    absent = [a.name for a in missing if a.url is None and not (store / a.name).exists()]
    if absent and mirror is None:
        how = recipe.login.format(folder=store, names=" ".join(absent))
        raise PrepareError(
            f"{' and '.join(absent)} cannot be fetched without a login, and {store} does not have "
            f"them: {how}, and run this again; archives elsewhere: --archives FOLDER"
        )


def _check_sum(
    archive: Archive, path: Path, fetched: bool, check: bool, log: Callable[[str], None]
) -> None:
    """Compares a checksum; removes a wrong file that a new run would fetch again."""
    if archive.checksum is None or not check:
        why = "none is known" if archive.checksum is None else "as asked"
        log(f"{archive.name}: no checksum compared ({why}); those within it will be")
    elif has_checksum(path, archive.checksum):
        log(f"{archive.name}: {archive.checksum.partition(':')[0]} is right")
    else:
        remedy = ": delete it and run this again to fetch it"
        if fetched:
            path.unlink()
            remedy = " and was removed: run this again to fetch it"
        raise PrepareError(
            f"{path} has not the checksum {archive.checksum}{remedy}; if it comes out the same, "
            "get it elsewhere (--mirror URL), or take it as it is (--no-checksum)"
        )


def _verify(folder: Path, contents: dict[str, int], remedy: str) -> None:
    """Compares the number of files with the published one."""
    for pattern, count in contents.items():
        found = _count(folder, pattern)
        if found > count:
            remedy = (
                "take out those that do not belong there, since they would be trained or tested on"
            )
        if found != count:
            raise PrepareError(
                f"{folder / pattern}: {found} files, but {count} are published; {remedy}"
            )
