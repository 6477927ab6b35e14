"""What a piece of SQL is: one statement, its kind, its format, and where the data of an INSERT
begin."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from stepstream.local.clickhouse_server.errors import SYNTAX_ERROR, error
from stepstream.local.clickhouse_server.lexer import Kind, Token, tokens

READS = frozenset(
    {"SELECT", "WITH", "SHOW", "DESC", "DESCRIBE", "EXISTS", "EXPLAIN", "FROM", "VALUES", "("}
)
# What a session remembers; everything else leaves nothing behind on a connection.
SESSION_STATE = frozenset({"SET", "USE"})
STATEMENTS = READS | SESSION_STATE | {
    "ALTER", "ANALYZE", "ATTACH", "BACKUP", "BEGIN", "CHECK", "COMMIT", "COPY", "CREATE", "DELETE",
    "DETACH", "DROP",
    "EXCHANGE", "EXECUTE", "GRANT", "INSERT", "KILL", "MOVE", "OPTIMIZE", "PARALLEL", "RENAME",
    "REPLACE", "RESTORE",
    "REVOKE", "ROLLBACK", "SYSTEM", "TRUNCATE", "UNDROP", "UPDATE", "WATCH",
}  # fmt: skip
_QUERY_INSIDE = frozenset({"SELECT", "WITH", "INFILE"})


@dataclass(frozen=True)
class Statement:
    """One statement.

    ``sql`` is its text without data and without a closing semicolon; ``data`` is where its data
    begin in the text that was parsed, or None; ``format`` is the FORMAT it names, or "".
    """

    verb: str
    sql: str
    tokens: tuple[Token, ...]
    format: str = ""
    data: int | None = None

    @property
    def reads(self) -> bool:
        return self.verb in READS

    @property
    def at_settings(self) -> tuple[str, str]:
        """``sql`` up to its SETTINGS, and those; the second is empty without any."""
        depth = 0
        for token, name, sign in zip(self.tokens, self.tokens[1:], self.tokens[2:], strict=False):
            depth += nesting(token)
            if (
                depth == 0
                and token.upper == "SETTINGS"
                and sign.text == "="
                and name.kind is token.kind
            ):
                at = token.start - (0 if self.data is not None else self.tokens[0].start)
                return self.sql[:at], self.sql[at:]
        return self.sql, ""

    def into(self, path: str, form: str) -> str:
        """``sql`` as it writes to a file, in its own format or else in that one."""
        at = next((at for at in range(len(self.tokens) - 2, -1, -1) if self._is_format(at)), None)
        target = f" INTO OUTFILE '{path}' TRUNCATE "
        if not self.format or at is None:
            return f"{self.sql}\n{target}FORMAT {form}"
        place = self.tokens[at].start - self.tokens[0].start
        return self.sql[:place] + target + self.sql[place:]

    def _is_format(self, at: int) -> bool:
        return self.tokens[at].upper == "FORMAT" and self.tokens[at + 1].text == self.format

    @property
    def keeps_state(self) -> bool:
        """Whether the session must remember what this does."""
        words = [token.upper for token in self.tokens[:5]]
        return self.verb in SESSION_STATE or (
            self.verb in ("CREATE", "DROP", "REPLACE") and "TEMPORARY" in words
        )


def parse(text: str) -> Statement:
    """Raises SYNTAX_ERROR for no statement, more than one, or an unfinished string or comment."""
    found = list(_until_data(text))
    last = found[-1] if found else None
    if last is not None and last.kind is Kind.BROKEN:
        raise error(
            SYNTAX_ERROR,
            f"Syntax error: unfinished or unknown at position {last.start + 1}: {last.text[:60]}",
        )
    if found and found[0].upper == "INSERT" and (data := _data_start(text, found)) is not None:
        return _insert(text, found, data)
    while found and found[-1].text == ";" and found[-1].kind is Kind.MARK:
        found.pop()
    if not found:
        raise error(SYNTAX_ERROR, "Empty query")
    return _single(text, found)


def _until_data(text: str) -> list[Token]:
    """All tokens; of an INSERT only those before its data, which need not be SQL at all."""
    found: list[Token] = []
    depth, queries = 0, False
    for token in tokens(text):
        queries = queries or (len(found) > 2 and found[-1].upper in _QUERY_INSIDE)
        found.append(token)
        depth += nesting(token)
        if depth == 0 and found[0].upper == "INSERT" and not queries and _ends_head(found):
            break
    return found


def nesting(token: Token) -> int:
    """How many parentheses a token opens (1), closes (-1), or neither (0)."""
    return 0 if token.kind is not Kind.MARK else (token.text in "([") - (token.text in ")]")


def _data_follow(found: list[Token]) -> bool:
    """Whether what comes next is data: after VALUES, or after FORMAT and its name, outside of
    parentheses."""
    return _ends_head(found) and not any(token.upper in _QUERY_INSIDE for token in found[2:-1])


def _ends_head(found: list[Token]) -> bool:
    """Whether the last tokens are VALUES, or FORMAT and its name."""
    return len(found) >= 4 and (
        found[-1].upper == "VALUES" or (found[-2].upper == "FORMAT" and found[-1].kind is Kind.WORD)
    )


def _data_start(text: str, found: list[Token]) -> int | None:
    if not _data_follow(found):
        return None
    end = found[-1].end
    if _by_values(found):
        return end
    rest = text[end : end + 64]
    blank = len(rest) - len(rest.lstrip(" \t\r"))
    if rest[blank : blank + 1] == ";":
        blank += 1
        blank += len(rest[blank:]) - len(rest[blank:].lstrip(" \t\r"))
    return end + blank + (rest[blank : blank + 1] == "\n")


def _by_values(found: list[Token]) -> bool:
    return found[-1].upper == "VALUES" and found[-2].upper != "FORMAT"


def _insert(text: str, found: list[Token], data: int) -> Statement:
    by_values = _by_values(found)
    head = found[:-1] if by_values else found[:-2]
    kind = "Values" if by_values else found[-1].text
    return Statement("INSERT", text[: head[-1].end], tuple(head), kind, data)


def _single(text: str, found: list[Token]) -> Statement:
    for token in found:
        if token.kind is Kind.MARK and token.text == ";":
            raise error(
                SYNTAX_ERROR, f"Multi-statements are not allowed (at position {token.start + 1})"
            )
    verb = "INSERT" if _inserts_after_with(found) else found[0].upper or found[0].text
    if verb not in STATEMENTS:
        raise error(
            SYNTAX_ERROR,
            f"Syntax error: failed at position {found[0].start + 1} "
            f"({text[found[0].start :][:60]})",
        )
    return Statement(verb, text[found[0].start : found[-1].end], tuple(found), _format_of(found))


def _inserts_after_with(found: list[Token]) -> bool:
    """WITH x AS (...) INSERT INTO ... begins like a query and is none."""
    depth = 0
    for token, following in pairwise(found):
        depth += nesting(token)
        if (
            depth == 0
            and found[0].upper == "WITH"
            and (token.upper, following.upper) == ("INSERT", "INTO")
        ):
            return True
    return False


def _format_of(found: list[Token]) -> str:
    """The FORMAT clause of a whole statement: at its end, or before its SETTINGS."""
    depth, name = 0, ""
    for at, token in enumerate(found[:-1]):
        depth += nesting(token)
        after = found[at + 2].upper if at + 2 < len(found) else "SETTINGS"
        if (
            depth == 0
            and token.upper == "FORMAT"
            and found[at + 1].kind is Kind.WORD
            and after == "SETTINGS"
        ):
            name = found[at + 1].text
    return name
