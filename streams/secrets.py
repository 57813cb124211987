"""Secrets on their way in and out: masked in what people read, kept in a file where nobody gave one."""

import os
import re
import secrets as random_source
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

MASK = "**********"
API_TOKEN = re.compile(r"\bsb_[0-9a-f]{8}_[A-Za-z0-9_-]{20,}")


def masked_url(url: str) -> str:
    """Return `url` with its password masked; what is not quite a URL loses all that might be one.

    Examples:
        >>> masked_url("redis://default:hunter2@cache:6379/0")
        'redis://default:**********@cache:6379/0'
        >>> masked_url("redis:/default:hunter2@cache:6379/0")
        '**********@cache:6379/0'
    """
    try:
        parts = urlsplit(url)
        if parts.password is not None:
            return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{MASK}@{parts.netloc.rpartition('@')[2]}"))
    except ValueError:
        return MASK
    return f"{MASK}@{url.rpartition('@')[2]}" if "@" in url and ":" in url.rpartition("@")[0] else url


def kept_secret(path: Path) -> bytes:
    """Return the secret in a file, made (mode 0600) when there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.{os.getpid()}.{random_source.token_hex(4)}")
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(random_source.token_urlsafe(32))
    try:
        os.link(made, path)  # of two processes that start together, one wins
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return path.read_bytes().strip()
