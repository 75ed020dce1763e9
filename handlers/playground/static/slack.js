// The left half: channels, messages, a thread.

import { clock, h } from "./dom.js";
import { drawBlocks } from "./blocks.js";
import { emoji, mrkdwn } from "./markup.js";

const EXAMPLES = {
  channel: ["@sandpiper add a farewell() next to greet()", "/sandpiper leave punctuation out of slugs"],
  thread: ["also say it in German", "stop"],
};

// The id of the channel that is looked at: "dm" is the speaker's own with the bot.
export function channelOf(state) {
  const { channels } = state.workspace;
  const direct = channels.find((one) => one.kind === "im" && one.members.includes(state.me));
  return state.place.channel === "dm" ? direct.id : state.place.channel;
}

export function drawSlack(state) {
  const channel = channelOf(state);
  const messages = [...state.messages.values()]
    .filter((one) => one.channel === channel && (one.visible_to === null || one.visible_to === state.me))
    .sort((one, other) => (one.ts < other.ts ? -1 : 1));
  const names = Object.fromEntries(Object.entries(state.workspace.users).map(([id, user]) => [id, user.name]));
  const context = { ...state, names, replies: repliesOf(messages) };
  return [drawChannels(state, channel), drawChannel(context, channel, messages), drawThread(context, messages)];
}

function repliesOf(messages) {
  const found = new Map();
  for (const one of messages) {
    if (one.thread_ts && one.visible_to === null) found.set(one.thread_ts, [...(found.get(one.thread_ts) ?? []), one]);
  }
  return found;
}

function drawChannels(state, current) {
  const bot = state.workspace.users[state.workspace.bot];
  const entry = (id, target, sign, name) =>
    h("li", {}, h("button", {
      type: "button", class: id === current ? "channel current" : "channel", "aria-current": id === current ? "true" : null,
      "data-do": "channel", "data-channel": target, "data-testid": `channel-${name.toLowerCase()}`,
    }, h("span", { class: "sign", "aria-hidden": "true" }, sign), name, state.unread.has(id) ? h("span", { class: "unread", role: "img", "aria-label": "new messages" }) : null));
  const open = state.workspace.channels.filter((one) => one.kind !== "im");
  const direct = state.workspace.channels.find((one) => one.kind === "im" && one.members.includes(state.me));
  return h("nav", { class: "channels", "aria-label": "Slack channels" },
    h("h2", {}, state.workspace.name),
    h("h3", {}, "Channels"),
    h("ul", {}, open.map((one) => entry(one.id, one.id, "#", one.name))),
    h("h3", {}, "Direct messages"),
    h("ul", {}, direct ? entry(direct.id, "dm", "●", bot.name) : null));
}

function drawChannel(context, channel, messages) {
  const about = context.workspace.channels.find((one) => one.id === channel);
  const title = about.kind === "im" ? context.names[context.workspace.bot] : `#${about.name}`;
  const roots = messages.filter((one) => one.thread_ts === null || one.subtype === "thread_broadcast");
  return h("section", { class: "conversation", "aria-label": `Slack, ${title}`, "data-key": channel },
    h("header", {}, h("h2", {}, title)),
    h("ol", { class: "messages", "data-scroll": "end", "data-testid": "messages", tabindex: "0", "aria-label": `Messages in ${title}` },
      roots.length ? roots.map((one) => drawMessage(context, one, true)) : h("li", { class: "empty" }, "Nobody has written anything yet. Mention @sandpiper, or take an example below.")),
    drawComposer("channel", title));
}

