"""Which agent, model, effort and permissions: what is taken, what is refused, and what people are told."""

from __future__ import annotations

import pytest

from bot.agents.claude.codec import ClaudeCodec
from bot.agents.codec import Capabilities, Listing, Permissions
from bot.agents.registry import chosen, doubt
from bot.errors import AgentUnknown
from bot.models import Choice, Offered, OfferedModel
from tests.world import LineCodec

ASKS = Capabilities(approvals=True, listing=Listing.ALL)
AGENTS = {
    "lines": LineCodec(capabilities=ASKS),
    "set": LineCodec("set", Capabilities(models=("only", "these"), efforts=("low", "high"))),
    "plain": LineCodec("plain"),
    "words": LineCodec("words", Capabilities(listing=Listing.SOME, aliases=("opus", "sonnet"))),
}
BEFORE = Choice("lines", "lab/small", "low")

# All of one provider, with what each can be told; nothing is known of other providers.
WHOLE = Offered(
    (OfferedModel("lab/small", ("low", "high")), OfferedModel("lab/large", ()), OfferedModel("lab/new")),
    complete=("lab/",),
)
PART = Offered(WHOLE.models)


def taken(offered: Offered | None = None, before: Choice = BEFORE, **wanted: str) -> Choice:
    return chosen(AGENTS, Choice(**wanted), before, offered)


def refusal(offered: Offered | None = None, before: Choice = BEFORE, **wanted: str) -> str:
    with pytest.raises(AgentUnknown) as refused:
        chosen(AGENTS, Choice(**wanted), before, offered)
    return str(refused.value)


def test_a_name_that_a_whole_list_has_not_is_refused_with_the_nearest() -> None:
    told = refusal(WHOLE, model="lab/smal")
    assert "lines has no model 'lab/smal'" in told and "`lab/small`?" in told
    assert "There is: lab/small, lab/large, lab/new." in told


@pytest.mark.parametrize("model", ["lab/large", "other/thing", "large"])
def test_what_is_listed_or_not_covered_by_the_list_is_tried(model: str) -> None:
    assert taken(WHOLE, model=model).model == model


@pytest.mark.parametrize("offered", [None, PART])
def test_where_no_list_is_whole_any_name_is_tried(offered: Offered | None) -> None:
    assert taken(offered, model="lab/smal", effort="some").model == "lab/smal"


def test_what_settings_name_goes_before_any_list() -> None:
    whole = Offered((OfferedModel("listed"),), complete=("",))
    assert taken(whole, agent="set", model="only").model == "only"
    assert "There is: only, these." in refusal(whole, agent="set", model="listed")


def test_an_effort_is_one_of_the_models() -> None:
    assert taken(WHOLE, effort="high").effort == "high"
    assert "lines's lab/small has no effort 'max'" in refusal(WHOLE, effort="max")
    assert "lines's lab/large cannot be told how hard" in refusal(WHOLE, model="lab/large", effort="low")
    assert taken(WHOLE, model="lab/new", effort="max").effort == "max"


def test_an_effort_that_the_agent_has_or_lists_is_tried() -> None:
    listed = Offered((OfferedModel("only", ("low", "extreme")),))
    assert taken(listed, agent="set", model="only", effort="extreme").effort == "extreme"
    assert taken(listed, agent="set", model="only", effort="high").effort == "high"
    assert "There is: low, high, extreme." in refusal(listed, agent="set", model="only", effort="wild")
    assert "plain cannot be told how hard" in refusal(agent="plain", effort="high")


def test_an_agent_may_have_efforts_and_no_models() -> None:
    efforts = Offered((OfferedModel("", ("low", "high")),), complete=("",))
    assert taken(efforts, before=Choice("lines"), effort="high").effort == "high"
    assert "lines has no effort 'hihg'" in refusal(efforts, before=Choice("lines"), effort="hihg")


def test_of_a_long_list_the_nearest_are_named() -> None:
    names = [f"lab/model-{number}" for number in range(100)] + ["lab/gpt"]
    told = refusal(Offered(tuple(map(OfferedModel, names)), ("",)), model="lab/gtp")
    assert "There is: lab/gpt, " in told and told.endswith("and 89 more.") and len(told) < 400


def told(offered: Offered | None, before: Choice = BEFORE, **wanted: str) -> str:
    asked = Choice(**wanted)
    choice = chosen(AGENTS, asked, before, offered)
    return doubt(AGENTS[choice.agent].capabilities, asked, choice, offered)


def test_people_are_told_of_a_name_that_is_not_listed_and_tried() -> None:
    said = told(PART, model="lab/smal")
    assert "does not list the model 'lab/smal'" in said and "Did you mean `lab/small`?" in said
    assert "does not list the effort 'max' for lab/small" in told(PART, effort="max")


def test_nobody_is_told_of_what_is_listed_or_of_what_nobody_knows() -> None:
    assert told(PART, model="lab/large") == told(None, model="lab/smal") == told(PART) == ""
    assert told(PART, model="lab/new", effort="max") == ""
    assert told(PART, agent="set", model="only") == ""


@pytest.mark.parametrize(
    ("least", "wanted"),
    [
        ("auto", "auto"),
        ("auto", "plan"),
        ("auto", "ask"),
        ("plan", "plan"),
        ("plan", "ask"),
        ("ask", "ask"),
        ("ask", "ASK"),
    ],
)
def test_more_care_than_the_setting_can_be_asked_for(least: str, wanted: str) -> None:
    asked = Choice(permissions=wanted)
    assert chosen(AGENTS, asked, BEFORE, None, Permissions(least)).permissions == wanted.lower()


@pytest.mark.parametrize(("least", "wanted"), [("plan", "auto"), ("ask", "auto"), ("ask", "plan")])
def test_less_care_than_the_setting_is_refused_by_its_name(least: str, wanted: str) -> None:
    with pytest.raises(AgentUnknown, match=f"less careful than SANDPIPER_PERMISSIONS, which is '{least}'"):
        chosen(AGENTS, Choice(permissions=wanted), BEFORE, None, Permissions(least))


def test_permissions_that_there_are_not() -> None:
    assert "Did you mean `plan`?" in refusal(permissions="plam")


def test_permissions_stay_with_another_agent_and_one_that_cannot_ask_is_refused() -> None:
    careful = Choice("lines", permissions="ask")
    assert taken(before=careful, effort="").permissions == "ask"
    assert taken(before=careful, agent="plain", permissions="auto") == Choice("plain", permissions="auto")
    assert "plain cannot ask before it acts" in refusal(before=careful, agent="plain")
    assert "plain cannot ask before it acts" in refusal(agent="plain", permissions="plan")


def test_a_name_without_a_digit_that_is_none_of_its_words_is_refused_before_anything_is_listed() -> None:
    told = refusal(agent="words", model="opsu")
    assert "words has no model 'opsu'. Did you mean `opus`?" in told
    listed = Offered((OfferedModel("fable"),))
    assert taken(listed, agent="words", model="fable").model == "fable"
    assert "There is: opus, sonnet, fable." in refusal(listed, agent="words", model="fabel")


@pytest.mark.parametrize("model", ["opus", "claude-opus-9", "opus[1m]"])
def test_its_words_and_names_with_a_digit_are_tried(model: str) -> None:
    assert taken(agent="words", model=model).model == model


def test_claude_has_words_of_its_own_unless_another_endpoint_has_its_models() -> None:
    assert "opus" in ClaudeCodec().capabilities.aliases
    assert ClaudeCodec(base_url="https://models.example.com").capabilities.aliases == ()
