// A unified diff, file by file, with line numbers.

import { h } from "./dom.js";

const MOST_LINES = 4000;

export function drawDiff(diff) {
  const files = ("\n" + diff).split("\ndiff --git ").slice(1);
  if (!files.length) return h("p", { class: "soft" }, "Nothing has changed.");
  let room = MOST_LINES;
  return files.map((file) => {
    const lines = file.replace(/\n$/, "").split("\n");
    const shown = lines.slice(0, Math.max(room, 0));
    room -= shown.length;
    return drawFile(lines[0], shown, lines.length - shown.length);
  });
}

function drawFile(names, lines, hidden) {
  const start = lines.findIndex((line) => line.startsWith("@@"));
  const head = start < 0 ? lines : lines.slice(0, start);
  const body = start < 0 ? [] : lines.slice(start);
  const count = (sign) => body.filter((line) => line.startsWith(sign)).length;
  return h("section", { class: "file", "data-testid": "diff-file" },
    h("header", {}, h("code", {}, pathOf(names, head)), ...stateOf(head),
      h("span", { class: "counts" }, h("span", { class: "added" }, `+${count("+")}`), " ", h("span", { class: "removed" }, `−${count("-")}`))),
    h("div", { class: "diff", role: "group", "aria-label": "changed lines", tabindex: "0" }, h("div", { class: "diff-lines" }, rows(body))),
    hidden ? h("p", { class: "soft" }, `… and ${hidden} more lines`) : null);
}

function pathOf(names, head) {
  const named = (mark) => head.find((line) => line.startsWith(mark))?.slice(mark.length);
  const path = named("rename to ") ?? named("+++ b/") ?? named("--- a/");
  return path ?? names.replace(/^a\/.* b\//, "");
}

function stateOf(head) {
  const words = { "new file": "new", "deleted file": "deleted", "rename from": "renamed", "Binary files": "binary" };
  return Object.entries(words).filter(([mark]) => head.some((line) => line.startsWith(mark))).map(([, word]) => h("span", { class: "badge" }, word));
}

function rows(lines) {
  let before = 0;
  let after = 0;
  return lines.map((line) => {
    const hunk = /^@@ -(\d+)(?:,\d+)? \+(\d+)/.exec(line);
    if (hunk) {
      before = Number(hunk[1]);
      after = Number(hunk[2]);
      return row("hunk", "", "", line);
    }
    if (line.startsWith("+")) return row("plus", "", after++, line);
    if (line.startsWith("-")) return row("minus", before++, "", line);
    if (line.startsWith("\\")) return row("note", "", "", line);
    return row("same", before++, after++, line);
  });
}

function row(kind, before, after, line) {
  return h("div", { class: `line ${kind}` },
    h("span", { class: "no", "data-no": before }), h("span", { class: "no", "data-no": after }), h("span", { class: "words" }, line));
}
