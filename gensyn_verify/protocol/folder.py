"""A bundle's folder: a local directory, or any URL that fsspec opens.

A file name is made by this package from a fixed word, a number or a digest: no manifest ever names a path, so there is
nothing to escape with. Locally every open refuses symbolic links, pipes and devices below the folder, and a write goes
to a temporary name, is flushed to disk and renamed, so a reader sees a whole file or none. Object stores write whole
objects, which gives the same.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from gensyn_verify.errors import BundleError, LimitError

Buffer = bytes | memoryview
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)?")
_TEMPORARY = ".tmp-"


class MissingDataError(BundleError):
    """A file that a bundle should have is not there."""


class Folder(Protocol):
    """Files by name: `name` or `sub/name`."""

    url: str

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""

    def open(self, name: str) -> contextlib.AbstractContextManager[tuple[BinaryIO, int]]:
        """The file and its size; MissingDataError where there is none."""

    def write(self, name: str, parts: Sequence[Buffer], durable: bool = True) -> None:
        """The parts as one file, whole or not at all; if not `durable`, it may wait for `sync` to reach the disk."""

    def sync(self, sub: str) -> None:
        """Make everything written directly below `sub` survive a power cut."""

    def names(self, sub: str) -> list[str]:
        """Sorted names of the files directly below `sub`."""

    def remove(self, name: str) -> None: ...

    def clean(self, sub: str) -> None:
        """Remove what a killed writer left half written below `sub`."""


def open_folder(url: str | os.PathLike[str]) -> Folder:
    """The folder at a path or URL; it need not exist yet."""
    text = os.fspath(url)
    if "://" not in text and "::" not in text:
        return LocalFolder(Path(text))
    if text.startswith(("file://", "local://")):
        return LocalFolder(Path(text.split("://", 1)[1]))
    return RemoteFolder(text)


def read(folder: Folder, name: str, limit: int) -> bytes:
    """A whole file of at most `limit` bytes; a larger one is refused before it is read."""
    with folder.open(name) as (file, size):
        if size > limit:
            raise LimitError(f"{folder.url}: {name} has {size} bytes; the limit is {limit}")
        data = file.read(size + 1)
    if len(data) != size:
        raise BundleError(f"{folder.url}: {name} changed while it was read ({size} bytes expected, {len(data)} found)")
    return data


def _check(name: str) -> None:
    assert _NAME.fullmatch(name), name


class LocalFolder:
    """A directory. The directory itself may be reached through links (the caller named it); what is inside may not."""

    _serial = itertools.count()

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.url = str(path)
        self._unsynced: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def _directory(self, sub: str, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder or of its sub-folder, which must be a real directory."""
        if create:
            self.path.joinpath(sub).mkdir(parents=True, exist_ok=True)
        top = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not sub:
                yield top
                return
            inner = os.open(sub, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                yield inner
            finally:
                os.close(inner)
        finally:
            os.close(top)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        _check(name)
        sub, _, base = name.rpartition("/")
        try:
            with self._directory(sub) as directory:
                # O_NONBLOCK: opening a pipe must not wait for its other end
                fd = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        except FileNotFoundError:
            raise MissingDataError(f"{self.url}: {name} is missing") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK) or (error.errno == errno.ENOTDIR and self._links(sub)):
                raise BundleError(f"{self.url}: {name} is or lies behind a symbolic link; a bundle has none") from None
            raise BundleError(f"{self.url}: {name} cannot be opened: {error.strerror}") from None
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            raise BundleError(f"{self.url}: {name} is no regular file")
        with os.fdopen(fd, "rb") as file:
            yield file, info.st_size

    def _links(self, sub: str) -> bool:
        return self.path.joinpath(sub).is_symlink()

    def size(self, name: str) -> int | None:
        try:
            with self.open(name) as (_, size):
                return size
        except MissingDataError:
            return None

    def write(self, name: str, parts: Sequence[Buffer], durable: bool = True) -> None:
        _check(name)
        sub, _, base = name.rpartition("/")
        try:
            self._write(sub, base, parts, durable)
        except OSError as error:
            raise BundleError(f"{self.url}: {name} cannot be written: {error.strerror}") from None

    def _write(self, sub: str, base: str, parts: Sequence[Buffer], durable: bool) -> None:
        temporary = f"{_TEMPORARY}{os.getpid()}-{next(self._serial)}"
        with self._directory(sub, create=True) as directory:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=directory)
            with os.fdopen(fd, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                if durable:
                    os.fsync(fd)
            os.rename(temporary, base, src_dir_fd=directory, dst_dir_fd=directory)
        if not durable:
            self._unsynced.setdefault(sub, []).append(base)

    def sync(self, sub: str) -> None:
        """Many files flushed at once cost the disk little more than one."""
        if not self.path.joinpath(sub).is_dir():
            return
        with self._directory(sub) as directory:
            for base in self._unsynced.pop(sub, []):
                fd = os.open(base, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
                os.fsync(fd)
                os.close(fd)
            os.fsync(directory)

    def names(self, sub: str) -> list[str]:
        try:
            with self._directory(sub) as directory:
                return sorted(n for n in os.listdir(directory) if not n.startswith(_TEMPORARY))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BundleError(f"{self.url}: {sub or 'the folder'} is no directory: {error.strerror}") from None

    def remove(self, name: str) -> None:
        _check(name)
        self.path.joinpath(name).unlink(missing_ok=True)

    def clean(self, sub: str) -> None:
        folder = self.path.joinpath(sub)
        for path in folder.glob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)


class RemoteFolder:
    """A folder on any fsspec file system."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs: Any = None
        self._root = ""

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[tuple[Any, str]]:
        """The file system and the full path; whatever it raises becomes one clear error."""
        try:
            if self._fs is None:
                import fsspec

                self._fs, root = fsspec.core.url_to_fs(self.url)
                self._root = root.rstrip("/")
            yield self._fs, f"{self._root}/{name}"
        except BundleError:
            raise
        except FileNotFoundError:
            raise MissingDataError(f"{self.url}: {name} is missing") from None
        except Exception as error:  # a file system may raise anything: network, credentials, a missing package
            raise BundleError(f"{self.url}: {name or 'the folder'}: {type(error).__name__}: {error}") from error

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        _check(name)
        with self._errors(name) as (fs, path):
            size = fs.size(path)
            if size is None:
                raise BundleError(f"{self.url}: {name}: the file system does not tell its size")
            with fs.open(path, "rb") as file:
                yield file, int(size)

    def size(self, name: str) -> int | None:
        try:
            with self._errors(name) as (fs, path):
                return int(fs.size(path))
        except MissingDataError:
            return None

    def write(self, name: str, parts: Sequence[Buffer], durable: bool = True) -> None:
        _check(name)
        with self._errors(name) as (fs, path):
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(path, b"".join(parts))

    def sync(self, sub: str) -> None:
        """An object store has written when it answers."""

    def names(self, sub: str) -> list[str]:
        try:
            with self._errors(sub) as (fs, path):
                fs.invalidate_cache()
                found = fs.ls(path.rstrip("/"), detail=False)
        except MissingDataError:
            return []
        return sorted(p.rstrip("/").rpartition("/")[2] for p in found)

    def remove(self, name: str) -> None:
        _check(name)
        with contextlib.suppress(MissingDataError), self._errors(name) as (fs, path):
            fs.rm_file(path)

    def clean(self, sub: str) -> None:
        """Nothing is written under a temporary name."""
