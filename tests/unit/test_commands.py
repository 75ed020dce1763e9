"""What people's words ask of us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.models import Mode, Verb
from handlers.commands import ERROR, Words, parse_words


@pytest.mark.parametrize(
    "said", ["stop", "Stop", " STOP! ", "stop please", "please stop", "stop it now, please.", "Stop it!"]
)
def test_stop_stands_alone_or_politely(said: str) -> None:
    assert parse_words(said) == Words(Verb.STOP)


@pytest.mark.parametrize(
    "said",
    [
        "stop using tabs in foo.py",
        "stop the server before you run the tests",
        "don't stop",
        "status of the login page is wrong, fix it",
        "publish the docs on a schedule",
        "help me with the failing test",
        "sandbox the tests",
        "sandbox restart the server",
        "reset the form",
        "reset",
        "reset 12 counters",
        "get the tests green",
        "get started.",
        "get a.txt and b.txt",
        "get",
        "channel the events through the bus",
        "channel acme/web deploys",
        "`stop`",
        "please",
        "it",
        "",
    ],
)
def test_a_sentence_that_begins_like_a_verb_is_a_prompt(said: str) -> None:
    assert parse_words(said) == Words(text=said)


@pytest.mark.parametrize(
    ("said", "verb"),
    [("status?", Verb.STATUS), ("publish it", Verb.PUBLISH), ("Help", Verb.HELP), ("channel", Verb.CHANNEL)],
)
def test_the_other_verbs(said: str, verb: Verb) -> None:
    assert parse_words(said) == Words(verb)


@pytest.mark.parametrize("said", ["channel acme/Web", "channel repo=acme/Web", "Channel acme/Web."])
def test_a_channel_takes_its_default_repository(said: str) -> None:
    assert parse_words(said) == Words(Verb.CHANNEL, options={"repo": "acme/Web"})


@pytest.mark.parametrize(
    ("said", "do"),
    [
        ("sandbox", "status"),
        ("Sandbox status?", "status"),
        ("sandbox restart, please", "restart"),
        ("sandbox pin", "pin"),
        ("sandbox unpin", "unpin"),
        ("please sandbox reset", "reset"),
    ],
)
def test_what_is_to_be_done_with_a_sandbox(said: str, do: str) -> None:
    assert parse_words(said) == Words(Verb.SANDBOX, options={"do": do})


@pytest.mark.parametrize("said", ["reset 12", "Reset #12.", "sandbox reset 12"])
def test_a_reset_is_confirmed_by_its_number(said: str) -> None:
    assert parse_words(said) == Words(Verb.SANDBOX, options={"do": "reset", "number": "12"})


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("get docs/report.html", "docs/report.html"),
        ("Get http://notes.md", "notes.md"),
        ("get `my notes.txt`", "my notes.txt"),
        ("get .env", ".env"),
    ],
)
def test_a_file_is_asked_for_by_its_path(said: str, path: str) -> None:
    assert parse_words(said) == Words(Verb.GET, options={"path": path})


@pytest.mark.parametrize("said", ["preview 3000", "Preview 3000, please", "preview 3000."])
def test_a_preview_is_of_a_port(said: str) -> None:
    assert parse_words(said) == Words(Verb.PREVIEW, options={"port": "3000"})


@pytest.mark.parametrize(
    "said", ["preview", "preview 0", "preview 65536", "preview the page", "preview 3000 4000", "preview ³"]
)
def test_other_words_about_previews_are_for_the_agent(said: str) -> None:
    assert parse_words(said) == Words(text=said)


def test_queue_and_interrupt_say_what_a_message_does_to_the_running_turn() -> None:
    assert parse_words("queue: then update the changelog") == Words(
        mode=Mode.QUEUE, text="then update the changelog"
    )
    assert parse_words("Interrupt:start over") == Words(mode=Mode.INTERRUPT, text="start over")
    assert parse_words("the queue: it grows").mode is Mode.STEER


def test_options_may_stand_anywhere() -> None:
    words = parse_words("fix the login loop Repo=acme/web\nand agent=codex keep ?next= model=gpt-5.1-codex,")
    assert words.options == {"repo": "acme/web", "agent": "codex", "model": "gpt-5.1-codex"}
    assert words.text == "fix the login loop \nand keep ?next="


def test_how_careful_the_agent_is_to_be_can_be_said() -> None:
    assert parse_words("permissions=ask tidy up") == Words(options={"permissions": "ask"}, text="tidy up")


def test_options_and_a_mode_in_either_order() -> None:
    expected = Words(mode=Mode.QUEUE, options={"agent": "claude"}, text="tidy up")
    assert parse_words("agent=claude queue: tidy up") == expected
    assert parse_words("queue: agent=claude tidy up") == expected


@pytest.mark.parametrize(
    "said",
    [
        "set `repo=acme/web` in the config",
        "run this:\n```\nmake repo=acme/web agent=claude\n```\nplease",
        "call f(repo=acme/web)",
        "branch=main color=red",
    ],
)
def test_code_and_other_keys_stay_text(said: str) -> None:
    assert parse_words(said) == Words(text=said)


@pytest.mark.parametrize(
    "value", ["web", "acme/", "/web", "acme/web/deep", "https://evil.test/a/b", "acme/..", ""]
)
def test_a_malformed_repository_is_explained(value: str) -> None:
    words = parse_words(f"fix it repo={value}")
    assert "repo=owner/name" in words.options[ERROR]
    assert "repo" not in words.options
    assert words.text == "fix it"


def test_several_repositories_are_named_with_commas() -> None:
    assert parse_words("fix it repo=a/b,c/d, please") == Words(
        options={"repo": "a/b,c/d"}, text="fix it please"
    )
    assert "repo=owner/name" in parse_words("repo=a/b,c fix").options[ERROR]
    many = ",".join(f"a/b{number}" for number in range(9))
    assert "more than 8" in parse_words(f"repo={many} fix").options[ERROR]


def test_two_different_repositories_are_a_mistake_and_the_same_twice_is_not() -> None:
    assert "twice" in parse_words("repo=a/b repo=a/c fix").options[ERROR]
    assert parse_words("repo=a/b repo=a/b fix").options == {"repo": "a/b"}


said_by_people = st.text() | st.lists(
    st.sampled_from(
        [
            "stop",
            "queue:",
            "interrupt:",
            "repo=a/b",
            "model=",
            "`",
            "```",
            "\n",
            " ",
            "please",
            "channel",
            "x",
        ]
    )
).map("".join)


@given(said_by_people)
def test_any_text_is_understood_and_what_is_left_is_a_plain_prompt(said: str) -> None:
    words = parse_words(said)
    again = parse_words(words.text)
    assert again == Words(text=words.text)
    assert words.verb is None or words.text == ""
