"""Moto's server with what it lacks of the conversation of `headrace aws`: `python -m tests.support.moto_aws --port N`.

Added, since no server without an AWS account has them: Session Manager's sessions, the hosts that Systems Manager
reaches, RDS's own keeping of the master password in a stack, Run Command's failures, and instance refreshes. A load
balancer's name leads to this machine. Everything else is moto's.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import sys
import warnings
from typing import Any

import botocore.session
import yaml
from moto.autoscaling.models import FakeAutoScalingGroup, InstanceState
from moto.autoscaling.responses import AutoScalingResponse
from moto.cloudformation.models import CloudFormationBackend, Event, Stack
from moto.cloudformation.utils import yaml_tag_constructor
from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.ec2.models.security_groups import SecurityGroupIngress
from moto.elbv2.models import FakeLoadBalancer
from moto.rds.models import DBInstance, MasterUserSecret, RDSBackend
from moto.server import main
from moto.ssm.models import ssm_backends
from moto.ssm.responses import SimpleSystemManagerResponse

_PROPOSE = CloudFormationBackend.create_change_set
_EXECUTE, _DELETE = CloudFormationBackend.execute_change_set, CloudFormationBackend.delete_stack
_BACK_UP = RDSBackend.create_auto_snapshot
_LOAD = yaml.load
_MAKE_STATE, _MAKE_BALANCER = InstanceState.__init__, FakeLoadBalancer.__init__
FAILS = "headrace-test-fails"  # a command whose text has this fails
FAILS_AT = "/fails-at"  # a parameter of SSM: the resource at which a stack's creation fails


def start_session(self: Any) -> ActionResult:
    target = self._get_param("Target")
    return ActionResult({"SessionId": f"session-{target}", "TokenValue": "secret-token", "StreamUrl": "wss://nowhere"})


def describe_instance_information(self: Any) -> ActionResult:
    instances = ec2_backends[self.current_account][self.region].all_instances()
    running = [instance.id for instance in instances if instance.state == "running"]
    return ActionResult({"InstanceInformationList": [{"InstanceId": id, "PingStatus": "Online"} for id in running]})


def describe_orderable_db_instance_options(self: Any, engine: str, engine_version: str) -> list[dict[str, Any]]:
    """Moto knows Aurora's alone."""
    zones = [
        {"Name": zone.name} for zone in ec2_backends[self.account_id][self.region_name].describe_availability_zones()
    ]
    return [{"Engine": engine, "StorageType": kind, "AvailabilityZones": zones} for kind in ("standard", "gp3")]


def start_instance_refresh(self: Any) -> ActionResult:
    refreshes = _refreshes(self)
    assert all(one["Status"] == "Successful" for one in refreshes), "AWS: InstanceRefreshInProgress"
    refreshes.insert(0, {"InstanceRefreshId": f"refresh-{len(refreshes) + 1}", "Status": "Pending"})
    return ActionResult({"InstanceRefreshId": refreshes[0]["InstanceRefreshId"]})


def describe_instance_refreshes(self: Any) -> ActionResult:
    """Each look finds the newest a step further; before the last the instances are replaced."""
    wanted = self._get_param("InstanceRefreshIds")
    refreshes = _refreshes(self)
    seen = [dict(one) for one in refreshes if not wanted or one["InstanceRefreshId"] in wanted]
    if refreshes and refreshes[0]["Status"] != "Successful":
        refreshes[0]["Status"] = {"Pending": "InProgress", "InProgress": "Successful"}[refreshes[0]["Status"]]
        if refreshes[0]["Status"] == "Successful":
            group = self.autoscaling_backend.autoscaling_groups[self._get_param("AutoScalingGroupName")]
            wanted_instances = group.desired_capacity
            group.set_desired_capacity(0)
            group.set_desired_capacity(wanted_instances)
    return ActionResult({"InstanceRefreshes": seen})


def _refreshes(self: Any) -> list[dict[str, str]]:
    """The newest first."""
    group = self.autoscaling_backend.autoscaling_groups[self._get_param("AutoScalingGroupName")]
    found: list[dict[str, str]] = vars(group).setdefault("refreshes", [])
    return found


def make_state(self: Any, *arguments: Any, **options: Any) -> None:
    """Moto forgets which version of its launch template an instance was made from."""
    _MAKE_STATE(self, *arguments, **options)
    self.version = self.auto_scaling_group.launch_template_version


def launch_template_of(self: Any) -> dict[str, Any]:
    template = self.auto_scaling_group.ec2_launch_template
    return {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "Version": str(self.version)}


def get_command_invocation(self: Any) -> ActionResult:
    command_id, instance_id = self._get_param("CommandId"), self._get_param("InstanceId")
    answer = self.ssm_backend.get_command_invocation(command_id, instance_id, None)
    command = self.ssm_backend.get_command_by_id(command_id)
    if FAILS in "".join(command.parameters["commands"]):
        answer |= {"Status": "Failed", "ResponseCode": 1, "StandardErrorContent": "run_container: not healthy"}
    return ActionResult(answer)


