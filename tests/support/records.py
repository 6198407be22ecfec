"""Records of every kind, for property tests of the code that writes them."""

from __future__ import annotations

from hypothesis import strategies as st

from fapilog.record import LogRecord, Resource, Scope

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TIME = 1_795_428_900_123_456_789

#: Every character that ends a line, controls a terminal or reorders displayed text.
DANGEROUS = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
]

texts = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(DANGEROUS)))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.binary(),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8
)
records = st.builds(
    LogRecord,
    timestamp=st.integers(0, 2**63),
    observed_timestamp=st.integers(0, 2**63),
    severity_number=st.integers(0, 24),
    severity_text=texts,
    body=values,
    attributes=st.dictionaries(texts, values, max_size=4),
    event_name=texts,
    scope=st.builds(Scope, name=texts, version=texts),
    resource=st.builds(Resource, attributes=st.dictionaries(texts, scalars, max_size=2)),
)
