"""Generate the code of protos/ in place: `python scripts/generate_protos.py`, which is `make proto`.

Python: messages (`*_pb2.py`, `*_pb2.pyi`) and gRPC stubs with types (`*_pb2_grpc.py`, `*_pb2_grpc.pyi`) in
`python/telemetry_broker/v1/`, the import path that the proto package names. Rust: the messages of `broker.proto` in
`broker_core/src/wire/v1.rs`, written by the crate in `protos/rust`. Both use the protoc inside the pinned grpcio-tools.
"""

import subprocess
import sys
import sysconfig
import tempfile
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("telemetry_broker/v1")
RUST_MESSAGES = ROOT / "broker_core/src/wire/v1.rs"
INIT = '"""Code generated from protos/telemetry_broker/v1 by `make proto`; edit the protos instead."""\n'


def _protoc(*arguments: str | Path) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}", f"--proto_path={well_known}"]
    subprocess.run([*protoc, *arguments], check=True)


def generate_python(output: Path) -> Path:
    """Write the Python package under `output` and return its folder; generated files that stood there before go."""
    package = output / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    for stale in package.glob("*_pb2*.py*"):
        stale.unlink()
    _protoc(
        f"--plugin=protoc-gen-mypy_grpc={Path(sysconfig.get_path('scripts')) / 'protoc-gen-mypy_grpc'}",
        f"--python_out={output}",
        f"--pyi_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_grpc_out=quiet:{output}",
        *sorted((PROTOS / PACKAGE).glob("*.proto")),
    )
    (package / "__init__.py").write_text(INIT)
    return package


def generate_rust(output: Path) -> None:
    """Write the Rust messages of `broker.proto` into the file `output`."""
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = Path(scratch) / "broker.binpb"
        _protoc(
            "--include_imports",
            "--include_source_info",  # the comments, which become doc comments
            f"--descriptor_set_out={descriptors}",
            PROTOS / PACKAGE / "broker.proto",
        )
        subprocess.run(
            ["cargo", "run", "--quiet", "--package", "proto_rust", "--", descriptors, output], check=True, cwd=ROOT
        )


if __name__ == "__main__":
    generate_python(ROOT / "python")
    generate_rust(RUST_MESSAGES)
