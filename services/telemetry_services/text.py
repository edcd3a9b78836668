"""Sentences for people: with numbers in them, and with what came from others."""

from urllib.parse import urlsplit


def counted(count: int, noun: str) -> str:
    """A number and its noun: `1 row`, `1,234 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: str) -> str:
    r"""The text on one line, harmless to a terminal: all but printable characters are escaped as in Python.

    That takes line ends of every kind, terminal escapes, signs that turn the direction of writing around, and what
    nobody sees. A text that is printable stays as it is, backslashes included.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown_url(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
