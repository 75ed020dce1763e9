"""The repository that the demo starts with: a small Python project with tests, and room for improvement."""

from handlers.playground.github import GitHubPlayground

REPOSITORY = "acme/web"

_README = """\
# web

Small helpers for the pages of Acme's web site.

- `web.greeting.greet(name)` says hello to a visitor.
- `web.slugs.slugify(title)` makes the last part of a page's address from its title.

Run the tests with `python -m unittest`.
"""

_GREETING = '''\
"""What a page says to its visitor."""


def greet(name: str) -> str:
    return "Hello, " + name + "!"
'''

_SLUGS = '''\
"""Addresses made from titles."""


def slugify(title: str) -> str:
    """The title in lower case, with a dash for every space."""
    return title.lower().replace(" ", "-")
'''

_TEST_GREETING = """\
import unittest

from web.greeting import greet


class GreetTest(unittest.TestCase):
    def test_greets_by_name(self) -> None:
        self.assertEqual(greet("Ana"), "Hello, Ana!")


if __name__ == "__main__":
    unittest.main()
"""

_TEST_SLUGS = """\
import unittest

from web.slugs import slugify


class SlugifyTest(unittest.TestCase):
    def test_words_are_joined_by_dashes(self) -> None:
        self.assertEqual(slugify("Hello World"), "hello-world")


if __name__ == "__main__":
    unittest.main()
"""

_PYPROJECT = """\
[project]
name = "web"
version = "0.1.0"
requires-python = ">=3.9"
"""

FILES: dict[str, str | bytes] = {
    "README.md": _README,
    "pyproject.toml": _PYPROJECT,
    ".gitignore": "__pycache__/\n",
    "web/__init__.py": "",
    "web/greeting.py": _GREETING,
    "web/slugs.py": _SLUGS,
    "tests/__init__.py": "",
    "tests/test_greeting.py": _TEST_GREETING,
    "tests/test_slugs.py": _TEST_SLUGS,
}


async def seed_demo(github: GitHubPlayground) -> None:
    """Add the repository acme/web with Ana (admin) and Ben (write), and Eve, who may only read."""
    await github.add_repository(REPOSITORY, FILES)
    github.add_user("ana", {REPOSITORY: "admin"})
    github.add_user("ben", {REPOSITORY: "write"})
    github.add_user("eve")
    github.open_issue(
        REPOSITORY,
        "ana",
        "greet() says hello to nobody",
        'A visitor without a name is greeted with "Hello, !". Say "Hello!" to them, and test it.',
    )
    github.open_issue(
        REPOSITORY,
        "ben",
        "slugify() leaves punctuation in",
        "`slugify(\"What's new?\")` gives `what's-new?`, which is no good address. Expected: `whats-new`.",
    )
