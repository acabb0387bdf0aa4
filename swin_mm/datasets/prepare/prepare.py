"""Puts a data set in place: fetch, check, unpack, convert, count."""

from collections.abc import Callable, Collection
from pathlib import Path

from swin_mm.datasets.prepare.download import check_sum, download
from swin_mm.datasets.prepare.errors import PrepareError
from swin_mm.datasets.prepare.table import Archive, Recipe
from swin_mm.datasets.prepare.unpack import unpack

DOWNLOADS = "downloads"  # folder of the archives, below the data set's


def prepare_dataset(
    recipe: Recipe,
    folder: Path | None = None,
    parts: Collection[str] = (),
    archives: Path | None = None,
    mirror: str | None = None,
    check: bool = True,
    delete: bool = False,
    threads: int = 1,
    tell: Callable[[str], None] = lambda line: None,
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
        tell: Called with a line on each step.

    Returns:
        The folder.

    Raises:
        PrepareError: Something keeps it from being put in place; running again goes on from there.
    """
    folder = Path(recipe.folder if folder is None else folder)
    unknown = sorted(set(parts) - set(recipe.parts()))
    if unknown:
        raise PrepareError(f"no part {', '.join(unknown)}; there is {recipe.parts() or 'none'}")
    wanted = [archive for archive in recipe.archives if not archive.part or archive.part in parts]
    lacking = [archive for archive in wanted if not is_complete(folder, archive.contents)]
    store = folder / DOWNLOADS if archives is None else Path(archives)
    _refuse_absent(recipe, lacking, store, mirror)
    for archive in wanted:
        if archive not in lacking:
            tell(f"{archive.name}: its files are in {folder}")
            continue
        path, fetched = _obtain(archive, store, _room(store, folder), mirror, check, tell)
        tell(f"{archive.name}: unpacking to {folder / archive.into}")
        unpack(path, folder / archive.into, archive.inner)
        _verify(folder, archive.contents, f"delete {path} and run this again")
        if delete and fetched:
            path.unlink()
    if recipe.convert is not None:
        tell("converting label maps")
        recipe.convert(folder, threads)
    published = expected(recipe, wanted)
    _verify(folder, published, "run this again")
    for pattern, count in published.items():
        tell(f"{folder / pattern}: {count}, as published")
    return folder


def expected(recipe: Recipe, archives: Collection[Archive]) -> dict[str, int]:
    """Returns how many files must match each pattern once some archives are in place."""
    return {
        pattern: count
        for contents in [*(archive.contents for archive in archives), recipe.converted]
        for pattern, count in contents.items()
    }


def is_complete(folder: Path, contents: dict[str, int]) -> bool:
    """Tells whether a folder holds as many files of each pattern as it must, or more."""
    return all(_count(folder, pattern) >= count for pattern, count in contents.items())


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern))


def _refuse_absent(recipe: Recipe, lacking: list[Archive], store: Path, mirror: str | None) -> None:
    """Names, before anything is fetched, all archives that users must fetch themselves."""
    absent = [a.name for a in lacking if a.url is None and not (store / a.name).exists()]
    if absent and mirror is None:
        how = recipe.login.format(folder=store, names=" ".join(absent))
        raise PrepareError(
            f"{' and '.join(absent)} cannot be fetched without a login, and {store} does not have "
            f"them: {how}, and run this again; archives elsewhere: --archives FOLDER"
        )


def _room(store: Path, folder: Path) -> int:
    """Returns how many times an archive's length its disk must have room for."""
    for place in (store, folder):
        place.mkdir(parents=True, exist_ok=True)
    return 2 if store.stat().st_dev == folder.stat().st_dev else 1


def _obtain(
    archive: Archive,
    store: Path,
    room: int,
    mirror: str | None,
    check: bool,
    tell: Callable[[str], None],
) -> tuple[Path, bool]:
    """Returns an archive that is whole, and whether it was fetched for that."""
    path = store / archive.name
    fetched = not path.exists()
    if fetched:
        url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.name}"
        tell(f"{archive.name}: fetching from {url}")
        download(url, path, archive.size if check else None, room)
    if archive.checksum is None or not check:
        why = "none is known" if archive.checksum is None else "as asked"
        tell(f"{archive.name}: no checksum compared ({why}); those within it will be")
    elif check_sum(path, archive.checksum):
        tell(f"{archive.name}: {archive.checksum.partition(':')[0]} is right")
    else:
        raise PrepareError(_describe_wrong(archive, path, fetched))
    return path, fetched


def _describe_wrong(archive: Archive, path: Path, fetched: bool) -> str:
    """Says what to do about a wrong checksum, after removing what a new run would fetch anew."""
    what = f"{path} has not the checksum {archive.checksum}"
    otherwise = (
        "if it comes out the same, get it elsewhere (--mirror URL), or take it as it is "
        "(--no-checksum)"
    )
    if fetched:
        path.unlink()
        return f"{what} and was removed: run this again to fetch it anew; {otherwise}"
    return f"{what}: delete it and run this again to fetch it; {otherwise}"


def _verify(folder: Path, contents: dict[str, int], remedy: str) -> None:
    """Compares the number of files with the published one."""
    for pattern, count in contents.items():
        found = _count(folder, pattern)
        if found < count:
            raise PrepareError(
                f"{folder / pattern}: {found} files, but {count} are published; {remedy}"
            )
        if found > count:
            raise PrepareError(
                f"{folder / pattern}: {found} files, but {count} are published; take out those "
                "that do not belong there, since they would be trained or tested on"
            )
