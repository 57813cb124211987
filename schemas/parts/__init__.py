"""Parts of the policy file that concern notifications; `schemas/policy.py` puts the file together."""
