"""The App's own endpoints: itself, its installations and their tokens, its webhook deliveries, users."""

from handlers.playground.github_auth import Credentials, no_such_repository
from handlers.playground.github_errors import invalid, not_found
from handlers.playground.github_hooks import Delivery, Hooks
from handlers.playground.github_limits import RateLimiter
from handlers.playground.github_rest import Answer, Call, Endpoint, page
from handlers.playground.github_shapes import Shapes
from handlers.playground.github_state import GitHubState, Installation, Repository, timestamp

_OUTCOMES = {"success": range(200, 400), "failure": range(400, 600)}


class AppEndpoints:
    def __init__(
        self,
        state: GitHubState,
        shapes: Shapes,
        credentials: Credentials,
        hooks: Hooks,
        limiter: RateLimiter,
    ) -> None:
        self._state = state
        self._shapes = shapes
        self._credentials = credentials
        self._hooks = hooks
        self._limiter = limiter

    def endpoints(self) -> list[Endpoint]:
        installation = "/app/installations/{installation_id}"
        return [
            Endpoint("GET", "/app", self._app, by="app"),
            Endpoint("GET", "/app/installations", self._installations, by="app"),
            Endpoint("GET", installation, self._installation, by="app"),
            Endpoint("POST", f"{installation}/access_tokens", self._mint, by="app"),
            Endpoint("GET", "installation", self._installation_of_repository, by="app"),
            Endpoint("GET", "/installation/repositories", self._repositories),
            Endpoint("GET", "/app/hook/deliveries", self._deliveries, by="app"),
            Endpoint("GET", "/app/hook/deliveries/{delivery_id}", self._delivery, by="app"),
            Endpoint("POST", "/app/hook/deliveries/{delivery_id}/attempts", self._redeliver, by="app"),
            Endpoint("GET", "/rate_limit", self._rate_limit, by="any"),
            Endpoint("GET", "/users/{login}", self._user, by="any"),
            Endpoint("GET", "/user/{account_id}", self._user_by_id, by="any"),
        ]

    async def _app(self, call: Call) -> Answer:
        return Answer(self._shapes.app())

    async def _installations(self, call: Call) -> Answer:
        return page(call, list(self._state.installations.values()), self._shapes.installation)

    async def _installation(self, call: Call) -> Answer:
        return Answer(self._shapes.installation(self._installation_named(call)))

    async def _installation_of_repository(self, call: Call) -> Answer:
        found = self._state.installation_of(call.repository)
        if found is None:
            raise not_found()
        return Answer(self._shapes.installation(found))

    async def _mint(self, call: Call) -> Answer:
        installation = self._installation_named(call)
        permissions = call.field("permissions", dict)
        if permissions and not all(isinstance(level, str) for level in permissions.values()):
            raise invalid("Integration", "invalid", "permissions")
        token = self._credentials.mint(
            installation,
            self._wanted_repositories(call, installation),
            permissions,
            opaque=call.request.headers.get("x-github-stateless-s2s-token") == "disabled",
        )
        expires_at = timestamp(self._state.moment(token.expires_at))
        return Answer(self._shapes.token(token, expires_at), 201)

    def _wanted_repositories(self, call: Call, installation: Installation) -> list[Repository] | None:
        """By name (without the owner) or by id; None when the request names no repositories."""
        ids, names = call.field("repository_ids", list), call.strings("repositories")
        if not ids and not names:
            return None
        owner = installation.account.login
        found = [self._state.repositories.get(id) if isinstance(id, int) else None for id in ids or []]
        found += [self._state.repository_named(f"{owner}/{name}") for name in names or []]
        known = [repository for repository in found if repository is not None]
        if len(known) < len(found):
            raise no_such_repository()
        return known

    async def _repositories(self, call: Call) -> Answer:
        token = call.installation_token
        reached = [repository for repository in self._state.repositories.values() if token.covers(repository)]
        return page(call, reached, self._shapes.repository, wrapped_as="repositories")

    async def _deliveries(self, call: Call) -> Answer:
        log = self._hooks.log()
        if (outcome := call.query("status")) in _OUTCOMES:
            log = [delivery for delivery in log if delivery.status_code in _OUTCOMES[outcome]]
        if (cursor := call.query("cursor")).isdecimal():
            log = [delivery for delivery in log if delivery.id <= int(cursor)]
        per_page = call.query("per_page")
        size = min(int(per_page), 100) if per_page.isdecimal() else 30
        headers = {}
        if len(log) > size:
            more = call.request.url.include_query_params(cursor=log[size].id)
            headers["Link"] = f'<{self._shapes.api(more.path)}?{more.query}>; rel="next"'
        return Answer([self._hooks.item(delivery) for delivery in log[:size]], headers=headers)

    async def _delivery(self, call: Call) -> Answer:
        return Answer(self._hooks.whole(self._delivery_named(call)))

    async def _redeliver(self, call: Call) -> Answer:
        self._hooks.redeliver(self._delivery_named(call))
        return Answer({}, 202)

    async def _rate_limit(self, call: Call) -> Answer:
        token = call.token
        who = f"app ID {self._state.app.id}" if token is None else f"installation ID {token.installation.id}"
        rate = self._limiter.state(who)
        return Answer({"resources": {"core": rate, "search": rate, "graphql": rate}, "rate": rate})

    async def _user(self, call: Call) -> Answer:
        found = self._state.users.get(call.path("login").lower())
        if found is None:
            raise not_found()
        return Answer(self._shapes.public_user(found))

    async def _user_by_id(self, call: Call) -> Answer:
        wanted = call.number("account_id")
        found = next((user for user in self._state.users.values() if user.id == wanted), None)
        if found is None:
            raise not_found()
        return Answer(self._shapes.public_user(found))

    def _installation_named(self, call: Call) -> Installation:
        found = self._state.installations.get(call.number("installation_id"))
        if found is None:
            raise not_found()
        return found

    def _delivery_named(self, call: Call) -> Delivery:
        wanted = call.number("delivery_id")
        found = next((delivery for delivery in self._hooks.log() if delivery.id == wanted), None)
        if found is None:
            raise not_found()
        return found
