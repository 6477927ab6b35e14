"""Secrets of every known form in typical texts, and texts without a secret."""

from __future__ import annotations

import random
import string

LETTERS = string.ascii_letters + string.digits


def made_up(seed: int, length: int, alphabet: str = LETTERS) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


HEX = made_up(1, 40, "0123456789abcdef")


KEY = made_up(2, 48)


JWT = f"eyJ{made_up(3, 20)}.eyJ{made_up(4, 40)}.{made_up(5, 43)}"


# The secret, and a text that holds it.
SECRETS: list[tuple[str, str]] = [
    (f"sk-proj-{KEY}", "my key is {} ok"),
    (f"sk-ant-api03-{KEY}-AA", "ANTHROPIC={}"),
    (f"ghp_{made_up(6, 36)}", "https://{}@github.com/a/b"),
    (f"github_pat_{made_up(7, 22)}_{made_up(8, 59)}", "{}"),
    (f"AKIA{made_up(9, 16, string.ascii_uppercase)}", "aws {}."),
    (f"AIza{made_up(10, 35)}", "?key={}&x=1"),
    (f"xoxb-{made_up(11, 12, string.digits)}-{made_up(12, 24)}", "{}"),
    (f"sk_live_{made_up(13, 24)}", "stripe {}"),
    (f"hf_{made_up(14, 34)}", "({})"),
    (f"glpat-{made_up(15, 20)}", "'{}'"),
    (JWT, "jwt is {}"),
    (f"123456789:AA{made_up(16, 33)}", "bot{}/send"),
    (f"dapi{HEX[:32]}", "{}"),
    ("hunter2", '{{"password": "{}"}}'),
    ("hunter2", '{{"db_password":"{}","user":"bob"}}'),
    ("hunter2", "{{'password': '{}', 'a': 1}}"),
    ("hunter2", "connect(password='{}', host='x')"),
    ("hunter2", "host=localhost password={} user=x"),
    ("correcthorse", "https://x/y?user=a&password={}&b=1"),
    ("hunter2", "PGPASSWORD={} psql"),
    ("hunter2", "password: {}\n"),
    ("se cr et", '{{"client_secret": "{}"}}'),
    (KEY, '{{"apiKey":"{}"}}'),
    (KEY, '{{"headers":{{"x-api-key":"{}"}}}}'),
    (KEY, "OPENAI_API_KEY={}\nOTHER=1"),
    (KEY, "export MY_SECRET_KEY='{}'"),
    (KEY, '{{"access_token":"{}","expires_in":3600}}'),
    (KEY, "token={}"),
    (KEY, "Authorization: Bearer {}"),
    ("dXNlcjpwYXNz", "Authorization: Basic {}"),
    ("dXNlcjpwYXNz", '{{"Authorization": "Basic {}"}}'),
    ("sid=abc; b=c", '{{"Cookie": "{}"}}'),
    ("hunter2", "postgresql://bob:{}@db:5432/x"),
    ("p@ss", "redis://:{}@host/0"),
    ("4711", '{{"password": {}}}'),
    ("hunter2", '{{"passwords": ["{}"]}}'),
    (f"{KEY}==", "AccountName=x;AccountKey={};EndpointSuffix=y"),
    ("MIIEpAIBAAKCAQEA", "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----"),
    ("b3BlbnNzaC1rZXk", "-----BEGIN OPENSSH PRIVATE KEY-----\\n{}"),
    ("hunter2", '{{"password": "{}'),
]


PLAIN = [
    "",
    "The max_tokens setting is 100, the token: a unit of text.",
    '{"max_tokens":100,"usage":{"input_tokens":5,"total_tokens":9}}',
    '{"token":" the","logprob":-0.1,"top_logprobs":[{"token":"Hello"},{"token":"\\n"}]}',
    '{"next_page_token":"CAUQAA1234567890123456","nextPageToken":"CAUQAA1234567890"}',
    '{"token_type":"bearer","tokenizer":"cl100k_base"}',
    '{"properties":{"password":{"type":"string"}},"required":["username","password","email"]}',
    '{"password":"","api_key":null,"secret":false}',
    '{"password":"${DB_PASSWORD}","api_key":"<your key>","secret":"********"}',
    "Password: required. I forgot my password; can you reset it?",
    "token = tokenizer.next()\npassword = "
    "getpass.getpass()\napi_key=os.environ['X']\npassword=None",
    "Authorization: the process of granting access",
    "curl -H 'Authorization: Bearer $TOKEN' https://example.com",
    "bearer authentication is used; the secret is that cookies taste good. Secret: sauce",
    "task-based risk-free disk-1234567890123456789 ask-questions-about-everything-you-want",
    "see https://example.com:8080/path?x=1 and http://localhost:3000 and mail a@b.c or "
    "git@github.com:x/y",
    "550e8400-e29b-41d4-a716-446655440000 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7",
    "d41d8cd98f00b204e9800998ecf8427e "
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "The keyboard key: press any key=value pair; monkey: business, donkey=1a",
    "aGVsbG8gd29ybGQgdGhpcyBpcyBiYXNlNjQgb2YgYSB0ZXh0",
    "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----",
    "İstanbul'da ödeme 12,50 € – straße, 数据, 🙂",
]
