// Slack's mrkdwn and GitHub's markdown as elements.

import { h, link } from "./dom.js";

const EMOJI = {
  eyes: "👀", hourglass_flowing_sand: "⏳", white_check_mark: "✅", wastebasket: "🗑️", no_entry_sign: "🚫",
  "+1": "👍", "-1": "👎", laugh: "😄", confused: "😕", heart: "❤️", hooray: "🎉", rocket: "🚀", tada: "🎉",
  warning: "⚠️", x: "❌",
};

export const emoji = (name) => EMOJI[name] ?? `:${name}:`;

const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

// Each rule: a pattern that is looked for everywhere, and what it becomes; the earliest match wins.
function inline(text, rules, plain) {
  const parts = [];
  let rest = text;
  while (rest) {
    let best = null;
    for (const [pattern, make] of rules) {
      const found = pattern.exec(rest);
      if (found && (best === null || found.index < best.found.index)) best = { found, make };
    }
    if (best === null) break;
    const { found, make } = best;
    const made = make(found);
    if (found.index) parts.push(plain(rest.slice(0, found.index)));
    parts.push(made ?? plain(found[0]));
    rest = rest.slice(found.index + found[0].length);
  }
  if (rest) parts.push(plain(rest));
  return parts;
}

// Slack: `names` gives the users' names by id.

export function mrkdwn(text, names) {
  const blocks = [];
  text.split(/```\n?([\s\S]*?)\n?```/).forEach((piece, index) => {
    if (index % 2) blocks.push(h("pre", {}, unescaped(piece)));
    else if (piece.trim()) blocks.push(...quotes(piece.replace(/^\n+|\n+$/g, ""), names));
  });
  return blocks;
}

function quotes(text, names) {
  const blocks = [];
  for (const line of text.split("\n")) {
    const quoted = line.startsWith("&gt;");
    const tag = quoted ? "BLOCKQUOTE" : "P";
    const words = spans(quoted ? line.replace(/^&gt; ?/, "") : line, names);
    const last = blocks.at(-1);
    if (last?.nodeName === tag) last.append(h("br"), ...words);
    else blocks.push(h(tag.toLowerCase(), {}, words));
  }
  return blocks;
}

function spans(text, names) {
  const inner = (found) => spans(found[1], names);
  return inline(
    text,
    [
      [/`([^`\n]+)`/, (found) => h("code", {}, unescaped(found[1]))],
      [/<@(\w+)(?:\|[^<>]*)?>/, (found) => mention(names[found[1]] ?? found[1])],
      [/<#(\w+)(?:\|([^<>]*))?>/, (found) => mention(found[2] || found[1], "#")],
      [/<!(\w+)[^<>]*>/, (found) => mention(found[1])],
      [/<(https?:[^<>|]+)(?:\|([^<>]*))?>/, (found) => link(unescaped(found[1]), unescaped(found[2] || found[1]))],
      [/(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])/, (found) => h("strong", {}, inner(found))],
      [/(?<![\w_])_(?=\S)([^_\n]+?)(?<=\S)_(?![\w_])/, (found) => h("em", {}, inner(found))],
      [/(?<![\w~])~(?=\S)([^~\n]+?)(?<=\S)~(?![\w~])/, (found) => h("s", {}, inner(found))],
      [/:([a-z0-9_+-]+):/, (found) => (EMOJI[found[1]] ? EMOJI[found[1]] : null)],
    ],
    unescaped,
  );
}

export const mention = (name, sign = "@") => h("span", { class: "mention" }, sign + name);

// GitHub

const ITEM = /^(\s*)(?:[-*+]|(\d+)[.)])\s+(.*)$/;
const entities = (text) => unescaped(text).replaceAll("&quot;", '"').replaceAll("&#39;", "'");

// `home` is the repository's address, for #12.
export function markdown(text, home) {
  const lines = text.replace(/\r\n?/g, "\n").replace(/<!--[\s\S]*?(-->|$)/g, "").split("\n");
  return blocks(lines, home);
}

function blocks(lines, home) {
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^ {0,3}(`{3,}|~{3,})/.exec(line);
    const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
    if (!line.trim()) {
      at += 1;
    } else if (fence) {
      const end = lines.findIndex((other, index) => index > at && other.trim().startsWith(fence[1]));
      const stop = end < 0 ? lines.length : end;
      made.push(h("pre", {}, lines.slice(at + 1, stop).join("\n")));
      at = stop + 1;
    } else if (heading) {
      made.push(h(`h${Math.min(heading[1].length + 2, 6)}`, {}, styled(heading[2], home)));
      at += 1;
    } else if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) {
      made.push(h("hr"));
      at += 1;
    } else if (/^<details>/i.test(line.trim())) {
      const end = matching(lines, at);
      made.push(details(lines.slice(at, end + 1), home));
      at = end + 1;
    } else if (line.startsWith(">")) {
      const [quoted, next] = taken(lines, at, (other) => other.startsWith(">"));
      made.push(h("blockquote", {}, blocks(quoted.map((other) => other.replace(/^> ?/, "")), home)));
      at = next;
    } else if (ITEM.test(line)) {
      const [items, next] = taken(lines, at, (other) => ITEM.test(other) || /^\s{2,}\S/.test(other));
      made.push(list(items, home));
      at = next;
    } else {
      const plain = (other, index) => other.trim() && (index === at || !/^(#{1,6} |>|```|~~~|<\/?details|\s*[-*+] )/i.test(other));
      const [words, next] = taken(lines, at, plain);
      made.push(paragraph(words, home));
      at = next;
    }
  }
  return made;
}

