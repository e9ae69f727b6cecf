"""What the tests share: a run's context without a worker, and a mail server that answers what it is told to."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from jobqueue_core import Job, JobContext, JobState, Priority

JOB_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def context() -> Callable[..., JobContext]:
    """Makes the context of one run: all that a handler needs to be called as a plain function."""

    def context(*, retry_count: int = 0, run: int = 1, resources: object = None) -> JobContext:
        job = Job(
            id=JOB_ID,
            type="test.job",
            payload_json=b"{}",
            queue="default",
            priority=Priority.MEDIUM,
            state=JobState.PROCESSING,
            created_at=datetime(2030, 1, 1, tzinfo=UTC),
            retry_count=retry_count,
            run=run,
        )
        return JobContext(job, max_retries=3, worker_id="worker-1", resources=resources)

    return context


class SmtpServer(socketserver.ThreadingTCPServer):
    """Takes mail on a port of its own; *replies* overrides its answer to a line that begins with a key, or to a whole message (".")."""

    daemon_threads = True

    def __init__(self) -> None:
        self.replies: dict[str, str] = {}
        self.messages: list[bytes] = []
        self.commands: list[str] = []
        super().__init__(("127.0.0.1", 0), SmtpSession)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.server_address[1]}"

    def reply(self, line: str, usual: str) -> bytes:
        answer = next((reply for start, reply in self.replies.items() if line.upper().startswith(start.upper())), usual)
        return f"{answer}\r\n".encode()


class SmtpSession(socketserver.StreamRequestHandler):
    server: SmtpServer

    def handle(self) -> None:
        self.wfile.write(self.server.reply("connect", "220 test ready"))
        while line := self.rfile.readline().decode().rstrip():
            self.server.commands.append(line)
            usual = {"DATA": "354 go on", "QUIT": "221 bye"}.get(line[:4].upper(), "250 ok")
            answer = self.server.reply(line, usual)
            self.wfile.write(answer)
            if line.upper() == "DATA" and answer.startswith(b"354"):
                message = b"".join(iter(self.rfile.readline, b".\r\n"))
                answer = self.server.reply(".", "250 taken")
                if answer.startswith(b"250"):
                    self.server.messages.append(message)
                self.wfile.write(answer)
            if line.upper() == "QUIT":
                return


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
