// What is known, what is looked at, and what people do. The server tells of every change; nobody polls.

import { h, morphChildren } from "./dom.js";
import { channelOf, drawSlack } from "./slack.js";
import { drawGitHub } from "./github.js";

const state = {
  workspace: null, repository: null, bot: null, pushed: 0,
  messages: new Map(), issues: new Map(),
  me: "U_ANA", place: { channel: "C_DEV", thread: "", path: "" }, unread: new Set(), connected: false,
};
const element = (id) => document.getElementById(id);

// News from the server

const news = new EventSource("/playground/events");
news.onopen = () => show({ connected: true });
news.onerror = () => show({ connected: false });
news.onmessage = ({ data }) => {
  const { first, set, gone } = JSON.parse(data);
  if (first) {
    state.messages.clear();
    state.issues.clear();
  }
  for (const [name, value] of Object.entries(set)) learn(name, value, first);
  for (const name of gone) learn(name, undefined, false);
  draw();
};

function learn(name, value, first) {
  const [kind, ...key] = name.split("/");
  if (kind === "message") learnMessage(key.join("/"), value, first);
  else if (kind === "issue") value ? state.issues.set(Number(key[0]), value) : state.issues.delete(Number(key[0]));
  else state[kind] = value;
}

function learnMessage(key, message, first) {
  if (!message) {
    state.messages.delete(key);
    return;
  }
  const isNew = !state.messages.has(key) && !first;
  state.messages.set(key, message);
  const mine = message.user === state.me;
  if (!isNew || mine || (message.visible_to && message.visible_to !== state.me)) return;
  const name = state.workspace.users[message.user]?.name ?? "Slack";
  element("announcer").textContent = `${name}: ${message.text.slice(0, 200)}`;
  if (message.channel !== channelOf(state)) state.unread.add(message.channel);
  if (follow && message.user === state.workspace.bot && !message.thread_ts && !message.visible_to && message.channel === channelOf(state)) {
    follow = false;
    go({ thread: message.ts });
  }
}

// A slash command's thread hangs below a message of the bot's; whoever gave the command wants to see it.
let follow = false;

// Where we are: GitHub's part is the path, Slack's is behind the #.

function readPlace() {
  const [channel, thread = ""] = location.hash.slice(1).split("/");
  Object.assign(state.place, { path: "" }, channel ? { channel, thread } : {}, placeOf(location.pathname));
}

// A path of ours is a page of GitHub's, or a permalink of Slack's.
function placeOf(path) {
  const archive = /^\/slack\/archives\/(\w+)(?:\/p(\d+)(\d{6}))?$/.exec(path);
  if (archive) return { channel: archive[1], thread: archive[2] ? `${archive[2]}.${archive[3]}` : "" };
  return path === "/" ? {} : { path };
}

function go(to) {
  Object.assign(state.place, to);
  const { path, channel, thread } = state.place;
  history.pushState(null, "", `${path || "/"}#${channel}${thread ? `/${thread}` : ""}`);
  draw();
}

addEventListener("popstate", () => {
  readPlace();
  draw();
});

// Pull requests' diffs and commits are asked for when they are looked at, and again when they moved.

const pages = new Map();

function fetched(path, version) {
  const known = pages.get(path) ?? {};
  if (known.version !== version) {
    pages.set(path, { version, value: known.value });
    fetch(`/playground/${path}`)
      .then((answer) => answer.json())
      .then((value) => {
        if (pages.get(path).version === version) pages.set(path, { version, value });
        draw();
      })
      .catch(() => pages.delete(path));
  }
  return known.value;
}

// Drawing

let drawing = false;

function draw() {
  if (drawing || !state.workspace || !state.repository) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const channel = channelOf(state);
    state.unread.delete(channel);
    keepingScroll(() => {
      morphChildren(element("slack"), drawSlack(state));
      morphChildren(element("github"), drawGitHub(state, fetched));
    });
    element("slack").classList.toggle("with-thread", document.querySelector(".thread:not([hidden])") !== null);
    drawTop();
  });
}

// Who reads at the end stays at the end.
function keepingScroll(change) {
  const ends = new Map();
  for (const one of document.querySelectorAll("[data-scroll=end]")) {
    ends.set(one, one.scrollHeight - one.scrollTop - one.clientHeight < 40);
  }
  change();
  for (const one of document.querySelectorAll("[data-scroll=end]")) {
    if (ends.get(one) ?? true) one.scrollTop = one.scrollHeight;
  }
}

