"""What the scripted agent changes in a repository, for what it was told. Standard library only, Python 3.9+.

In (stdin):  {"said": [[who, words], …], "earlier": [[who, words], …] (in turns before), "base": "a commit",
              "context": "what others wrote"}
Out:         {"subject", "files": {path: new text}, "points": […], "read": […], "search", "answer"}

It knows functions that greet (without a name, in other languages, saying goodbye) and that make slugs
(punctuation, accents, a length), other names ("call it welcome") and tabs. What it does not understand it
writes down where the change is. The same words give the same change, worked out from the files of `base`.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from typing import NamedTuple

# language → code, hello, goodbye
LANGUAGES = {
    "german": ("de", "Hallo", "Auf Wiedersehen"),
    "french": ("fr", "Bonjour", "Au revoir"),
    "spanish": ("es", "Hola", "Adiós"),
    "italian": ("it", "Ciao", "Arrivederci"),
    "dutch": ("nl", "Hallo", "Tot ziens"),
    "portuguese": ("pt", "Olá", "Adeus"),
    "swedish": ("sv", "Hej", "Hej då"),
    "polish": ("pl", "Cześć", "Do widzenia"),
    "japanese": ("ja", "こんにちは", "さようなら"),
}
ENGLISH = ("en", "Hello", "Goodbye")

FAREWELL = re.compile(r"\b(farewell|good-?bye|bye)\b", re.I)
DOING = re.compile(
    r"\b(add|also|call|change|create|fix|give|implement|make|rename|say|teach|use|write)\b", re.I
)
NAMED = re.compile(
    r"\b(?:call|name|rename) (?:it|this|that|the function)(?: to| as)?:? [`'\"“]?([A-Za-z_]\w*)", re.I
)

# What can be wished of greetings, of slugs and of anything
GREETING_WISHES = {"nobody": r"\b(nobody|anonymous|empty|blank|no name|without (a |their )?name|nameless)\b"}
SLUG_WISHES = {
    "punctuation": r"punctuation|apostrophe|special character|symbol|question mark",
    "accents": r"accent|umlaut|diacritic|unicode|non-ascii",
    "length": r"max(imum)?[ _]length|too long|shorten|truncat|limit|at most",
}
ANY_WISHES = {"tabs": r"\btabs?\b"}

# wish → what it is, the test's name, the arguments that show it, and what they give
SHOWN = {
    "nobody": ("greet visitors without a name", "says_hello_to_nobody_in_particular", '""', "Hello!"),
    "punctuation": (
        "leave punctuation out of slugs",
        "punctuation_is_left_out",
        '"What\'s new?"',
        "whats-new",
    ),
    "accents": ("write slugs without accents", "accents_are_dropped", '"Crème brûlée"', "creme-brulee"),
    "length": ("cut slugs at a length", "a_length_can_be_given", '"a long title", max_length=7', "a-long"),
}


class Function(NamedTuple):
    path: str
    name: str
    argument: str
    first: int  # lines of its file, from 1
    last: int
    doc: str
    source: str

    @property
    def greets(self) -> bool:
        return bool(self.argument and re.search(r"greet|hello|welcome|farewell|goodbye", self.name))

    @property
    def parts(self) -> bool:
        return bool(FAREWELL.search(self.name))

    @property
    def slugs(self) -> bool:
        return bool(self.argument and "slug" in self.name)

    @property
    def module(self) -> str:
        return self.path[: -len(".py")].replace("/", ".")


class Repository:
    """The files of one commit."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.names = self._git("ls-tree", "-r", "--name-only", base).splitlines()
        python = [name for name in self.names if name.endswith(".py")]
        self.tests = [name for name in python if re.search(r"(^|/)(test_[^/]*|tests?/.*)\.py$", name)]
        self.functions = [one for name in python if name not in self.tests for one in self._functions(name)]
        self.readme = next((name for name in self.names if name.lower().startswith("readme")), "")

    def text(self, path: str) -> str:
        return self._git("show", f"{self.base}:{path}") if path in self.names else ""

    def _git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout

    def _functions(self, path: str) -> list[Function]:
        text = self.text(path)
        try:
            body = ast.parse(text).body
        except SyntaxError:
            return []
        found = []
        for node in body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                last = node.end_lineno or node.lineno
                source = "\n".join(text.splitlines()[node.lineno - 1 : last])
                argument = node.args.args[0].arg if node.args.args else ""
                doc = ast.get_docstring(node) or ""
                found.append(Function(path, node.name, argument, node.lineno, last, doc, source))
        return found


