"""Values of common libraries are logged as the text that they stand for, or with their names.

Libraries that the tests do not need otherwise have stand-ins here; their own objects are
tested where they are installed.
"""

from __future__ import annotations

import ipaddress
import os
import pathlib
import sqlite3
import zoneinfo
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import httpx
import numpy as np
import pydantic
import pytest

from fapilog import values

snapshot: Any = values.snapshot  # of any type: the tests know which


# ---- values whose str is their meaning


class Addresses(pydantic.BaseModel):
    url: pydantic.HttpUrl
    dsn: pydantic.PostgresDsn
    ip: pydantic.IPvAnyAddress
    network: pydantic.IPvAnyNetwork


GIVEN: Any = {
    "url": "https://a.example/x?y=1",
    "dsn": "postgresql://h1:5432,h2:5432/db",
    "ip": "10.0.0.1",
    "network": "10.0.0.0/8",
}


def test_urls_and_addresses_of_pydantic_are_text_alone_and_in_a_model() -> None:
    addresses = Addresses(**GIVEN)
    for name, text in GIVEN.items():
        assert snapshot(getattr(addresses, name)) == text
    assert snapshot(addresses) == GIVEN


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "2001:db8::1", "10.0.0.0/8", "2001:db8::/32", "10.0.0.1/24"]
)
def test_addresses_and_networks_of_ipaddress_are_text(text: str) -> None:
    for kind in (ipaddress.ip_address, ipaddress.ip_network, ipaddress.ip_interface):
        try:
            value = kind(text)
        except ValueError:
            continue
        assert snapshot(value) == str(value)
        assert snapshot({"hosts": [value]}) == {"hosts": [str(value)]}


def test_paths_and_zones_are_text(tmp_path: pathlib.Path) -> None:
    assert snapshot(tmp_path) == str(tmp_path)
    (tmp_path / "a.txt").touch()
    (entry,) = os.scandir(tmp_path)
    assert snapshot(entry) == str(tmp_path / "a.txt")
    assert snapshot(zoneinfo.ZoneInfo("UTC")) == "UTC"
    assert snapshot(httpx.URL("https://a.example/")) == "https://a.example/"


def test_lazy_texts_of_django_are_text_and_lazy_objects_stay_lazy() -> None:
    conf = pytest.importorskip("django.conf")
    lazy_object = pytest.importorskip("django.utils.functional").SimpleLazyObject
    gettext_lazy = pytest.importorskip("django.utils.translation").gettext_lazy
    if not conf.settings.configured:
        conf.settings.configure(USE_I18N=False)
    assert snapshot(gettext_lazy("Hello")) == "Hello"
    assert snapshot({"label": gettext_lazy("Hello")}) == {"label": "Hello"}
    queries: list[int] = []
    user = lazy_object(lambda: queries.append(1))
    assert snapshot(user).startswith("<SimpleLazyObject: ")
    assert queries == []


def test_urls_of_yarl_are_text() -> None:
    yarl = pytest.importorskip("yarl")
    assert snapshot(yarl.URL("https://a.example/x?y=1")) == "https://a.example/x?y=1"


class Lazy:
    """Stands for ``gettext_lazy()`` and for ``SimpleLazyObject``."""

    def __init__(self, text: str, *, quotes: bool) -> None:
        self.text, self.quotes, self.queries = text, quotes, 0

    def __str__(self) -> str:
        self.queries += 1
        return self.text

    def __repr__(self) -> str:
        return repr(self.text) if self.quotes else "<Lazy: <function load>>"


def test_a_lazy_text_is_text_and_a_lazy_object_is_not_loaded() -> None:
    assert snapshot(Lazy("Hello", quotes=True)) == "Hello"
    user = Lazy("ann", quotes=False)
    assert snapshot(user) == "<Lazy: <function load>>"
    assert user.queries == 0


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("Secret('***')", "Secret('***')"),
        ("URL('https://u:***@h/')", "URL('https://u:***@h/')"),
        ("User('ann', role='s3cret')", "User('ann', role='s3cret')"),
        ("User('ann')('s3cret')", "User('ann')('s3cret')"),
        ("'s3cret' of 's3cret'", "'s3cret' of 's3cret'"),
        ("x's3cret'", "s3cret"),
    ],
)
def test_a_repr_that_says_something_else_is_kept(described: str, expected: str) -> None:
    class Secretive:
        def __str__(self) -> str:
            return "s3cret"

        def __repr__(self) -> str:
            return described

    assert snapshot(Secretive()) == expected


