"""Chooses, fetches and verifies libtorch, then points .libtorch at it.

scripts/setup runs this file; docs/setup.md describes it for its users.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import bindings
from bindings import UNKNOWN, Problem

# What tch 0.26 accepts, which Cargo.lock names; it changes together with tch.
VERSION = "2.13.0"

WORKSPACE = Path(__file__).resolve().parent.parent
LINK = WORKSPACE / ".libtorch"
MANIFEST = "latlas-manifest.json"
# A file that NVIDIA's system for Jetsons has.
JETSON = Path("/etc/nv_tegra_release")
# The machines of ELF files that torch is built for, as `uname -m` calls them.
MACHINES = {62: "x86_64", 183: "aarch64"}
LIBRARIES = ("lib/libtorch.so", "lib/libtorch_cpu.so", "lib/libc10.so")
# Older releases define their version in the second of these.
VERSION_HEADERS = (
    "include/torch/headeronly/version.h",
    "include/torch/csrc/api/include/torch/version.h",
)

# What the wheel's library folder holds for CUDA and for Python only. The
# wheel's libtorch.so is one of these, for it ties the CPU library to CUDA.
NOT_FOR_CPU = re.compile(r"cuda|nvrtc|nvshmem|python|libshm|global_deps|/libtorch\.so")


def main():
    if sys.platform != "linux":
        raise Problem("only Linux is supported.")
    # torch-sys takes LIBTORCH_USE_PYTORCH as set whatever its value, and asks
    # it first. Setup has to see things the same way.
    if "LIBTORCH_USE_PYTORCH" in os.environ:
        directory = from_python("LIBTORCH_USE_PYTORCH is set")
    elif "LIBTORCH" not in os.environ and "LATLAS_TORCH" not in os.environ and JETSON.is_file():
        directory = from_python(
            "This is a Jetson, and the packages that setup fetches don't know its GPU. LATLAS_TORCH=cpu is for its "
            "processor alone"
        )
    elif "LIBTORCH" in os.environ and os.environ["LIBTORCH"] != str(LINK):
        directory = from_variable()
    else:
        # Cargo sets LIBTORCH to our link for all that it runs, so a setup
        # started by cargo comes here too.
        directory = from_cache(wanted_kind())
    directory = directory.resolve()
    version = version_of(directory)
    if version == VERSION:
        point_link_at(directory)
        print(f"setup: libtorch is ready in {directory}")
        return
    # The checkout is for one libtorch. For another, the agent alone is built, in a copy.
    build = bindings.Build(directory, version)
    print(f"setup: torch {version} in {directory} goes with tch {build.tch}; building the agent for it", flush=True)
    build.prepare()
    agent = os.path.relpath(build.agent())
    print(f"setup: the agent is {agent}; scripts/install-agent --binary {agent} --libtorch {directory}/lib installs it")


def from_python(reason):
    """The torch directory of the Python that torch-sys would ask."""
    python = "python" if "VIRTUAL_ENV" in os.environ else "python3"
    code = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError as error:
        raise Problem(f"{reason}, but {python} does not start ({error}).")
    if found.returncode != 0:
        raise Problem(
            f"{reason}, but {python} has no torch. Install one for it: any from 2.1 to 2.13 that docs/setup.md "
            "lists, on a Jetson that of docs/jetson.md."
        )
    directory = Path(found.stdout.strip())
    check(directory, f"{python}'s torch")
    return directory


def from_variable():
    directory = Path(os.environ["LIBTORCH"])
    if not directory.is_absolute():
        raise Problem(
            f"LIBTORCH is '{os.environ['LIBTORCH']}', but it has to be an absolute path: build "
            "scripts run in other directories. Correct or unset it."
        )
    check(directory, "LIBTORCH")
    return directory


def version_of(directory):
    """The version in a libtorch's headers, which has no suffix; UNKNOWN where they have none."""
    for name in VERSION_HEADERS:
        if (directory / name).is_file():
            found = re.search(r'TORCH_VERSION\s+\\?\s*"(.+?)"', (directory / name).read_text())
            if found:
                return found[1]
            # Releases before 2.9 put the text together from these.
            parts = [
                re.search(rf"define TORCH_VERSION_{part} (\d+)", (directory / name).read_text())
                for part in ("MAJOR", "MINOR", "PATCH")
            ]
            if all(parts):
                return ".".join(part[1] for part in parts)
    return UNKNOWN


