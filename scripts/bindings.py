"""Builds the agent for a libtorch other than the one of Cargo.lock, in a copy of the workspace.

tch, the bindings to libtorch, has a release for each minor version of torch. Cargo has no second lock file, so a copy
of the workspace gets the other tch and the checkout stays as it is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parent.parent

# The tch for each torch.
TCH = {
    (2, 1): "0.14.0",
    (2, 2): "0.15.0",
    (2, 3): "0.16.1",
    (2, 4): "0.17.0",
    (2, 5): "0.18.1",
    (2, 6): "0.19.0",
    (2, 7): "0.20.0",
    (2, 8): "0.22.0",
    (2, 9): "0.22.0",
    (2, 10): "0.23.0",
    (2, 11): "0.24.0",
    (2, 13): "0.26.0",
}
# For this torch no tch was published. It gets that of the next torch, without the functions that it does not have.
CUT = {(2, 8)}
# Up to this torch, the bindings call attention without a mask as attention with an undefined one, which is refused.
MASKED = (2, 4)
UNDEFINED_MASK = "torch::scaled_dot_product_attention(*query, *key, *value, (attn_mask ? *attn_mask : torch::Tensor())"
NO_MASK = (
    "torch::scaled_dot_product_attention(*query, *key, *value, "
    "(attn_mask ? c10::optional<at::Tensor>(*attn_mask) : c10::nullopt)"
)

# Folders of a package that are no part of a copy of the workspace.
NOT_COPIED = {"target", "__pycache__"}
# In a patched copy of the bindings: what it was patched for, and which functions were removed.
PATCHED_FOR, REMOVED = "patched-for", "removed-functions"
# A definition in the generated part of the bindings.
DEFINITION = re.compile(r"^\w.*?\b(atg_\w+)\(")


# The version of a libtorch that does not say it.
UNKNOWN = "unknown"


class Problem(Exception):
    """Something that the user has to put right; the text says what and how."""


def minor(version):
    """Major and minor number of a version such as 2.5.0a0+872d972.nv24.08."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def named(key):
    return ".".join(map(str, key))


def tch_for(version):
    """The tch that is used with a version of torch."""
    key = minor(version)
    if key in TCH:
        return TCH[key]
    if version == UNKNOWN:
        raise Problem(
            "its version can't be read: no header of it defines TORCH_VERSION. A libtorch for C++ and the torch "
            "package of Python have such a header; install it again, or another one."
        )
    below = [known for known in TCH if known < key]
    above = [known for known in TCH if known > key]
    nearest = " or ".join(named(known) for known in below[-1:] + above[:1])
    raise Problem(f"torch {version} has no release of tch, the bindings that the agent uses: take torch {nearest}.")


class Build:
    """A build of the workspace for one libtorch, below `target`."""

    def __init__(self, libtorch, version):
        self.libtorch, self.version = Path(libtorch), version
        self.tch = tch_for(version)
        self.home = WORKSPACE / "target" / f"torch-{named(minor(version))}"
        self.copy = self.home / "workspace"
        self.target = self.home / "target"
        self.options = []
        self.environment = dict(
            os.environ,
            CARGO_TARGET_DIR=str(self.target),
            CARGO_INCREMENTAL="0",
            LIBTORCH=str(self.libtorch),
            LIBTORCH_CXX11_ABI=abi(self.libtorch),
            # The version was checked here, and a patch release or a suffix is no other version.
            LIBTORCH_BYPASS_VERSION_CHECK="1",
        )
        # A variable of the user's, for the choice of libtorch, has done its work.
        self.environment.pop("LIBTORCH_USE_PYTORCH", None)

    def prepare(self):
        """Makes the copy and chooses its tch."""
        copy_workspace(self.copy)
        self.cargo("update", "--quiet", "tch", "--precise", self.tch)
        key = minor(self.version)
        if key in CUT or key <= MASKED:
            bindings = self.home / "torch-sys"
            patched_for = f"torch {self.version}, tch {self.tch}\n"
            marker = bindings / PATCHED_FOR
            if not marker.is_file() or marker.read_text() != patched_for:
                shutil.rmtree(bindings, ignore_errors=True)
                shutil.copytree(self.source("torch-sys"), bindings)
                file = bindings / "libtch/torch_api_generated.cpp"
                if key <= MASKED:
                    file.write_text(with_no_mask(file.read_text()))
                gone = cut(file, self.libtorch, self.environment) if key in CUT else []
                (bindings / REMOVED).write_text("".join(name + "\n" for name in gone))
                marker.write_text(patched_for)
            self.options = ["--config", f'patch.crates-io.torch-sys.path="{bindings}"']
            # The lock has to name the patched one, which has no checksum.
            self.cargo("update", "--quiet", "--offline", "torch-sys")

    def cargo(self, *arguments, **options):
        """Runs cargo in the copy. Returns its output if that is asked for."""
        done = subprocess.run(
            ["cargo", *arguments, *self.options],
            cwd=self.copy, env=self.environment, **{"stdout": sys.stderr, **options},
        )  # fmt: skip
        if done.returncode:
            raise Problem(f"cargo {arguments[0]} failed for torch {self.version}; its last lines above say why.")
        return done.stdout

    def agent(self):
        """Builds the agent, and returns the program."""
        self.cargo("build", "--release", "--locked", "--package", "latlas_agent", "--bins")
        return self.target / "release/latlas-agent"

    def source(self, package):
        """The folder of a package that the copy depends on."""
        told = self.cargo("metadata", "--format-version", "1", "--locked", stdout=subprocess.PIPE, text=True)
        packages = json.loads(told)["packages"]
        (found,) = [entry for entry in packages if entry["name"] == package]
        return Path(found["manifest_path"]).parent


