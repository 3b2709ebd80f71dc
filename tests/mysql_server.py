"""A real MySQL server (MariaDB, Debian's package mariadb-server) that a test starts and stops."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from pathlib import Path

SECONDS = 60


class MySQLServer:
    """The server, on a socket in a folder of its own.

    Args:
        folder: An empty folder with a short path, as sockets want it.
    """

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._socket = folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        install = shutil.which("mariadb-install-db")
        assert install is not None
        subprocess.run(
            [
                install,
                "--no-defaults",
                f"--datadir={self._data}",
                "--user=root",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ],
            check=True,
            capture_output=True,
        )

    @staticmethod
    def there() -> bool:
        """Return whether the package is installed."""
        return shutil.which("mariadbd") is not None

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._process = subprocess.Popen(
            [
                "mariadbd",
                "--no-defaults",
                "--user=root",
                "--skip-networking",
                "--innodb-flush-log-at-trx-commit=0",  # no test pulls the plug
                f"--datadir={self._data}",
                f"--socket={self._socket}",
            ],
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + SECONDS
        while self._run("SELECT 1").returncode != 0:
            assert self._process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as an administrator does."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(SECONDS)

    def new_database(self) -> str:
        """Return the address of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        assert self._run(f"CREATE DATABASE {name}").returncode == 0
        return f"mysql+pymysql://root@/{name}?unix_socket={self._socket}"

    def _run(self, statement: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["mariadb", "--no-defaults", "-uroot", f"--socket={self._socket}", "-e", statement],
            check=False,
            capture_output=True,
        )
