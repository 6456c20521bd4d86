"""After each test of a reference case: nothing that the case stores was left out."""

from collections.abc import Iterator
from typing import Any

import pytest
from reference_cases import Case


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[Any]:
    parameters = getattr(pyfuncitem, "callspec", None)
    cases = list(find_cases(list(parameters.params.values()) if parameters else []))
    for case in cases:
        case.start_test()
    result = yield
    for case in cases:
        case.check_nothing_was_left_out()
    return result


def find_cases(value: Any) -> Iterator[Case]:
    """The cases among a test's arguments, in lists of arguments too."""
    if isinstance(value, Case):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from find_cases(each)