def abi(libtorch):
    """Which of its two kinds of strings a libtorch has: 1 unless it is one of PyPI's wheels up to 2.6."""
    # A function that takes a string, by its mangled name with strings of the older kind.
    return "0" if b"torchCheckFailEPKcS2_jRKSs" in (libtorch / "lib/libc10.so").read_bytes() else "1"


def sources():
    """The files of the workspace that a build needs, relative to it: those that git tracks, or what is in the folders
    of its packages where git does not know it. Whatever else a host keeps in the checkout stays there, and no link is
    followed out of it.
    """
    command = ["git", "-C", str(WORKSPACE), "ls-files", "-z"]
    try:
        told = subprocess.run(command, capture_output=True, text=True)
        listed = [Path(name) for name in told.stdout.split("\0") if name] if told.returncode == 0 else []
    except OSError:
        listed = []
    # A checkout inside of another repository is unknown to that one.
    if Path("Cargo.toml") not in listed:
        listed = [Path("Cargo.toml"), Path("Cargo.lock")]
        members = re.search(r"^members = \[(.*?)\]", (WORKSPACE / "Cargo.toml").read_text(), re.MULTILINE | re.DOTALL)
        for member in re.findall(r'"([^"]+)"', members[1] if members else ""):
            for folder, folders, files in os.walk(WORKSPACE / member):
                folders[:] = [name for name in folders if name not in NOT_COPIED]
                listed += [(Path(folder) / name).relative_to(WORKSPACE) for name in files]
    return [path for path in listed if is_own_file(path)]


def is_own_file(path):
    """Whether it is a file of the workspace itself: neither it nor a folder above it is a link."""
    return (WORKSPACE / path).is_file() and (WORKSPACE / path).resolve() == WORKSPACE.resolve() / path


def copy_workspace(copy):
    """Brings a copy up to date. Cargo goes by the times of files, so a file that is the same keeps its own."""
    wanted = set(sources())
    for place in wanted:
        source, target = WORKSPACE / place, copy / place
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    for path in [path for path in copy.rglob("*") if path.is_symlink() or path.is_file()]:
        if path.relative_to(copy) not in wanted:
            path.unlink()


def with_no_mask(text):
    """The generated part of the bindings, with attention that may have no mask."""
    if text.count(UNDEFINED_MASK) != 1:
        raise Problem("these bindings call attention in an unknown way.")
    return text.replace(UNDEFINED_MASK, NO_MASK)


def cut(file, libtorch, environment):
    """Removes the functions from the generated part of the bindings that this libtorch does not have, or has with
    other parameters. The compiler says which those are. Gives their names.

    If the agent calls one of them, it does not link.
    """
    include = libtorch / "include"
    command = [
        *environment.get("CXX", "c++").split(), "-std=c++17", "-w", "-fsyntax-only", "-fmax-errors=0",
        f"-D_GLIBCXX_USE_CXX11_ABI={environment['LIBTORCH_CXX11_ABI']}",
        f"-I{include}", f"-I{include / 'torch/csrc/api/include'}", str(file),
    ]  # fmt: skip
    gone = []
    while True:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return gone
        lines = [int(line) for line in re.findall(rf"{re.escape(file.name)}:(\d+):\d+: error", done.stderr)]
        text, names = without(file.read_text(), set(lines))
        if not names:
            raise Problem(f"the bindings to libtorch do not compile:\n{done.stderr[-2000:]}")
        gone += names
        file.write_text(text)


def without(text, lines):
    """A generated file without the definitions that some of its lines, counted from 1, are part of; and their names."""
    kept, names, definition = [], [], []
    name, struck = None, False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        found = DEFINITION.match(line)
        if found:
            name, struck = found[1], False
        if name is None:
            kept.append(line)
            continue
        definition.append(line)
        struck = struck or number in lines
        if line.startswith("}"):
            if struck:
                names.append(name)
            else:
                kept += definition
            name, definition = None, []
    return "".join(kept + definition), names
