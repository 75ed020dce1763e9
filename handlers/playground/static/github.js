// The right half: issues, pull requests and commits of one repository.

import { h } from "./dom.js";
import { drawDiff } from "./diff.js";
import { markdown } from "./markup.js";
import { drawReactions } from "./slack.js";

export const LABEL = "sandpiper";

export function drawGitHub(state, fetched) {
  const home = `/${state.repository.full_name}`;
  const [section = "issues", item = ""] = state.place.path.startsWith(home) ? state.place.path.slice(home.length + 1).split("/") : [];
  const issues = [...state.issues.values()].sort((one, other) => other.number - one.number);
  const context = { ...state, home, fetched };
  const known = state.issues.get(Number(item));
  const kind = { pulls: "pulls", pull: "pulls", commits: "commits", commit: "commits" }[section] ?? (known?.pull ? "pulls" : "issues");
  const page = item
    ? section === "commit" ? drawCommit(context, item) : known ? drawIssue(context, known) : h("p", { class: "soft" }, "There is nothing here.")
    : kind === "commits" ? drawCommits(context) : drawList(context, issues.filter((one) => (one.pull !== null) === (kind === "pulls")), kind);
  return [drawHead(context, issues, kind), h("div", { class: "page", "data-key": state.place.path, tabindex: "-1" }, page)];
}

function drawHead({ home, repository }, issues, kind) {
  const open = (pulls) => issues.filter((one) => one.state === "open" && (one.pull !== null) === pulls).length;
  const tab = (name, label, count) =>
    h("a", { href: `${home}/${name}`, "data-do": "go", "data-testid": `tab-${name}`, class: name === kind ? "tab current" : "tab", "aria-current": name === kind ? "page" : null },
      label, count ? h("span", { class: "count" }, count) : null);
  return h("header", { class: "repository" }, h("h2", {}, repository.full_name),
    h("nav", { class: "tabs", "aria-label": "GitHub repository" }, tab("issues", "Issues", open(false)), tab("pulls", "Pull requests", open(true)), tab("commits", "Commits", 0)));
}

// Lists

function drawList(context, issues, kind) {
  const rows = issues.map((one) =>
    h("li", { class: "row", "data-key": one.number },
      drawState(one, true),
      h("div", {},
        h("a", { class: "row-title", href: `${context.home}/${one.pull ? "pull" : "issues"}/${one.number}`, "data-do": "go", "data-testid": `issue-${one.number}` }, one.title),
        one.labels.map((label) => h("span", { class: "label" }, label)),
        h("p", { class: "soft" }, `#${one.number} by ${one.by}`, one.comments.length ? ` · ${count(one.comments.length, "comment")}` : ""))));
  const none = kind === "pulls" ? "There is no pull request yet. The bot opens one when its work is done." : "There is no issue yet.";
  return [rows.length ? h("ul", { class: "rows", "data-testid": "rows" }, rows) : h("p", { class: "empty" }, none), kind === "issues" ? drawNewIssue() : null];
}

function drawNewIssue() {
  return h("section", { class: "box new", "aria-label": "New issue" },
    h("h3", {}, "New issue"),
    h("label", { for: "new-title" }, "Title"),
    h("input", { id: "new-title", type: "text", maxlength: "256", autocomplete: "off", "data-enter": "open-issue", "data-testid": "new-title" }),
    h("label", { for: "new-body" }, "Description"),
    h("textarea", { id: "new-body", rows: "3", "data-enter": "open-issue", "data-testid": "new-body" }),
    h("div", { class: "actions" }, h("button", { type: "button", class: "button primary", "data-do": "open-issue", "data-testid": "open-issue" }, "Open issue")));
}

function drawState(one, small) {
  const [kind, word] = one.pull?.merged_by ? ["merged", "Merged"] : one.state === "closed" ? ["closed", "Closed"] : one.pull?.draft ? ["draft", "Draft"] : ["open", "Open"];
  return small ? h("span", { class: `dot ${kind}`, role: "img", "aria-label": word }) : h("span", { class: `state ${kind}`, "data-testid": "state" }, word);
}

// One issue or pull request

function drawIssue(context, one) {
  const { pull } = one;
  const about = pull
    ? [h("strong", {}, one.by), " wants to merge ", count(pull.commits, "commit"), " into ", h("code", {}, pull.base), " from ", h("code", {}, pull.head)]
    : [h("strong", {}, one.by), ` opened this on ${date(one.created_at)}`];
  return h("article", { class: "issue", "data-testid": "issue-page" },
    h("h3", { class: "issue-title", "data-testid": "issue-title" }, one.title, h("span", { class: "soft" }, ` #${one.number}`)),
    h("p", { class: "about" }, drawState(one, false), h("span", {}, about)),
    drawLabels(one),
    drawComment(context, { by: one.by, body: one.body || "*No description.*", created_at: one.created_at, reactions: one.reactions }),
    one.comments.map((comment) => drawComment(context, comment)),
    pull ? drawPull(context, one) : null,
    drawAnswer(one));
}

