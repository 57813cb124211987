"""A data directory: its exclusive lock, the SQLite file in it and the version of what is written there."""

import fcntl
import os
import sqlite3
import uuid
from pathlib import Path

SCHEMA_VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS topic (
    name TEXT PRIMARY KEY, topic_id TEXT NOT NULL, partitions INTEGER NOT NULL, append_time INTEGER NOT NULL,
    retention_s REAL, compact INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS partition (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, log_start INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number));
CREATE TABLE IF NOT EXISTS batch (
    id INTEGER PRIMARY KEY, base INTEGER NOT NULL, count INTEGER NOT NULL, max_time INTEGER NOT NULL,
    written INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS committed (
    grp TEXT NOT NULL, topic TEXT NOT NULL, number INTEGER NOT NULL, "offset" INTEGER NOT NULL,
    PRIMARY KEY (grp, topic, number)) WITHOUT ROWID;
"""


class DirectoryLocked(RuntimeError):
    """Another process holds the data directory."""


class DirectoryLock:
    """An exclusive advisory lock on `path`; the file names the holder's pid.

    Raises:
        DirectoryLocked: When another process, or another log of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise DirectoryLocked(f"{path} is locked: process {holder} runs on this data directory") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the lock back; the file stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LogVersionError(RuntimeError):
    """The data directory was written by a newer program."""


class DataDirectory:
    """A locked directory and connections to the log file in it.

    Args:
        path: Made when absent.

    Raises:
        DirectoryLocked: When a process has it open.
        LogVersionError: When a newer program wrote it.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.file = path / "log.sqlite3"
        self._lock = DirectoryLock(path / "lock")
        self._opened: list[sqlite3.Connection] = []
        try:
            self.log_id = self._prepare()
        except BaseException:
            self.close()
            raise

    def connect(self) -> sqlite3.Connection:
        """Open one more connection; `close` closes it. It commits on its own and may change threads."""
        db = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 4096")
        self._opened.append(db)
        return db

    def close(self) -> None:
        """Close the connections and give the lock back."""
        while self._opened:
            self._opened.pop().close()
        self._lock.release()

    def _prepare(self) -> str:
        db = self.connect()
        db.execute("PRAGMA page_size = 8192")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_TABLES)
        found = _meta(db, "schema_version", str(SCHEMA_VERSION))
        if int(found) > SCHEMA_VERSION:
            raise LogVersionError(f"{self.file} has schema version {found}; this program reads up to {SCHEMA_VERSION}")
        return _meta(db, "log_id", uuid.uuid4().hex)


def _meta(db: sqlite3.Connection, name: str, default: str) -> str:
    db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, default))
    return str(db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0])
