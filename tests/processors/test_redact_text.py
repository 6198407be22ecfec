"""Only the secret part of a text is masked, in time linear in its length."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog.processors.redact import RedactProcessor
from fapilog.record import LogRecord
from tests.support.redaction import GITHUB, JWT, PASSWORD_HASHES, PEM, redacted


def text(body: str) -> str:
    result: Any = redacted(body).body
    assert redacted(result).body == result, "redacting again changes nothing"
    return str(result)


# ---- text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer [REDACTED]"),
        ("sent bearer ABCDEFGH1 to x", "sent bearer [REDACTED] to x"),
        ("BEARER\tsupersecretvalue", "BEARER\t[REDACTED]"),
        ("Basic dXNlcjpwYXNz rejected", "Basic [REDACTED] rejected"),
        ('Authorization: Digest username="u", response="x"\nHost: h', "Authorization: Digest [REDACTED]\nHost: h"),
        ("curl -H 'Cookie: a=b; c=d' http://h", "curl -H 'Cookie: [REDACTED]' http://h"),
        ("Set-Cookie: sid=1; Path=/\r\nHost: h", "Set-Cookie: [REDACTED]\r\nHost: h"),
        (f"got {JWT}, ok", "got [REDACTED], ok"),
        (f"t_{JWT}", "t_[REDACTED]"),
        ("postgres://ann:hunter2@db:5432/x", "postgres://ann:[REDACTED]@db:5432/x"),
        ("postgres://ann:p@ss@db/x?a=b@c", "postgres://ann:[REDACTED]@db/x?a=b@c"),
        ("redis://:hunter2@h/0", "redis://:[REDACTED]@h/0"),
        ("https://u:p/ss@h/x", "https://u:[REDACTED]@h/x"),
        ("http://h/p?token=abc&x=1&api_key=def#f", "http://h/p?token=[REDACTED]&x=1&api_key=[REDACTED]"),
        ("https://h/x?X-Amz-Signature=dead&X-Amz-Date=1", "https://h/x?X-Amz-Signature=[REDACTED]&X-Amz-Date=1"),
        ("https://h/x?sv=1&sig=a%2Bb%3D&se=2", "https://h/x?sv=1&sig=[REDACTED]&se=2"),
        ("next=https%3A%2F%2Fh%3Ftoken%3Dhunter2", "next=https%3A%2F%2Fh%3Ftoken%3D[REDACTED]"),
        ("user[password]=x&a=1", "user[password]=[REDACTED]&a=1"),
        ("user%5Bpassword%5D=x&a=1", "user%5Bpassword%5D=[REDACTED]&a=1"),
        ('{"password":\n  "hunter2",\n "n": 1}', '{"password":\n  "[REDACTED]",\n "n": 1}'),
        ('{"otp":\r\n\r\n\t123456\r\n}', '{"otp":\r\n\r\n\t"[REDACTED]"\r\n}'),
        ('{"tokens": 1, "passwords":\n[\n"a",\n"b"\n], "n": 1}', '{"tokens": 1, "passwords":\n"[REDACTED]", "n": 1}'),
        ('"{\\"password\\":\\n \\"hunter2\\"}"', '"{\\"password\\":\\n \\"[REDACTED]\\"}"'),
        ("db:\n  password:\n    hunter2\n  user: ann", "db:\n  password:\n    [REDACTED]\n  user: ann"),
        ("keys:\n- api key:\n   'a b'", "keys:\n- api key:\n   '[REDACTED]'"),
        ("[('password',\n  'hunter2'),\n ('a', 'b')]", "[('password',\n  '[REDACTED]'),\n ('a', 'b')]"),
        ('{"password"      :       "hunter2"}', '{"password"      :       "[REDACTED]"}'),
        ("password           = hunter2\nuser = x", "password           = [REDACTED]\nuser = x"),
        ("run --password        hunter2", "run --password        [REDACTED]"),
        ("password=hunter2 user=ann", "password=[REDACTED] user=ann"),
        ("password = hunter2, user=ann", "password = [REDACTED], user=ann"),
        ("db_password: p(ss)w0rd!, x", "db_password: [REDACTED], x"),
        ("pwd=a,b;user=x", "pwd=[REDACTED];user=x"),
        ("secret => 'a b', x", "secret => '[REDACTED]', x"),
        ('password := "a b"', 'password := "[REDACTED]"'),
        ('{"user": "ann", "password": "hun\\"ter2", "n": 1}', '{"user": "ann", "password": "[REDACTED]", "n": 1}'),
        ('{\\"password\\": \\"hun\\\\\\"ter2\\", \\"n\\": 1}', '{\\"password\\": \\"[REDACTED]\\", \\"n\\": 1}'),
        ("{'api_key': b'abc', 'cvv': 123}", "{'api_key': b'[REDACTED]', 'cvv': '[REDACTED]'}"),
        ('{"access_tokens": ["a", "b"], "x": 1}', '{"access_tokens": "[REDACTED]", "x": 1}'),
        ("connect(host='h', password='hunter2')", "connect(host='h', password='[REDACTED]')"),
        ("Login(user='ann', password=hunter2)", "Login(user='ann', password=[REDACTED])"),
        ("password='cut off", "password='[REDACTED]"),
        ('password="""a"b"""', 'password="""[REDACTED]"""'),
        ("the api key: abc123", "the api key: [REDACTED]"),
        ("mysql --password hunter2 -h x", "mysql --password [REDACTED] -h x"),
        ("cmd --api-key=abc --out x", "cmd --api-key=[REDACTED] --out x"),
        ("['--password', 'hunter2']", "['--password', '[REDACTED]']"),
        ("[(b'authorization', b'Bearer xyz1234'), (b'host', b'h')]", "[(b'authorization', b'Bearer [REDACTED]'), (b'host', b'h')]"),
        ("AccountName=x;AccountKey=ab+/==;EndpointSuffix=core", "AccountName=x;AccountKey=[REDACTED];EndpointSuffix=core"),
        (f"key: {PEM}\nafter", "key: -----BEGIN RSA PRIVATE KEY-----[REDACTED]-----END RSA PRIVATE KEY-----\nafter"),
        ("-----BEGIN PRIVATE KEY-----\\nMIIE", "-----BEGIN PRIVATE KEY-----[REDACTED]"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "-----BEGIN OPENSSH PRIVATE KEY-----[REDACTED]"),
        ("AK" + "IAIOSFODNN7EXAMPLE!", "[REDACTED]!"),
        (f"push with {GITHUB} failed", "push with [REDACTED] failed"),
        ("github" + "_pat_11ABCDEFG0123456789_abcdef", "[REDACTED]"),
        ("xox" + "b-123456789012-abcdef", "[REDACTED]"),
        ("AI" + "zaSyA1234567890abcdefghijklmnopqrstuv", "[REDACTED]"),
        ("sk" + "_live_51abcdefghijkl", "[REDACTED]"),
        ("gl" + "pat-abcdefghij0123456789", "[REDACTED]"),
        ("sk" + "-proj-abcdefghijklmnop1234", "[REDACTED]"),
        ("sk" + "-ant-api03-abcdefghijklmnop", "[REDACTED]"),
        ("np" + "m_abcdefghijklmnopqrstuvwxyz0123456789", "[REDACTED]"),
        ("py" + "pi-AgEIcHlwaS5vcmcCJDAwMDAwMDAwLTAwMDAtMDAwMC0w", "[REDACTED]"),
        ("SG" + ".abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyz", "[REDACTED]"),
        ("bot123456789:AA" + "abcdefghijklmnopqrstuvwxyz0123456", "bot123456789:[REDACTED]"),
        (f"root:{PASSWORD_HASHES[0]}:20000:0", "root:[REDACTED]:20000:0"),
    ],
)  # fmt: skip
def test_only_the_secret_part_of_a_text_is_masked(given, expected):
    assert text(given) == expected
    assert text(f"before\n{given}\nafter").startswith("before\n")
    assert redacted(b"\xff " + given.encode()).body == b"\xff " + expected.encode()
    assert redacted("x", note=given).attributes["note"] == expected