class Wishes:
    """What people want, as far as it is understood."""

    def __init__(self, repository: Repository) -> None:
        self.functions = repository.functions
        self.target: Function | None = None
        self.farewell = False
        self.flags: list[str] = []
        self.languages: list[str] = []
        self.name = ""
        self.notes: list[str] = []

    @property
    def empty(self) -> bool:
        return not (self.farewell or self.flags or self.languages or self.name)

    def hear(self, who: str, words: str) -> None:
        before = (self.farewell, len(self.flags), len(self.languages), self.name)
        self.target = self.target or self._meant(words)
        if FAREWELL.search(NAMED.sub("", words)) and not (self.target and self.target.parts):
            self.farewell = True
            coined = re.search(r"\b([a-z_]\w*)\(", words)
            if coined and coined[1] not in [one.name for one in self.functions]:
                self.name = coined[1]
        greets = self.farewell or bool(self.target and self.target.greets)
        slugs = bool(self.target and self.target.slugs)
        known = {**ANY_WISHES, **(GREETING_WISHES if greets else {}), **(SLUG_WISHES if slugs else {})}
        for wish, pattern in known.items():
            if wish not in self.flags and re.search(pattern, words, re.I):
                self.flags.append(wish)
        spoken = [one for one in LANGUAGES if greets and one in words.lower()]
        self.languages += [one for one in spoken if one not in self.languages]
        named = NAMED.search(words)
        self.name = named[1] if named else self.name
        if before == (self.farewell, len(self.flags), len(self.languages), self.name):
            self.notes.append(f"{who}: {words}" if who else words)

    def _meant(self, words: str) -> Function | None:
        """The function that the words name, else one of the kind that they are about."""
        named = [one for one in self.functions if re.search(rf"\b{re.escape(one.name)}\b", words)]
        named += [
            one for one in self.functions if one.greets and re.search(r"greet|hello|welcome", words, re.I)
        ]
        named += [one for one in self.functions if one.slugs and re.search(r"slug|address|url", words, re.I)]
        return named[0] if named else None


# Source text


def docstring(doc: str) -> list[str]:
    lines = doc.replace("\\", "\\\\").replace('"""', "'''").splitlines()
    if len(lines) == 1:
        return [f'    """{lines[0]}"""']
    return ['    """' + lines[0], *(f"    {line}".rstrip() for line in lines[1:]), '    """']


def greeting(
    name: str, argument: str, doc: str, table: str, words: dict[str, str], nobody: bool
) -> list[str]:
    """A function that greets, in several languages when there is more than one word for it."""
    many = len(words) > 1
    given = f'{argument}: str = ""' if nobody else f"{argument}: str"
    head = f'def {name}({given}, language: str = "en") -> str:' if many else f"def {name}({given}) -> str:"
    choice = [f'    words = {table}.get(language, {table}["en"])'] if many else []
    said = "{words}" if many else words["en"]
    full, bare = f'f"{said}, {{{argument}}}!"', f'f"{said}!"' if many else f'"{said}!"'
    answer = f"    return {full} if {argument}.strip() else {bare}" if nobody else f"    return {full}"
    return [head, *docstring(doc), *choice, answer]


def slug(name: str, function: Function, doc: str, wishes: Wishes) -> list[str]:
    had, argument = function.source, function.argument
    length = "length" in wishes.flags or "max_length" in had
    lines = [
        f"def {name}({argument}: str{', max_length: int = 0' if length else ''}) -> str:",
        *docstring(doc),
    ]
    lines.append(f"    text = {argument}.lower()")
    if "accents" in wishes.flags or "unicodedata" in had:
        lines.append('    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()')
    if "punctuation" in wishes.flags or "re.sub" in had:
        lines.append('    text = re.sub(r"[^\\w\\s-]", "", text)')
    if not length:
        return [*lines, '    return "-".join(text.split())']
    cut = '    return slug[:max_length].rstrip("-") if max_length else slug'
    return [*lines, '    slug = "-".join(text.split())', cut]


def table_lines(table: str, words: dict[str, str]) -> list[str]:
    rows = [f'    "{code}": "{word}",' for code, word in words.items()]
    return [f"{table} = {{", *rows, "}", "", ""] if len(words) > 1 else []


