"""Benches are scripts, run by `make bench`: pytest collects none of them."""

collect_ignore_glob = ["*.py"]
