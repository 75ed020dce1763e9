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
        ("RUN <<-END >/x && \\\n cat <<'B' 3<<\"C\"\n\tEND\nA\nB\nC\nADD x /y", 7, "fetch what you need"),
        ("RUN test $((1<<2)) = 4\nCOPY a b", 2, "fetch what you need"),
        ("RUN cat<<END\nCOPY a b\nEND", 2, "fetch what you need"),
        ("RUN tr a b <<<abc\nCOPY a b", 2, "fetch what you need"),
        ('RUN python3 -c "1 << 2"\nCOPY a b', 2, "fetch what you need"),
        ("ENV SHIFT=a <<END\nCOPY a b\nEND", 2, "fetch what you need"),
        ("RUN a \\\n# not the end\n\n b\nCOPY a b", 5, "fetch what you need"),
        ("RUN a \\\u00a0\nCOPY a b", 2, "fetch what you need"),
        ("RUN a \\\r\n b\r\nCOPY a b", 3, "fetch what you need"),
        ("RUN a\r\rCOPY a b", 1, "control character"),
        ("RUN a \\\\\nCOPY a b", 1, "two backslashes"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(more: str, line: int, why: str) -> None:
    with pytest.raises(SettingsError, match=rf"Line {line} .*{why}"):
        dockerfile(more)


@pytest.mark.parametrize(
    ("more", "line", "why"),
    [
        ("RUN apt-get install -y foo \\\n", 1, "goes on after"),
        ("RUN true\nRUN a \\  \n# a comment \n\n", 2, "goes on after"),
        ("RUN <<END\necho a\n", 1, "no line that is just END"),
        ("RUN <<END\necho a\n END\n", 1, "no line that is just END"),
        ("RUN <<END\necho a\nEND \n", 1, "no line that is just END"),
        ("RUN <<A <<B\nA\n", 1, "no line that is just B"),
        ("RUN true <<-\\\nEND\n", 1, "no line that is just END"),
        ("ONBUILD RUN <<END\n", 1, "no line that is just END"),
        ('RUN cat <<"USER agent"\n', 1, "not plain"),
        ("RUN cat <<USER\\ agent\n", 1, "not plain"),
        ("RUN cat <<END;\nEND\n", 1, "not plain"),
        ("RUN echo 'a <<END'\nCOPY a b\nEND\n", 1, "not plain"),
        ('RUN echo "${a:-"} <<END"}"\nCOPY a b\nEND\n', 1, "not plain"),
    ],
)
def test_what_would_go_on_into_our_last_lines_is_refused_or_agents_were_root(
    more: str, line: int, why: str
) -> None:
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
