"""LiteLLM's proxy: a hook that obeys decisions and reports usage."""

from spendbrake.actions.gateway.litellm.hook import Brake, Caller, caller_of
from spendbrake.actions.gateway.litellm.reporter import Reporter

__all__ = ["Brake", "Caller", "Reporter", "caller_of"]
