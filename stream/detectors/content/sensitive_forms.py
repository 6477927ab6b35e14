"""Forms of secrets and personal data.

Data that its shape and check digits distinguish from ordinary text.

Secrets are those of ``schemas.secret_forms``, as in the SDK. Each is looked for only where a cheap
sign of it is in the text. What is found is never quoted, only its kind and its ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from stepstream.schemas.secret_forms import (
    EMAIL,
    HEADERS,
    KEYS,
    KINDS,
    LOGIN_IN_URL,
    TEXT_FORMS,
    key_starts,
    web_tokens,
)


class Found(NamedTuple):
    """Something that should not be there."""

    what: str
    hint: str
    is_secret: bool = False
    """A key, token or password: every reader can use it."""


Sign = Callable[[str, bytes], bool]
Form = tuple[Sign, Callable[[str], Iterator[Found]]]


_PLACEHOLDER: Final = re.compile(r"[{}$*<>]")
_CARD: Final = re.compile(r"(?<![\d.,-])(?:\d[ -]?){12,18}\d(?![\d-]|[.,]\d)")
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_PHONE: Final = re.compile(
    r"(?<![\w+])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){2,3}(?!\d)"
)
_SSN: Final = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])")

# Of the digits alone, with blanks and dashes taken out: a run of ten or more is a sign of cards and
# accounts. Of letters and
# digits: a run of sixteen is a sign of keys, which ordinary words and dashed identifiers do not
# have.
_DIGITS: Final = bytes(48 if 48 <= code <= 57 else 120 for code in range(256))
_LONG_NUMBER: Final = b"0" * 10
_SPACED_DIGITS: Final = bytes(
    48 if 48 <= code <= 57 or code in b" -" else 120 for code in range(256)
)
_LETTERS: Final = bytes(48 if bytes([code]).isalnum() else 120 for code in range(256))
_LONG_WORD: Final = b"0" * 16

_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22,
    "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27,
    "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "SA": 24, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "TR": 26,
}  # fmt: skip


def found_in(text: str, data: bytes, forms: Iterable[Form]) -> Iterator[Found]:
    """What a text holds of these forms; ``data`` is the text in UTF-8.

    Each sign is looked for once.
    """
    seen: dict[Sign, bool] = {}
    for sign, find in forms:
        if sign not in seen:
            seen[sign] = sign(text, data)
        if seen[sign]:
            yield from find(text)


def _has_address(text: str, data: bytes) -> bool:
    return "@" in text and "://" in text


def _has_long_word(text: str, data: bytes) -> bool:
    return _LONG_WORD in data.translate(_LETTERS)


def _has_long_number(text: str, data: bytes) -> bool:
    return _LONG_NUMBER in data.translate(_SPACED_DIGITS) and _LONG_NUMBER in data.translate(
        _DIGITS, b" -"
    )


def _has_at(text: str, data: bytes) -> bool:
    return "@" in text


def _has_plus(text: str, data: bytes) -> bool:
    return "+" in text


def _has_dash(text: str, data: bytes) -> bool:
    return "-" in text


def passwords_in(text: str) -> Iterator[Found]:
    """Passwords in addresses; what stands for one is left out."""
    for match in LOGIN_IN_URL.finditer(text):
        password = match.group()[len(match[1]) + 1 : -1]
        if len(password) >= 3 and not _PLACEHOLDER.search(password) and not _is_example(password):
            yield Found("a password in an address", "...", is_secret=True)


def keys_in(text: str) -> Iterator[Found]:
    """API keys, tokens and private keys of known forms; marked examples are left out."""
    for start in sorted(key_starts(text)):
        yield from _kept(KINDS[start], KEYS[start].finditer(text))
    for form in TEXT_FORMS:
        if form.hint in text:
            yield from _kept(form.what, form.pattern.finditer(text))
    for form in HEADERS:
        if form.hint in text:
            for match in form.pattern.finditer(text):
                if not _is_example(match.group()):
                    yield Found(form.what, "...", is_secret=True)
    for begin, end in web_tokens(text) if ".eyJ" in text else ():
        yield Found("a signed web token", _ends(text[begin:end]), is_secret=True)


def _kept(what: str, matches: Iterable[re.Match[str]]) -> Iterator[Found]:
    return (
        Found(what, _ends(match.group()), is_secret=True)
        for match in matches
        if not _is_example(match.group())
    )


def cards_in(text: str) -> Iterator[Found]:
    """Payment cards.

    A length and a beginning that issuers use, the check digit right, not all the same digit.
    """
    for match in _CARD.finditer(text):
        digits = re.sub(r"[ -]", "", match.group())
        if _is_card(digits) and _grouped_like_a_card(match.group()):
            yield Found("a payment card", f"ending in {digits[-4:]}")


def ibans_in(text: str) -> Iterator[Found]:
    """Bank accounts: a country's length and the check digits right."""
    for match in _IBAN.finditer(text):
        account = match.group().replace(" ", "")
        wanted = _IBAN_LENGTHS.get(account[:2], 0)
        # The pattern may take the next word along: only the length of the country counts.
        if wanted and len(account) >= wanted and _is_iban(account[:wanted]):
            yield Found("a bank account (IBAN)", f"ending in {account[wanted - 4 : wanted]}")


