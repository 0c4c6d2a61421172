# SPDX-License-Identifier: LGPL-2.1-or-later
"""What only SOCKBROKER_LONG=1, as ./check --long sets it, runs."""

import os

import pytest

LONG = "SOCKBROKER_LONG" in os.environ
_ELSE = pytest.mark.skipif(not LONG, reason="one of several of its kind: SOCKBROKER_LONG runs all")


def some(every, *kept):
    """Parameters of a test of which those that are kept, the ones that differ most, run always."""
    every = list(every)
    missing = [one for one in kept if one not in every]
    assert not missing, f"no such parameter: {missing}"

    def marked(one):
        return pytest.param(*one, marks=_ELSE) if isinstance(one, tuple) else pytest.param(one, marks=_ELSE)

    return [one if one in kept else marked(one) for one in every]
