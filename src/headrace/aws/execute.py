"""The executors of a plan's steps: `Preview` looks, `Live` does. A dry run only swaps the one for the other."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from headrace.aws import alarms, database, domain, hosts, images, leftover, server_settings, stacks, trial, tunnel
from headrace.aws.client import Cloud, passing_over, polling
from headrace.aws.deployment import PORT, Choices
from headrace.aws.plan import (
    ApplySettings,
    ExpireLog,
    MakeApp,
    MakeCertificate,
    MakeRole,
    MakeSecret,
    MakeStack,
    PointDomain,
    Publish,
    PutSettings,
    RenewHosts,
    SettleLogin,
    Step,
    SwitchLogin,
    TryOut,
    WaitHealthy,
)
from headrace.aws.server_settings import Changed
from headrace.aws.stacks import Change, Say, Stack
from headrace.aws.trial import Address
from headrace.errors import AwsError

HTTPS_PORT = 443  # of the load balancer
_HEALTH_POLLS = 120  # of about 5 s


class Preview(NamedTuple):
    """What a step would do. `changes` are those of AWS's change set, none for what AWS does not plan."""

    what: str
    nothing: bool = False
    changes: tuple[Change, ...] = ()


def preview(cloud: Cloud, step: Step) -> Preview:
    """What the step would do; it has no effect, but for a change set that is made and dropped. Raises AwsError."""
    match step:
        case MakeStack(name, template, parameters, tags, _):
            proposal = stacks.propose(cloud, name, template, parameters, tags)
            stacks.discard(cloud, proposal)
            return Preview(_says(name, proposal.creates, bool(proposal.arn)), not proposal.arn, proposal.changes)
        case MakeSecret(name, _, what):
            made = cloud.parameter(name) is not None
            return Preview(f"{what}: {name} {'is there' if made else 'will be generated'}", made)
        case PutSettings(_, _, changed):
            return Preview(_settings_say(changed), not changed)
        case Publish(image, name, _):
            there = images.pinned(cloud, name, image) is not None
            return Preview(f"image {image}: {'in place' if there else 'will be built and pushed'}", there)
        case MakeCertificate(_, name):
            there = domain.issued(cloud, name) is not None
            where = "in Route 53" if domain.find_zone(cloud, name) else "which you must make: they will be told"
            what = "there" if there else f"asked for, and proved by a record {where}"
            return Preview(f"certificate for {name}: {what}", there)
        case PointDomain(_, name):
            return Preview(f"domain {name}: leads to the load balancer, once this machine finds it there", True)
        case MakeApp():
            return _preview_app(cloud, step)
        case RenewHosts(choices):
            return _preview_hosts(cloud, choices.app_stack)
        case MakeRole():
            return Preview("database: MLflow's tables and the server's role, where they are missing", True)
        case WaitHealthy():
            return Preview("server: wait until /health answers", True)
        case SwitchLogin(_, by_token):
            how = "tokens of IAM, and its password goes" if by_token else "a password, and no token"
            return Preview(f"database: the server's role logs in by {how}")
        case SettleLogin():
            return Preview("server: each knows how it logs in at the database", True)
        case ApplySettings():
            return Preview("server: anew on each host that runs with other settings, once the new one is healthy", True)
        case ExpireLog():
            return Preview(f"log of the database: kept for {database.LOG_DAYS} days", True)
        case TryOut():
            return Preview("proof: log a param and an artifact, and read them back", True)


def _preview_app(cloud: Cloud, step: MakeApp) -> Preview:
    stack = step.stack
    data = stacks.find(cloud, stack.parameters["DataStack"])
    if data is None or not data.exists:  # its exports are not there, so that AWS can't plan yet
        types = cloud.call("cloudformation", "get_template_summary", TemplateBody=stack.template)["ResourceTypes"]
        unused = () if stack.parameters.get("Ingress") == "alb" else ("AWS::ElasticLoadBalancing",)
        kinds = sorted({kind.removeprefix("AWS::") for kind in types if not kind.startswith(unused)})
        return Preview(f"stack {stack.name}: new, after {stack.parameters['DataStack']}; of {', '.join(kinds)}")
    return preview(cloud, _with_image(cloud, step))


def _preview_hosts(cloud: Cloud, app_stack: str) -> Preview:
    app = stacks.find(cloud, app_stack)
    old = hosts.outdated(cloud, app) if app is not None and app.exists else []
    if not old:
        return Preview("hosts: new ones, one by one, where the launch template changes", True)
    return Preview(f"hosts: new ones for {', '.join(old)}, one by one, since the launch template has changed")


