"""What `python -m teacher_inference` sets up before it serves."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc")

from teacher_inference.__main__ import main


@pytest.mark.parametrize(("given", "then"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_that_wait_sleep_unless_the_environment_says_otherwise(given: dict[str, str], then: str, capsys):
    environ = dict(given)
    with pytest.raises(SystemExit):  # there is no gallery key
        main(environ)
    assert environ["OMP_WAIT_POLICY"] == then
    assert "TUTELAGE_TEACHER_GALLERY_KEY_FILE" in capsys.readouterr().err
