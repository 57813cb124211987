"""spendbrake: the brake for AI spend.

Importing this package loads neither Faust nor river: a gateway that only wants `Guard` pays for redis alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spendbrake.actions.gateway.guard import AsyncGuard, Guard

__version__ = "0.1.0"
__all__ = ["AsyncGuard", "Guard", "__version__"]


def __getattr__(name: str) -> Any:
    if name in {"Guard", "AsyncGuard"}:
        from spendbrake.actions.gateway import guard

        return getattr(guard, name)
    raise AttributeError(f"module 'spendbrake' has no attribute {name!r}")
