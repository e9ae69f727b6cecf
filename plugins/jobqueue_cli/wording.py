"""Words for people: counts, and text that came from jobs, made safe for a terminal."""

from __future__ import annotations

__all__ = ["counted", "one_line", "printable"]


def counted(count: int, thing: str) -> str:
    """*count* of *thing*, in the plural unless it is one: ``1 job``, ``2 jobs``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def printable(text: str) -> str:
    r"""*text* with everything but printable characters, spaces and line ends written as an escape, so that no job can steer a terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def one_line(text: str) -> str:
    r"""As :func:`printable`, with line ends escaped too."""
    return printable(text).replace("\n", "\\n")
