"""Sentences that hold numbers."""


def counted(count: int, noun: str) -> str:
    """A number and its noun: `1 row`, `1,234 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
