"""A small file system of its own for the state, that can be full, or mounted for reading only."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoDisk(Exception):
    """It cannot be made here."""


class Disk:
    """ext4 on a loop device."""

    def __init__(self, folder: Path, megabytes: int = 24) -> None:
        if os.geteuid() != 0:
            raise NoDisk("mounting a file system takes root")
        self._image, self.mount = folder / "disk.img", folder / "disk"
        self.mount.mkdir()
        with self._image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-m", "0", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(self.mount))
        self.path = self.mount / "state"

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.mount)], check=False)

    @contextmanager
    def full(self) -> Iterator[None]:
        filler = self.mount / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """The same directory, mounted anew and for reading only, as after a failed mount or another unit."""
        copy = self.mount / "copy"
        shutil.copytree(self.path, copy)
        _run("mount", "-t", "tmpfs", "tmpfs", str(self.path))
        for file in copy.iterdir():
            shutil.copy2(file, self.path)
        _run("mount", "-o", "remount,ro", str(self.path))
        shutil.rmtree(copy)
        try:
            yield
        finally:
            _run("umount", "-l", str(self.path))

    @contextmanager
    def broken(self) -> Iterator[None]:
        """The file system gives up under open files and turns read-only, as ext4 does when the disk under it fails;
        then it is repaired and mounted again."""
        _run("mount", "-o", "remount,abort", str(self.mount))
        try:
            yield
        finally:
            _run("umount", "-l", str(self.mount))
            self._until_let_go()
            subprocess.run(["e2fsck", "-fy", str(self._image)], check=False, capture_output=True)
            _run("mount", "-o", "loop", str(self._image), str(self.mount))

    def _until_let_go(self) -> None:
        """Nobody has a file of it open any more: before that, it would be mounted again as it was."""
        end = time.monotonic() + 30
        while subprocess.run(["losetup", "-j", str(self._image)], capture_output=True, check=False).stdout:
            assert time.monotonic() < end, "the broken file system is still in use"
            time.sleep(0.05)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise NoDisk(f"there is no {command[0]} here") from None
    if done.returncode:
        raise NoDisk(f"{command[0]}: {done.stderr.strip()}")
