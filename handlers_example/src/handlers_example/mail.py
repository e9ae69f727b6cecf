"""Composing e-mails and handing them over: to an SMTP server, or into a Maildir."""

from __future__ import annotations

import contextlib
import mailbox
import re
import smtplib
import ssl
from collections.abc import Iterator, Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses, localtime
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import attrs

CONNECTION_TIMEOUT: Final = 10.0
"""Seconds to wait for each answer of the SMTP server; well inside the job's own timeout, so that the error says what happened."""
PERMANENT: Final = 500
"""SMTP replies from here on are final; those below ask to try again later."""
ADDRESS: Final = re.compile(r"[^\s@<>()\[\]\\,;:\"]+@[^\s@<>()\[\]\\,;:\"]+")
"""Not all that RFC 5322 allows, but nothing that it does not; the mail server has the last word."""
BREAK: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters, and what some programs take for the end of a line."""


class InvalidEmail(ValueError):
    """A payload that no message can be made of."""


class Undeliverable(Exception):
    """The server will never accept this message."""


@attrs.frozen(kw_only=True)
class Email:
    """The payload of ``email.send``; addresses are ``a@example.com`` or ``Ann <a@example.com>``, one or several."""

    to: str | list[str]
    subject: str = ""
    body: str = ""
    cc: str | list[str] = attrs.field(factory=list)
    bcc: str | list[str] = attrs.field(factory=list)
    reply_to: str | list[str] = attrs.field(factory=list)

    def compose(self, *, sender: str, message_id: str) -> EmailMessage:
        """The message, with *message_id* made unique by the sender's domain.

        Raises:
            InvalidEmail: A field holds no address, something that is not one, or a line break (which would begin a header of its own).
        """
        from_ = parse_addresses("from", sender)
        message = EmailMessage()
        message["Message-ID"] = f"<{message_id}@{from_[0].domain}>"
        message["Date"] = format_datetime(localtime())
        message["From"] = from_
        for header, value in (("To", self.to), ("Cc", self.cc), ("Bcc", self.bcc), ("Reply-To", self.reply_to)):
            if value or header == "To":
                message[header] = parse_addresses(header.lower(), value)
        message["Subject"] = one_line("subject", self.subject)
        message.set_content(self.body)
        return message


def parse_addresses(field: str, value: str | list[str]) -> list[Address]:
    """The addresses in *value*, at least one.

    Raises:
        InvalidEmail: There is none, or one is wrong.
    """
    text = one_line(field, value if isinstance(value, str) else ", ".join(value))
    pairs = getaddresses([text])
    if not pairs or not all(ADDRESS.fullmatch(address) for _, address in pairs):
        raise InvalidEmail(f"{field}: expected one or more addresses such as 'user@example.com', got {text!r:.100}")
    return [Address(name, *address.split("@")) for name, address in pairs]


def one_line(field: str, text: str) -> str:
    """Return *text* if it can stand in a header.

    Raises:
        InvalidEmail: It has a line break or another control character.
    """
    if not BREAK.search(text):
        return text
    raise InvalidEmail(f"{field}: line breaks and control characters are not allowed in a header, got {text!r:.100}")


@attrs.frozen(kw_only=True)
class Delivery:
    """What became of a message: who gets it, and who was refused with what answer."""

    delivered_to: list[str]
    refused: dict[str, str]


class Mailer(Protocol):
    """Where messages go; called from any thread."""

    @property
    def sender(self) -> str:
        """The address that messages come from."""

    def deliver(self, message: EmailMessage, *, maybe_repeated: bool) -> Delivery:
        """Hand *message* over.

        Args:
            message: What to send.
            maybe_repeated: An earlier run may have handed it over already.

        Raises:
            Undeliverable: Trying again is pointless.
            OSError: It may work later (``smtplib.SMTPException`` is one).
        """


@attrs.frozen(kw_only=True)
class MaildirMailer:
    """Writes messages into a Maildir, each once: for development, and for machines whose mail is collected from there."""

    folder: Path
    sender: str

    def deliver(self, message: EmailMessage, *, maybe_repeated: bool) -> Delivery:
        """Write *message*, unless it is a repeat of one that is there."""
        for name in ("tmp", "new", "cur"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        maildir = mailbox.Maildir(self.folder, create=False)
        # Looking reads every message, so it is done only where a repeat is possible.
        if not (maybe_repeated and self._holds(maildir, message["Message-ID"])):
            maildir.add(message)
        return Delivery(delivered_to=recipients(message), refused={})

    def _holds(self, maildir: mailbox.Maildir, message_id: str) -> bool:
        return any(message["Message-ID"] == message_id for message in maildir)


@attrs.frozen(kw_only=True)
class SmtpMailer:
    """Hands messages to an SMTP server, over TLS if it offers that."""

    host: str
    port: int
    secure: bool
    """TLS from the first byte; else STARTTLS where the server offers it."""
    sender: str
    user: str = ""
    password: str = attrs.field(default="", repr=False)

    def deliver(self, message: EmailMessage, *, maybe_repeated: bool) -> Delivery:  # noqa: ARG002 - the receiver goes by the Message-ID
        """Send *message* to all its recipients in one go."""
        wanted = recipients(message)
        with self._connection() as smtp:
            try:
                refused = smtp.send_message(message)
            # Only answers about this message count as final: a server that refuses the connection or the log-in may be set right.
            except smtplib.SMTPRecipientsRefused as error:
                if all(code >= PERMANENT for code, _ in error.recipients.values()):
                    raise Undeliverable(answers(error.recipients)) from error
                raise
            except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
                if error.smtp_code >= PERMANENT:
                    raise Undeliverable(f"the mail server answered {answer(error.smtp_code, error.smtp_error)}") from error
                raise
            except smtplib.SMTPNotSupportedError as error:
                raise Undeliverable(f"the mail server cannot take this message: {error}") from error
        # To try again for those refused would repeat the message to all others.
        return Delivery(
            delivered_to=[recipient for recipient in wanted if recipient not in refused],
            refused={recipient: answer(*reply) for recipient, reply in refused.items()},
        )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[smtplib.SMTP]:
        with contextlib.ExitStack() as stack:
            smtp: smtplib.SMTP
            if self.secure:
                smtp = smtplib.SMTP_SSL(self.host, self.port, timeout=CONNECTION_TIMEOUT, context=ssl.create_default_context())
            else:
                smtp = smtplib.SMTP(self.host, self.port, timeout=CONNECTION_TIMEOUT)
            stack.enter_context(smtp)
            smtp.ehlo_or_helo_if_needed()
            if not self.secure and smtp.has_extn("starttls"):
                smtp.starttls(context=ssl.create_default_context())
            if self.user:
                smtp.login(self.user, self.password)
            yield smtp


def recipients(message: EmailMessage) -> list[str]:
    """Everyone who shall get *message*, each once."""
    found = [address.addr_spec for name in ("To", "Cc", "Bcc") if message[name] for address in message[name].addresses]
    return list(dict.fromkeys(found))


def answers(refused: Mapping[str, tuple[int, bytes]]) -> str:
    """What the server said of each recipient, in one line."""
    return "the mail server refused " + "; ".join(f"{recipient}: {answer(*reply)}" for recipient, reply in refused.items())


def answer(code: int, text: bytes | str) -> str:
    """An SMTP reply as text."""
    return f"{code} {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}"


def mailer_from_environment(environ: Mapping[str, str]) -> Mailer:
    """The mailer that SMTP_URL, MAIL_FROM and MAILDIR describe; empty counts as unset.

    Raises:
        ValueError: One of them is wrong. The message never holds SMTP_URL, which may hold a password.
    """
    sender = environ.get("MAIL_FROM")
    if sender and len(parse_addresses("MAIL_FROM", sender)) != 1:
        raise ValueError("MAIL_FROM: expected one address")
    if not (url := environ.get("SMTP_URL")):
        return MaildirMailer(folder=Path(environ.get("MAILDIR") or "maildir").absolute(), sender=sender or "jobqueue@localhost")
    if not sender:
        raise ValueError("MAIL_FROM: set it to the address that messages come from; SMTP_URL needs it")
    return smtp_mailer(url, sender=sender)


def smtp_mailer(url: str, *, sender: str) -> SmtpMailer:
    """The mailer for ``smtp://[user:password@]host[:port]`` or ``smtps://...``; %-escapes stand for other characters in user and password.

    Raises:
        ValueError: The URL is wrong.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or port == -1:
        raise ValueError("SMTP_URL: expected smtp://[user:password@]host[:port] or smtps://..., with %2F for a / in a password")
    secure = parts.scheme == "smtps"
    return SmtpMailer(
        host=parts.hostname,
        port=port or (465 if secure else 25),
        secure=secure,
        sender=sender,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )
