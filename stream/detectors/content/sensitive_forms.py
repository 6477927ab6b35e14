"""Forms of secrets and personal data: what can be told from ordinary text by its shape and check digits.

Each is looked for only where a cheap sign of it is in the text. What is found is never quoted, only its kind and its ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple


class Found(NamedTuple):
    """Something that should not be there."""

    what: str
    hint: str


Sign = Callable[[str, bytes], bool]
Form = tuple[Sign, Callable[[str], Iterator[Found]]]


_KEYS: Final[tuple[tuple[str, str, re.Pattern[str]], ...]] = tuple(
    (what, sign, re.compile(pattern))
    for what, sign, pattern in (
        ("a private key", "PRIVATE KEY-----", r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----"),
        ("an AWS access key", "AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
        ("a temporary AWS access key", "ASIA", r"\bASIA[0-9A-Z]{16}\b"),
        ("an API key", "sk-", r"\bsk-(?:[a-z]+-){0,3}(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{20,}"),
        ("a Stripe key", "k_live_", r"\b[sr]k_live_[0-9A-Za-z]{16,}"),
        ("a GitHub token", "gh", r"\bgh[pousr]_[0-9A-Za-z]{36,}"),
        ("a GitHub token", "github_pat_", r"\bgithub_pat_[0-9A-Za-z_]{50,}"),
        ("a GitLab token", "glpat-", r"\bglpat-[0-9A-Za-z_-]{20,}"),
        ("a Slack token", "xox", r"\bxox[abposr]-[0-9A-Za-z-]{10,}"),
        ("a Google API key", "AIza", r"\bAIza[0-9A-Za-z_-]{35}"),
        ("a Hugging Face token", "hf_", r"\bhf_[A-Za-z0-9]{30,}"),
        ("a PyPI token", "pypi-", r"\bpypi-[A-Za-z0-9_-]{50,}"),
        ("a signed web token", "eyJ", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    )
)
_PASSWORD: Final = re.compile(r"\b[a-z][a-z0-9+]{1,15}://[^\s/:@\"']{1,64}:[^\s/:@\"'<>{}$*]{3,64}@[\w.-]+")
_CARD: Final = re.compile(r"(?<![\d.,-])(?:\d[ -]?){12,18}\d(?![\d-]|[.,]\d)")
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_EMAIL: Final = re.compile(r"\b[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,18}\b")
_PHONE: Final = re.compile(r"(?<![\w+])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){2,3}(?!\d)")
_SSN: Final = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])")

# Of the digits alone, with blanks and dashes taken out: a run of ten or more is a sign of cards and accounts. Of letters and
# digits: a run of sixteen is a sign of keys, which ordinary words and dashed identifiers do not have.
_DIGITS: Final = bytes(48 if 48 <= code <= 57 else 120 for code in range(256))
_LONG_NUMBER: Final = b"0" * 10
_SPACED_DIGITS: Final = bytes(48 if 48 <= code <= 57 or code in b" -" else 120 for code in range(256))
_LETTERS: Final = bytes(48 if bytes([code]).isalnum() else 120 for code in range(256))
_LONG_WORD: Final = b"0" * 16

_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24,
    "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "SA": 24, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "TR": 26,
}  # fmt: skip


def found_in(text: str, data: bytes, forms: Iterable[Form]) -> Iterator[Found]:
    """What a text holds of these forms; ``data`` is the text in UTF-8. Each sign is looked for once."""
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
    return _LONG_NUMBER in data.translate(_SPACED_DIGITS) and _LONG_NUMBER in data.translate(_DIGITS, b" -")


def _has_at(text: str, data: bytes) -> bool:
    return "@" in text


def _has_plus(text: str, data: bytes) -> bool:
    return "+" in text


def _has_dash(text: str, data: bytes) -> bool:
    return "-" in text


def passwords_in(text: str) -> Iterator[Found]:
    """Passwords in addresses."""
    yield from (Found("a password in an address", "...") for _ in _PASSWORD.finditer(text))


def keys_in(text: str) -> Iterator[Found]:
    """API keys, tokens and private keys of known forms; examples that say so are left out."""
    for what, sign, pattern in _KEYS:
        if sign in text:
            for match in pattern.finditer(text):
                if not _is_example(match.group()):
                    yield Found(what, _ends(match.group()))


def cards_in(text: str) -> Iterator[Found]:
    """Payment cards: a length and a beginning that issuers use, the check digit right, not all the same digit."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"[ -]", "", match.group())
        if _is_card(digits) and _grouped_like_a_card(match.group()):
            yield Found("a payment card", f"ending in {digits[-4:]}")


def ibans_in(text: str) -> Iterator[Found]:
    """Bank accounts: a country's length and the check digits right."""
    for match in _IBAN.finditer(text):
        account = match.group().replace(" ", "")
        wanted = _IBAN_LENGTHS.get(account[:2], 0)
        if wanted and len(account) >= wanted and _is_iban(account[:wanted]):
            yield Found("a bank account (IBAN)", f"ending in {account[wanted - 4 : wanted]}")


def emails_in(text: str) -> Iterator[Found]:
    """Addresses of people; those of examples are left out."""
    for match in _EMAIL.finditer(text):
        name, _, host = match.group().partition("@")
        if not host.lower().startswith(("example.", "test.", "localhost")):
            yield Found("an email address", f"{name[0]}...@{host}")


def phones_in(text: str) -> Iterator[Found]:
    """Telephone numbers in their international form."""
    for match in _PHONE.finditer(text):
        if 9 <= sum(map(str.isdigit, match.group())) <= 15:
            yield Found("a telephone number", f"ending in {match.group()[-2:]}")


def ssns_in(text: str) -> Iterator[Found]:
    """Social security numbers of the United States, where the text speaks of them."""
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
"""How each is found, and a cheap sign without which there is no point in looking."""


def _is_card(digits: str) -> bool:
    length = len(digits)
    known = (
        (digits[0] == "4" and length in (13, 16, 19))
        or (digits[:2] in ("34", "37") and length == 15)
        or (length == 16 and (51 <= int(digits[:2]) <= 55 or 2221 <= int(digits[:4]) <= 2720))
        or (length in (16, 19) and (digits[:4] == "6011" or digits[:2] == "65" or 644 <= int(digits[:3]) <= 649))
        or (length == 16 and 3528 <= int(digits[:4]) <= 3589)
        or (length in (14, 16) and digits[:2] in ("36", "38", "39"))
        or (length in (16, 19) and digits[:2] == "62")
    )
    return known and len(set(digits)) > 2 and _luhn(digits)


def _grouped_like_a_card(text: str) -> bool:
    """All in one, or in groups as people write cards; not numbers that happen to stand side by side."""
    groups = [len(group) for group in re.split(r"[ -]", text)]
    return len(groups) == 1 or groups[:3] == [4, 4, 4] or groups in ([4, 6, 5], [4, 6, 4])


def _luhn(digits: str) -> bool:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_iban(account: str) -> bool:
    turned = account[4:] + account[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def _is_example(text: str) -> bool:
    lowered = text.lower()
    return any(
        word in lowered for word in ("example", "xxxx", "your", "placeholder", "dummy", "redacted", "****", "...", "<", "$")
    )


def _ends(text: str) -> str:
    return f"{text[:4]}...{text[-2:]}" if len(text) > 12 else "..."