def check(directory, origin):
    """Raises unless the directory holds a libtorch that there are bindings for and that loads."""
    for name in LIBRARIES + ("include/torch/csrc/api/include/torch/torch.h",):
        if not (directory / name).is_file():
            raise Problem(
                f"{origin} names {directory}, where there is no {name}. A complete libtorch "
                "is needed; docs/setup.md tells how to get one."
            )
    try:
        bindings.tch_for(version_of(directory))
    except Problem as problem:
        raise Problem(f"{origin} names {directory}: {problem}")
    for name in LIBRARIES:
        damage = damage_of(directory / name)
        if damage:
            raise Problem(f"{origin} names {directory}, where {name} {damage}.")
    # A broken library may crash the process that loads it, so it gets its own.
    code = "import ctypes, sys; [ctypes.CDLL(path) for path in sys.argv[1:]]"
    command = [sys.executable, "-c", code] + [str(directory / name) for name in LIBRARIES]
    loaded = subprocess.run(command, capture_output=True, text=True)
    if loaded.returncode != 0:
        reason = (loaded.stderr.strip() or f"exit status {loaded.returncode}").splitlines()[-1]
        raise Problem(f"{origin} names {directory}, but its libraries do not load ({reason}).")


def damage_of(library, machine=None):
    """What is wrong with a library as an ELF file, with the remedy; None where nothing is found.

    The loader says of a library for another machine that it can't be opened, and of one that was cut off it says many
    things, or crashes.
    """
    machine = machine or platform.machine()
    damaged = "is damaged: install this libtorch again"
    size = library.stat().st_size
    with open(library, "rb") as file:
        head = file.read(64)
        # ELF of 64 bits, in the order of bytes of both machines. A script of the linker is no library that loads.
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return f"is no library, or {damaged}"
        built_for = MACHINES.get(int.from_bytes(head[18:20], "little"), "another machine")
        if built_for != machine:
            return f"is built for {built_for}, and this box is {machine}: take a libtorch for {machine}"
        sections, width, count = (int.from_bytes(head[a:b], "little") for a, b in ((40, 48), (58, 60), (60, 62)))
        segments, segment_width, segment_count = (
            int.from_bytes(head[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58))
        )
        file.seek(segments)
        headers = file.read(segment_width * segment_count)
    ends = [sections + width * count]
    for start in range(0, len(headers) - 55, max(segment_width, 1)):
        offset, in_file = (int.from_bytes(headers[start + a : start + a + 8], "little") for a in (8, 32))
        ends.append(offset + in_file)
    if max(ends) > size:
        return f"ends after {size} of {max(ends)} bytes, so it {damaged}"
    return None


def wanted_kind():
    kind = os.environ.get("LATLAS_TORCH", "")
    if kind not in ("", "cpu", "cuda"):
        raise Problem(f"LATLAS_TORCH is '{kind}', but it can only be cpu or cuda, or be unset.")
    return kind or ("cuda" if has_nvidia_gpu() else "cpu")


def has_nvidia_gpu():
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def from_cache(kind, version=VERSION):
    """The cached libtorch of this kind and version, which is fetched first where it is missing."""
    # The XDG base directory specification says to ignore a relative path here.
    base = os.environ.get("XDG_CACHE_HOME", "")
    cache = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "latlas"
    home = cache / f"libtorch-{version}-{kind}"
    if is_whole(home):
        return home / "torch"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: waiting for another setup to end", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_whole(home):
            make(home, kind, version, lock)
    return home / "torch"


def make(home, kind, version, lock):
    """Builds the directory beside its place and moves it there when it is complete."""
    work = home.with_name(home.name + ".part")
    for leftover in (work, home):
        if leftover.exists():
            print(f"setup: removing {leftover}, which is not whole", file=sys.stderr)
            shutil.rmtree(leftover)
    print(f"setup: fetching torch {version} for {kind}; this happens once", file=sys.stderr)
    (work / "tmp").mkdir(parents=True)
    tree = work / "tree"
    try:
        (fill_cpu if kind == "cpu" else fill_cuda)(tree, Pip(work, version, lock))
        # torch-sys compares this file with the version that it was written for.
        (tree / "torch/build-version").write_text(version + "\n")
        check(tree / "torch", "The fetched package")
        write_manifest(tree)
        os.replace(tree, home)
    finally:
        shutil.rmtree(work)


class Pip:
    """Runs pip such that all that it may leave behind lies in the work directory."""

    def __init__(self, work, version, lock):
        self.version = version
        self.wheels = work / "wheels"
        self.environment = dict(os.environ, TMPDIR=str(work / "tmp"))
        self.lock = lock
        command = [sys.executable, "-m", "pip", "--version"]
        if subprocess.run(command, capture_output=True).returncode != 0:
            raise Problem(
                f"{sys.executable} has no pip, which fetches libtorch. Install it, for example "
                "with 'apt-get install python3-pip' or 'dnf install python3-pip' or 'python3 -m "
                "ensurepip'. Then run scripts/setup again."
            )

    def run(self, python, *arguments):
        # pip inherits the lock. If setup alone is killed, the next one then
        # waits for the end of pip, which would write into its files otherwise.
        done = subprocess.run(
            [str(python), "-m", "pip", "--disable-pip-version-check", *arguments],
            env=self.environment,
            stdout=sys.stderr,
            pass_fds=[self.lock.fileno()],
        )
        if done.returncode != 0:
            raise Problem(
                f"pip could not fetch torch {self.version}; its last lines above say why. This step "
                "needs the network, or a package mirror that pip is configured for, and pip 20.3 "
                "or newer. Without a network, copy the cache of another machine or name a "
                "libtorch in LIBTORCH; docs/setup.md tells how. Then run scripts/setup again."
            )

    def download(self, *arguments):
        options = ["--no-cache-dir", "--only-binary", ":all:", "--dest", str(self.wheels)]
        self.run(sys.executable, "download", *options, *arguments)


