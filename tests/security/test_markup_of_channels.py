"""What agents write shows as it is in every channel: no link, no mention, no style, and within the
service's limits."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.alert import AlertStruct
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import deliver
from stepstream.sinks.notify.channels.apprise import _notify
from tests.support.channel_cases import CASES, closing, context, context_for, mailbox, notification
from tests.support.notify_world import alert, subscription
from tests.support.receiver import Call, receiver

__all__ = ["closing"]  # a fixture of every test here

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]

HOSTILE: Final = (
    "[reset your password](https://evil.example)", "![x](https://evil.example/p.png)",
    "<https://evil.example|click>",
    "<!channel>",    "<!here> <@U123> <#C1>", "@everyone @here @channel @ada", "<@123> <@&9> <#7>",
    "<at>all</at>",
    "<b>bold</b><script>x</script>", "**bold** *it* __u__ ~~s~~ ||spoiler|| `code` ```block```",
    "# heading", "> quote", "- item", "+ item", "1. item",
    "2) item", "{{DATE(2026-01-01T00:00:00Z,SHORT)}}", "[a]: https://evil.example",
    "\\[x](https://evil.example)",
    "\\\\[x](https://e.x)", "&lt;!channel&gt;",
    "<a href='https://evil.example'>x</a>", ":rotating_light:", "\x1b[2J\u202ex",
    "a\n# heading\n- item\n[x](https://e.x)", "$`<&>",
)  # fmt: skip
NAMES: Final = (
    "agent",
    "agent_version",
    "task",
    "subject",
    "environment",
    "project",
    "message",
    "quoted",
    "detail",
    "alert",
    "rule",
)


def quoting_alert(text: str, **fields: Any) -> AlertStruct:
    """An alert with the text wherever an agent may have put it."""
    return alert(
        **dict.fromkeys(NAMES, text)
        | {"severity": "critical", "step_ids": [text], "trace_id": text}
        | fields
    )


def unescaped(text: str) -> str:
    """Markdown with a letter for each escaped sign: what still means something."""
    return re.sub(r"\\[^0-9A-Za-z\s]", "x", text)


def shown(text: str) -> str:
    """Markdown without its backslashes: what people see."""
    return re.sub(r"\\([^0-9A-Za-z\s])", r"\1", text)


def is_plain_markdown(text: str, *, ours: str = "") -> bool:
    rest = unescaped(text.replace(ours, "")) if ours else unescaped(text)
    return not re.search(
        r"[\[\]`*_~|<>@{}]|^\s*(#|>|[-+] |\d+[.)] )", rest.replace("**", ""), re.MULTILINE
    )


def texts(name: str, call: Call) -> str:  # noqa: PLR0911 one answer for each channel
    """Everything in a request that the service may render."""
    data = call.data
    match name:
        case "slack":
            return str(data["text"])
        case "discord":
            return str(data["content"])
        case "teams":
            return "\n".join(block["text"] for block in data["attachments"][0]["content"]["body"])
        case "telegram":
            return str(data["text"])
        case "pagerduty":
            payload = data.get("payload", {})
            parts = [
                payload.get(one, "") for one in ("summary", "source", "component", "group", "class")
            ]
            details = payload.get("custom_details", {})
            return "\n".join([*parts, details.get("text", ""), *details.get("labels", {}).values()])
        case "opsgenie":
            return "\n".join(
                [
                    data.get("message", ""),
                    data.get("description", ""),
                    data.get("entity", ""),
                    *data.get("tags", []),
                ]
            )
        case "alertmanager":
            return "\n".join(data[0]["annotations"].values())
        case "apprise":
            return f"{data['title']}\n{data['message']}"
        case _:
            return ""


def is_inert(name: str, text: str) -> bool:
    """Whether nothing in it links under another name, mentions, styles or steers."""
    if [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]:
        return False
    match name:
        case "slack":
            return not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text)
        case "discord" | "teams":
            head, _, rest = text.partition("\n")
            head = head.removeprefix("**").removesuffix("**") if name == "discord" else head
            # "[CRITICAL]" at the beginning is ours, and nothing that follows it makes a link of it.
            return is_plain_markdown(re.sub(r"^\[[A-Z]+\] ", "", head)) and is_plain_markdown(rest)
        case "telegram":
            return not re.search(r"@\w", text)
        case _:
            return "](" not in text and not re.search(r"@\w|<[\w!@#/?]", text)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"webhook"}))
def test_what_agents_write_means_nothing_in_any_channel(name: str, text: str) -> None:
    """In titles, texts, fields and templates of a user, with the text as an agent, a task, a
    tool, a message ..."""
    with receiver(answer=b"ok") as there:
        for template in (
            {},
            {
                "title": "{who} {message}",
                "body": "{agent} {subject} {evidence} {quoted} {detail} {command} {alert}",
            },
        ):
            document = subscription(
                to={name: CASES[name].to(there.url)}, content="full", template=template
            )
            assert (
                deliver(
                    notification(quoting_alert(text), quoting_alert("x")),
                    document,
                    context_for(there.url),
                ).kind
                == "delivered"
            )
        found = [texts(name, call) for call in there.taken]
    assert len(found) == 2
    assert [one for one in found if not is_inert(name, one)] == []


def test_markup_of_the_operator_stays() -> None:
    """A template of the subscription's own may hold links and styles; only what is put into it is
    escaped."""
    with receiver(answer=b"ok") as there:
        own = {
            "title": "*{alert}*",
            "body": "<https://wiki.example/{alert}|what to do> [more](https://wiki.example)",
        }
        for name in ("slack", "discord"):
            document = subscription(to={name: CASES[name].to(there.url)}, template=own)
            assert (
                deliver(notification(quoting_alert("a_b")), document, context_for(there.url)).kind
                == "delivered"
            )
        slack, discord = there.taken
    assert slack.data["text"].endswith(
        "<https://wiki.example/a_b|what to do> [more](https://wiki.example)"
    )
    assert slack.data["mrkdwn"] is True
    assert "[more](https://wiki.example)" in discord.data["content"]


def test_previews_and_mentions_are_off() -> None:
    """Slack, Discord and Telegram fetch nothing that is named in a message, and mention no user."""
    with receiver(answer=b"ok") as there:
        for name in ("slack", "discord", "telegram"):
            assert (
                deliver(
                    notification(),
                    subscription(to={name: CASES[name].to(there.url)}),
                    context_for(there.url),
                ).kind
                == "delivered"
            )
        slack, discord, telegram = (call.data for call in there.taken)
    assert {
        name: slack[name] for name in ("unfurl_links", "unfurl_media", "link_names", "mrkdwn")
    } == dict.fromkeys(("unfurl_links", "unfurl_media", "link_names", "mrkdwn"), False)
    assert (discord["allowed_mentions"], discord["flags"]) == ({"parse": []}, 4)
    assert telegram["disable_web_page_preview"] is True
    assert "parse_mode" not in telegram


def test_webhooks_get_the_record_as_it_is() -> None:
    """Programs read data: names are not changed; the words for people are printable."""
    with receiver(answer=b"ok") as there:
        # A link, a sequence that clears a terminal, and Slack's mention of a whole channel.
        text = "[x](https://e.x)\x1b[2J<!channel>"
        assert (
            deliver(
                notification(quoting_alert(text)),
                subscription(to={"webhook": {"url": there.url}}),
                context_for(there.url),
            ).kind
            == "delivered"
        )
        sent = there.taken[0].data
    assert (sent["alerts"][0]["agent"], sent["alerts"][0]["task"]) == (text, text)
    assert "\x1b" not in sent["title"] + sent["text"]


def test_a_mail_is_plain_text_with_one_subject() -> None:
    """No header can be added, whatever an agent is called."""
    with mailbox() as (port, mails):
        to = {
            "host": "127.0.0.1",
            "port": port,
            "sender": "a@h.example",
            "to": ["b@h.example"],
            "encryption": "none",
        }
        one = notification(quoting_alert("x\r\nBcc: all@h.example\r\n\r\n<b>html</b>\n.\nQUIT"))
        assert deliver(one, subscription(to={"email": to}), context()).kind == "delivered"
    head = "".join(mails).partition("\r\n\r\n")[0]
    assert not re.search(r"^Bcc", head, re.MULTILINE)
    assert re.search(r"^Content-Type: text/plain", head, re.MULTILINE)
    assert len(re.findall(r"^Subject:", head, re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("form", "checked"), [("markdown", "discord"), ("text", "apprise"), ("html", "apprise")]
)
def test_a_library_is_given_what_its_service_renders(form: str, checked: str) -> None:
    """Markdown is escaped as such; plain text, which the library makes HTML of, holds nothing that
    would be one."""
    given: dict[str, Any] = {}

    class Service:
        notify_format = form

        def notify(self, **fields: Any) -> bool:
            given.update(fields)
            return True

    for text in HOSTILE:
        assert _notify(Service(), notification(quoting_alert(text)), subscription(content="full"))
        assert is_inert(checked, f"{given['title']}\n{given['body']}"), text
        assert given["body_format"] == ("markdown" if form == "markdown" else "text")


LIMITS: Final = {
    "slack": lambda data: len(data["text"]) <= 3_000,
    "discord": lambda data: len(data["content"]) <= 2_000,
    "telegram": lambda data: len(data["text"]) <= 4_096,
    "teams": lambda data: len(json.dumps(data, ensure_ascii=False).encode()) <= 28_000,
    "pagerduty": lambda data: (
        len(data["payload"]["summary"]) <= 1_024
        and len(json.dumps(data, ensure_ascii=False).encode()) <= 512_000
    ),
    "opsgenie": lambda data: (
        len(data["message"]) <= 130
        and len(data["description"]) <= 15_000
        and len(data["entity"]) <= 512
        and len(data["tags"][0]) <= 50
    ),
}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("filling", ["[", "&", "<", "\\", "😀", "@a", "word "])
def test_limits_are_kept_after_escaping(name: str, filling: str) -> None:
    """Many long alerts: cut where the service cuts, with the cut shown and no escape in two."""
    # Escapes make texts longer: cut before them they would exceed the limit.
    many = [quoting_alert(filling * 1_000, alert_id=f"a{n}", trace_id="ab" * 16) for n in range(12)]
    with receiver(answer=b"ok") as there:
        document = subscription(to={name: CASES[name].to(there.url)}, content="full")
        assert deliver(notification(*many), document, context_for(there.url)).kind == "delivered"
        (call,) = there.taken
    # The service's own limit: beyond it the message is refused or cut by the service.
    assert LIMITS[name](call.data)
    assert is_inert(name, texts(name, call))


@settings(max_examples=300)
@given(text=st.text(alphabet="\\[]()<>&*_`ab@#-1. \n", max_size=40), longest=st.integers(4, 30))
def test_escapes_show_what_was_written_and_are_not_cut_in_two(text: str, longest: int) -> None:
    """Each way back is exact; what is cut is a beginning of it."""
    line = " ".join(text.split())
    assert shown(escape.markdown(line)) == line
    assert is_plain_markdown(escape.markdown(line))
    sent = escape.slack(line)
    assert sent.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == line
    for escaped in (escape.markdown(line), sent):
        cut = escape.shortened(escaped, longest)
        assert len(cut) <= longest
    assert is_plain_markdown(escape.shortened(escape.markdown(line), longest).removesuffix("..."))
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", escape.shortened(sent, longest))