def _with_image(cloud: Cloud, step: MakeApp) -> MakeStack:
    """With the database whose tokens the hosts may use, where they log in by those, and the domain's certificate."""
    stack = step.stack
    pinned = images.pinned(cloud, stack.parameters["Name"], step.image) or step.image
    data = required(cloud, stack.parameters["DataStack"])
    given = {"DatabaseResource": database.resource(cloud, data) if step.by_token else ""}
    if stack.parameters.get("Ingress") == "alb" and not stack.parameters["CertificateArn"]:
        given["CertificateArn"] = domain.issued(cloud, stack.parameters["Domain"]) or ""
    return stack._replace(parameters={**stack.parameters, "Image": pinned, **given})


class Live:
    """Takes the steps. Each looks first, so that a second time changes nothing, and a broken-off `up` continues."""

    def __init__(self, cloud: Cloud, say: Say) -> None:
        self.cloud = cloud
        self.say = say

    def take(self, step: Step) -> None:
        """Raises AwsError or ConfigurationError."""
        match step:
            case MakeStack() as stack:
                self._make_stack(stack)
            case MakeSecret(name, data_stack, what):
                self._make_secret(name, data_stack, what)
            case PutSettings(name, data_stack, changed):
                if changed or server_settings.unfinished(self.cloud, name):
                    key = required(self.cloud, data_stack).output("KeyArn")
                    server_settings.store(self.cloud, name, key, changed)
                    self.say(_settings_say(changed))
            case Publish(image, name, architecture):
                if images.pinned(self.cloud, name, image) is None:
                    images.publish(self.cloud, name, image, architecture, self.say)
            case MakeCertificate(name, asked):
                domain.certify(self.cloud, name, asked, self.say)
            case PointDomain(app_stack, asked):
                balancer = stacks.resources(self.cloud, app_stack)["LoadBalancer"]
                domain.lead(self.cloud, asked, balancer, self.say)
            case MakeApp(stack) as app:
                made = _with_image(self.cloud, app)
                found = stacks.find(self.cloud, stack.name)  # none, or what a try or a plan has left
                self._make_stack(made)
                # untried, where an earlier command was broken off while the stack was made
                if found is None or not found.exists or alarms.untried(self.cloud, stack.name):
                    alarms.quiet(self.cloud, stack.name, self.say)
                now = made.parameters
                images.keep(self.cloud, now["Name"], now["Image"], now.get("PreviousImage", ""), self.say)
                if found is None or not found.exists:
                    leftover.drop(self.cloud, now["Name"])
            case RenewHosts(choices):
                hosts.renew(self.cloud, required(self.cloud, choices.app_stack), self.say)
            case MakeRole(choices):
                self._make_role(choices)
            case WaitHealthy(choices):
                wait_healthy(self.cloud, choices.app_stack, self.say)
            case SwitchLogin(choices, by_token):
                self._switch_login(choices.name, by_token)
            case SettleLogin(choices):
                self._switch_login(choices.name, None)
            case ApplySettings(choices):
                self._apply_settings(choices)
            case ExpireLog(choices):
                database.expire_log(self.cloud, required(self.cloud, choices.data_stack))
            case TryOut(choices):
                self._try_out(choices)

    def _make_stack(self, stack: MakeStack) -> None:
        name = stack.name
        now = stacks.settle(self.cloud, name, self.say)
        parameters = now.parameters if now is not None and now.exists else {}
        if stack.seen is not None and stack.seen != parameters:
            different = sorted(key for key, value in parameters.items() if stack.seen.get(key) != value)
            raise AwsError(
                f"Another command has changed {name} ({', '.join(different)}) since this one looked at it, and this "
                "would take that back. Run it again: it looks anew, and goes on from there."
            )
        proposal = stacks.propose(self.cloud, name, stack.template, stack.parameters, stack.tags)
        self.say(_says(name, proposal.creates, bool(proposal.arn)))
        if replaced := [change for change in proposal.changes if change.replaced and _holds_data(change)]:
            stacks.discard(self.cloud, proposal)
            raise AwsError(
                f"This would put a new, empty {', '.join(change.resource for change in replaced)} in the place of the "
                f"one in {name} (because of {', '.join(why for change in replaced for why in change.why)}). Headrace "
                "does not do that: take a snapshot, and deploy anew with another --name."
            )
        stacks.execute(self.cloud, proposal, self.say)

    def _make_secret(self, name: str, data_stack: str, what: str) -> None:
        if self.cloud.parameter(name) is not None:
            return
        data = required(self.cloud, data_stack)
        with passing_over("ParameterAlreadyExists"):  # since another command has just made it
            self.cloud.call(
                "ssm",
                "put_parameter",
                Name=name,
                Description=f"Headrace: {what}",
                Type="SecureString",
                KeyId=data.output("KeyArn"),
                Value=new_token(),
                Overwrite=False,
            )
            self.say(f"{what}: generated into {name}")

    def _make_role(self, choices: Choices) -> None:
        app = required(self.cloud, choices.app_stack)
        host = hosts.wait_online(self.cloud, app, self.say)[0]
        if _answers(self.cloud, host.id):
            return
        database.make_role(self.cloud, choices.name, required(self.cloud, choices.data_stack), host.id, self.say)

    def _switch_login(self, name: str, by_token: bool | None) -> None:
        from headrace.aws import login  # which stands on what is here

        change = {True: login.to_tokens, False: login.to_password, None: login.settle}[by_token]
        change(self.cloud, name, self.say)

    def _apply_settings(self, choices: Choices) -> None:
        if server_settings.revision(self.cloud, choices.name) is None:
            return
        app = required(self.cloud, choices.app_stack)
        script = hosts.run_container(choices.name, self.cloud.region, app.parameters["Image"])
        for host in hosts.wait_online(self.cloud, app, self.say):
            try:
                hosts.run(self.cloud, host.id, script, "see that the server runs with the settings", self.say)
            except AwsError as error:
                raise AwsError(
                    f"{error}\nThe server goes on with its settings of before, but one that starts anew takes the new "
                    "ones. Put them right, or take them back, with `headrace aws up --set` and `--unset`.",
                    error.code,
                ) from None

    def _try_out(self, choices: Choices) -> None:
        app = required(self.cloud, choices.app_stack)
        token = admin_token(self.cloud, choices.name)
        with reached(self.cloud, app, self.say) as address:
            run = trial.round_trip(address, token)
            alarms.loud(self.cloud, choices.app_stack, self.say)
            self.say(f"{address.url}: run {run} logged a param and an artifact, and read them back")


