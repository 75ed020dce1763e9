// Elements from words alone: nothing here reads HTML, so nothing that people or agents wrote becomes markup.

export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    node.setAttribute(name === "class" ? "class" : name, value === true ? "" : String(value));
  }
  node.append(...nodes(children));
  return node;
}

// Children as they are written down: lists in lists, words, and what is left out.
function nodes(children) {
  const kept = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return kept.map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

// Change `old` into `wanted` with as few steps as possible: focus, scrolling, half-typed words, opened
// <details> and running animations stay. Two elements with different data-key are never the same one.
export function morph(old, wanted) {
  if (old.nodeName !== wanted.nodeName || old.dataset?.key !== wanted.dataset?.key) {
    old.replaceWith(wanted);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.nodeValue !== wanted.nodeValue) old.nodeValue = wanted.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, [...wanted.childNodes]);
}

export function morphChildren(parent, children) {
  const old = [...parent.childNodes];
  const wanted = nodes(children);
  wanted.forEach((child, index) => {
    if (index < old.length) morph(old[index], child);
    else parent.append(child);
  });
  old.slice(wanted.length).forEach((child) => child.remove());
}

// A link that leads where it says and nowhere else; null for anything but the web.
export function link(url, ...label) {
  let target;
  try {
    target = new URL(url, location.href);
  } catch {
    return null;
  }
  if (target.protocol !== "http:" && target.protocol !== "https:") return null;
  const inside = isHere(target);
  const props = inside ? { href: target.pathname, "data-do": "go" } : { href: target.href, target: "_blank", rel: "noopener noreferrer" };
  return h("a", props, ...label);
}

// The page may have been opened as localhost, while the simulators call themselves 127.0.0.1.
function isHere(target) {
  const loopback = ["127.0.0.1", "localhost", "[::1]"];
  return target.port === location.port && loopback.includes(target.hostname) && loopback.includes(location.hostname);
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
