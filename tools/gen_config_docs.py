"""Writes docs/configuration.md's tables and docs/subscriptions.schema.json from the code.

Run it after a change of an option, a variable or a key: ``python -m tools.gen_config_docs``.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leekfanout.cli import build_parser
from leekfanout.configuration import references
from leekfanout.configuration.rules import (
    AmqpName,
    AnyObject,
    AnyUrl,
    Boolean,
    BrokerUrls,
    Choice,
    File,
    HttpUrl,
    Key,
    Number,
    Object,
    TcpOptions,
    Text,
)
from leekfanout.configuration.transport_options import TRANSPORT_OPTIONS
from leekfanout.configuration.validation import SUBSCRIPTION_KEYS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "configuration.md"
SCHEMA = DOCS / "subscriptions.schema.json"

_PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page() -> str:
    """Return the page as it should be: what people have written, with fresh tables."""
    parts = {
        "subscription": subscription_table(),
        "options": options_table(),
        **{f"transport-{name}": transport_table(kind) for name, kind in TRANSPORT_OPTIONS.items()},
    }
    return _PART.sub(
        lambda match: f"{match[1]}{parts[match['name']]}\n{match[3]}", PAGE.read_text()
    )


def subscription_table() -> str:
    rows = []
    for key in SUBSCRIPTION_KEYS:
        default = "required" if key.required else _shown(key.default)
        if key.required and "standalone" in key.required:
            default = "required for a standalone agent"
        reference = " May refer to a secret." if key.name in references.KEYS else ""
        rows.append((f"`{key.name}`", default, f"{key.meaning} {_rule(key)}{reference}"))
    return _table(("Key", "Default", "Meaning"), rows)


def transport_table(kind: Object) -> str:
    rows = [
        (f"`{key.name}`", f"{key.meaning} {_rule(key)}")
        for key in kind.keys
        if key.kind.rule != "has no effect"
    ]
    unused = [f"`{key.name}`" for key in kind.keys if key.kind.rule == "has no effect"]
    without = f"\n\nAccepted, without effect on reading events: {', '.join(unused)}."
    return _table(("Name", "Meaning"), rows) + without


def options_table() -> str:
    """Return the options of ``run`` with the variables that stand for them."""
    rows = []
    for action in _actions("run"):
        text = str(action.help or "")
        meaning, _, default = text.partition(" (default: ")
        variable = re.search(r"\$(LEEK[A-Z_]+)", default)
        rows.append(
            (
                f"`{action.option_strings[-1]}`",
                f"`{variable[1]}`" if variable else "",
                f"{meaning[0].upper()}{meaning[1:]}."
                if not default
                else _sentence(meaning, default),
            )
        )
    return _table(("Option", "Variable", "Meaning"), rows)


def _sentence(meaning: str, default: str) -> str:
    default, _, rest = default.rpartition(")")
    default = re.sub(r"^\$LEEK[A-Z_]+(, or |$)", "", default)
    tail = f" Default: {default}." if default else ""
    more = rest.lstrip("; ").strip()
    more = f" {more[0].upper()}{more[1:]}." if more else ""
    return f"{meaning[0].upper()}{meaning[1:]}.{tail}{more}"


def _actions(command: str) -> Iterator[argparse.Action]:
    parser = build_parser(only=command)
    (subparsers,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    for action in subparsers.choices[command]._actions:
        if action.option_strings and action.dest != "help":
            yield action


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a subscriptions' file."""
    transport_options = {
        "description": "Options of the transport, with kombu's names.",
        "anyOf": [_fragment(kind) for kind in TRANSPORT_OPTIONS.values()],
    }
    entry = _object_schema(
        SUBSCRIPTION_KEYS, required=("broker", "org_name", "app_name", "app_env")
    )
    entry["properties"]["transport_options"] = transport_options
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "leekfanout's subscriptions",
        "type": "array",
        "items": entry,
    }


def _object_schema(keys: tuple[Key, ...], required: tuple[str, ...] = ()) -> dict[str, Any]:
    properties = {}
    for key in keys:
        properties[key.name] = {"description": key.meaning, **_nullable(_fragment(key.kind))}
        if key.default not in (None, {}):
            properties[key.name]["default"] = key.default
        if key.name in references.KEYS:
            # What a reference leads to is checked when it is known.
            properties[key.name].pop("pattern", None)
    made: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        made["required"] = list(required)
    return {**made, "additionalProperties": False}


def _fragment(kind: Any) -> dict[str, Any]:
    match kind:
        case Number(most=most, least=least, above=above, whole=whole):
            bounds = {"minimum": least} if least is not None else {"exclusiveMinimum": above}
            return {"type": "integer" if whole else "number", **bounds, "maximum": most}
        case Choice(values=values):
            return {"enum": list(values)}
        case Boolean():
            return {"type": "boolean"}
        case Text(pattern=pattern) if "(?s" not in pattern:
            return {"type": "string", "pattern": f"^{pattern}$"}
        case AmqpName():
            return {"type": "string", "minLength": 1, "maxLength": 255}
        case BrokerUrls() | HttpUrl() | AnyUrl() | File() | Text():
            return {"type": "string", "minLength": 1}
        case Object(keys=keys):
            return _object_schema(keys)
        case AnyObject():
            return {"type": "object"}
        case TcpOptions():
            return {"type": "object", "additionalProperties": {"type": "integer"}}
    return {}


def _nullable(fragment: dict[str, Any]) -> dict[str, Any]:
    """Null counts as absent."""
    if "type" in fragment:
        return {**fragment, "type": [fragment["type"], "null"]}
    if "enum" in fragment:
        return {"enum": [*fragment["enum"], None]}
    return fragment


def _rule(key: Key) -> str:
    rule = key.kind.rule
    return f"{rule[0].upper()}{rule[1:]}."


def _shown(default: Any) -> str:
    if default in (None, {}):
        return ""
    return f"`{default}`" if isinstance(default, str) else f"{default:,}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    PAGE.write_text(page())
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