@pytest.mark.parametrize("given", PASSWORD_HASHES)
def test_a_password_hash_is_masked_with_its_salt(given):
    names = ("", "argon2", "bcrypt$", "bcrypt_sha256$")  # Django's names before standard hashes
    shown = [f"args=('ann', '{name}[REDACTED]', 7)" for name in names]
    assert text(f"args=('ann', '{given}', 7)") in shown


@pytest.mark.parametrize(
    "given",
    [
        "order accepted", "bearer token is missing", "the bearer of bad news", "Basic training tomorrow",
        "basic authentication failed", "http://localhost:3000/@vite/client", "mail ann@example.com: sent",
        "author: ann; authority=x", "tokens: 5, max_tokens=100", "auth failed: timeout", "if token == None:",
        "password: None", "token=null&x=1", "secret: false", "std::token::Kind", "sk-fading-circle-spinner-big",
        "missing: ['password', 'email', 'name']", "monkeyJungle_pictures.png.backup", "12:30:45 done",
        "2f1c7f0e-8f7f-4b7e-9c0a-1d2e3f405162", "a" * 500, "SELECT * FROM users WHERE id = 7",
        "auth:\n  enabled: yes\n  user: ann", "password:\nuser: ann", "enter the password:\n  then wait", "PASSWORD=\n  x",
        '    if token:\n  File "a.py", line 1', "class Token:\n    pass", "token:\n\n  next", "passwords:\n  - # none", '"token":\n}',
        "costs $6 or $5$ a month, $1$ for students", "bcrypt$$2b$12$ is cut", "echo $1$2$3 $argon2 $y$x", "pbkdf2_sha256$600000 rounds",
        "awk '{print $2$6$5}'", "scrypt:32768:8:1", "jQuery$1$5$6$", "md5$sum", "make $@ $< $$HOME $(2b$12)",
        "cookie_consent=yes", "password_policy: strong", "KeyError: 'user'", "git@github.com:org/repo.git",
        "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
    ],
)  # fmt: skip
def test_text_without_a_secret_stays_as_it_is(given):
    processor = RedactProcessor()
    assert processor(LogRecord(body=given)).body == given
    assert processor.redacted == 0


