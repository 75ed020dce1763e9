"""Would Slack take these blocks? Shapes and sizes as in docs.slack.dev, the Block Kit reference."""

from collections.abc import Callable, Collection
from typing import Any, cast

from handlers.playground.slack_limits import BLOCKS_PER_MESSAGE, MARKDOWN_LIMIT
from handlers.playground.slack_state import Json, SlackError

TEXT_OBJECT_LIMIT = 3_000
HEADER_LIMIT = 150
FIELD_LIMIT = 2_000
TASK_FIELD_LIMIT = 256
TASKS_PER_PLAN = 50
URL_LIMIT = 3_000
ID_LIMIT = 255

_EITHER = ("mrkdwn", "plain_text")
_PLAIN = ("plain_text",)
# Interactive elements that the bot does not use are taken by their type and action_id alone.
_OTHER_ELEMENTS = {
    *("checkboxes", "datepicker", "datetimepicker", "overflow", "radio_buttons", "timepicker"),
    *("static_select", "external_select", "users_select", "conversations_select", "channels_select"),
    *("multi_static_select", "multi_users_select", "multi_conversations_select", "workflow_button"),
}


def check_blocks(blocks: object, *, unsupported: Collection[str] = ()) -> list[Json]:
    """Give the blocks if Slack would take them.

    Raises SlackError `invalid_blocks_format` if they are no list of objects, and `invalid_blocks` with a
    reason and a JSON pointer for each fault. `unsupported` names block types that this workspace refuses.
    """
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise SlackError("invalid_blocks_format")
    check = _Check(unsupported)
    check.count(blocks, "/blocks", BLOCKS_PER_MESSAGE)
    for number, block in enumerate(blocks):
        check.block(block, f"/blocks/{number}")
    check.unique("block_id", blocks, "/blocks")
    if check.faults:
        raise SlackError("invalid_blocks", *check.faults)
    return cast("list[Json]", blocks)