function drawLabels(one) {
  const on = one.labels.map((label) =>
    h("span", { class: "label" }, label, h("button", { type: "button", "data-do": "unlabel", "data-number": one.number, "data-label": label, "data-testid": `unlabel-${label}`, "aria-label": `Remove the label ${label}` }, "×")));
  const add = one.labels.includes(LABEL) ? null
    : h("button", { type: "button", class: "button small", "data-do": "label", "data-number": one.number, "data-label": LABEL, "data-testid": `label-${LABEL}` }, `Add label “${LABEL}”`);
  return h("div", { class: "labels", "aria-label": "Labels", role: "group" }, on, add);
}

function drawComment({ home }, comment) {
  const bot = comment.by.endsWith("[bot]");
  return h("section", { class: "box comment", "data-key": comment.id ?? "body", "data-testid": "comment", "data-by": comment.by },
    h("header", {}, h("strong", {}, comment.by.replace("[bot]", "")), bot ? h("span", { class: "badge" }, "bot") : null, h("time", {}, time(comment.created_at))),
    h("div", { class: "markdown" }, markdown(comment.body, home)),
    drawReactions(comment.reactions));
}

function drawAnswer(one) {
  const merged = one.pull?.merged_by;
  return h("section", { class: "answer", "data-key": `answer-${one.number}` },
    h("label", { for: "comment" }, "Comment"),
    h("textarea", { id: "comment", rows: "3", "data-enter": "comment", "data-number": one.number, "data-testid": "comment-text", placeholder: "Enter sends, Shift+Enter begins a new line" }),
    h("div", { class: "actions" },
      one.state === "open" ? h("button", { type: "button", class: "button", "data-do": "close", "data-number": one.number, "data-testid": "close" }, one.pull ? "Close pull request" : "Close issue") : null,
      h("button", { type: "button", class: "button primary", "data-do": "comment", "data-number": one.number, "data-testid": "send-comment" }, "Comment")),
    merged ? h("p", { class: "soft" }, `Merged by ${merged}.`) : null);
}

function drawPull(context, one) {
  const { pull } = one;
  const found = context.fetched(`pulls/${one.number}`, `${pull.head_sha}/${context.pushed}/${pull.merged_by}`);
  const merge = one.state === "open"
    ? h("section", { class: "box merge" }, h("p", {}, "This really merges, in a git repository on this machine."),
        h("button", { type: "button", class: "button go", "data-do": "merge", "data-number": one.number, "data-testid": "merge" }, "Merge pull request"))
    : null;
  return [
    h("h4", { class: "changes", "data-testid": "changes" }, count(pull.files, "changed file"), h("span", { class: "counts" }, h("span", { class: "added" }, `+${pull.additions}`), " ", h("span", { class: "removed" }, `−${pull.deletions}`))),
    found ? h("div", { "data-testid": "diff" }, drawDiff(found.diff)) : h("p", { class: "soft" }, "Reading the changes …"),
    found?.commits.length ? [h("h4", {}, count(found.commits.length, "commit")), drawCommitRows(context, found.commits)] : null,
    merge,
  ];
}

// Commits

function drawCommits(context) {
  const found = context.fetched("commits", `${context.pushed}`);
  return found ? [h("p", { class: "soft" }, "On ", h("code", {}, context.repository.default_branch)), drawCommitRows(context, found.commits)] : h("p", { class: "soft" }, "Reading the commits …");
}

function drawCommitRows({ home }, commits) {
  return h("ul", { class: "rows", "data-testid": "commits" }, commits.map((one) =>
    h("li", { class: "row", "data-key": one.sha },
      h("div", {}, h("a", { class: "row-title", href: `${home}/commit/${one.sha}`, "data-do": "go" }, one.message.split("\n")[0]),
        h("p", { class: "soft" }, h("code", {}, one.sha.slice(0, 7)), ` ${one.author} · ${time(one.at)}`)))));
}

function drawCommit(context, sha) {
  const found = context.fetched(`commits/${sha}`, "");
  if (!found) return h("p", { class: "soft" }, "Reading the commit …");
  if (found.error) return h("p", { class: "soft" }, found.error);
  return [h("h3", {}, found.message.split("\n")[0]), h("p", { class: "soft" }, h("code", {}, found.sha.slice(0, 7)), ` by ${found.author}`),
    found.message.includes("\n") ? h("pre", {}, found.message.split("\n").slice(1).join("\n").trim()) : null, drawDiff(found.diff)];
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const date = (text) => new Date(text).toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
const time = (text) => new Date(text).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