function taken(lines, from, belongs) {
  let end = from;
  while (end < lines.length && belongs(lines[end], end)) end += 1;
  return [lines.slice(from, Math.max(end, from + 1)), Math.max(end, from + 1)];
}

function paragraph(lines, home) {
  const small = /^<sub>([\s\S]*)<\/sub>$/.exec(lines.join("\n"));
  const words = (small ? small[1].split("\n") : lines).map((line, index) => [index ? h("br") : null, styled(line.trim(), home)]);
  return h("p", { class: small ? "small" : null }, words);
}

function list(lines, home) {
  const first = ITEM.exec(lines[0]);
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= first[1].length) items.push({ text: item[3], inner: [] });
    else items.at(-1).inner.push(line.replace(new RegExp(`^\\s{0,${first[1].length + 2}}`), ""));
  }
  const drawn = items.map(({ text, inner }) => {
    const task = /^\[([ xX])\]\s+(.*)$/.exec(text);
    const box = task ? h("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": "done" }) : null;
    return h("li", { class: task ? "task-item" : null }, box, styled(task ? task[2] : text, home), blocks(inner, home));
  });
  return h(first[2] ? "ol" : "ul", {}, drawn);
}

function matching(lines, from) {
  let depth = 0;
  for (let at = from; at < lines.length; at += 1) {
    depth += (lines[at].match(/<details>/gi) ?? []).length - (lines[at].match(/<\/details>/gi) ?? []).length;
    if (depth <= 0) return at;
  }
  return lines.length;
}

function details(lines, home) {
  const found = /^\s*<details>\s*(?:<summary>([\s\S]*?)<\/summary>)?([\s\S]*?)(?:<\/details>\s*)?$/i.exec(lines.join("\n"));
  return h("details", {}, h("summary", {}, styled(found[1] ?? "Details", home)), blocks(found[2].split("\n"), home));
}

function styled(text, home) {
  const inner = (found) => styled(found[1] ?? found[2], home);
  return inline(
    text,
    [
      [/\\([!-/:-@[-`{-~])/, (found) => found[1]],
      [/(`+)(.+?)\1(?!`)/, (found) => h("code", {}, found[2].replace(/^ (.*) $/, "$1"))],
      [/(?<!!)\[((?:[^\[\]\\]|\\.)*)\]\((\S+?)(?:\s+"[^"]*")?\)/, (found) => link(found[2], styled(found[1], home))],
      [/\*\*(?=\S)(.+?)(?<=\S)\*\*|(?<!\w)__(?=\S)(.+?)(?<=\S)__(?!\w)/, (found) => h("strong", {}, inner(found))],
      [/(?<![\w*])\*(?=[^\s*])([^*]+?)(?<=\S)\*(?!\w)|(?<!\w)_(?=[^\s_])([^_]+?)(?<=\S)_(?!\w)/, (found) => h("em", {}, inner(found))],
      [/~~(?=\S)(.+?)(?<=\S)~~/, (found) => h("s", {}, inner(found))],
      [/https?:\/\/[^\s<>()]*[^\s<>().,;:!?'"]/, (found) => link(found[0], found[0])],
      [/(?<![\w&/])#(\d{1,7})\b/, (found) => link(`${home}/issues/${found[1]}`, found[0])],
      [/(?<![\w@/])@([A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)/, (found) => mention(found[1])],
    ],
    entities,
  );
}
