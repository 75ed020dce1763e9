"""How the loopback GitHub says no, in the words and status codes of api.github.com."""

from collections.abc import Mapping
from typing import Any

DOCS = "https://docs.github.com/rest"


class Refusal(Exception):
    """An answer of 4xx or 5xx: the REST side sends it as JSON, the driver lets it reach the caller."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        errors: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {message}" + (f": {errors}" if errors else ""))
        self.status = status
        self.message = message
        self.errors = errors
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"message": self.message}
        if self.errors is not None:
            body["errors"] = self.errors
        return body | {"documentation_url": DOCS, "status": str(self.status)}


def not_found() -> Refusal:
    return Refusal(404, "Not Found")


def bad_credentials() -> Refusal:
    return Refusal(401, "Bad credentials")


def not_accessible(needs: Mapping[str, str]) -> Refusal:
    """The token is good, but not for this."""
    accepted = "; ".join(f"{name}={level}" for name, level in needs.items())
    return Refusal(
        403, "Resource not accessible by integration", headers={"X-Accepted-GitHub-Permissions": accepted}
    )


def invalid(resource: str, code: str, field: str | None = None, message: str | None = None) -> Refusal:
    """422 Validation Failed with its one error. The codes: docs.github.com/rest, "Validation Failed"."""
    error = {"resource": resource, "code": code}
    if field is not None:
        error["field"] = field
    if message is not None:
        error["message"] = message
    return Refusal(422, "Validation Failed", errors=[error])
