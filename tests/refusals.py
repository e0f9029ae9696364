"""What every refusal looks like."""

from __future__ import annotations

from tiler.cli.main import run_command


def refused(capsys, command, arguments, *words, code=2) -> None:
    """Run a command: nothing on stdout, one line on stderr that has these words, the exit code."""
    assert run_command(command, [str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
