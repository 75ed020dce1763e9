// Slack's Block Kit, as far as a bot like ours uses it; anything else is named, not hidden.

import { h, link } from "./dom.js";
import { emoji, mention, mrkdwn, markdown } from "./markup.js";

const STATUS = { pending: "to do", in_progress: "in progress", complete: "done", error: "failed" };

// `message` is the one that the blocks are in: a click needs to say where it was.
export function drawBlocks(message, names) {
  return message.blocks.map((block) => (DRAW[block.type] ?? unknown)(block, message, names));
}

const DRAW = {
  section: (block, message, names) =>
    h("div", { class: "block section" },
      h("div", {}, text(block.text, names), block.fields ? h("div", { class: "fields" }, block.fields.map((field) => h("div", {}, text(field, names)))) : null),
      block.accessory ? element(block.accessory, message) : null),
  context: (block, message, names) =>
    h("div", { class: "block context" }, block.elements.map((one) => (one.type === "image" ? null : h("span", {}, text(one, names))))),
  header: (block) => h("h4", { class: "block" }, block.text.text),
  divider: () => h("hr", { class: "block" }),
  markdown: (block) => h("div", { class: "block markdown" }, markdown(block.text, "")),
  rich_text: (block, message, names) => h("div", { class: "block" }, rich(block, names)),
  actions: (block, message) => h("div", { class: "block actions" }, block.elements.map((one) => element(one, message))),
  alert: (block, message, names) => h("div", { class: `block alert ${block.level ?? "default"}` }, text(block.text, names)),
  card: (block, message, names) =>
    h("div", { class: "block card", "data-testid": "card" },
      block.title ? h("div", { class: "card-title" }, text(block.title, names)) : null,
      block.subtitle ? h("div", { class: "soft" }, text(block.subtitle, names)) : null,
      block.body ? h("div", {}, text(block.body, names)) : null,
      block.actions ? h("div", { class: "actions" }, block.actions.map((one) => element(one, message))) : null),
  plan: (block, message, names) =>
    h("div", { class: "block plan", "data-testid": "plan" },
      h("div", { class: "plan-title", "data-testid": "plan-title" }, block.title),
      h("ul", { class: "tasks" }, (block.tasks ?? []).map((task) => taskCard(task, names)))),
  task_card: (block, message, names) => h("ul", { class: "block tasks" }, taskCard(block, names)),
};

const unknown = (block) => h("div", { class: "block soft" }, `This page does not draw blocks of the type “${block.type}”.`);

function taskCard(task, names) {
  const status = task.status ?? "pending";
  return h("li", { class: `task ${status}`, "data-testid": "task", "data-status": status, "data-key": task.task_id },
    h("span", { class: "icon", role: "img", "aria-label": STATUS[status] }),
    h("div", { class: "task-words" },
      h("span", { class: "task-title" }, task.title),
      task.details ? h("span", { class: "task-details" }, rich(task.details, names)) : null,
      task.output ? h("div", { class: "task-output" }, rich(task.output, names)) : null));
}

function text(object, names) {
  if (!object) return null;
  return object.type === "mrkdwn" ? mrkdwn(object.text, names) : h("p", {}, object.text);
}

function element(one, message) {
  if (one.type !== "button") return h("span", { class: "soft" }, `(${one.type})`);
  const props = {
    class: `button ${one.style ?? ""}`,
    "data-testid": `button-${one.action_id}`,
    "data-do": "press",
    "data-channel": message.channel,
    "data-ts": message.ts,
    "data-action": one.action_id,
    "data-value": one.value,
    "data-confirm": one.confirm?.text?.text,
  };
  const opened = one.url ? link(one.url, one.text.text) : null;
  if (!opened) return h("button", { type: "button", ...props }, one.text.text);
  for (const [name, value] of Object.entries(props)) if (value !== undefined) opened.setAttribute(name, value);
  return opened;
}

function rich(block, names) {
  return block.elements.map((part) => {
    if (part.type === "rich_text_list") {
      return h(part.style === "ordered" ? "ol" : "ul", {}, part.elements.map((item) => h("li", {}, leaves(item.elements, names))));
    }
    const tag = { rich_text_preformatted: "pre", rich_text_quote: "blockquote" }[part.type] ?? "p";
    return h(tag, {}, leaves(part.elements ?? [], names));
  });
}

function leaves(elements, names) {
  return elements.map((leaf) => styledLeaf(leaf, names));
}

function styledLeaf(leaf, names) {
  let made = bareLeaf(leaf, names);
  for (const [style, tag] of [["code", "code"], ["bold", "strong"], ["italic", "em"], ["strike", "s"]]) {
    if (leaf.style?.[style]) made = h(tag, {}, made);
  }
  return made;
}

function bareLeaf(leaf, names) {
  switch (leaf.type) {
    case "text": return leaf.text.split("\n").map((line, index) => [index ? h("br") : null, line]);
    case "user": return mention(names[leaf.user_id] ?? leaf.user_id);
    case "channel": return mention(leaf.channel_id, "#");
    case "broadcast": return mention(leaf.range);
    case "emoji": return emoji(leaf.name);
    case "link": return link(leaf.url, leaf.text || leaf.url) ?? (leaf.text || leaf.url);
    default: return `(${leaf.type})`;
  }
}
