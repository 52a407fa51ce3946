"""From a request to an image: resolve, download, unpack, put together; each part made once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError
from edgeml_devices.emulator import programs, tools
from edgeml_devices.emulator.images import apt, kernel, wheels
from edgeml_devices.emulator.images.apt import Apt, Deb
from edgeml_devices.emulator.images.bytecode import compile_all
from edgeml_devices.emulator.images.cache import IN_USE, Cache, note_found, open_cache
from edgeml_devices.emulator.images.clean import retire
from edgeml_devices.emulator.images.disk import link_tree, make_disk
from edgeml_devices.emulator.images.image import Image, ImageRequest
from edgeml_devices.emulator.images.kept import DISK, Kept, kept_images, read_image, write_image
from edgeml_devices.emulator.images.plan import Keys, Plan, keys_of, read_plan, request_key, write_plan
from edgeml_devices.emulator.images.room import room_in
from edgeml_devices.emulator.images.rootfs import make_root, packages_of
from edgeml_devices.emulator.images.wheels import Wheel


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one step of a build is."""

    step: str
    """``packages``, ``root``, ``kernel``, ``wheels``, ``site``, ``disk``; ``snapshot``, ``boot``.
    ``note`` is none: its text says what takes long now, and why."""
    fraction: float | None
    """0 to 1; ``None`` where nobody knows."""
    text: str = ""


Report = Callable[[Progress], None]
WAITING: Final = "waiting for another edgeml"


def find_image(request: ImageRequest) -> Image | None:
    """Give the image of a request if it was built, for edgeml as it is now. Quick, without a network."""
    cache = open_cache()
    plan = read_plan(cache, request_key(request))
    public = cache.folder / "ssh_key.pub"
    if plan is None or not public.is_file():
        return None
    keys = keys_of(plan, request, wheels.own_key(), public.read_text())
    found = read_image(cache, keys.image)
    if found is not None:
        note_found(found)
    return found


def build_image(request: ImageRequest, report: Report = lambda _: None, *, update: bool = False) -> Image:
    """Give the image of a request; builds what of it is not there yet, as an ordinary user.

    A build that was interrupted goes on from the parts that were done. The same request gives the same
    packages until ``update``.

    Args:
        request: what it is to hold.
        report: called with the progress.
        update: ask mirror and index again for what is newest.

    Raises:
        EngineMissingError: programs are missing on this machine; names each and its package.
        UsageError: no mirror is known.
        EdgemlError: a step failed; holds the last lines of the program that did. The disk is full, or the
            cache folder cannot be written to.
    """
    found = None if update else find_image(request)
    if found is not None:
        return found
    tools.require(*tools.TO_BUILD)
    cache = open_cache()
    with cache.building(), room_in(cache.folder):
        image = _Builder(cache, request, report).build(update=update)
    retire(image)
    return image


def whole_image(cache: Cache, key: str) -> Image:
    """Give an image that was just made, or long ago: then this machine may have lost a part of it since.

    Raises:
        EdgemlError: it has; machines that are off may have their disks over what is left, so it stays.
    """
    image = read_image(cache, key)
    if image is None:
        raise EdgemlError(
            f"the image {cache.place('images', key)} is damaged, or a part of it: "
            "end the machines that use it, and have it removed: edgeml emulate clean"
        )
    return image


def images() -> tuple[Image, ...]:
    """Give every image in the cache, the newest first."""
    return kept_images(open_cache())


