"""Usage as the providers report it, to token counts with one meaning. No HTTP, no prices."""
