"""A rule accepts what its words say, and its error names the option and the fix."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from fapilog import ConfigurationError
from fapilog.options.checks import (
    FINITE_SECONDS,
    NONE,
    SECONDS,
    TRUE_OR_FALSE,
    Rule,
    names,
    one_of,
    severity,
    whole,
)


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (whole(), [0, 7], [-1, True, 1.0, "1", None]),
        (whole(1, 64), [1, 64], [0, 65]),
        (one_of("a", "b"), ["a"], ["c", None, np.array(["a", "b"]), []]),
        (SECONDS, [1, 0.5, math.inf], [0, -1, math.nan, True, "1"]),
        (FINITE_SECONDS, [1, 0.5], [math.inf, math.nan, 10**400]),
        (TRUE_OR_FALSE | NONE, [True, False, None], [0, "true"]),
    ],
)
def test_a_rule_accepts_what_is_allowed(rule, right, wrong):
    assert all(map(rule.accepts, right))
    assert not any(map(rule.accepts, wrong))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (whole(), "a whole number"),
        (whole(1, unit="bytes") | NONE, "a whole number of bytes, 1 or more, or None"),
        (whole(1, 64), "a whole number from 1 to 64"),
        (one_of("a", "b", "c"), "'a', 'b' or 'c'"),
    ],
)
def test_the_error_names_the_option_its_owner_and_the_fix(rule: Rule, words):
    with pytest.raises(ConfigurationError) as caught:
        rule.check("size", -1, "sink 'x'")
    assert str(caught.value) == f"size=-1 of sink 'x': use {words}"
    assert caught.value.option == "size"


def test_a_severity_and_names_are_returned():
    assert severity("level", "warn") == 13
    assert names("labels", ["a", "b"], "['a']") == ("a", "b")


@pytest.mark.parametrize("value", [None, [], 3.5, "loud"])
def test_a_value_that_is_not_a_severity_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"^level of hold\(\): "):
        severity("level", value, "hold()")


@pytest.mark.parametrize("value", ["text", b"text", 3, ["a", 3]])
def test_a_value_that_is_not_a_list_of_names_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"^labels=.* such as \['a'\]"):
        names("labels", value, "['a']")


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_of_the_error_keeps_the_option(again):
    found = again(ConfigurationError("wrong", "level"))
    assert (str(found), found.option) == ("wrong", "level")
    assert ConfigurationError("wrong").option is None
