"""What all tests share: no test is timed, so hypothesis has no deadline either."""

from hypothesis import settings

collect_ignore_glob = ["bench/*.py"]  # scripts, run by `make bench`

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