def wait_healthy(cloud: Cloud, app_stack: str, say: Say) -> None:
    """Wait until every host's server answers /health. Raises AwsError with the end of the host's boot log."""
    app = required(cloud, app_stack)
    for host in hosts.wait_online(cloud, app, say):
        for poll, _ in enumerate(polling()):
            if _answers(cloud, host.id):
                say(f"{host.id}: the server answers")
                break
            if poll == 0:
                say(f"{host.id}: waiting for the server (Docker's installation and the image take a minute or two)")
            if poll > _HEALTH_POLLS:
                log = hosts.run(cloud, host.id, "tail -n 40 /var/log/cloud-init-output.log", "the boot log", say)
                raise AwsError(
                    f"The server on {host.id} in {cloud.region} does not answer /health. The end of the host's boot "
                    f"log:\n{log}\n`headrace aws logs` shows the server's. Then run the command again: it continues."
                )


def _answers(cloud: Cloud, host: str) -> bool:
    """Whether the host's server answers /health, through a tunnel of its own: one may end where nothing listens yet."""
    try:
        with tunnel.opened(cloud, host, PORT) as way:
            return trial.healthy(Address("127.0.0.1", way.port))
    except AwsError as error:
        if error.code:  # AWS's own: it would refuse the next one, too
            raise
        return False


@contextmanager
def reached(cloud: Cloud, app: Stack, say: Say) -> Iterator[Address]:
    """Where the server answers from here: the load balancer, or a tunnel for the time of the block."""
    if app.parameters.get("Ingress") == "alb":
        address = Address(app.output("BalancerName"), HTTPS_PORT, app.parameters["Domain"])
        if trial.healthy(address):
            yield address
            return
        say(
            f"{address.url} does not answer from here: this machine may be outside --allow-cidr "
            f"({app.parameters['AllowCidr']}), or {app.output('BalancerName')} has no healthy host yet. Taking the "
            "tunnel."
        )
    host = hosts.serving(cloud, app, say)
    with tunnel.opened(cloud, host.id, PORT) as way:
        yield Address("127.0.0.1", way.port)


def required(cloud: Cloud, name: str) -> Stack:
    """A stack that must be there. Raises AwsError."""
    stack = stacks.find(cloud, name)
    if stack is None or not stack.exists:
        raise AwsError(
            f"There is no stack {name} in {cloud.region}. Is it another --name or --region? `headrace aws up` makes it."
        )
    return stack


def settled(cloud: Cloud, name: str, say: Say) -> Stack:
    """The same, once what an earlier command left under way has ended. Raises AwsError."""
    stacks.settle(cloud, name, say)
    return required(cloud, name)


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def admin_token(cloud: Cloud, name: str) -> str:
    """The first administrator's token."""
    answer: Any = cloud.call("ssm", "get_parameter", Name=f"/{name}/ADMIN_TOKEN", WithDecryption=True)
    return str(answer["Parameter"]["Value"])


def _settings_say(changed: Changed) -> str:
    put = [f"{name}={'***' if server_settings.secret(name) else text}" for name, text in changed.put.items()]
    said = [*put, *(f"without {name}" for name in changed.removed)]
    return f"settings: {', '.join(said) or 'as they should be'}"


def _holds_data(change: Change) -> bool:
    return change.type in ("AWS::RDS::DBInstance", "AWS::S3::Bucket", "AWS::KMS::Key", "AWS::ECR::Repository")


def _says(name: str, creates: bool, changes: bool) -> str:
    return f"stack {name}: {'new' if creates else 'changes' if changes else 'as it should be'}"
