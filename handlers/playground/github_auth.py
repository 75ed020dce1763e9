"""Who calls the loopback GitHub, and what their token allows: App JWTs and installation tokens.

Sources: "Generating a JSON Web Token (JWT) for a GitHub App" and "Create an installation access token
for an app" on docs.github.com; the token's format is that of the 2026-05-15 changelog.
"""

import base64
import binascii
import functools
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from handlers.playground.github_errors import Refusal, bad_credentials, not_accessible, not_found
from handlers.playground.github_state import App, Installation, Repository

JWT_LONGEST_LIFE = 600
TOKEN_LIFE = 3600
_MOST_REPOSITORIES = 500
_LEVELS = {"read": 1, "write": 2, "admin": 3}
# The alphabet of the pattern that GitHub gives for recognising these tokens: ghs_[A-Za-z0-9\._]{36,}
_ALPHABET = string.ascii_letters + string.digits + "_"


@dataclass(frozen=True, slots=True)
class InstallationToken:
    """A minted `ghs_` token: `repository_ids` None means every repository of the installation."""

    token: str
    installation: Installation
    repository_ids: frozenset[int] | None
    permissions: Mapping[str, str]
    expires_at: float

    def covers(self, repository: Repository) -> bool:
        if repository.id not in self.installation.repository_ids:
            return False
        return self.repository_ids is None or repository.id in self.repository_ids

    def allows(self, needs: Mapping[str, str]) -> bool:
        """Whether any one of `needs` is granted; GitHub documents alternatives per endpoint."""
        return any(
            _LEVELS[level] <= _LEVELS.get(self.permissions.get(n, ""), 0) for n, level in needs.items()
        )


@functools.cache
def app_key_pem() -> str:
    """The App's private key. One per process: generating RSA keys is slow."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()


class Credentials:
    """Checks App JWTs against the App's key and keeps the installation tokens that were minted."""

    def __init__(self, app: App, private_key_pem: str, clock: Callable[[], float], token_life: float) -> None:
        self._app = app
        self._clock = clock
        key = serialization.load_pem_private_key(private_key_pem.encode(), password=None)
        self._public_key: Any = key.public_key()
        self._tokens: dict[str, InstallationToken] = {}
        self._characters = random.SystemRandom()
        self.token_life = token_life

    def check_app_jwt(self, encoded: str) -> None:
        """Raise Refusal unless `encoded` is a JWT of the App that is good now."""
        only_signature = {
            f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
        }
        try:
            claims = jwt.decode(
                encoded,
                self._public_key,
                algorithms=["RS256"],
                options=only_signature | {"verify_signature": True},  # type: ignore[arg-type]
            )
        except jwt.InvalidTokenError:
            raise Refusal(401, "A JSON web token could not be decoded") from None
        if str(claims.get("iss")) not in (str(self._app.id), self._app.client_id):
            raise Refusal(404, "Integration not found")
        now = self._clock()
        issued, expires = claims.get("iat"), claims.get("exp")
        if not isinstance(expires, int | float) or expires <= now:
            raise Refusal(
                401,
                "'Expiration time' claim ('exp') must be a numeric value representing the future time "
                "at which the assertion expires",
            )
        if expires > now + JWT_LONGEST_LIFE:
            raise Refusal(401, "'Expiration time' claim ('exp') is too far in the future")
        if not isinstance(issued, int) or issued > now:
            raise Refusal(
                401,
                "'Issued at' claim ('iat') must be an Integer representing the time "
                "that the assertion was issued",
            )

    def mint(
        self,
        installation: Installation,
        repositories: list[Repository] | None,
        permissions: Mapping[str, str] | None,
        *,
        opaque: bool = False,
    ) -> InstallationToken:
        """A new token, for `repositories` (None: all of the installation's) and `permissions` (None: all).

        `opaque` asks for the older, 40 characters long form. Raises Refusal when it asks for too much.
        """
        if installation.suspended_at is not None:
            raise Refusal(403, "This installation has been suspended")
        if repositories is not None:
            if len(repositories) > _MOST_REPOSITORIES:
                raise Refusal(422, f"You may list at most {_MOST_REPOSITORIES} repositories")
            if any(repository.id not in installation.repository_ids for repository in repositories):
                raise no_such_repository()
        granted = dict(installation.permissions)
        if permissions:
            for name, level in permissions.items():
                if _LEVELS.get(level, 99) > _LEVELS.get(granted.get(name, ""), 0):
                    raise Refusal(422, "The permissions requested are not granted to this installation.")
            granted = {"metadata": "read", **permissions}
        minted = InstallationToken(
            token=f"ghs_{self._random(36)}" if opaque else self._stateless(),
            installation=installation,
            repository_ids=None if repositories is None else frozenset(r.id for r in repositories),
            permissions=granted,
            expires_at=int(self._clock()) + self.token_life,
        )
        self._tokens[minted.token] = minted
        return minted

    @property
    def tokens(self) -> list[str]:
        """The installation tokens that were minted and not expired on purpose."""
        return list(self._tokens)

    def expire_tokens(self) -> None:
        """End the life of every token minted so far, without touching the clock."""
        self._tokens.clear()

    def find(self, token: str) -> InstallationToken:
        found = self._tokens.get(token)
        if found is None or found.expires_at <= self._clock():
            raise bad_credentials()
        return found

    def caller(self, authorization: str | None) -> InstallationToken | None:
        """The token in an Authorization header, or None for the App itself. Raises Refusal for others."""
        scheme, _, value = (authorization or "").strip().partition(" ")
        if not value:
            raise Refusal(401, "Requires authentication")
        if scheme.lower() == "basic":
            value = basic_password(value)
        elif scheme.lower() not in ("bearer", "token"):
            raise bad_credentials()
        if value.count(".") == 2 and not value.startswith("ghs_"):
            self.check_app_jwt(value)
            return None
        return self.find(value)

    def _stateless(self) -> str:
        parts = ".".join(self._random(length) for length in (36, 210 + self._characters.randrange(20), 256))
        return f"ghs_{self._app.id}_{parts}"

    def _random(self, length: int) -> str:
        return "".join(self._characters.choices(_ALPHABET, k=length))


def no_such_repository() -> Refusal:
    return Refusal(
        422,
        "There is at least one repository that does not exist or is not accessible "
        "to the parent installation.",
    )


def check_reach(token: InstallationToken, repository: Repository, needs: Mapping[str, str]) -> None:
    """Raise what GitHub answers when `token` may not do something in `repository` that needs one of `needs`.

    A private repository out of reach does not exist (404); a public one can be read by anybody.
    """
    reads_public = not repository.private and set(needs.values()) <= {"read"}
    if not token.covers(repository):
        if repository.private:
            raise not_found()
        if not reads_public:
            raise not_accessible(needs)
    elif not reads_public and not token.allows(needs):
        raise not_accessible(needs)


def basic_password(encoded: str) -> str:
    """The password in the value of a Basic authorization; any user name will do. Raises Refusal if broken."""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        raise bad_credentials() from None
