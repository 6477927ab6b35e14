"""Shortens texts: cuts out the middle, replaces embedded files by their type and size.

The time depends on how much is kept, not on the length of the text.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

# A shorter text is not searched for base64.
SHORTEST_FILE: Final = 1_024
_BLOCK: Final = 512
_WINDOW: Final = 1_024
_WORD_CHARS: Final = 2_048
_SHORTEST_URL: Final = 256
_LEAST_VARIETY: Final = 24
_LINE: Final = 60
_SAMPLES: Final = 8
_EXACT_CHARS: Final = 262_144

_CUT: Final = re.compile(r"\.\.\.\[([0-9][0-9,]{0,15}) characters cut\]\.\.\.")
_BASE64: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-\r\n"
_RUN: Final = re.compile(r"[A-Za-z0-9+/=_\-\r\n]*")
_DIGIT: Final = re.compile("[0-9]")
_DATA_URL: Final = re.compile(r"data:([\w.+-]{1,64}/[\w.+-]{1,64})(?:;[\w.+=-]{1,64}){0,4},")
_URL_REST: Final = re.compile(r"[^\s\"'<>\\)]*")
_DELIMITERS: Final = " \t\r\n\"'<>,;&{}()[]"
_DELIMITER: Final = re.compile(r"[\s\"'<>,;&{}()\[\]]")
_KEY_END: Final = "PRIVATE KEY-----"

_SIGNATURES: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"%PDF", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
)


def size_of(text: str) -> int:
    """The size of the text in UTF-8: exact up to 262,144 characters, beyond that estimated."""
    if text.isascii():
        return len(text)
    if len(text) <= _EXACT_CHARS:
        return len(text.encode("utf-8", "replace"))
    known = text[: _EXACT_CHARS // 4] + text[-_EXACT_CHARS // 4 :]
    return len(known.encode("utf-8", "replace")) * len(text) // len(known)


def cut_mark(characters: int) -> str:
    """The mark in the place of text that was cut out."""
    return f"...[{characters:,} characters cut]..."


def file_mark(media_type: str, size_bytes: int) -> str:
    """The mark in the place of an embedded file."""
    return f"[{media_type or 'base64'}, {size_bytes:,} bytes]"


def shortened(text: str, most: int) -> str:
    """The text in at most ``most`` characters: files replaced, then the middle cut out.

    A cut does not divide a word, because the redaction would not recognise half of a secret.
    """
    length = len(text)
    if length < SHORTEST_FILE:
        return text if length <= most else cut_middle(text, most)
    window = most // 2 + _WINDOW
    condensed = _condensed(text, files_in(text)) if length <= 2 * window else _ends(text, window)
    return condensed if len(condensed) <= most else cut_middle(condensed, most)


def cut_middle(text: str, most: int, *, whole_words: bool = True) -> str:
    """Beginning and end of the text with a mark between them, ``most`` characters in all."""
    length = len(text)
    if length <= most:
        return text
    room = most - _mark_chars(text)
    if room < 2:
        return text[: max(0, most)]
    start, stop = _around_earlier_cuts(text, room - room // 2, length - room // 2)
    head, tail = text[:start], text[stop:]
    if whole_words:
        head, tail = _whole_words(head, tail)
    return head + cut_mark(_missing(text, len(head), len(tail))) + tail


def cut_to_bytes(text: str, max_bytes: int) -> tuple[str, int]:
    """The text with its middle cut out, in ``max_bytes`` of UTF-8; and its size in bytes before."""
    if text.isascii():
        return cut_middle(text, max_bytes, whole_words=False), len(text)
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text, len(data)
    room = max_bytes - _mark_chars(text)
    if room < 2:
        return data[: max(0, max_bytes)].decode("utf-8", "ignore"), len(data)
    head = data[: room - room // 2].decode("utf-8", "ignore")
    tail = data[-(room // 2) :].decode("utf-8", "ignore")
    return head + cut_mark(_missing(text, len(head), len(tail))) + tail, len(data)


def _around_earlier_cuts(text: str, start: int, stop: int) -> tuple[int, int]:
    """The limits of the cut, moved so that they divide no mark of an earlier cut.

    An earlier mark next to the cut becomes part of it, so that two marks never follow one another.
    """
    for earlier in _CUT.finditer(text):
        if earlier.start() < start <= earlier.end():
            start = earlier.start()
        if earlier.start() <= stop < earlier.end():
            stop = earlier.end()
    return start, stop


def _mark_chars(text: str) -> int:
    """The length of the longest mark that a cut of this text can need."""
    return len(
        cut_mark(
            len(text) + sum(int(earlier[1].replace(",", "")) for earlier in _CUT.finditer(text))
        )
    )


def _missing(text: str, head: int, tail: int) -> int:
    """The characters between head and tail.

    An earlier mark counts as the characters that it replaced.
    """
    count = len(text) - head - tail
    for earlier in _CUT.finditer(text, head, len(text) - tail):
        count += int(earlier[1].replace(",", "")) - len(earlier[0])
    return count


def _whole_words(head: str, tail: str) -> tuple[str, str]:
    end = max(head.rfind(sign, max(0, len(head) - _WORD_CHARS)) for sign in _DELIMITERS)
    start = _DELIMITER.search(tail, 0, _WORD_CHARS)
    if end > 0:
        head = head[: end + 1]
    if start is not None:
        tail = tail[start.start() :]
    # The second half of a private key would not be recognised without its first line.
    key = tail.find(_KEY_END)
    if key >= 0 and "-----BEGIN" not in tail[:key]:
        tail = tail[key + len(_KEY_END) :]
    return head, tail


# --- embedded files ---

# An embedded file: its start and end in the text, and its media type (empty if unknown).
Found = tuple[int, int, str]


def files_in(text: str) -> list[Found]:
    """The data URLs and long base64 in the text, in order."""
    if "data:" not in text:
        return _base64_in(text, 0, len(text))
    found: list[Found] = []
    done = 0
    for url in _DATA_URL.finditer(text):
        if url.start() >= done:
            rest = _RUN if ";base64," in url[0] else _URL_REST
            payload = rest.match(text, url.end())
            end = url.end() if payload is None else payload.end()
            if end - url.end() >= _SHORTEST_URL:
                found.append((url.start(), end, url[1]))
                done = end
    both: list[Found] = []
    done = 0
    for url_found in [*found, (len(text), len(text), "")]:
        both += _base64_in(text, done, url_found[0])
        both.append(url_found)
        done = url_found[1]
    return both[:-1]


def _base64_in(text: str, done: int, stop: int) -> list[Found]:
    """The long base64 between two positions.

    The text is sampled in blocks: a file of ``SHORTEST_FILE`` contains at least one whole block.
    """
    found: list[Found] = []
    at = done
    while at + _BLOCK <= stop:
        run = _RUN.match(text, at, at + _BLOCK) if text.find(" ", at, at + _BLOCK) < 0 else None
        if run is not None and run.end() == at + _BLOCK and _is_encoded(run[0]):
            before = text[done:at]
            start = done + len(before.rstrip(_BASE64))
            end = _end_of_run(text, at, stop)
            if end - start >= SHORTEST_FILE:
                found.append((start, end, media_type_of(_decoded(text[start : start + 24]))))
                done = at = end
                continue
        at += _BLOCK
    return found


def _end_of_run(text: str, at: int, stop: int) -> int:
    run = _RUN.match(text, at, stop)
    return at if run is None else run.end()


def _is_encoded(block: str) -> bool:
    """True if a block of base64 characters is base64, not words or digits.

    It has mixed case, digits, at least 24 different characters, and lines of equal length.
    """
    if (
        block.islower()
        or block.isupper()
        or _DIGIT.search(block) is None
        or len(set(block)) < _LEAST_VARIETY
    ):
        return False
    if "\n" not in block:
        return True
    inner = {len(line.rstrip("\r")) for line in block.split("\n")[1:-1]}
    return len(inner) == 1 and min(inner) >= _LINE


def is_file(text: str) -> bool:
    """True if a text of at least ``SHORTEST_FILE`` characters is one embedded file, by its
    beginning.
    """
    url = _DATA_URL.match(text)
    if url is not None:
        return True
    run = _RUN.match(text, 0, _BLOCK)
    return run is not None and run.end() == _BLOCK and _is_encoded(run[0])


def media_type_of(data: bytes) -> str:
    """The media type of a file by its first bytes; empty if unknown."""
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data.startswith(b"RIFF"):
        return {b"WAVE": "audio/wav", b"WEBP": "image/webp"}.get(data[8:12], "")
    return "video/mp4" if data[4:8] == b"ftyp" else ""


def _decoded(start: str) -> bytes:
    try:
        return binascii.a2b_base64(start[: len(start) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _condensed(text: str, files: list[Found]) -> str:
    if not files:
        return text
    parts: list[str] = []
    done = 0
    for start, end, media_type in files:
        parts += (text[done:start], file_mark(media_type, (end - start) * 3 // 4))
        done = end
    parts.append(text[done:])
    return "".join(parts)


def _ends(text: str, window: int) -> str:
    """Beginning and end of a long text, and a mark for what is between them.

    If a file spans the gap, the mark is that of the file.
    """
    head, tail = text[:window], text[-window:]
    between = len(text) - 2 * window
    before = files_in(head)
    if before and before[-1][1] == window and _one_run(text, window, between):
        start, _, media_type = before.pop()
        end = _end_of_run(tail, 0, window)
        size = (window - start + between + end) * 3 // 4
        tail = tail[end:]
        return (
            _condensed(head[:start], before)
            + file_mark(media_type, size)
            + _condensed(tail, files_in(tail))
        )
    return _condensed(head, before) + cut_mark(between) + _condensed(tail, files_in(tail))


def _one_run(text: str, start: int, length: int) -> bool:
    """True if the text between two positions is probably one run of base64, by samples."""
    if length < _BLOCK:
        return True
    for number in range(_SAMPLES):
        at = start + (length - _BLOCK) * number // (_SAMPLES - 1)
        run = _RUN.match(text, at, at + _BLOCK)
        if run is None or run.end() != at + _BLOCK:
            return False
    return True