# ---- rows with names


def test_rows_of_sqlite_have_their_names() -> None:
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    rows = database.execute("select 1 as id, 'ann' as name union select 2, null").fetchall()
    twice = database.execute("select 1 as id, 2 as id").fetchone()
    database.close()
    assert snapshot(rows[0]) == {"id": 1, "name": "ann"}
    assert snapshot(rows) == [{"id": 1, "name": "ann"}, {"id": 2, "name": None}]
    assert snapshot(twice) == {"id": 1, "id#2": 2}


def test_rows_of_sqlalchemy_have_their_names_and_urls_hide_their_password() -> None:
    sa = pytest.importorskip("sqlalchemy")
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select 1 as id, 'ann' as name")).all()
        mapped = connection.execute(sa.text("select 1 as id")).mappings().one()
    engine.dispose()
    assert snapshot(rows) == [{"id": 1, "name": "ann"}]
    assert snapshot(mapped) == {"id": 1}
    url = snapshot(sa.engine.make_url("postgresql://ann:hunter2@h/db"))
    assert url == "postgresql://ann:***@h/db"


class Row(Sequence[Any]):
    """Stands for a row of SQLAlchemy, whose names each row has for itself."""

    def __init__(self, names: tuple[str, ...], *parts: Any) -> None:
        self._names, self._parts = names, parts

    @property
    def _fields(self) -> tuple[str, ...]:
        return self._names

    def __getitem__(self, index: Any) -> Any:
        return self._parts[index]

    def __len__(self) -> int:
        return len(self._parts)


class Record:
    """Stands for a record of asyncpg: like a Mapping, but iteration gives the values."""

    def __init__(self, **parts: Any) -> None:
        self._parts = parts

    def __getitem__(self, key: Any) -> Any:
        return self._parts[key] if isinstance(key, str) else [*self._parts.values()][key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parts.values())

    def __len__(self) -> int:
        return len(self._parts)

    def keys(self) -> Iterator[str]:
        return iter(self._parts)

    def values(self) -> Iterator[Any]:
        return iter(self._parts.values())

    def items(self) -> Iterator[tuple[str, Any]]:
        return iter(self._parts.items())

    def __repr__(self) -> str:
        return "<Record id=1>"


class Client:
    """Stands for the client of a key-value store, which must not be asked."""

    def keys(self) -> list[str]:
        raise AssertionError

    def __getitem__(self, key: str) -> str:
        raise AssertionError

    def __repr__(self) -> str:
        return "Client()"


def test_rows_of_other_libraries_have_their_names() -> None:
    assert snapshot(Row(("id", "name"), 1, "ann")) == {"id": 1, "name": "ann"}
    assert snapshot(Row(("id",), 1, 2)) == [1, 2]
    assert snapshot(Record(id=1, name="ann")) == {"id": 1, "name": "ann"}
    assert snapshot([Record(id=1), Record()]) == [{"id": 1}, {}]
    assert snapshot(Client()) == "Client()"


def test_rows_of_structured_arrays_have_their_names() -> None:
    point = np.dtype([("x", "i4"), ("y", "i4")])
    kind = np.dtype([("id", "i8"), ("name", "U4"), ("at", point), ("v", "f8", (2,))])
    array = np.array([(1, "ann", (2, 3), [0.5, 1.5])], dtype=kind)
    row = {"id": 1, "name": "ann", "at": {"x": 2, "y": 3}, "v": [0.5, 1.5]}
    assert snapshot(array[0]) == row
    assert snapshot(array) == [row]
    assert snapshot(array.view(np.recarray)[0]) == row
    assert snapshot({"rows": array.view(np.recarray)}) == {"rows": [row]}
    assert snapshot(np.zeros((1, 2), point)) == [[{"x": 0, "y": 0}, {"x": 0, "y": 0}]]
    assert snapshot(np.void(b"ab")) == b"ab"


class Credentials(NamedTuple):
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ***)"


class Position(NamedTuple):
    x: int
    y: int = 0


class Named(Position):
    """A subclass without its own ``repr``."""


def test_a_named_tuple_that_hides_a_field_from_its_repr_is_logged_as_that() -> None:
    assert snapshot(Credentials("ann", "hunter2")) == "Credentials('ann', ***)"
    assert snapshot([Position(1), Named(2, 3)]) == [{"x": 1, "y": 0}, {"x": 2, "y": 3}]
