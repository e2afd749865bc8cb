"""Plain data of any shape, for hypothesis."""

from __future__ import annotations

import datetime

from hypothesis import strategies as st

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.dates()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.ip_addresses()
    | st.fractions()
)
STATES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(ATOMS, inner, max_size=5)
        | st.sets(ATOMS, max_size=5)
        | st.frozensets(ATOMS, max_size=5)
    ),
    max_leaves=20,
)
