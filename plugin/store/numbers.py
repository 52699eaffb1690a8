"""Numbers that are claimed in the store, as host ports are."""

from __future__ import annotations

import sqlite3
import sys


def free_number(db: sqlite3.Connection, taken: str, *values: str, below: int = sys.maxsize) -> int:
    """Return a number from 1 on that a SELECT of one column does not have: the one behind the last, or a gap.

    Gaps are looked for once the one behind the last is not ``below``; the answer is not below if there is none.
    """
    column = taken.split()[1]
    last = db.execute(f"{taken} ORDER BY {column} DESC LIMIT 1", values).fetchone()
    if last is None:
        return 1
    if last[0] + 1 < below:
        return int(last[0]) + 1
    there = {row[0] for row in db.execute(taken, values)}
    return next(number for number in range(1, len(there) + 2) if number not in there)