def make_balancer(self: Any, *arguments: Any, **options: Any) -> None:
    """Its name leads to this machine, where a test serves."""
    _MAKE_BALANCER(self, *arguments, **{**options, "dns_name": "localhost"})


def _with_master_secret(make: Any) -> Any:
    def create(_: type[Any], /, name: str, cloudformation: Any, *where: str, **kwargs: Any) -> Any:
        properties = cloudformation["Properties"]
        group = properties["DBParameterGroupName"]  # moto hands over the group itself, and fails on it
        properties["DBParameterGroupName"] = getattr(group, "name", group)
        database = make(name, cloudformation, *where, **kwargs)
        database.deletion_protection = properties.get("DeletionProtection", False)
        if properties.get("ManageMasterUserPassword"):
            database.manage_master_user_password = True
            database.master_user_secret = MasterUserSecret(database, None)
        return database

    return classmethod(create)


def _update_database(_: type[Any], /, original_resource: Any, cloudformation_json: Any, **_where: Any) -> Any:
    """Moto loses a database that a stack changes."""
    database, properties = original_resource, cloudformation_json["Properties"]
    database.db_instance_class = properties["DBInstanceClass"]
    database.allocated_storage = int(properties["AllocatedStorage"])
    return database


def create_auto_snapshot(self: Any, database: str, snapshot: str) -> Any:
    """Named by the minute, in which a test restores twice; RDS takes ten."""
    known = self.database_snapshots.get(snapshot)
    return known or _BACK_UP(self, database, snapshot)


def _without_master_secret(restore: Any) -> Any:
    """AWS's restored instances have the password that the backup has; only moto's have RDS's keeping of it, too."""

    def restored(self: Any, *arguments: Any, **options: Any) -> Any:
        database = restore(self, *arguments, **options)
        database.manage_master_user_password = False
        del database.master_user_secret
        return database

    return restored


def create_change_set(self: Any, *arguments: Any, **options: Any) -> Any:
    """A stack without resources, which a change set that was never executed has left, takes another; moto makes two."""
    for stack in list(self.stacks.values()):
        if stack.name == options["stack_name"] and stack.status == "REVIEW_IN_PROGRESS":
            del self.stacks[stack.stack_id]
    return _PROPOSE(self, *arguments, **options)


def delete_stack(self: Any, name_or_stack_id: str) -> None:
    """As it is; but moto makes the resources of a stack that was never executed in order to delete it, and fails."""
    for stack in list(self.stacks.values()):
        if name_or_stack_id in (stack.name, stack.stack_id) and stack.status == "REVIEW_IN_PROGRESS":
            del self.stacks[stack.stack_id]
            return
        _keep_the_network(stack)
        for resource in stack.resource_map._resource_json_map.values():
            # moto does not know that policy; what a rollback of its creation has left goes
            if resource.get("DeletionPolicy") == "RetainExceptOnCreate" and not stack.status.startswith("ROLLBACK"):
                resource["DeletionPolicy"] = "Retain"
        for rule in stack.resource_map._parsed_resources.values():
            if isinstance(rule, SecurityGroupIngress):  # moto leaves it in a group that is not the stack's
                source, group = rule.properties["SourceSecurityGroupId"], rule.security_group
                group.ingress_rules = [one for one in group.ingress_rules if source not in str(one.source_group)]
    _DELETE(self, name_or_stack_id)
    for stack in self.deleted_stacks.values():  # or who asks for its outputs has moto make its resources anew
        stack.output_map._output_json_map = None


def _keep_the_network(stack: Any) -> None:
    """Moto fails on a VPC with a route table."""
    resources = stack.resource_map._resource_json_map
    for resource in resources.values():
        if resource["Type"].startswith("AWS::EC2::") and "Vpc" in resources:
            resource["DeletionPolicy"] = "Retain"


def execute_change_set(self: Any, change_set_name: str, stack_name: str) -> None:
    """Moto gives a stack that a change set makes no outputs, exports and imports; one that it updates, the old."""
    change_set = self.change_sets[change_set_name]
    stack = self.stacks[change_set.stack_id]
    if change_set.change_set_type == "UPDATE":
        stack.resource_map.input_parameters = _parameters(stack)  # or every default counts as changed
        _EXECUTE(self, change_set_name, stack_name)
        stack.parameters = change_set.parameters
        stack.output_map = stack._create_output_map()
        for resource in stack.resource_map._parsed_resources.values():
            # moto does not see that the group's template has a new version
            if isinstance(resource, FakeAutoScalingGroup) and resource.ec2_launch_template:
                version = str(resource.ec2_launch_template.latest_version_number)
                resource.launch_template_version = resource.provided_launch_template_version = version
        return
    del self.stacks[stack.stack_id]
    template = stack.parse_template(change_set.template)
    failing = ssm_backends[self.account_id][self.region_name].get_parameters([FAILS_AT]).get(FAILS_AT)
    if failing is not None and failing.value in template["Resources"]:
        _fail(self, stack, template, change_set.parameters, failing.value)
    else:
        self.create_stack(stack.name, change_set.template, change_set.parameters, tags=stack.tags)