def fill_cpu(tree, pip):
    """Unpacks the CPU half of the torch wheel and the CUDA libraries that it links to."""
    # libtorch is the same for every version of Python. Naming one fetches the
    # same wheel everywhere, even with a Python that is too old for torch.
    target = ["--python-version", "3.11"]
    for tag in ("manylinux_2_28", "manylinux2014", "manylinux1"):
        target += ["--platform", f"{tag}_{platform.machine()}"]
    pip.download("--no-deps", *target, f"torch=={pip.version}")
    (wheel,) = pip.wheels.glob("torch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("torch/include/") or (
                name.startswith("torch/lib/") and not NOT_FOR_CPU.search(name)
            ):
                archive.extract(name, tree)
        metadata = archive.read(f"torch-{pip.version}.dist-info/METADATA").decode()
    (tree / "torch/lib/libtorch.so").symlink_to("libtorch_cpu.so")
    # The libraries go where pip would put them, for the wheel's look there.
    toolkit = re.search(r"^Requires-Dist: cuda-toolkit\[.*\] *== *([\w.]+)", metadata, re.MULTILINE)
    if toolkit:
        pip.download(f"cuda-toolkit[cudart,cupti]=={toolkit.group(1)}")
    # Before 2.11 each of NVIDIA's libraries is named by itself.
    for name, version in re.findall(
        r"^Requires-Dist: (nvidia-cuda-(?:runtime|cupti)-\w+) *\(?== *([\w.]+)", metadata, re.MULTILINE
    ):
        pip.download("--no-deps", f"{name}=={version}")
    for wheel in pip.wheels.glob("nvidia_*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if re.search(r"/lib/lib(cudart|cupti)\.so", name):
                    archive.extract(name, tree)


def fill_cuda(tree, pip):
    """Installs the torch package and all that it needs in a virtual environment."""
    if subprocess.run([sys.executable, "-m", "venv", str(tree)], stdout=sys.stderr).returncode:
        raise Problem(
            "python3 cannot make a virtual environment; the lines above say why. On Debian and "
            "Ubuntu 'apt-get install python3-venv' helps. Then run scripts/setup again."
        )
    pip.run(tree / "bin/python", "install", "--no-cache-dir", f"torch=={pip.version}")
    (torch,) = tree.glob("lib/python3*/site-packages/torch")
    (tree / "torch").symlink_to(torch.relative_to(tree))


def write_manifest(tree):
    """Notes size and hash of all files that a build or a program reads."""
    tree = tree.resolve()
    packages = (tree / "torch").resolve().parent
    files = {}
    for top in ("torch/lib", "torch/include", "nvidia"):
        for path in (packages / top).rglob("*"):
            if path.is_file():
                files[str(path.relative_to(tree))] = [path.stat().st_size, sha256(path)]
    (tree / MANIFEST).write_text(json.dumps(files))


def is_whole(home):
    """Whether the files are those of the manifest.

    All sizes are compared, and the contents of the files that were written
    after the manifest. Reading all of them would take seconds.
    """
    manifest = home / MANIFEST
    try:
        sealed = manifest.stat().st_mtime_ns
        late = False
        for name, (size, digest) in json.loads(manifest.read_text()).items():
            found = (home / name).stat()
            if found.st_size != size:
                return False
            if found.st_mtime_ns > sealed:
                late = True
                if sha256(home / name) != digest:
                    return False
        if late:
            os.utime(manifest)
    except (OSError, ValueError):
        return False
    return True


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def point_link_at(directory):
    before = os.readlink(LINK) if LINK.is_symlink() else None
    if before == str(directory):
        return
    fresh = LINK.with_name(f"{LINK.name}-{os.getpid()}")
    fresh.symlink_to(directory)
    os.replace(fresh, LINK)
    if before is None:
        return
    # Cargo sees only the name of the link, which is the same as before, and
    # would go on with bindings that were built for the other libtorch.
    clean = ["cargo", "clean", "--quiet", "--offline", "--package", "torch-sys", "--profile"]
    try:
        for profile in ("dev", "release"):
            subprocess.run(clean + [profile], cwd=WORKSPACE, check=True)
    except (OSError, subprocess.CalledProcessError):
        print("setup: libtorch is another now; run 'cargo clean' before you build", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (Problem, OSError) as problem:
        sys.exit(f"setup: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
