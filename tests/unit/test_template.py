"""The Dockerfile of remote sandboxes, and what operators put after it."""

from __future__ import annotations

import re

import pytest

from bot.app_agents import PINS
from bot.errors import SettingsError
from sandbox.template import dockerfile, named


def instructions(text: str) -> list[str]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


def test_it_has_the_agents_at_the_versions_of_this_release() -> None:
    (agents,) = re.findall(r'^ARG AGENTS="(.*)"$', dockerfile(), re.MULTILINE)
    assert agents.split() == [package for packages in PINS.values() for package in packages]


def test_agents_are_no_root_and_no_layer_has_a_credential() -> None:
    *_, user, home, command = instructions(dockerfile())
    assert (user, home, command) == ("USER agent", "WORKDIR /home/agent", 'CMD ["sleep", "infinity"]')
    assert not re.search(r"TOKEN|_KEY|PASSWORD|SECRET|COPY|ADD ", dockerfile())


def test_an_operators_own_lines_come_after_ours_and_before_the_user() -> None:
    text = dockerfile("# Postgres\nRUN apt-get update \\\n    && apt-get install -y postgresql\nUSER root\n")
    lines = instructions(text)
    own = lines.index("RUN apt-get update && apt-get install -y postgresql")
    assert lines.index(next(line for line in lines if line.startswith("RUN usermod"))) < own
    assert lines[-3:] == ["USER agent", "WORKDIR /home/agent", 'CMD ["sleep", "infinity"]']
    assert lines.count("USER agent") == 1


@pytest.mark.parametrize(
    ("more", "line", "why"),
    [
        ("RUN true\nFROM ubuntu", 2, "no FROM"),
        ("from ubuntu", 1, "no FROM"),
        ("\n\nCOPY ca.pem /etc/", 3, "fetch what you need"),
        ("RUN a \\\n  && b\nadd x /y", 3, "fetch what you need"),
        ("RUN <<END\nCOPY is a word here\nEND\nADD x /y", 4, "fetch what you need"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(more: str, line: int, why: str) -> None:
    with pytest.raises(SettingsError, match=rf"Line {line} .*{why}"):
        dockerfile(more)


def test_words_inside_of_an_instruction_are_none() -> None:
    more = "RUN echo hello \\\n    COPY this \\\n    FROM there\nRUN <<'END'\nADD nothing\nEND"
    assert more in dockerfile(more)


def test_the_same_text_has_the_same_name_at_the_same_size() -> None:
    name = named(dockerfile(), "0.1.0", 2, 4, 10)
    assert re.fullmatch(r"sandpiper-0\.1\.0-[0-9a-f]{10}", name)
    assert name == named(dockerfile(), "0.1.0", 2, 4, 10)
    assert name != named(dockerfile("RUN true"), "0.1.0", 2, 4, 10)
    assert name != named(dockerfile(), "0.1.0", 4, 8, 10)