def _fail(self: Any, stack: Any, template: Any, parameters: dict[str, str], failing: str) -> None:
    """As AWS: a resource fails when all that it does not hinder is made, and what is made is deleted again.

    But for a protected database, and what that is in: then the rollback fails.
    """
    texts = {name: json.dumps(resource) for name, resource in template["Resources"].items()}
    hindered, more = {failing}, {failing}
    while more:
        words = [f'"{name}"' for name in more] + [f"${{{name}" for name in more]
        more = {name for name, text in texts.items() if any(word in text for word in words)} - hindered
        hindered |= more
    made = {name: one for name, one in template["Resources"].items() if name not in hindered}
    template = {key: value for key, value in template.items() if key != "Outputs"} | {"Resources": made}
    new = self.create_stack(stack.name, json.dumps(template), parameters, tags=stack.tags)
    _keep_the_network(new)
    why = "it is made to fail"
    new.events.append(Event(new.stack_id, new.name, failing, "", "AWS::Made::ToFail", "CREATE_FAILED", why, None))
    new._add_stack_event("ROLLBACK_IN_PROGRESS", resource_status_reason=why)
    parsed, resources = new.resource_map._parsed_resources, new.resource_map._resource_json_map
    protected = {name for name, one in parsed.items() if isinstance(one, DBInstance) and one.deletion_protection}
    held = protected | {name for name in made for one in protected if f'"{name}"' in texts[one]}
    policies = {name: resources[name].get("DeletionPolicy", "Delete") for name in held}
    for name in held:
        resources[name]["DeletionPolicy"] = "Retain"
    new.resource_map.delete()
    for name, policy in policies.items():
        resources[name]["DeletionPolicy"] = policy
    new.status = "ROLLBACK_FAILED" if protected else "ROLLBACK_COMPLETE"
    new._add_stack_event(new.status)


def has_parameters(self: Any, others: dict[str, str]) -> bool:
    """AWS compares with the defaults, too: the template's are as good as given."""
    known = _parameters(self)
    return all(known.get(key) == value for key, value in others.items())


def _parameters(stack: Any) -> dict[str, str]:
    """As they were given, not what AWS::SSM::Parameter::Value stands for."""
    given: dict[str, str] = stack.parameters
    return {key: str(value) for key, value in stack.stack_parameters.items()} | given


def parameter_list(self: Any) -> list[dict[str, str]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in _parameters(self).items()]


def load_yaml(template: str, **_loader: Any) -> Any:
    return pickle.loads(_loaded(template))


@functools.cache
def _loaded(template: str) -> bytes:
    return pickle.dumps(_LOAD(template, Loader=yaml.CLoader))


def install() -> None:
    """Put all of it into moto, in this process."""
    # half of its processor time: it reads AWS's descriptions of services, and templates, again and again, and makes all
    # of AWS's images
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    yaml.add_multi_constructor("", yaml_tag_constructor, Loader=yaml.CLoader)
    vars(yaml).update(load=load_yaml, Loader=yaml.CLoader)
    warnings.filterwarnings("ignore", message="Tried to parse")  # types that moto's CloudFormation passes over
    added: dict[Any, list[Any]] = {
        SimpleSystemManagerResponse: [start_session, describe_instance_information, get_command_invocation],
        AutoScalingResponse: [start_instance_refresh, describe_instance_refreshes],
        CloudFormationBackend: [create_change_set, delete_stack, execute_change_set],
        Stack: [has_parameters],
        RDSBackend: [create_auto_snapshot, describe_orderable_db_instance_options],
    }
    for kind, functions in added.items():
        for function in functions:
            setattr(kind, function.__name__, function)
    for kind, name, value in (
        (Stack, "parameter_list", property(parameter_list)),
        (InstanceState, "__init__", make_state),
        (InstanceState, "launch_template", property(launch_template_of)),
        (FakeLoadBalancer, "__init__", make_balancer),
        (DBInstance, "update_from_cloudformation_json", classmethod(_update_database)),
    ):
        setattr(kind, name, value)
    for name in ("restore_db_instance_from_db_snapshot", "restore_db_instance_to_point_in_time"):
        setattr(RDSBackend, name, _without_master_secret(getattr(RDSBackend, name)))
    make = "create_from_cloudformation_json"
    setattr(DBInstance, make, _with_master_secret(getattr(DBInstance, make)))


if __name__ == "__main__":
    install()
    main(sys.argv[1:])
