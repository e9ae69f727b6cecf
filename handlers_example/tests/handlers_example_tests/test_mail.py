"""Composing messages, and handing them to a mail server that says yes, later or never."""

from __future__ import annotations

import smtplib
import socket
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, Protocol

import pytest
from handlers_example.mail import Delivery, Email, InvalidEmail, MaildirMailer, SmtpMailer, Undeliverable, mailer_from_environment, recipients


class Server(Protocol):
    """The fixture ``smtp``."""

    url: str
    replies: dict[str, str]
    messages: list[bytes]
    commands: list[str]


def send(server: Server, email: Email) -> Delivery:
    mailer = mailer_from_environment({"SMTP_URL": server.url, "MAIL_FROM": "Jobs <jobs@example.com>"})
    return mailer.deliver(email.compose(sender=mailer.sender, message_id="42"), maybe_repeated=False)


def test_a_message_has_the_headers_that_mail_needs() -> None:
    email = Email(to=["Ann <ann@example.com>", "bob@example.org"], subject="Grüße", body="Hällo", cc="c@example.net", reply_to="help@example.com")

    message = email.compose(sender="Jobs <jobs@example.com>", message_id="42")

    assert message["Message-ID"] == "<42@example.com>"
    assert message["From"] == "Jobs <jobs@example.com>"
    assert message["To"] == "Ann <ann@example.com>, bob@example.org"
    assert message["Cc"] == "c@example.net"
    assert message["Reply-To"] == "help@example.com"
    assert message["Subject"] == "Grüße"
    assert message["Date"].datetime.tzinfo is not None
    assert message.get_content() == "Hällo\n"


def test_to_alone_is_enough() -> None:
    assert recipients(Email(to="user@example.com").compose(sender="jobs@example.com", message_id="42")) == ["user@example.com"]


def test_a_subject_may_hold_any_text() -> None:
    subject = "Grüße an alle \U0001f469\u200d\U0001f4bb " + "und noch viel mehr " * 20

    message = Email(to="user@example.com", subject=subject).compose(sender="jobs@example.com", message_id="42")

    assert message_from_bytes(bytes(message), policy=policy.default)["Subject"] == subject


def test_a_message_in_the_maildir_has_the_line_ends_of_a_file(tmp_path: Path) -> None:
    mailer = MaildirMailer(folder=tmp_path, sender="jobs@example.com")

    mailer.deliver(Email(to="user@example.com", body="one\r\ntwo\n").compose(sender=mailer.sender, message_id="42"), maybe_repeated=False)

    [path] = (tmp_path / "new").iterdir()
    assert b"\r" not in path.read_bytes()


def test_someone_named_twice_is_a_recipient_once() -> None:
    email = Email(to="a@example.com, b@example.com", cc=["b@example.com"], bcc="c@example.com")

    assert recipients(email.compose(sender="jobs@example.com", message_id="42")) == ["a@example.com", "b@example.com", "c@example.com"]


def test_a_comma_in_a_quoted_name_does_not_divide_it() -> None:
    message = Email(to='"Lovelace, Ada" <ada@example.com>').compose(sender="jobs@example.com", message_id="42")

    assert [(address.display_name, address.addr_spec) for address in message["To"].addresses] == [("Lovelace, Ada", "ada@example.com")]


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to", "subject"])
@pytest.mark.parametrize("line_break", ["\r\n", "\n", "\r", "\u2028", "\x85", "\x00"])
def test_a_line_break_never_reaches_a_header(field: str, line_break: str) -> None:
    fields: dict[str, Any] = {"to": "user@example.com", field: f"user@example.com{line_break}Bcc: victim@example.com"}

    with pytest.raises(InvalidEmail, match="line breaks and control characters"):
        Email(**fields).compose(sender="jobs@example.com", message_id="42")


@pytest.mark.parametrize("to", ["", [], "user", "user@", "@example.com", ["a@example.com", "nobody"], "a@b@c", "<>", ",", '"', "a b@example.com, c"])
def test_what_is_no_address_is_refused(to: str | list[str]) -> None:
    with pytest.raises(InvalidEmail, match="to: expected one or more addresses"):
        Email(to=to).compose(sender="jobs@example.com", message_id="42")


