"""A CloudFormation template read and evaluated: conditions decided, references left as text."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's short functions, as their long forms."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        text = loader.construct_scalar(node)
        return {name: text.split(".", 1) if suffix == "GetAtt" else text}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _function)
_NOTHING = object()


class Template:
    """The resources that the parameters give, with every Fn::If decided."""

    def __init__(self, text: str, **parameters: str) -> None:
        self.source: dict[str, Any] = yaml.load(text, _Loader)
        defaults = {name: str(slot.get("Default", "")) for name, slot in self.source["Parameters"].items()}
        self.parameters = defaults | parameters
        self.conditions = {name: self._holds(rule) for name, rule in self.source.get("Conditions", {}).items()}
        self.resources: dict[str, Any] = {
            name: self._evaluated(resource)
            for name, resource in self.source["Resources"].items()
            if self.conditions.get(resource.get("Condition"), True)
        }

        self.outputs: dict[str, Any] = {
            name: self._evaluated(output) for name, output in self.source.get("Outputs", {}).items()
        }

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The properties of every resource of the type."""
        return [resource["Properties"] for resource in self.resources.values() if resource["Type"] == f"AWS::{kind}"]

    def properties(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.resources[name]["Properties"]
        return found

    def _holds(self, rule: dict[str, Any]) -> bool:
        ((function, arguments),) = rule.items()
        if function == "Fn::Equals":
            left, right = (self.parameters[one["Ref"]] if isinstance(one, dict) else one for one in arguments)
            return bool(left == right)
        if function == "Fn::Or":
            return any(map(self._holds, arguments))
        assert function == "Fn::Not"
        return not self._holds(arguments[0])

    def _evaluated(self, value: Any) -> Any:
        if isinstance(value, dict):
            if "Fn::If" in value:
                condition, yes, no = value["Fn::If"]
                return self._evaluated(yes if self.conditions[condition] else no)
            if value == {"Ref": "AWS::NoValue"}:
                return _NOTHING
            items = {key: self._evaluated(one) for key, one in value.items()}
            return {key: one for key, one in items.items() if one is not _NOTHING}
        if isinstance(value, list):
            return [one for one in map(self._evaluated, value) if one is not _NOTHING]
        return value