function drawThread(context, messages) {
  const root = messages.find((one) => one.ts === context.place.thread);
  if (!root) return h("section", { class: "thread", hidden: true, "data-key": "none" });
  const said = messages.filter((one) => one === root || one.thread_ts === root.ts);
  return h("section", { class: "conversation thread", "aria-label": "Thread", "data-testid": "thread", "data-key": root.ts },
    h("header", {}, h("h2", {}, "Thread"), h("button", { type: "button", class: "close", "data-do": "close-thread", "data-testid": "close-thread", "aria-label": "Close the thread" }, "×")),
    h("ol", { class: "messages", "data-scroll": "end", "data-testid": "thread-messages", tabindex: "0", "aria-label": "Messages in the thread" }, said.map((one) => drawMessage(context, one, false))),
    drawComposer("thread", "thread"));
}

function drawComposer(kind, title) {
  const label = kind === "thread" ? "Reply in the thread" : `Message ${title}`;
  return h("div", { class: "composer" },
    h("div", { class: "examples", role: "group", "aria-label": "Examples" }, EXAMPLES[kind].map((words, index) =>
      h("button", { type: "button", class: "example", "data-do": "example", "data-in": kind, "data-words": words, "data-testid": `example-${kind}-${index}`, title: "Send this" }, words))),
    h("div", { class: "write" },
      h("textarea", { rows: "2", id: `write-${kind}`, "data-enter": `send-${kind}`, "data-testid": `composer-${kind}`, placeholder: kind === "thread" ? "Reply, to steer" : `${label}, or /sandpiper …`, "aria-label": `${label}. Enter sends, Shift and Enter begins a new line.` }),
      h("button", { type: "button", class: "button primary", "data-do": `send-${kind}`, "data-testid": `send-${kind}` }, "Send")));
}

function drawMessage(context, message, inChannel) {
  const user = context.workspace.users[message.user] ?? { name: "Slack", login: "slack", is_bot: true };
  const body = message.blocks.length ? drawBlocks(message, context.names) : mrkdwn(message.text, context.names);
  const replies = inChannel ? context.replies.get(message.ts) : null;
  return h("li", { class: message.visible_to ? "message ephemeral" : "message", "data-key": message.ts, "data-ts": message.ts, "data-testid": "message", "data-by": user.login },
    h("span", { class: `avatar ${user.login}`, "aria-hidden": "true" }, user.name.slice(0, 1)),
    h("div", { class: "body" },
      message.visible_to ? h("p", { class: "only" }, "Only visible to you") : null,
      h("p", { class: "by" }, h("strong", {}, user.name), user.is_bot ? h("span", { class: "badge" }, "app") : null, h("time", {}, clock(Number(message.ts)))),
      h("div", { class: "said" }, body, message.edited && !user.is_bot ? h("span", { class: "soft" }, " (edited)") : null),
      message.files.map(drawFile),
      drawReactions(message.reactions),
      inChannel && message.visible_to === null ? drawReplies(message, replies ?? []) : null));
}

function drawFile(file) {
  const url = `/playground/files/${file.id}`;
  return h("figure", { class: "file", "data-testid": "file" },
    file.picture ? h("img", { src: url, alt: file.name, loading: "lazy" }) : null,
    h("figcaption", {}, h("strong", {}, file.name), h("span", { class: "soft" }, sizeOf(file.size)),
      h("a", { href: `${url}?save`, download: file.name, "data-testid": "save-file" }, "Download")));
}

function sizeOf(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 999500 ? `${Math.round(bytes / 1000)} KB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export function drawReactions(reactions) {
  const entries = Object.entries(reactions);
  if (!entries.length) return null;
  return h("div", { class: "reactions" }, entries.map(([name, users]) =>
    h("span", { class: "reaction", "data-testid": `reaction-${name}`, title: name.replaceAll("_", " ") }, emoji(name), " ", users.length)));
}

function drawReplies(message, replies) {
  const words = replies.length
    ? [h("strong", {}, `${replies.length} ${replies.length === 1 ? "reply" : "replies"}`), h("span", { class: "soft" }, `last at ${clock(Number(replies.at(-1).ts))}`)]
    : "Reply";
  return h("button", { type: "button", class: replies.length ? "replies" : "replies none", "data-do": "thread", "data-ts": message.ts, "data-testid": "open-thread" }, words);
}