def test_the_server_gets_the_message_and_its_recipients(smtp: Server) -> None:
    delivery = send(smtp, Email(to="a@example.com", bcc="b@example.com", subject="Hello", body="A job sent this."))

    assert delivery == Delivery(delivered_to=["a@example.com", "b@example.com"], refused={})
    assert [line for line in smtp.commands if line.upper().startswith(("MAIL", "RCPT"))] == [
        "mail FROM:<jobs@example.com>",
        "rcpt TO:<a@example.com>",
        "rcpt TO:<b@example.com>",
    ]
    [raw] = smtp.messages
    message = message_from_bytes(raw, policy=policy.default)
    assert (message["Message-ID"], message["Subject"], message["Bcc"]) == ("<42@example.com>", "Hello", None)
    assert message.get_content().strip() == "A job sent this."


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
def test_a_message_that_the_server_never_accepts_is_undeliverable(smtp: Server, command: str) -> None:
    smtp.replies[command] = "550 5.7.1 not wanted here"

    with pytest.raises(Undeliverable, match=r"550 5\.7\.1 not wanted here"):
        send(smtp, Email(to="a@example.com"))
    assert smtp.messages == []


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
def test_a_message_that_the_server_puts_off_is_tried_again(smtp: Server, command: str) -> None:
    smtp.replies[command] = "451 4.7.1 greylisted"

    with pytest.raises(smtplib.SMTPException, match="greylisted"):
        send(smtp, Email(to="a@example.com"))
    assert smtp.messages == []


def test_a_server_that_refuses_the_connection_says_nothing_about_the_message(smtp: Server) -> None:
    smtp.replies["connect"] = "554 no service"

    with pytest.raises(smtplib.SMTPConnectError):
        send(smtp, Email(to="a@example.com"))


def test_recipients_put_off_among_refused_ones_are_worth_another_attempt(smtp: Server) -> None:
    smtp.replies |= {"RCPT TO:<a@": "550 unknown", "RCPT TO:<b@": "450 busy"}

    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(smtp, Email(to="a@example.com, b@example.com"))


def test_one_refused_recipient_does_not_repeat_the_message_to_the_others(smtp: Server) -> None:
    smtp.replies["RCPT TO:<a@"] = "450 busy"

    delivery = send(smtp, Email(to="a@example.com, b@example.com"))

    assert delivery == Delivery(delivered_to=["b@example.com"], refused={"a@example.com": "450 busy"})
    assert len(smtp.messages) == 1


def test_a_server_that_is_not_there_is_an_ordinary_failure() -> None:
    with socket.socket() as silent:
        # Bound, so that nobody else takes the port, but not listening.
        silent.bind(("127.0.0.1", 0))
        mailer = SmtpMailer(host="127.0.0.1", port=silent.getsockname()[1], secure=False, sender="jobs@example.com")

        with pytest.raises(ConnectionRefusedError):
            mailer.deliver(Email(to="a@example.com").compose(sender=mailer.sender, message_id="42"), maybe_repeated=False)


def test_without_a_server_mail_goes_into_the_maildir(tmp_path: Path) -> None:
    mailer = mailer_from_environment({"SMTP_URL": "", "MAILDIR": str(tmp_path)})

    assert mailer == MaildirMailer(folder=tmp_path, sender="jobqueue@localhost")


def test_a_user_and_password_may_hold_any_character(smtp: Server) -> None:
    smtp.replies |= {"EHLO": "250-test\r\n250 AUTH PLAIN", "AUTH": "235 welcome"}
    smtp_url = smtp.url.replace("//", "//us%40er:p%2Fw@")
    mailer = mailer_from_environment({"SMTP_URL": smtp_url, "MAIL_FROM": "jobs@example.com"})

    mailer.deliver(Email(to="a@example.com").compose(sender=mailer.sender, message_id="42"), maybe_repeated=False)

    assert "AUTH PLAIN AHVzQGVyAHAvdw==" in smtp.commands
    assert isinstance(mailer, SmtpMailer)
    assert "p/w" not in repr(mailer)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"SMTP_URL": "http://user:secret@host", "MAIL_FROM": "jobs@example.com"}, "SMTP_URL: expected smtp://"),
        ({"SMTP_URL": "smtp://", "MAIL_FROM": "jobs@example.com"}, "SMTP_URL: expected smtp://"),
        ({"SMTP_URL": "smtp://host:mail", "MAIL_FROM": "jobs@example.com"}, "SMTP_URL: expected smtp://"),
        ({"SMTP_URL": "smtp://user:secret/secret@host", "MAIL_FROM": "jobs@example.com"}, "SMTP_URL: expected smtp://"),
        ({"SMTP_URL": "smtp://user:secret@host"}, "MAIL_FROM: set it"),
        ({"MAIL_FROM": "somebody"}, "MAIL_FROM: expected"),
        ({"MAIL_FROM": "a@example.com, b@example.com"}, "MAIL_FROM: expected one address"),
    ],
)
def test_wrong_settings_are_named_without_their_secrets(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        mailer_from_environment(environ)
    assert "secret" not in str(caught.value)