function drawTop() {
  const people = Object.entries(state.workspace.users).filter(([, user]) => !user.is_bot);
  morphChildren(element("people"), people.map(([id, user]) =>
    h("label", { class: id === state.me ? "person current" : "person" },
      h("input", { type: "radio", name: "who", value: id, "data-testid": `speak-${user.login}`, checked: id === state.me }),
      user.name.split(" ")[0], user.permitted ? null : h("span", { class: "soft" }, "not permitted"))));
  const { bot } = state;
  const words = !state.connected ? "The playground has stopped" : !bot ? "No bot is attached"
    : { running: `Bot running, pid ${bot.pid}`, starting: "Bot is starting", waiting: "Bot is down, starts again soon", stopped: "Bot has stopped" }[bot.state];
  const looks = !state.connected || !bot ? "off" : bot.state;
  morphChildren(element("bot"), [
    h("span", { class: `lamp ${looks}`, "aria-hidden": "true" }),
    h("span", { "data-testid": "bot-state", "data-state": looks, "data-pid": bot?.pid, title: bot?.trouble }, words, bot?.restarts ? h("span", { class: "soft" }, ` · restarted ${bot.restarts}×`) : null),
    bot ? h("button", { type: "button", class: "button danger small", "data-do": "kill", "data-testid": "kill-bot", disabled: bot.state !== "running", title: "The agent lives on; the bot comes back and goes on where it was" }, "kill -9 the bot") : null,
  ]);
}

const show = (more) => {
  Object.assign(state, more);
  draw();
};

// Doing

const login = () => state.workspace.users[state.me].login;

async function act(action, fields) {
  try {
    const answer = await fetch(`/playground/do/${action}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ who: login(), ...fields }),
    });
    const made = await answer.json();
    if (answer.ok) return made;
    complain(made.error);
  } catch {
    complain("The playground does not answer. Start the demo again.");
  }
  return null;
}

let fading = 0;

function complain(words) {
  const toast = element("toast");
  toast.textContent = words;
  toast.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => { toast.hidden = true; }, 8000);
}

async function say(kind, text) {
  const words = text.trim();
  const channel = channelOf(state);
  if (!words) return false;
  if (words.startsWith("/")) {
    if (kind === "thread") {
      complain("Slack takes commands in the channel only, not in threads.");
      return false;
    }
    follow = true;
    return (await act("slash", { channel, text: words })) !== null;
  }
  const thread = kind === "thread" ? state.place.thread : "";
  const made = await act("post", { channel, text: words, thread });
  if (made && !thread && /(^|\s)@sandpiper\b/.test(words)) go({ thread: made.ts });
  return made !== null;
}

async function send(kind) {
  const field = element(`write-${kind}`);
  const text = field.value;
  field.value = "";
  if (!(await say(kind, text)) && !field.value) field.value = text;
}

async function comment(number) {
  const field = element("comment");
  const body = field.value;
  field.value = "";
  if (!(await act("comment", { number: Number(number), body })) && !field.value) field.value = body;
}

async function openIssue() {
  const title = element("new-title").value;
  const made = await act("open-issue", { title, body: element("new-body").value });
  if (made) go({ path: `/${state.repository.full_name}/issues/${made.number}` });
}

function press({ channel, ts, action, value, confirm: question }, event) {
  const url = event.target.closest("a")?.getAttribute("href");
  if (question && !confirm(question)) return;
  act("click", { channel, ts, action, value: value ?? "" });
  if (url?.startsWith("/")) go(placeOf(url));
}

const DO = {
  go: (data, event) => go(placeOf(event.target.closest("a").getAttribute("href"))),
  channel: ({ channel }) => go({ channel, thread: "" }),
  thread: ({ ts }) => {
    go({ thread: ts });
    requestAnimationFrame(() => element("write-thread")?.focus());
  },
  "close-thread": () => go({ thread: "" }),
  example: (data) => say(data.in, data.words),
  "send-channel": () => send("channel"),
  "send-thread": () => send("thread"),
  press,
  label: ({ number, label }) => act("label", { number: Number(number), label }),
  unlabel: ({ number, label }) => act("unlabel", { number: Number(number), label }),
  close: ({ number }) => act("close", { number: Number(number) }),
  merge: ({ number }) => act("merge", { number: Number(number) }),
  comment: ({ number }) => comment(number),
  "open-issue": openIssue,
  kill: () => act("kill-bot", {}),
};

addEventListener("click", (event) => {
  const target = event.target.closest("[data-do]");
  const opensElsewhere = target?.getAttribute("target") === "_blank" || event.ctrlKey || event.metaKey || event.shiftKey;
  if (!target || target.disabled) return;
  if (target.nodeName === "A" && !opensElsewhere) event.preventDefault();
  if (target.nodeName === "A" && opensElsewhere && target.dataset.do === "go") return;
  DO[target.dataset.do](target.dataset, event);
});

addEventListener("keydown", (event) => {
  const target = event.target.closest?.("[data-enter]");
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && target) {
    event.preventDefault();
    DO[target.dataset.enter](target.dataset, event);
  }
  if (event.key === "Escape" && event.target.closest?.(".thread")) go({ thread: "" });
});

addEventListener("change", (event) => {
  if (event.target.name === "who") show({ me: event.target.value });
});

readPlace();
