# -*- coding: utf-8 -*-
"""Makes the pickles in this directory, as n6's rows collector has them: run it with each Python.

    python2.7 make.py; python3 make.py
"""

# fmt: off
import os
import pickle
import sys

NAME = "py%d" % sys.version_info[0]
ROWS = [b"2026-01-01 10:00:00,za\xff\xc5\xbc", b"2026-01-01 10:00:00,ab"]

if NAME == "py2":
    STATES = {
        "": {"newest_row_time": "2026-01-01 10:00:00", "newest_rows": set(ROWS), "rows_count": 3},
        "-without-count": {"newest_row_time": "2026-01-01 10:00:00", "newest_rows": set(ROWS)},
    }
    PROTOCOLS = [2]
else:
    rows = {row.decode("utf-8", "surrogateescape") for row in ROWS}
    STATES = {
        "": {"newest_row_time": "2026-01-01 10:00:00", "newest_rows": rows, "rows_count": 3},
        "-after-py2": {"newest_row_time": "2026-01-01 10:00:00", "newest_rows": rows, "rows_count": None},
    }
    PROTOCOLS = [4, 5]

for name, state in STATES.items():
    for protocol in PROTOCOLS:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "%s%s-%d.pickle" % (NAME, name, protocol))
        with open(path, "wb") as file:
            pickle.dump(state, file, protocol)
