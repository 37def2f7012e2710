"""Opens model packages and refuses those that are not what their manifest says. Knows nothing of graphs' content."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from m2ib.v1 import manifest_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_server.errors import PackageCorrupt
from m2ib_server.package.role import Role
from m2ib_server.package.signature import PORTS_BY_ROLE, Ports, ports_of
from m2ib_server.settings import MAX_BETA, MAX_LEARNING_RATE

SCHEMA_VERSION = 2
PRECISIONS = ("fp32", "fp16", "bf16")
MANIFEST_NAME = "manifest.json"
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MODEL_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPackage:
    """A package whose files are all present and have the digests that its manifest states.

    Attributes:
        folder: the package's directory.
        manifest: the contract, as read.
        digest: SHA-256 of the manifest's bytes; it pins every file, since the manifest holds their digests.
    """

    folder: Path
    manifest: pb.Manifest
    digest: str

    def path(self, name: str) -> Path:
        """Return the path of one of the package's files."""
        return self.folder / name

    def graph(self, role: Role) -> pb.Graph:
        """Return the graph of a role; every role is present, once."""
        return next(graph for graph in self.manifest.graphs if graph.role == role.value)

    def reference_texts(self) -> tuple[str, ...]:
        """Return the texts that similarities are ranked against.

        Raises:
            PackageCorrupt: their file is not UTF-8.
        """
        name = self.manifest.reference_texts.texts_file
        try:
            text = self.path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise _corrupt(self.folder, name, "bytes that are not UTF-8", "one text a line in UTF-8") from error
        return tuple(line for line in text.splitlines() if line)

    def reference_embeddings(self) -> NDArray[np.float32]:
        """Return the reference texts' normalised embeddings, float32 [count, embedding width]."""
        raw = self.path(self.manifest.reference_texts.embeddings_file).read_bytes()
        return np.frombuffer(raw, "<f4").astype(np.float32).reshape(-1, self.manifest.embedding_width)


def find_packages(models: Path) -> tuple[Path, ...]:
    """Return the package folders at or below `models`, at most two levels down (`name/version/`), sorted.

    Raises:
        PackageCorrupt: there is none.
    """
    patterns = (MANIFEST_NAME, f"*/{MANIFEST_NAME}", f"*/*/{MANIFEST_NAME}")
    found = {path.parent for pattern in patterns for path in models.glob(pattern)}
    visible = sorted(path for path in found if not path.name.startswith("."))
    if not visible:
        raise PackageCorrupt(str(models), seen="no manifest.json", allowed="a folder that holds model packages")
    return tuple(visible)


def open_package(folder: Path) -> ModelPackage:
    """Read a package's manifest and check every file against it.

    Raises:
        PackageCorrupt: naming the file that is missing, changed or not understood.
    """
    manifest, digest = read_manifest(folder)
    for packaged in manifest.files:
        _check_file(folder, packaged)
    package = ModelPackage(folder=folder, manifest=manifest, digest=digest)
    _check_references(package)
    return package


def read_manifest(folder: Path) -> tuple[pb.Manifest, str]:
    """Return a package's manifest and the package's digest without a look at its other files.

    Raises:
        PackageCorrupt: there is no manifest, or none that this server understands.
    """
    raw = _read_manifest(folder)
    manifest = _parse_manifest(folder, raw)
    _check_contents(folder, manifest)
    return manifest, hashlib.sha256(raw).hexdigest()


