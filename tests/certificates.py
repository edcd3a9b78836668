"""An authority for tests, and the certificates that it issues, as the PEM files that services and clients are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its key."""

    chain: Path
    key: Path


class Authority:
    """Issues certificates into a folder, which is made."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.certificate = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.certificate)

    def issue(self, name: str) -> Pair:
        """A certificate of 127.0.0.1 and localhost, in files of this name; issued again it replaces them."""
        issued = self._ca.issue_cert("127.0.0.1", "localhost")
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        pair.chain.write_bytes(chain)
        issued.private_key_pem.write_to_path(pair.key)
        return pair
