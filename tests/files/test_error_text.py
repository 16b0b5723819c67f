"""Errors in one line."""

from orthoplex.files import lacks_memory, one_line, summary_of


def test_lines():
    assert one_line(" a \n\n b\r\nc ") == "a b c"
    assert one_line("\x1b[1;31mtoo  many\x1b[0m\nlines") == "too  many lines"
    assert summary_of(OSError(2, "no such file", "x")) == "FileNotFoundError: [Errno 2] no such file: 'x'"
    assert summary_of(ValueError("x" * 400)) == "ValueError: " + "x" * 287 + "…"
    assert not lacks_memory(RuntimeError("shape")) and lacks_memory(RuntimeError("MPS backend out of memory"))
