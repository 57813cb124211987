"""What all tests share: no test is timed, so hypothesis has no deadline either."""

import os

from hypothesis import settings

os.environ["COLUMNS"] = "200"  # paths of files in a temporary folder do not break in what commands print

collect_ignore_glob = ["bench/*.py"]  # scripts, run by `make bench`

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
