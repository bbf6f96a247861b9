"""Errors in the protocol's form: a status, and an object with message, type, param and code."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from eightfold.common.error_text import one_line

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    503: "service_unavailable_error",
}
"""Types of errors by status; other client errors are "invalid_request_error"."""


PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics")

NO_LOG_PROBABILITIES = ", because the sampler draws tokens without normalizing the logits"

NOT_JSON = "The request needs the header Content-Type: application/json."


class ApiError(Exception):
    """A request that cannot be served.

    Args:
        message: a sentence that says what to do.
        status: HTTP status.
        param: name of the field at fault.
        code: the protocol's short name of the error.
    """

    def __init__(
        self, message: str, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code

    def body(self) -> dict[str, Any]:
        """Return the object that the client receives."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": KINDS.get(self.status, kind)}
        return {"error": {**error, "param": self.param, "code": self.code}}


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of the application in the protocol's form."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return JSONResponse(error.body(), error.status)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        known_error = _validation_error(error)
        if "json" not in request.headers.get("content-type", ""):
            known_error = ApiError(NOT_JSON)
        return JSONResponse(known_error.body(), known_error.status)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        path = f"{request.method} {request.url.path}"
        said = str(error.detail)
        if error.status_code == 405:
            said = f"{request.url.path} does not take {request.method}."
        elif error.status_code == 404:
            said = f"There is no {path} here, only {', '.join(PATHS)}."
        elif error.status_code == 400:  # what the JSON decoder raises beside its own errors
            said = (
                "The request's body cannot be read: it is not UTF-8, is nested too deeply or has a "
                "huge number."
            )
        return JSONResponse(ApiError(said, error.status_code).body(), error.status_code)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(ApiError(f"The server failed: {one_line(error)}.", 500).body(), 500)

    app.add_exception_handler(ApiError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _validation_error(error: RequestValidationError) -> ApiError:
    """Return the first fault that the schema of a request found, as a sentence."""
    fault = error.errors()[0]
    place = [str(part) for part in fault["loc"] if part != "body"]
    name = ".".join(place)
    if fault["type"] == "json_invalid":
        return ApiError("The request's body is not JSON.")
    reason = str(fault["msg"]).removeprefix("Value error, ").rstrip(".")
    if not place and fault["type"] == "value_error":
        return ApiError(f"{reason[:1].upper()}{reason[1:]}.")
    if not place:
        return ApiError("The request's body must be a JSON object.")
    if place[:1] == ["stop"]:
        return ApiError("stop must be a text or a list of texts.", 400, "stop")
    if place[0] == "messages" and place[2:3] == ["content"]:
        name = ".".join(place[:3])
        return ApiError(f"{name} must be a text or a list of parts.", 400, name)
    if place[:1] == ["prompt"]:
        return ApiError("prompt must be a text, token ids, or a list of either.", 400, "prompt")
    if fault["type"] == "extra_forbidden":
        why = NO_LOG_PROBABILITIES if name in ("logprobs", "top_logprobs") else ""
        return ApiError(f"The option {name} is not supported here{why}; leave it out.", 400, name)
    return ApiError(f"{name}: {reason}.", 400, name)