def tabbed(lines: list[str]) -> list[str]:
    return [re.sub(r"^(?:    )+", lambda match: "\t" * (len(match[0]) // 4), line) for line in lines]


class Change:
    """The new texts of the files, the phrases that say what was done, and the checks that show it."""

    def __init__(self, repository: Repository, wishes: Wishes) -> None:
        self.repository = repository
        self.wishes = wishes
        self.files: dict[str, str] = {}
        self.phrases: list[str] = []
        self.checks: list[tuple[str, str, str]] = []  # the test's name, a call, what it gives
        target = wishes.target
        home = target or next((one for one in repository.functions if one.greets), None)
        if wishes.farewell and home:
            self._add_farewell(home)
        elif target and (wishes.notes or not wishes.empty):
            self._rework(target)
        else:
            self._write_down()

    def _doc(self, doc: str) -> str:
        """The docstring with what was asked and not understood, once."""
        notes = [f"As asked by {note}" if ": " in note else f"As asked: {note}" for note in self.wishes.notes]
        return "\n\n".join([doc, *(note for note in notes if note not in doc)])

    def _show(self, phrase: str, test: str, call: str, gives: str) -> None:
        """Something is done, unless an earlier turn did it and its test stands."""
        if not any(f"def test_{test}(" in self.repository.text(path) for path in self.repository.tests):
            self.phrases.append(phrase)
            self.checks.append((test, call, gives))

    def _words(self, goodbye: bool, text: str) -> tuple[str, dict[str, str], str]:
        """The table's name, the words of all languages, and the text without the table of an earlier turn."""
        table, column = ("FAREWELLS", 2) if goodbye else ("GREETINGS", 1)
        words = {"en": ENGLISH[column]}
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == table:
                words.update(ast.literal_eval(node.value))
                del lines[node.lineno - 1 : node.end_lineno]
        words.update({LANGUAGES[one][0]: LANGUAGES[one][column] for one in self.wishes.languages})
        return table, words, "\n".join(lines) + "\n"

    def _show_languages(self, name: str, column: int) -> None:
        for one in self.wishes.languages:
            call = f'{name}("Ana", "{LANGUAGES[one][0]}")'
            self._show(
                f"say it in {one.title()}", f"{name}_speaks_{one}", call, f"{LANGUAGES[one][column]}, Ana!"
            )

    def _add_farewell(self, home: Function) -> None:
        name = self.wishes.name or "farewell"
        self._show(f"add {name}()", f"{name}_says_goodbye", f'{name}("Ana")', "Goodbye, Ana!")
        self._show_languages(name, 2)
        table, words, text = self._words(True, self.repository.text(home.path))
        doc = self._doc("Say goodbye to a visitor.")
        body = greeting(name, home.argument, doc, table, words, "nobody" in self.wishes.flags)
        self._finish(home, name, [*text.splitlines(), "", ""], [*table_lines(table, words), *body], [])

    def _rework(self, target: Function) -> None:
        wishes, name = self.wishes, self.wishes.name or target.name
        text = self.repository.text(target.path)
        if target.greets and (set(wishes.flags) - {"tabs"} or wishes.languages):
            nobody = "nobody" in wishes.flags or " if " in target.source
            doc = self._doc(target.doc or "Say hello to a visitor.")
            table, words, text = self._words(target.parts, text)
            body = [*table_lines(table, words), *greeting(name, target.argument, doc, table, words, nobody)]
        elif target.slugs and set(wishes.flags) - {"tabs"}:
            body = slug(name, target, self._doc(target.doc or "The title as an address."), wishes)
        else:
            body = self._with_notes(target, name)
        for wish in wishes.flags:
            if wish in SHOWN:
                phrase, test, given, gives = SHOWN[wish]
                self._show(phrase, test, f"{name}({given})", gives)
        self._show_languages(name, 2 if target.parts else 1)
        if name != target.name:
            self.phrases.append(f"call {target.name}() {name}()")
            body += ["", "", f"{target.name} = {name}  # the old name, for those who call it"]
        if any(note not in target.doc for note in wishes.notes):
            self.phrases.append(f"note what was asked of {name}()")
        lines = text.splitlines()
        start, end = span(text, target.name)
        self._finish(target, name, lines[: start - 1], body, lines[end:])

    def _with_notes(self, target: Function, name: str) -> list[str]:
        """The function as it is, with its name and the notes in its docstring."""
        lines = re.sub(r"^def \w+", f"def {name}", target.source, count=1).splitlines()
        if not self.wishes.notes:
            return lines
        function = ast.parse(target.source).body[0]
        first = function.body[0] if isinstance(function, ast.FunctionDef) else function
        rest = first.end_lineno if target.doc else first.lineno - 1
        return [*lines[: first.lineno - 1], *docstring(self._doc(target.doc or f"{name}().")), *lines[rest:]]

    def _finish(self, home: Function, name: str, above: list[str], body: list[str], below: list[str]) -> None:
        if "tabs" in self.wishes.flags:
            body = tabbed(body)
            self.phrases.append("indent it with tabs")
        text = "\n".join([*above, *body, *below]) + "\n"
        for module in ("unicodedata", "re"):
            if f" {module}." in text and f"import {module}\n" not in text:
                text = with_import(text, module)
        self.files[home.path] = re.sub(r"\n{4,}", "\n\n\n", text)
        if self.checks:
            self._test(home, name)

    def _test(self, home: Function, name: str) -> None:
        """The checks as tests of the module, in the manner of those that it has."""
        file = "test_" + home.path.rsplit("/", 1)[-1]
        path = next((one for one in self.repository.tests if one.endswith(file)), "")
        if path:
            text = importing(self.repository.text(path), home.module, name)
        else:
            path = f"tests/{file}" if any(one.startswith("tests/") for one in self.repository.names) else file
            title = name.title().replace("_", "")
            head = ["import unittest", "", f"from {home.module} import {name}", "", ""]
            text = "\n".join([*head, f"class {title}Test(unittest.TestCase):", "    maxDiff = None"])
        lines = text.splitlines()
        classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
        if classes:
            indent = re.match(r"\s*", lines[classes[0].body[-1].lineno - 1])
            space = indent[0] if indent else "    "
            added = []
            for test, call, gives in self.checks:
                line = f"{space}    self.assertEqual({call}, {json.dumps(gives, ensure_ascii=False)})"
                added += ["", f"{space}def test_{test}(self) -> None:", line]
            lines[classes[0].end_lineno : classes[0].end_lineno] = added
        else:
            for test, call, gives in self.checks:
                line = f"    assert {call} == {json.dumps(gives, ensure_ascii=False)}"
                lines += ["", "", f"def test_{test}() -> None:", line]
        self.files[path] = "\n".join(lines) + "\n"

    def _write_down(self) -> None:
        """No code that this is about was found: a list of things to do is better than nothing."""
        path = self.repository.readme or "NOTES.md"
        text = self.repository.text(path).rstrip("\n")
        notes = [f"- {note}" for note in self.wishes.notes]
        self.files[path] = (
            "\n".join([*([text, ""] if text else []), f"## {self.wishes.name or 'To do'}", "", *notes]) + "\n"
        )
        self.phrases.append(f"write down in {path} what was asked for")


def span(text: str, name: str) -> tuple[int, int]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node.lineno, node.end_lineno or node.lineno
    raise ValueError(f"no function {name}")


def importing(text: str, module: str, name: str) -> str:
    """A test file's text with `name` imported."""
    line = re.search(rf"^from {re.escape(module)} import (.+)$", text, re.MULTILINE)
    if line is None:
        first = re.search(r"^(import|from) ", text, re.MULTILINE)
        at = first.start() if first else 0
        return f"{text[:at]}from {module} import {name}\n{text[at:]}"
    names = sorted({name, *(one.strip() for one in line[1].split(","))})
    return f"{text[: line.start()]}from {module} import {', '.join(names)}{text[line.end() :]}"


def with_import(text: str, module: str) -> str:
    tree = ast.parse(text)
    lines = text.splitlines()
    at = (tree.body[0].end_lineno or 0) if ast.get_docstring(tree) else 0
    if at < len(lines) and not lines[at].strip():
        at += 1
    following = lines[at] if at < len(lines) else ""
    lines[at:at] = [f"import {module}", *([] if following.startswith(("import", "from")) else ["", ""])]
    return "\n".join(lines) + "\n"


def explain(repository: Repository, words: str) -> str:
    named = [one for one in repository.functions if one.name in words] or repository.functions
    lines = [f"- `{one.module}.{one.name}({one.argument})`: {one.doc or 'no docstring'}" for one in named[:8]]
    return "\n".join(
        ["I changed nothing. This is what I found:", "", *(lines or ["- no functions in Python"])]
    )


def heard(wishes: Wishes, said: list[list[str]]) -> Wishes:
    for who, words in said:
        wishes.hear(who, words)
    return wishes


def main() -> None:
    given = json.load(sys.stdin)
    repository = Repository(given["base"])
    wishes = heard(Wishes(repository), given["said"])
    if wishes.target is None and not wishes.farewell and given["earlier"]:
        before = heard(Wishes(repository), given["earlier"])
        before.notes.clear()
        wishes = heard(before, given["said"])
    request = given["said"][0][1] if given["said"] else ""
    if wishes.empty and given["context"]:
        # What others wrote tells which of the things that we know is meant.
        meant = heard(Wishes(repository), [["", given["context"]]])
        if not meant.empty:
            meant.notes = wishes.notes[1:]
            wishes = meant
    asked = wishes.empty and request.rstrip().endswith("?") and not DOING.search(request)
    change = Change(repository, wishes)
    subject = ", ".join(dict.fromkeys(change.phrases))
    search = re.findall(r"[a-z_]{5,}", request.lower())
    known = [path for path in [repository.readme, *change.files] if path in repository.names]
    idea = {
        "subject": subject[:1].upper() + subject[1:],
        "files": {} if asked else change.files,
        "points": [f"`{call}` gives `{gives}`" for _, call, gives in change.checks],
        "read": list(dict.fromkeys(known)),
        "search": wishes.target.name if wishes.target else "|".join(dict.fromkeys(search[:3])) or "def ",
        "answer": explain(repository, request) if asked else "",
    }
    json.dump(idea, sys.stdout)


if __name__ == "__main__":
    main()
