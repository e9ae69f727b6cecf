"""What Falcon does with no semantics at all: a JSON body is read, a JSON answer is written."""

from __future__ import annotations

from typing import Any

import falcon
import msgspec

__all__ = ["app"]

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class _Echo:
    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = _encoder.encode({"id": "0", "state": "queued"})
        resp.content_type = falcon.MEDIA_JSON

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body: Any = _decoder.decode(req.bounded_stream.read())
        resp.data = _encoder.encode(body)
        resp.content_type = falcon.MEDIA_JSON
        resp.status = 201


app = falcon.App()
app.add_route("/", _Echo())