def emails_in(text: str) -> Iterator[Found]:
    """Addresses of people; those of examples are left out."""
    for match in EMAIL.finditer(text):
        name, _, host = match.group().partition("@")
        # Hosts of documentation (RFC 2606) and of tests.
        if not host.lower().startswith(("example.", "test.", "localhost")):
            yield Found("an email address", f"{name[0]}...@{host}")


def phones_in(text: str) -> Iterator[Found]:
    """Telephone numbers in their international form."""
    for match in _PHONE.finditer(text):
        if 9 <= sum(map(str.isdigit, match.group())) <= 15:
            yield Found("a telephone number", f"ending in {match.group()[-2:]}")


def ssns_in(text: str) -> Iterator[Found]:
    """Social security numbers of the United States, where the text speaks of them."""
    # The number has no check digit: nine digits alone are as often an order or an account.
    if re.search(r"social security|\bSSN\b", text, re.IGNORECASE):
        for match in _SSN.finditer(text):
            yield Found("a social security number", f"ending in {match.group()[-2:]}")


FORMS: Final[dict[str, tuple[Form, ...]]] = {
    "key": ((_has_address, passwords_in), (_has_long_word, keys_in)),
    "card": ((_has_long_number, cards_in),),
    "iban": ((_has_long_number, ibans_in),),
    "email": ((_has_at, emails_in),),
    "phone": ((_has_plus, phones_in),),
    "us_ssn": ((_has_dash, ssns_in),),
}
"""How each is found, and a cheap sign without which the text is not searched."""


def _is_card(digits: str) -> bool:
    length = len(digits)
    known = (
        (digits[0] == "4" and length in (13, 16, 19))
        or (digits[:2] in ("34", "37") and length == 15)
        or (length == 16 and (51 <= int(digits[:2]) <= 55 or 2221 <= int(digits[:4]) <= 2720))
        or (
            length in (16, 19)
            and (digits[:4] == "6011" or digits[:2] == "65" or 644 <= int(digits[:3]) <= 649)
        )
        or (length == 16 and 3528 <= int(digits[:4]) <= 3589)
        or (length in (14, 16) and digits[:2] in ("36", "38", "39"))
        or (length in (16, 19) and digits[:2] == "62")
    )
    return known and len(set(digits)) > 2 and _luhn(digits)


def _grouped_like_a_card(text: str) -> bool:
    """All in one, or in groups as people write cards.

    Not numbers that happen to stand side by side.
    """
    groups = [len(group) for group in re.split(r"[ -]", text)]
    return len(groups) == 1 or groups[:3] == [4, 4, 4] or groups in ([4, 6, 5], [4, 6, 4])


def _luhn(digits: str) -> bool:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_iban(account: str) -> bool:
    # ISO 13616: country and check digits to the end, letters as 10 to 35, remainder 1 by 97.
    turned = account[4:] + account[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def _is_example(text: str) -> bool:
    lowered = text.lower()
    return any(
        word in lowered
        for word in (
            "example",
            "xxxx",
            "your",
            "placeholder",
            "dummy",
            "redacted",
            "****",
            "...",
            "<",
            "$",
        )
    )


def _ends(text: str) -> str:
    return f"{text[:4]}...{text[-2:]}" if len(text) > 12 else "..."
