"""What `import vidstill` gives."""

import subprocess
import sys

import pytest

import vidstill


@pytest.mark.parametrize("name", vidstill.__all__)
def test_every_public_name_is_there(name):
    assert callable(getattr(vidstill, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="distill"):
        _ = vidstill.distill


def test_importing_the_package_does_not_import_torch():
    code = "import sys, vidstill; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
