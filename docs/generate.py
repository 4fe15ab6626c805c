"""Fills the generated parts of the pages: `python docs/generate.py` after a change of the language, a node or a code;
with `--picture`, draws the README's picture anew.

A part stands between `<!-- generated: NAME WORDS -->` and `<!-- end -->`; whatever is around it is written by hand.
"""

from __future__ import annotations

import re
import runpy
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
from pydantic_core import PydanticUndefined

from runner import api, describe
from runner.cli import group
from runner.codes import Code, codes, shop
from runner.examples import example
from runner.jsonschema import declarations, key_sentences
from runner.nodes import BUILT_IN_KINDS, MODEL_KINDS
from runner.nodes.base import Kind
from schemas.base import Duration, Number, Switch, Whole
from schemas.nodes import NOTHING
from schemas.shapes import ModelShape

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- generated: (?P<name>\w+)(?P<words>[^>]*?) -->\n).*?(<!-- end -->)", re.S)


def render(page: str) -> str:
    """The page with every generated part as it is now."""
    return PART.sub(lambda found: f"{found[1]}{PARTS[found['name']](*found['words'].split())}\n{found[4]}", page)


def keys(name: str) -> str:
    """The keys of a declaration: what each takes, its default and its meaning."""
    declaration = declarations()[name]
    sentences = key_sentences(declaration)
    lines = ["| key | takes | default | |", "|---|---|---|---|"]
    for attribute, field in declaration.model_fields.items():
        key = field.alias or attribute
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        lines.append(f"| `{key}` | {_taken(declaration, attribute)} | {default} | {sentences[key]} |")
    return "\n".join(lines)


_WORDS: Mapping[object, str] = {
    Duration: "duration", Switch: "`true` or `false`", Whole: "whole number", Number: "number", str: "text",
    bool: "`true` or `false`", int: "whole number", float: "number", object: "value",
}  # fmt: skip


def _taken(declaration: type, attribute: str) -> str:
    hint = typing.get_type_hints(declaration, include_extras=True)[attribute]
    return " or ".join(dict.fromkeys(_word(hint)))


def _word(hint: object) -> Iterator[str]:
    """What a value looks like, in words, for each alternative of a type."""
    if isinstance(hint, typing.Hashable) and hint in _WORDS:
        yield _WORDS[hint]
        return
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        yield from _word(inside[0])
    elif origin is typing.Literal:
        yield ", ".join(f"`{word}`" for word in inside)
    elif origin is tuple:
        yield f"list of {' or '.join(_word(inside[0]))}"
    elif origin is dict:
        yield f"mapping of {' or '.join(_word(inside[1]))}"
    elif inside:
        for each in inside:
            if each is not type(None):
                yield from _word(each)
    else:
        name = getattr(hint, "__name__", str(hint)).removesuffix("Declaration")
        yield {"timedelta": "duration", "Value": "type", "Record": "mapping of types"}.get(name, f"*{name.lower()}*")


def _default(value: object) -> str:
    if value is PydanticUndefined or value is None or value == "" or value == {} or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if isinstance(value, (str, int, float)) else ""


def operators(name: str) -> str:
    """The operators of a small language, in one line."""
    from schemas import aggregates, filters, updates

    words = {"filters": filters, "updates": updates, "aggregates": aggregates}[name].OPERATORS
    return ", ".join(f"`{word}`" for word in words)


def sql(name: str) -> str:
    """The operators of a small language with examples and their SQL; `querysql.py` lies beside this file."""
    found = runpy.run_path(str(DOCS / "querysql.py"))["sql"](name)
    assert isinstance(found, str)
    return found


def nodes() -> str:
    """Every node with its ports, what it gives and an example, on the models of the example project."""
    models = api.load_catalog(DOCS.parent / "models.yaml").models
    told = ["## Nodes of every model", ""]
    for name, kind in MODEL_KINDS.items():
        shown = "Customer" if name in ("upsert", "bulk_upsert") else "Order"
        told += _node(f"{shown}.{name}", kind, models[shown], models)
    told += ["## Built-in nodes", ""]
    for name, kind in BUILT_IN_KINDS.items():
        told += _node(name, kind, None, models)
    return "\n".join(told).rstrip()


