"""What a gateway obeys: decisions in Redis, one Lua check, Guard."""