class _Builder:
    """One build."""

    def __init__(self, cache: Cache, request: ImageRequest, report: Report) -> None:
        self._cache = cache
        self._request = request
        self._report = report

    def build(self, *, update: bool) -> Image:
        own_key = wheels.own_key()
        own = wheels.build_own(self._cache, own_key, lambda text: self._say("wheels", text))
        plan = self._plan(own, update=update)
        keys = keys_of(plan, self._request, own_key, self._public_key())
        root = self._made("root", "roots", keys.root, lambda folder: self._fill_root(plan, folder))
        self._done("root")
        self._made("kernel", "kernels", keys.kernel, lambda folder: self._fill_kernel(plan, root, folder))
        self._done("kernel")
        engines = self._made("site", "engines", keys.engines, lambda folder: self._fill_engines(plan, folder))
        site = self._made("site", "sites", keys.site, lambda folder: self._fill_site(engines, own, folder))
        self._done("site")
        self._made(
            "disk", "images", keys.image, lambda folder: self._fill_image(plan, keys, own, root, site, folder)
        )
        self._done("disk")
        return whole_image(self._cache, keys.image)

    def _plan(self, own: tuple[Path, ...], *, update: bool) -> Plan:
        """Resolve the request, unless it was, and have every file of the plan here."""
        key = request_key(self._request)
        with self._cache.locked(f"plan-{key}", lambda: self._say("packages", WAITING)):
            before = None if update else read_plan(self._cache, key)
            debs, boot = self._packages(before)
            self._done("packages")
            plan = Plan(debs, boot, self._wheels(before, own))
            self._done("wheels")
            if plan != before:
                write_plan(self._cache, key, plan)
        return plan

    def _packages(self, before: Plan | None) -> tuple[tuple[Deb, ...], Deb]:
        """Have the root's packages, and the kernel's, here; those of the plan before where there was one."""
        debs = self._cache.folder / "debs"
        if before is not None and all(
            apt.is_whole(debs / deb.file, deb.sha256) for deb in (*before.debs, before.kernel)
        ):
            return before.debs, before.kernel
        mirrors = (self._request.mirror,) if self._request.mirror else apt.own_mirrors()
        with self._cache.locked("apt", lambda: self._say("packages", WAITING)):
            manager = Apt(self._cache.folder / "apt", mirrors)
            if before is None:
                self._say("packages", "asking the Debian mirror")
                manager.update()
                boot = manager.alone(manager.depends(kernel.META_PACKAGE)[0])
                resolved = manager.resolve(packages_of(self._request.flavour))
            else:
                resolved, boot = before.debs, before.kernel
            manager.download([*resolved, boot], debs, self._fetching)
        return resolved, boot

    def _wheels(self, before: Plan | None, own: tuple[Path, ...]) -> tuple[Wheel, ...]:
        """Have the wheels here; those of the plan before where there was one."""
        folder = self._cache.folder / "wheels"
        if before is not None and all(
            apt.is_whole(folder / wheel.file, wheel.sha256) for wheel in before.wheels
        ):
            return before.wheels
        self._say("wheels", "asking the index")
        return wheels.download(
            self._cache, self._request.engines, own, lambda text: self._say("wheels", text)
        )

    # --- the artifacts

    def _fill_root(self, plan: Plan, folder: Path) -> None:
        debs = [self._deb(deb) for deb in plan.debs]

        def on_unpacked(number: int) -> None:
            self._report(Progress("root", number / (len(debs) + 1), plan.debs[number - 1].name))

        make_root(debs, self._request.flavour, folder, on_unpacked)
        self._say("root", "compiling Python")
        compile_all(folder, ["usr/lib/python3.11", "usr/lib/python3"])

    def _fill_kernel(self, plan: Plan, root: Path, folder: Path) -> None:
        self._say("kernel", plan.kernel.name)
        kernel.make_kernel(self._deb(plan.kernel), root / "bin/busybox", folder)

    def _fill_engines(self, plan: Plan, folder: Path) -> None:
        self._say("site", "unpacking wheels")
        files = [self._cache.folder / "wheels" / wheel.file for wheel in plan.wheels]
        wheels.install(files, folder, lambda text: self._say("site", text))
        compile_all(folder, ["."])

    def _fill_site(self, engines: Path, own: tuple[Path, ...], folder: Path) -> None:
        link_tree(engines, folder)
        if own:
            self._say("site", "unpacking edgeml")
            wheels.install(own, folder, lambda text: self._say("site", text))
            compile_all(folder, ["edgeml", "edgeml_runtimes", "edgeml_devices"])

    def _fill_image(
        self, plan: Plan, keys: Keys, own: tuple[Path, ...], root: Path, site: Path, folder: Path
    ) -> None:
        self._say("disk", "making the file system")
        own_files = (
            ("etc/edgeml-image", f"{keys.image}\n".encode(), 0o644),
            ("root/.ssh/authorized_keys", self._public_key().encode(), 0o600),
        )
        used_bytes = make_disk(root, site, own_files, folder / DISK)
        (folder / DISK).chmod(0o444)
        (folder / IN_USE).touch()
        write_image(folder, Kept.of(self._request, keys, plan, own, used_bytes, time.time()))

    # --- small things

    def _made(self, step: str, kind: str, key: str, fill: Callable[[Path], None]) -> Path:
        return self._cache.made(kind, key, fill, lambda: self._say(step, WAITING))

    def _deb(self, deb: Deb) -> Path:
        return self._cache.folder / "debs" / deb.file

    def _public_key(self) -> str:
        """Give the key that root in the guest lets in; made once for the cache."""
        key = self._cache.folder / "ssh_key"
        public = key.with_suffix(".pub")
        with self._cache.locked("ssh-key"):
            if not public.is_file():
                key.unlink(missing_ok=True)
                programs.run(
                    ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgeml-emulator", "-f", key],
                    "making an SSH key",
                )
        return public.read_text()

    def _fetching(self, percent: float, text: str) -> None:
        self._report(Progress("packages", percent / 100, text))

    def _say(self, step: str, text: str) -> None:
        self._report(Progress(step, None, text))

    def _done(self, step: str) -> None:
        self._report(Progress(step, 1.0))