def _node(shown: str, kind: Kind, model: ModelShape | None, models: Mapping[str, ModelShape]) -> list[str]:
    told = [f"### {kind.name}" if model else f"### {shown}", "", _prose(kind.summary), ""]
    if model:
        told += [f"`{shown}`, or `{describe.long_name(model.name, kind.name)}`.", ""]
    told += ["| port | takes | default | |", "|---|---|---|---|"]
    for port in describe.ports_of(kind, model, models).values():
        default = "required" if port.required else "" if port.default is NOTHING else f"`{_yaml(port.default)}`"
        help_text = _prose(port.help.replace("|", "\\|"))
        if port.literal:
            help_text += f"{'; ' if help_text else ''}under `with` only"
        told.append(f"| `{port.name}` | {describe.type_of_port(port)} | {default} | {help_text} |")
    output = describe.output_of(kind, model, models)
    if output is not None:
        gives = ", ".join(f"`{name}` ({kind_})" for name, kind_ in (output.fields or {}).items())
        told += ["", f"The example gives {gives}."]
    runs = "text" if kind.name in ("python.call", "http.request") else "yaml"  # they need more than models
    return [*told, "", f"```{runs}", *example(kind.name, model), "```", ""]


def _prose(text: str) -> str:
    """Plain help text as Markdown: braces and stars as they stand."""
    return text.replace("*", "\\*").replace("{", "\\{")


def _yaml(value: object) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def problems() -> str:
    """Every problem code, with a wrong and a right example."""
    told = ["```yaml models.yaml", shop().rstrip(), "```", ""]
    for code in codes().values():
        told += [f"## {code.code}", "", f"**{code.title}.** {code.why}", "", *_pair(code), ""]
    return "\n".join(told).rstrip()


def _pair(code: Code) -> list[str]:
    told = []
    for word, text in (("wrong", code.wrong), ("right", code.right)):
        fence = ("yaml wrong" if word == "wrong" else "yaml") if code.code < "DF4" else "text"
        told += [f"{word.capitalize()}:", "", f"```{fence}", text.rstrip(), "```", ""]
    return told[:-1]


def verbs() -> str:
    """Every verb with its arguments and options."""
    told: list[str] = []
    for path, command in _commands(group, ()):
        context = click.Context(command, info_name=" ".join(("dfrun", *path)))
        usage = " ".join(command.collect_usage_pieces(context))
        told += [f"## {' '.join(path)}", "", f"`dfrun {' '.join(path)} {usage}`".replace(" `", "`"), ""]
        told += [_prose(" ".join((command.help or "").split())), ""]
        options = [each for each in command.params if isinstance(each, click.Option)]
        rows = [record for option in options if (record := option.get_help_record(context))]
        rows = [row for row in rows if "--help" not in row[0]]
        if rows:
            told += ["| option | |", "|---|---|"]
            told += [f"| `{option.replace('|', chr(92) + '|')}` | {_prose(text)} |" for option, text in rows]
            told.append("")
    return "\n".join(told).rstrip()


def _commands(parent: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in parent.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


PARTS: Mapping[str, Callable[..., str]] = {
    "keys": keys, "operators": operators, "nodes": nodes, "problems": problems, "verbs": verbs, "sql": sql,
}  # fmt: skip


FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def draw_picture() -> None:
    """`run.svg`: what a terminal shows of the examples, and of one with a mistake. Its durations are those of a day."""
    import io
    import shutil
    import subprocess
    import tempfile

    from rich.console import Console
    from rich.text import Text

    from runner.cli.paint import painted

    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
    dfrun = str(Path(sys.executable).parent / "dfrun")
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(DOCS.parent / "models.yaml", name)
        shutil.copytree(DOCS.parent / "pipelines", f"{name}/pipelines", ignore=shutil.ignore_patterns("out"))
        example = Path(name, "pipelines", "orders.yaml")
        wrong = example.read_text(encoding="utf-8").replace("customer_id: customer.id,", "customer_id: customer.email,")
        example.with_name("mistake.yaml").write_text(wrong, encoding="utf-8")
        for file in ("load_sales", "month_end", "mistake"):
            words = [dfrun, f"pipelines/{file}.yaml"]
            done = subprocess.run(words, cwd=name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            console.print(Text.from_ansi(f"\x1b[2m$\x1b[0m dfrun pipelines/{file}.yaml\n{painted(done.stdout)}"))
    svg = console.export_svg(title="dfrun", code_format=FRAME, unique_id="dfrun")
    (DOCS / "run.svg").write_text(svg, encoding="utf-8")


def main() -> None:
    """Rewrite the pages whose generated parts are out of date."""
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = render(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            click.echo(f"wrote {page}")
    if "--picture" in sys.argv:
        draw_picture()


if __name__ == "__main__":
    main()