def test_secrets_in_exceptions_are_masked():
    record = redacted(
        "failed",
        **{
            "exception.message": "could not connect to postgres://u:s3cr3t@h/db",
            "exception.stacktrace": (
                "Traceback (most recent call last):\n"
                '  File "app.py", line 1, in <module>\n'
                "    connect(password='s3cr3t')\n"
                "ValueError: {'token': 's3cr3t'}\n"
            ),
        },
    )
    assert "s3cr3t" not in repr(record.attributes)
    assert 'File "app.py", line 1' in record.attributes["exception.stacktrace"]


def test_secrets_in_names_are_masked_and_no_value_is_lost():
    record = redacted("x", **{"password=s3cr3t": 1, f"{GITHUB}": 2, f"{GITHUB}0": 3})
    assert "s3cr3t" not in repr(record)
    assert GITHUB not in repr(record)
    assert [*record.attributes.values()][1:] == [2, 3]


@given(st.text())
def test_any_text_can_be_redacted_and_redacting_again_changes_nothing(given_text):
    text(given_text)


SIZE = 65_536
TRIGGERS = [
    "a", "eyJ", "eyJ-", "eyJ.", "eyJaaaaaaaaaaaaaaaa.", "://", "://a:", "://a:b", "://a:1/", "bearer ", "basic ", "password=",
    "password='", 'password="\\', "password=[", "password=,", "password,", "api key", "key: ", "token:", "a=b ", "--token ",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "-----END ", "sk-", "sk-a", "AKIA", "ghp_", "xoxb-", "SG.", "SG.aaaaaaaaaaaaaaaaaaaa",
    "1", "12345678:AA", "$2b$12$", "pbkdf2_sha256$1$a$", "$6$a$", "bcrypt$", "scrypt$1$a$1$1$", "md5$a", "$", "cookie: ", "'token',", "['token','", "%3D", "password%3D", "\\", "'", "\\'", "user[", "x.", "x-", "A", "Bearer a ",
    'password=\\"', "é=", "=", ":", " ", "\n", "sig=", "?sig=", "[", "{'auth': ", "authorization: digest ", ",",
]  # fmt: skip


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_hostile_text_takes_time_in_proportion_to_its_length(trigger):
    """A quadratic pattern would take a minute for this text; a linear one a few milliseconds."""
    processor = RedactProcessor()
    hint = "password eyJ akia bearer basic sk- sg. :AA $2 md5$ private key ://@ "
    start = time.process_time()
    for body in (
        trigger * (SIZE // len(trigger)),
        hint + trigger * (SIZE // len(trigger)),
        (hint + trigger * 300) * 30,
    ):
        processor(LogRecord(body=body))
    assert time.process_time() - start < 3