def _read_manifest(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise _corrupt(folder, MANIFEST_NAME, "no readable file", "the package's manifest") from error


def _parse_manifest(folder: Path, raw: bytes) -> pb.Manifest:
    """Parse strictly: a field that this server does not know could change what the others mean."""
    try:
        manifest = json_format.Parse(raw.decode("utf-8"), pb.Manifest())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise _corrupt(folder, MANIFEST_NAME, "no manifest of this contract", "proto JSON of Manifest") from error
    if manifest.schema_version != SCHEMA_VERSION:
        seen = f"schema version {manifest.schema_version}"
        raise _corrupt(folder, MANIFEST_NAME, seen, f"schema version {SCHEMA_VERSION}")
    return manifest


def _check_contents(folder: Path, manifest: pb.Manifest) -> None:
    if not MODEL_NAME.fullmatch(manifest.name) or not MODEL_NAME.fullmatch(manifest.version):
        raise _corrupt(folder, MANIFEST_NAME, "a malformed name or version", f"names like {MODEL_NAME.pattern}")
    if manifest.precision not in PRECISIONS:
        raise _corrupt(folder, MANIFEST_NAME, f"precision {manifest.precision!r}", ", ".join(PRECISIONS))
    roles = [graph.role for graph in manifest.graphs]
    if sorted(roles) != sorted(role.value for role in Role):
        seen = ", ".join(sorted(pb.GraphRole.Name(role) for role in roles)) or "no graph"
        raise _corrupt(folder, MANIFEST_NAME, seen, "each graph role once")
    for graph in manifest.graphs:
        _check_ports(folder, graph)
    _check_defaults(folder, manifest)
    listed = {packaged.name for packaged in manifest.files}
    for name in sorted(_named_files(manifest) - listed):
        raise _corrupt(folder, MANIFEST_NAME, f"no digest for {name!r}", "a digest for every file it names")


def _check_ports(folder: Path, graph: pb.Graph) -> None:
    seen, allowed = ports_of(graph), PORTS_BY_ROLE[Role(graph.role)]
    if seen != allowed:
        name = pb.GraphRole.Name(graph.role)
        raise _corrupt(folder, MANIFEST_NAME, f"{name} with {_in_words(seen)}", _in_words(allowed))


def _in_words(ports: Ports) -> str:
    return " -> ".join(
        ", ".join(f"{name} {pb.ElementType.Name(kind)} of {rank} dimensions" for name, kind, rank in side) or "nothing"
        for side in (ports.inputs, ports.outputs)
    )


def _check_defaults(folder: Path, manifest: pb.Manifest) -> None:
    defaults = manifest.defaults
    if sorted(each.effort for each in defaults.efforts) != settings_pb2.Effort.values()[1:]:
        seen = f"{len(defaults.efforts)} efforts, or one twice"
        raise _corrupt(folder, MANIFEST_NAME, seen, "every effort once in defaults.efforts")
    if manifest.preprocessing.default_fit not in settings_pb2.Fit.values()[1:]:
        raise _corrupt(folder, MANIFEST_NAME, "no default fit", "a preprocessing.default_fit that is specified")
    masks = {"channel": defaults.channel, "token": defaults.token}
    shapes = settings_pb2.MaskShape.values()[1:]
    for effort in defaults.efforts:
        name = f"efforts.{settings_pb2.Effort.Name(effort.effort)}"
        is_shaped = effort.mask_shape in shapes and (not effort.text_mask_shape or effort.text_mask_shape in shapes)
        if not is_shaped or not effort.repeats:
            raise _corrupt(folder, MANIFEST_NAME, f"defaults.{name} out of range", "known mask shapes and repeats >= 1")
        masks[name] = effort.settings
    for name, mask in masks.items():
        _check_mask(folder, name, mask)


def _check_mask(folder: Path, name: str, mask: pb.MaskDefaults) -> None:
    is_weighted = 0 < mask.beta <= MAX_BETA and 0 < mask.text_beta <= MAX_BETA
    if not is_weighted or not 0 < mask.learning_rate <= MAX_LEARNING_RATE or mask.steps < 1 or mask.samples < 1:
        allowed = f"betas in (0, {MAX_BETA:g}], learning_rate in (0, {MAX_LEARNING_RATE:g}], steps and samples >= 1"
        raise _corrupt(folder, MANIFEST_NAME, f"defaults.{name} out of range", allowed)


def _named_files(manifest: pb.Manifest) -> set[str]:
    references = manifest.reference_texts
    graphs = {
        name for graph in manifest.graphs for name in (graph.file, graph.portable_file, graph.weights_file) if name
    }
    return graphs | {manifest.tokenizer_file, references.texts_file, references.embeddings_file}


def _check_file(folder: Path, packaged: pb.PackagedFile) -> None:
    if not PLAIN_NAME.fullmatch(packaged.name):
        raise _corrupt(folder, MANIFEST_NAME, "a file name that is not plain", "names without a folder")
    path = folder / packaged.name
    if not path.is_file():
        raise _corrupt(folder, packaged.name, "no such file", f"a file of {packaged.size_bytes} bytes")
    if (size := path.stat().st_size) != packaged.size_bytes:
        raise _corrupt(folder, packaged.name, f"{size} bytes", f"{packaged.size_bytes} bytes")
    if (digest := sha256_of(path)) != packaged.sha256:
        raise _corrupt(folder, packaged.name, f"SHA-256 {digest}", f"SHA-256 {packaged.sha256}")


def _check_references(package: ModelPackage) -> None:
    references, width = package.manifest.reference_texts, package.manifest.embedding_width
    name, count = references.embeddings_file, references.count
    if count < 1:
        raise _corrupt(package.folder, MANIFEST_NAME, "no reference text", "a reference_texts.count of at least 1")
    size = package.path(name).stat().st_size
    if size != 4 * count * width:
        raise _corrupt(package.folder, name, f"{size} bytes", f"{4 * count * width} bytes for {count} texts")
    if (seen := len(package.reference_texts())) != count:
        raise _corrupt(package.folder, references.texts_file, f"{seen} texts", f"{count} texts")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in lower-case hexadecimal digits, reading it piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _corrupt(folder: Path, name: str, seen: str, allowed: str) -> PackageCorrupt:
    return PackageCorrupt(str(folder / name), seen=seen, allowed=allowed)