class _Check:
    def __init__(self, unsupported: Collection[str]) -> None:
        self._unsupported = unsupported
        self.faults: list[str] = []

    def fault(self, reason: str, at: str) -> None:
        self.faults.append(f"{reason} [json-pointer:{at}]")

    # What every part is checked for.

    def keys(self, part: Json, at: str, required: str, optional: str = "") -> bool:
        known = {"type", *required.split(), *optional.split()}
        for name in required.split():
            if part.get(name) is None:
                self.fault(f"missing required field: {name}", at)
        for name in sorted(part.keys() - known):
            self.fault(f"invalid additional property: {name}", at)
        return all(part.get(name) is not None for name in required.split())

    def string(self, value: object, at: str, longest: int, shortest: int = 1) -> None:
        if value is None:
            return
        if not isinstance(value, str):
            self.fault("must be a valid string", at)
        elif len(value) < shortest:
            self.fault(f"must be more than {shortest - 1} characters", at)
        elif len(value) > longest:
            self.fault(f"must be less than {longest + 1} characters", at)

    def choice(self, value: object, at: str, allowed: Collection[str]) -> None:
        if value is not None and value not in allowed:
            self.fault("must be a valid enum value", at)

    def count(self, items: object, at: str, most: int, least: int = 0) -> bool:
        if not isinstance(items, list):
            self.fault("must be an array", at)
            return False
        if len(items) > most:
            self.fault(f"no more than {most} items allowed", at)
        if len(items) < least:
            self.fault(f"must have at least {least} item", at)
        return True

    def each(self, items: object, at: str, check: Callable[[Json, str], None]) -> None:
        for number, item in enumerate(items if isinstance(items, list) else []):
            if isinstance(item, dict):
                check(item, f"{at}/{number}")
            else:
                self.fault("must be an object", f"{at}/{number}")

    def unique(self, name: str, parts: list[Any], at: str) -> None:
        seen: set[str] = set()
        for number, part in enumerate(parts):
            value = part.get(name) if isinstance(part, dict) else None
            if not isinstance(value, str):
                continue
            if value in seen:
                self.fault(f"`{name}` {value} already exists", f"{at}/{number}/{name}")
            seen.add(value)

    def text(self, value: object, at: str, longest: int, kinds: Collection[str] = _EITHER) -> None:
        if value is None:
            return
        if not isinstance(value, dict):
            self.fault("must be an object", at)
            return
        kind = _kind(value)
        if kind not in kinds:
            self.fault(f"must provide a text object of type {' or '.join(kinds)}", at)
        if self.keys(value, at, "type text", "verbatim" if kind == "mrkdwn" else "emoji"):
            self.string(value["text"], f"{at}/text", longest)

    # The blocks.

    def block(self, block: Json, at: str) -> None:
        kind = _kind(block)
        check = _BLOCKS.get(kind)
        if check is None or kind in self._unsupported:
            self.fault(f"unsupported type: {kind}", f"{at}/type")
            return
        self.string(block.get("block_id"), f"{at}/block_id", ID_LIMIT)
        check(self, block, at)

    def section(self, block: Json, at: str) -> None:
        self.keys(block, at, "", "block_id text fields accessory expand")
        if block.get("text") is None and not block.get("fields"):
            self.fault("must define either `text` or `fields`", at)
        self.text(block.get("text"), f"{at}/text", TEXT_OBJECT_LIMIT)
        if block.get("fields") is not None and self.count(block["fields"], f"{at}/fields", 10, 1):
            self.each(block["fields"], f"{at}/fields", lambda item, at: self.text(item, at, FIELD_LIMIT))
        accessory = block.get("accessory")
        if isinstance(accessory, dict):
            self.element(accessory, f"{at}/accessory")
        elif accessory is not None:
            self.fault("must be an object", f"{at}/accessory")

    def header(self, block: Json, at: str) -> None:
        if self.keys(block, at, "text", "block_id"):
            self.text(block["text"], f"{at}/text", HEADER_LIMIT, _PLAIN)

    def divider(self, block: Json, at: str) -> None:
        self.keys(block, at, "", "block_id")

    def image(self, block: Json, at: str) -> None:
        self.keys(block, at, "alt_text", "block_id image_url slack_file title")
        self.string(block.get("image_url"), f"{at}/image_url", URL_LIMIT)
        self.string(block.get("alt_text"), f"{at}/alt_text", 2_000)
        self.text(block.get("title"), f"{at}/title", 2_000, _PLAIN)

    def markdown(self, block: Json, at: str) -> None:
        if self.keys(block, at, "text", "block_id"):
            self.string(block["text"], f"{at}/text", MARKDOWN_LIMIT)

    def alert(self, block: Json, at: str) -> None:
        if self.keys(block, at, "text", "block_id level"):
            self.text(block["text"], f"{at}/text", TEXT_OBJECT_LIMIT)
            self.choice(block.get("level"), f"{at}/level", ("default", "info", "warning", "error", "success"))

    def context(self, block: Json, at: str) -> None:
        if self.keys(block, at, "elements", "block_id") and self.count(
            block["elements"], f"{at}/elements", 10, 1
        ):
            self.each(block["elements"], f"{at}/elements", self.context_element)

    def context_element(self, element: Json, at: str) -> None:
        if element.get("type") == "image":
            self.image(element, at)
        else:
            self.text(element, at, TEXT_OBJECT_LIMIT)

    def actions(self, block: Json, at: str) -> None:
        if self.keys(block, at, "elements", "block_id") and self.count(
            block["elements"], f"{at}/elements", 25, 1
        ):
            self.each(block["elements"], f"{at}/elements", self.element)
            self.unique("action_id", block["elements"], f"{at}/elements")

    def context_actions(self, block: Json, at: str) -> None:
        if self.keys(block, at, "elements", "block_id") and self.count(
            block["elements"], f"{at}/elements", 5, 1
        ):
            self.each(block["elements"], f"{at}/elements", self.context_action)

    def card(self, block: Json, at: str) -> None:
        self.keys(block, at, "", "block_id hero_image icon title subtitle body actions")
        if not any(block.get(name) for name in ("hero_image", "title", "body", "actions")):
            self.fault("must define at least one of hero_image, title, actions or body", at)
        for name, longest in (("title", 150), ("subtitle", 150), ("body", 200)):
            self.text(block.get(name), f"{at}/{name}", longest)
        if block.get("actions") is not None and self.count(block["actions"], f"{at}/actions", 25, 1):
            self.each(block["actions"], f"{at}/actions", self.element)

    def plan(self, block: Json, at: str) -> None:
        self.keys(block, at, "title", "block_id tasks")
        self.string(block.get("title"), f"{at}/title", TASK_FIELD_LIMIT)
        if block.get("tasks") is not None and self.count(block["tasks"], f"{at}/tasks", TASKS_PER_PLAN):
            self.each(block["tasks"], f"{at}/tasks", self.task_card)
            self.unique("task_id", block["tasks"], f"{at}/tasks")

    def task_card(self, block: Json, at: str) -> None:
        self.keys(block, at, "task_id title", "block_id details output sources status icon hide_title")
        if block.get("type", "task_card") != "task_card":
            self.fault(f"unsupported type: {block['type']}", f"{at}/type")
        self.string(block.get("task_id"), f"{at}/task_id", TASK_FIELD_LIMIT)
        self.string(block.get("title"), f"{at}/title", TASK_FIELD_LIMIT)
        self.choice(block.get("status"), f"{at}/status", ("pending", "in_progress", "complete", "error"))
        for name in ("details", "output"):
            self.task_text(block.get(name), f"{at}/{name}")
        if block.get("sources") is not None and self.count(block["sources"], f"{at}/sources", 50):
            self.each(block["sources"], f"{at}/sources", self.source)

    def task_text(self, value: object, at: str) -> None:
        if value is None:
            return
        if not isinstance(value, dict) or value.get("type") != "rich_text":
            self.fault("must be a rich_text object", at)
            return
        self.rich_text(value, at)
        length = sum(len(piece) for piece in _rich_texts(value))
        if length > TASK_FIELD_LIMIT:
            self.fault(f"must be less than {TASK_FIELD_LIMIT + 1} characters", at)

    def source(self, source: Json, at: str) -> None:
        if self.keys(source, at, "type url text"):
            self.choice(source["type"], f"{at}/type", ("url",))
            self.string(source["url"], f"{at}/url", URL_LIMIT)
            self.string(source["text"], f"{at}/text", TASK_FIELD_LIMIT)

    # Rich text.

    def rich_text(self, block: Json, at: str) -> None:
        if self.keys(block, at, "elements", "block_id") and self.count(
            block["elements"], f"{at}/elements", 10_000, 1
        ):
            self.each(block["elements"], f"{at}/elements", self.rich_container)

    def rich_container(self, part: Json, at: str) -> None:
        kind = _kind(part)
        if kind == "rich_text_list":
            self.keys(part, at, "elements style", "indent offset border")
            self.choice(part.get("style"), f"{at}/style", ("bullet", "ordered"))
            self.each(part.get("elements"), f"{at}/elements", self.rich_container)
        elif kind in ("rich_text_section", "rich_text_preformatted", "rich_text_quote"):
            self.keys(part, at, "elements", "border language")
            self.each(part.get("elements"), f"{at}/elements", self.rich_leaf)
        else:
            self.fault(f"unsupported type: {kind}", f"{at}/type")

    def rich_leaf(self, leaf: Json, at: str) -> None:
        kind = _kind(leaf)
        if kind not in _RICH_LEAVES:
            self.fault(f"unsupported type: {kind}", f"{at}/type")
            return
        required, optional = _RICH_LEAVES[kind]
        self.keys(leaf, at, required, f"{optional} style")
        if kind == "text":
            self.string(leaf.get("text"), f"{at}/text", 40_000)

    # Interactive elements.

    def element(self, element: Json, at: str) -> None:
        kind = _kind(element)
        self.string(element.get("action_id"), f"{at}/action_id", ID_LIMIT)
        if kind == "button":
            self.button(element, at)
        elif kind == "image":
            self.image(element, at)
        elif kind not in _OTHER_ELEMENTS:
            self.fault(f"unsupported type: {kind}", f"{at}/type")

    def button(self, button: Json, at: str) -> None:
        optional = "action_id url value style confirm accessibility_label visible_to_user_ids"
        self.keys(button, at, "text", f"{optional} agent_prompt agent_prompt_display")
        self.text(button.get("text"), f"{at}/text", 75, _PLAIN)
        self.string(button.get("value"), f"{at}/value", 2_000)
        self.string(button.get("url"), f"{at}/url", URL_LIMIT)
        self.string(button.get("accessibility_label"), f"{at}/accessibility_label", 75)
        self.choice(button.get("style"), f"{at}/style", ("primary", "danger"))
        confirm = button.get("confirm")
        if isinstance(confirm, dict):
            for name, longest in (("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)):
                kinds = _EITHER if name == "text" else _PLAIN
                self.text(confirm.get(name), f"{at}/confirm/{name}", longest, kinds)

    def context_action(self, element: Json, at: str) -> None:
        kind = _kind(element)
        self.string(element.get("action_id"), f"{at}/action_id", ID_LIMIT)
        if kind == "feedback_buttons":
            if self.keys(element, at, "positive_button negative_button", "action_id"):
                for name in ("positive_button", "negative_button"):
                    self.feedback_button(element[name], f"{at}/{name}")
        elif kind == "icon_button":
            optional = "action_id value accessibility_label visible_to_user_ids confirm"
            self.keys(element, at, "icon text", optional)
            self.text(element.get("text"), f"{at}/text", 75, _PLAIN)
            self.string(element.get("value"), f"{at}/value", 2_000)
        else:
            self.fault(f"unsupported type: {kind}", f"{at}/type")

    def feedback_button(self, button: object, at: str) -> None:
        if not isinstance(button, dict):
            self.fault("must be an object", at)
        elif self.keys(button, at, "text value", "accessibility_label"):
            self.text(button["text"], f"{at}/text", 75, _PLAIN)
            self.string(button["value"], f"{at}/value", 2_000)


_BLOCKS: dict[str, Callable[[_Check, Json, str], None]] = {
    "actions": _Check.actions,
    "alert": _Check.alert,
    "card": _Check.card,
    "context": _Check.context,
    "context_actions": _Check.context_actions,
    "divider": _Check.divider,
    "header": _Check.header,
    "image": _Check.image,
    "markdown": _Check.markdown,
    "plan": _Check.plan,
    "rich_text": _Check.rich_text,
    "section": _Check.section,
    "task_card": _Check.task_card,
}
# For each: the fields it must and may have.
_RICH_LEAVES = {
    "text": ("text", ""),
    "link": ("url", "text unsafe"),
    "user": ("user_id", ""),
    "channel": ("channel_id", ""),
    "usergroup": ("usergroup_id", ""),
    "emoji": ("name", "unicode skin_tone"),
    "broadcast": ("range", ""),
    "date": ("timestamp format", "url fallback"),
    "color": ("value", ""),
}


def _kind(part: Json) -> str:
    kind = part.get("type")
    return kind if isinstance(kind, str) else ""


def _rich_texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [piece for item in value for piece in _rich_texts(item)]
    if isinstance(value, dict):
        own = value.get("text") or value.get("url") or ""
        return [own if isinstance(own, str) else "", *_rich_texts(value.get("elements"))]
    return []
