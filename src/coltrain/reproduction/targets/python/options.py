"""Arguments of the command line as a script declares them."""

from typing import Any

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN
from coltrain.reproduction.targets.python.state import State
from coltrain.reproduction.targets.python.values import (
    POSITIONAL,
    Class,
    Namespace,
    typed,
)


class Options(State):
    """What parsed arguments are: of the command where it is known, else the defaults."""

    def _parsed(self, parser: Call, name: str) -> Any:
        if parser.last == "HfArgumentParser":
            return self._dataclasses(parser)
        values: dict[str, Any] = {}
        for call in self.calls:
            if call.last != "add_argument" or not call.args:
                continue
            flags = [one for one in call.args if isinstance(one, str)]
            if not flags:
                continue
            long = next((one for one in flags if one.startswith("--")), flags[0])
            stored = call.kwargs.get("dest") or long.lstrip("-").replace("-", "_")
            values[stored] = self._option(call, flags)
        parsed = Namespace(values, "arguments")
        return [parsed, []] if name == "parse_known_args" else parsed

    def _option(self, call: Call, flags: list[str]) -> Any:
        for flag in flags:
            key = flag.lstrip("-").replace("-", "_")
            if self.options is not None and key in self.options:
                return typed(self.options[key], call.kwargs.get("type"))
        if call.kwargs.get("action") in ("store_true", "store_false"):
            stands = call.kwargs["action"] == "store_false"
            # Without the command nobody knows whether the switch was there.
            return call.kwargs.get("default", stands) if self.options is not None else UNKNOWN
        return call.kwargs.get("default", UNKNOWN)

    def _given(self) -> dict[str, Any]:
        """Options of the command, and those of a file that it names alone."""
        found: dict[str, Any] = {}
        for word in (self.options or {}).get(POSITIONAL, []):
            content = self._content([word])
            found |= content if isinstance(content, dict) else {}
        return found | {k: v for k, v in (self.options or {}).items() if k != POSITIONAL}

    def _dataclasses(self, parser: Call) -> list[Any]:
        kinds = parser.args[0] if parser.args else []
        made = []
        given = self._given()
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            if isinstance(kind, Class):
                instance = self._instance(kind, [], {})
                inner = instance.values if isinstance(instance, Namespace) else instance.later
                inner |= given
                made.append(instance)
            elif isinstance(kind, Ref):
                call = Call(kind.name, [], dict(given), f"{self.file.name}, command line")
                self.calls.append(call)
                made.append(call)
        return made
