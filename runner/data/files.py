"""Where a run finds and puts its files: in the project's folder; in a dry run, what is written goes to a folder that
vanishes with it, and later steps find it there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, tzinfo
from pathlib import Path


class Files:
    """The files of a run, by their paths as a pipeline writes them: relative ones start at the pipeline's folder.

    zone: on whose clock a name shows the day of a moment.
    """

    is_dry = False

    def __init__(self, project: Path, zone: tzinfo = UTC) -> None:
        self.project, self.zone = project, zone

    def within(self, project: Path) -> Files:
        """The same files by their paths from another pipeline's folder."""
        return Files(project, self.zone)

    def at(self, path: str) -> Path:
        """Where this file is read."""
        return self.project / path

    def new(self, path: str) -> Path:
        """Where this file is written."""
        return self.project / path

    def names(self, folder: str) -> list[str]:
        """What lies in a folder. Raises `OSError`."""
        return sorted(path.name for path in (self.project / folder).iterdir())

    def move(self, source: str, target: str) -> None:
        """Let later readers find a file under another name; only a dry run moves like this."""
        raise AssertionError("files are moved by the node, unless the run is dry")


class DryFiles(Files):
    """Files of which nothing stays. `folder` is where the written ones lie."""

    is_dry = True

    def __init__(self, project: Path, folder: Path, zone: tzinfo = UTC, there: dict[Path, Path] | None = None) -> None:
        super().__init__(project, zone)
        self._folder = folder
        self._there: dict[Path, Path] = {} if there is None else there

    def within(self, project: Path) -> DryFiles:
        """The same files by their paths from another pipeline's folder."""
        return DryFiles(project, self._folder, self.zone, self._there)

    def at(self, path: str) -> Path:
        return self._there.get(self._own(path), self.project / path)

    def new(self, path: str) -> Path:
        place = self._folder / str(len(self._there)) / Path(path).name
        self._there[self._own(path)] = place
        return place

    def names(self, folder: str) -> list[str]:
        here = self._own(folder)
        real = {path.name for path in here.iterdir()} if here.is_dir() or not self._there else set()
        own = {path.name: place for path, place in self._there.items() if path.parent == here}
        if not real and not own:
            return super().names(folder)
        return sorted({name for name in real if name not in own} | {n for n, place in own.items() if place.exists()})

    def move(self, source: str, target: str) -> None:
        found = self.at(source)
        self._there[self._own(source)] = self._folder / "moved away" / Path(source).name
        self._there[self._own(target)] = found

    def _own(self, path: str) -> Path:
        return (self.project / path).resolve()


@contextmanager
def dry_files(project: Path, zone: tzinfo = UTC) -> Iterator[DryFiles]:
    """The files of one dry run."""
    with tempfile.TemporaryDirectory(prefix="dfrun-dry-") as folder:
        yield DryFiles(project, Path(folder), zone)
