"""`headrace aws`: a private MLflow on EC2, RDS and S3, from nothing and back."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import click

from headrace.aws import (
    container,
    execute,
    hosts,
    plan,
    prices,
    server_settings,
    status,
    templates,
    terraform,
    tunnel,
    upgrade,
)
from headrace.aws import doctor as examination
from headrace.aws import down as removal
from headrace.aws import restore as restoring
from headrace.aws import rotate as rotation
from headrace.aws import selftest as walk_through
from headrace.aws.client import Cloud
from headrace.aws.deployment import AWS_KEYS, AWS_KEYS_LACK, OWN_KEY, PORT, SIZES, Choices, check_name
from headrace.aws.execute import Live, Preview
from headrace.cli import aws_text
from headrace.cli.output import if_broken_off

_DURATION = re.compile(r"(\d+)([smhd])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_LARGE = str(10 * 2**20)  # bytes; parts are no smaller
PAST_THE_TUNNEL = {
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": _LARGE,
    "MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE": _LARGE,
}
"""Variables with which MLflow's client sends and fetches large artifacts at the bucket itself."""
_SLOW = (
    "Session Manager forwards less than 1 MB a second. With these variables MLflow's client sends and fetches\n"
    "artifacts of 10 MiB and more at the bucket itself, by URLs that the server signs for who may; this machine must\n"
    "reach S3, and needs no rights there. Where it can't: a machine in the VPC, or --ingress alb.\n"
)


class Target:
    """Where a command works, and how it speaks: progress to stderr, its result to stdout."""

    def __init__(self, name: str, as_json: bool, **where: str | None) -> None:
        check_name(name)
        self.name = name
        self.as_json = as_json
        self._where = where
        self._cloud: Cloud | None = None

    @property
    def cloud(self) -> Cloud:
        if self._cloud is None:
            self._cloud = Cloud(**self._where)
        return self._cloud

    def say(self, text: str) -> None:
        click.echo(text, err=True)

    def result(self, value: Any, text: str) -> None:
        """The command's outcome, for programs or for people."""
        click.echo(json.dumps(value, indent=2, default=str) if self.as_json else text)


@click.group()
def aws() -> None:
    """A private MLflow on EC2, RDS and S3: `up`, `connect`, `upgrade`, `down`.

    Credentials are found as every AWS tool finds them. docs/aws.md is the guide.
    """


def _command(command: Callable[..., None]) -> click.Command:
    """A command of the group with the options that all have; it gets the Target."""
    options = (
        click.option("--name", default="mlflow", show_default=True, help="Stacks NAME-data and NAME-app."),
        click.option("--region", help="The AWS region; by default that of the profile or AWS_REGION."),
        click.option("--profile", help="The AWS profile; by default AWS_PROFILE."),
        click.option("--endpoint-url", help="Another AWS, for tests.", hidden=True),
        click.option("--json", "as_json", is_flag=True, help="The result as JSON."),
    )

    def run(name: str, as_json: bool, region: str, profile: str, endpoint_url: str, **given: Any) -> None:
        for each in (signal.SIGTERM, signal.SIGHUP):  # or a tunnel's session and process would outlive us
            if signal.getsignal(each) is not signal.SIG_IGN:  # nohup
                signal.signal(each, lambda number, _: sys.exit(128 + number))
        target = Target(name, as_json, region=region, profile=profile, endpoint_url=endpoint_url)
        command(target, **given)

    takes_all = any(each.nargs == -1 for each in getattr(command, "__click_params__", []))
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Any = run
    for option in reversed(options):
        decorated = option(decorated)
    # what follows a command's first own argument is that command's
    settings = {"ignore_unknown_options": True, "allow_interspersed_args": False} if takes_all else {}
    made: click.Command = aws.command(command.__name__.rstrip("_"), context_settings=settings)(decorated)
    return made


def _resumable(command: Callable[..., None]) -> Callable[..., None]:
    """For a command that, broken off anywhere, continues when it is run again: Ctrl-C says so."""

    return if_broken_off("What AWS has under way goes on; the same command, run again, continues from there.")(command)


_ON_A_HOST = if_broken_off("What has begun on the host goes on there.")
_yes = click.option("--yes", is_flag=True, help="Ask nothing.")


def _choices(command: Callable[..., None]) -> Callable[..., None]:
    sizes = "; ".join(f"{name}: {size.what}" for name, size in SIZES.items())
    options = (
        click.option("--size", type=click.Choice(list(SIZES)), help=f"{sizes}. By default dev."),
        click.option("--image", help="A tag in its ECR repository, or a whole image name. By default latest."),
        click.option(
            "--architecture",
            type=click.Choice(["arm64", "x86_64"]),
            help="The hosts' processors. By default arm64.",
        ),
        click.option(
            "--ingress",
            type=click.Choice(["none", "vpc", "alb"]),
            help="none: through `connect` only; vpc: HTTP for a security group of the VPC; alb: HTTPS.",
        ),
        click.option("--allow-security-group", help="With vpc: whose members may connect, sg-0123456789 say."),
        click.option("--domain", help="With alb: the name that people type."),
        click.option("--certificate-arn", help="With alb: an ACM certificate in this region; by default one is made."),
        click.option("--allow-cidr", help="With alb: who may connect, 203.0.113.0/24 say."),
        click.option(
            "--scheme",
            type=click.Choice(["internet-facing", "internal"]),
            help="With alb: whether the balancer's addresses are public, or the VPC's own.",
        ),
        click.option(
            "--db-auth",
            type=click.Choice(["password", "iam"]),
            help="How the server logs in at the database: iam is by tokens, without a password.",
        ),
        click.option(
            "--backup-days",
            type=click.IntRange(1, 35),
            help="Any time of so many days can be restored. By default 7.",
        ),
        click.option(
            "--keys",
            type=click.Choice([OWN_KEY, AWS_KEYS]),
            help="What encrypts the data, for ever: a KMS key of its own, or AWS's, which are free, and lack "
            "something. At the first `up`; aws-managed with dev.",
        ),
        click.option(
            "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="On all that is made, for the bill: team=ml, say."
        ),
        click.option("--alarm-email", help="Who gets the alarms."),
        click.option("--permissions-boundary", help="The ARN of a policy that bounds the hosts' role."),
        click.option(
            "--set",
            "given",
            multiple=True,
            metavar="NAME=VALUE",
            help="A setting of the server (docs/reference/settings.md), kept for every host; a secret's NAME alone "
            "asks for it.",
        ),
        click.option("--unset", multiple=True, metavar="NAME", help="A setting that is to have its default again."),
        click.option("--oidc-issuer", help="Single sign-on, as --set oidc_issuer=...; it needs --oidc-roles, too."),
        click.option("--oidc-client-id", help="As --set oidc_client_id=..."),
        click.option("--oidc-client-secret", is_flag=True, help="Is asked for, as with --set oidc_client_secret."),
        click.option("--oidc-roles", help="As --set oidc_roles=..."),
        click.option("--vpc-id", help="An existing VPC; by default one is made."),
        click.option("--app-subnet-ids", help="With --vpc-id: two subnets for hosts, with a comma between them."),
        click.option(
            "--balancer-subnet-ids",
            help="With --vpc-id and alb: two public subnets, where those of the hosts are private.",
        ),
        click.option("--database-subnet-ids", help="With --vpc-id: two subnets for the database."),
        click.option(
            "--existing-database",
            help="An RDS instance that stays as it is: hosts in its VPC use it. At the first `up`.",
        ),
        click.option("--existing-database-name", help="The database in it; by default the one that RDS made."),
        click.option("--existing-bucket", help="A bucket that stays as it is, for the artifacts. At the first `up`."),
    )

    @wraps(command)
    def run(target: Target, **chosen: Any) -> None:
        settings = _settings(chosen, ask=command.__name__ == "up")
        chosen["tags"] = _tags(chosen["tags"])
        command(target, **chosen, settings=settings)

    chooses: Callable[..., None] = run
    for option in reversed(options):
        chooses = option(chooses)
    return chooses


def _tags(given: tuple[str, ...]) -> dict[str, str]:
    tags = {}
    for each in given:
        key, _, value = each.partition("=")
        if not (key and value):
            raise click.UsageError(f"--tag {each}: give KEY=VALUE, team=ml say.")
        tags[key] = value
    return tags


def _settings(chosen: dict[str, Any], ask: bool) -> dict[str, str]:
    """The server's settings among what was `chosen`, which loses them. Secrets are asked for, never an argument."""
    single = {name: chosen.pop(name) for name in ("oidc_issuer", "oidc_client_id", "oidc_roles")}
    given: list[str] = [*chosen.pop("given"), *(f"{name}={text}" for name, text in single.items() if text is not None)]
    if chosen.pop("oidc_client_secret"):
        given.append("oidc_client_secret")
    settings = {}
    for each in given:
        name, separator, text = each.partition("=")
        secret = server_settings.secret(name)
        if secret and separator:
            raise click.UsageError(f"--set {name}: a secret's value would stay in the shell's history. Leave it out.")
        if not separator and not secret:
            raise click.UsageError(f"--set {name}: give a value, as in {name}=VALUE.")
        if secret and ask:
            prompted = sys.stdin.isatty()
            text = click.prompt(name, hide_input=True, err=True) if prompted else sys.stdin.readline().rstrip("\r\n")
        settings[name] = "***" if secret and not ask else text
    return settings


@_command
@click.option("--existing-database", help="An RDS instance that `up` is to use in place.")
@click.option("--existing-bucket", help="A bucket that `up` is to use in place.")
@click.option("--permissions-boundary", help="The ARN within which alone the hosts' role can be made.")
def doctor(
    target: Target, existing_database: str | None, existing_bucket: str | None, permissions_boundary: str | None
) -> None:
    """Look at credentials, permissions, quotas and tools; every fault comes with its fix."""
    findings = []
    for finding in examination.examine(
        target.cloud, target.name, existing_database, existing_bucket, permissions_boundary
    ):
        findings.append(finding)
        if not target.as_json:
            mark = {True: "ok  ", False: "FAIL", None: "?   "}[finding.ok]
            click.echo(f"{mark} {finding.what}: {finding.says}" + (f"\n     {finding.fix}" if finding.fix else ""))
    if target.as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    if any(finding.ok is False for finding in findings):
        raise click.exceptions.Exit(1)


@_command
def selftest(target: Target) -> None:
    """Walk through what is promised on the deployment that is there, and print a table to send back.

    It changes nothing, but for a run that it logs. The table has no account number and no secret.
    """
    tunnel.check_plugin()
    outcomes = list(walk_through.walk(target.cloud, target.name, target.say))
    found = [one._asdict() for one in outcomes]
    target.result({"region": target.cloud.region, "promises": found}, walk_through.table(outcomes, target.cloud))
    if any(one.ok is False for one in outcomes):
        raise click.exceptions.Exit(1)


@_command
@_choices
def plan_(target: Target, **chosen: Any) -> None:
    """Show what `up` would change, with replacements marked, and what it costs a month. Nothing is changed."""
    steps = plan.up(target.cloud, Choices(name=target.name, **chosen), target.say)
    _show(target, steps)


@_command
@_resumable
@_yes
@_choices
def up(target: Target, yes: bool, **chosen: Any) -> None:
    """Deploy, or bring up to date: plan, ask, do it, and prove it with a real run.

    What no option names stays as it is; the defaults are those of the first `up`. Broken off, it continues where it was
    when it is run again.
    """
    choices = Choices(name=target.name, **chosen)
    tunnel.check_plugin()
    steps = plan.up(target.cloud, choices, target.say)
    previews = _show(target, steps, quiet=target.as_json)
    if not all(one.nothing for one in previews) and not yes:
        click.confirm(
            f"Deploy this to {target.cloud.region} of account {target.cloud.account()}?", abort=True, err=True
        )
    live = Live(target.cloud, target.say)
    for step in steps:
        live.take(step)
    found = status.status(target.cloud, target.name, drift=False)
    for line in [*aws_text.unconfirmed(found), *found["old"]]:
        target.say(line)
    target.result(found, f"\nMLflow is at {found['url']}\n\n{_how_to_use(target, found)}")


@_command
@click.option("--drift", is_flag=True, help="Compare with the templates, too: what has been changed by hand?")
def status_(target: Target, drift: bool) -> None:
    """Show the stacks, the hosts, the database and the alarms."""
    found = status.status(target.cloud, target.name, drift)
    target.result(found, aws_text.of_status(found))
    if found["app"] is None:
        raise click.exceptions.Exit(1)


@_command
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written.")
@click.option("--since", default="1h", show_default=True, help="How far back: 90s, 10m, 2h, 3d.")
def logs(target: Target, follow: bool, since: str) -> None:
    """Print the servers' log."""
    if (match := _DURATION.match(since)) is None:
        raise click.BadParameter(f"{since} is no duration; 90s, 10m, 2h or 3d are.", param_hint="--since")
    seconds = int(match[1]) * _UNITS[match[2]]
    for line in status.log(target.cloud, target.name, follow, seconds):
        click.echo(json.dumps({"message": line}) if target.as_json else line)


@_command
@if_broken_off("The tunnel is closed.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=PORT, show_default=True, help="The port of this machine."
)
def connect(target: Target, port: int) -> None:
    """Reach the server at http://localhost:5000 while this runs: a Session Manager tunnel, no open port."""
    tunnel.check_plugin()
    app = execute.required(target.cloud, f"{target.name}-app")

    def opened() -> AbstractContextManager[tunnel.Tunnel]:
        host = hosts.serving(target.cloud, app, target.say)
        return tunnel.opened(target.cloud, host.id, PORT, local_port=port)

    def tell(_: tunnel.Tunnel) -> None:
        target.result({"url": f"http://localhost:{port}"}, _connected(target, port))

    tunnel.keep_open(opened, tell, target.say)


@_command
@_ON_A_HOST
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(target: Target, command: tuple[str, ...]) -> None:
    """Run COMMAND in the server's container on a host: `headrace aws exec -- headrace db indexes list`.

    AWS keeps neither its words nor what it says.
    """
    _in_container(target, command)


@_command
@_ON_A_HOST
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def user(target: Target, arguments: tuple[str, ...]) -> None:
    """The server's accounts, as `headrace user` has them: `headrace aws user add alice --role editor`.

    A password is asked for here, or read from the standard input.
    """
    password = ""
    if arguments[0] in ("add", "password") and not {"--no-password", "--help"} & set(arguments):
        if sys.stdin.isatty():
            password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        else:
            password = sys.stdin.readline()
    _in_container(target, ("headrace", "user", *arguments), password)


def _in_container(target: Target, command: tuple[str, ...], given: str = "") -> None:
    data, app = (execute.required(target.cloud, f"{target.name}-{part}") for part in ("data", "app"))
    host = hosts.serving(target.cloud, app, target.say)
    output = container.run(target.cloud, target.name, data, host.id, command, given, target.say)
    target.result({"host": host.id, "output": output}, output)


@_command
@_resumable
@click.argument("version")
@_yes
def upgrade_(target: Target, version: str, yes: bool) -> None:
    """Put the image VERSION (a tag) into service: snapshot, MLflow's migrations, a swap once it is healthy.

    Where the new image does not become healthy, the old one goes on.
    """
    tunnel.check_plugin()
    if not yes:
        click.confirm(f"Upgrade {target.name} in {target.cloud.region} to {version}?", abort=True, err=True)
    image = upgrade.upgrade(target.cloud, target.name, version, target.say)
    target.result({"image": image}, f"{image} is in service.")


@_command
@_resumable
@_yes
def rollback(target: Target, yes: bool) -> None:
    """Put the image before the last upgrade back into service. The database stays as it is."""
    if not yes:
        click.confirm(f"Roll {target.name} in {target.cloud.region} back?", abort=True, err=True)
    image = upgrade.rollback(target.cloud, target.name, target.say)
    target.result({"image": image}, f"{image} is in service.")


@_command
@_resumable
@click.option("--only", type=click.Choice(["database-password", "admin-token"]), help="One of the two.")
@click.option("--end-old-token", is_flag=True, help="Let the administrator's token of before count no more.")
@_yes
def rotate(target: Target, yes: bool, only: str | None, end_old_token: bool) -> None:
    """Replace the database's password and the first administrator's token. No request fails meanwhile.

    The old token goes on beside the new one, until `rotate --end-old-token`.
    """
    if end_old_token and only:
        raise click.UsageError("--end-old-token is a command of its own, later.")
    if not yes:
        what = "End the old token" if end_old_token else "Replace the secrets"
        click.confirm(f"{what} of {target.name} in {target.cloud.region}?", abort=True, err=True)
    said = []
    if end_old_token:
        rotation.drop_old(target.cloud, target.name, rotation.TOKEN, target.say)
        said.append("The old token counts no more.")
    elif only != "admin-token":
        tunnel.check_plugin()
        rotation.password(target.cloud, target.name, target.say)
        said.append("The database's password is another one, and the old one is refused.")
    if not end_old_token and only != "database-password":
        rotation.token(target.cloud, target.name, target.say)
        said.append(
            f"The administrator's token in /{target.name}/ADMIN_TOKEN is another one. The old one works until "
            "`headrace aws rotate --end-old-token`, or the next `rotate`."
        )
    target.result({"done": said}, "\n".join(said))


@_command
@_resumable
@_yes
@click.option("--to", help="The database as it was at this time, 2026-11-28T14:05:00Z say, of the last 7 days.")
@click.option("--snapshot", help="The database as this snapshot has it; `upgrade` names the one that it takes.")
@click.option(
    "--delete-old", is_flag=True, help="Delete the databases of before earlier restores, with a last snapshot."
)
@click.option("--again", is_flag=True, help="Also where the database in service is from there: take it back once more.")
def restore(target: Target, yes: bool, to: str | None, snapshot: str | None, delete_old: bool, again: bool) -> None:
    """Put the database as it was into service. The one of now is kept, until `restore --delete-old`.

    Artifacts stay as they are. What was written since goes with the database of now.
    """
    if [to is not None, snapshot is not None, delete_old].count(True) != 1:
        raise click.UsageError("Give one of --to TIME, --snapshot ID and --delete-old.")
    if delete_old:
        if not yes:
            click.confirm(f"Delete the old databases of {target.name} in {target.cloud.region}?", abort=True, err=True)
        snapshots = restoring.delete_old(target.cloud, target.name, target.say)
        target.result({"snapshots": snapshots}, f"Last snapshots: {', '.join(snapshots) or 'none'}")
        return
    source = restoring.Source(snapshot=snapshot, time=None if to is None else restoring.moment(to))
    tunnel.check_plugin()
    if not yes:
        click.confirm(
            f"Take {target.name} in {target.cloud.region} back to {source}? What was written since is not in it.",
            abort=True,
            err=True,
        )
    old = restoring.restore(target.cloud, target.name, source, target.say, again)
    target.result(
        {"restored": str(source), "put_aside": old},
        f"The database of {source} is in service. Kept: {', '.join(old) or 'none'}; --delete-old deletes that.",
    )


@_command
@_resumable
@_yes
@click.option("--delete-data", is_flag=True, help="Database, artifacts and images, too; asks for a name.")
@click.option("--confirm-name", help="With --delete-data: the data stack's name, for scripts.", hidden=True)
def down(target: Target, yes: bool, delete_data: bool, confirm_name: str | None) -> None:
    """Take the hosts away. Database, artifacts, key and images stay; `up` finds them again."""
    data_stack = f"{target.name}-data"
    if delete_data:
        typed = confirm_name or click.prompt(
            f"This deletes every run and every artifact of {target.name}. Type the name of its data stack", err=True
        )
        if typed != data_stack:
            raise click.ClickException(f"{typed} is not {data_stack}: nothing was deleted.")
    elif not yes:
        click.confirm(f"Take the hosts of {target.name} in {target.cloud.region} away?", abort=True, err=True)
    removal.down(target.cloud, target.name, target.say)
    left = removal.delete_data(target.cloud, target.name, target.say) if delete_data else []
    kept = (
        "\nWhat remains, and the commands that remove it:\n  " + "\n  ".join(left)
        if left
        else f"\nThe data is kept in {data_stack}; `headrace aws up` stands on it again."
    )
    target.result({"down": target.name, "remains": left or [data_stack]}, f"{target.name} is down.{kept}")


@_command
@click.argument("what", required=False, type=click.Choice(["data", "app", *templates.POLICIES]))
@click.option(
    "--format",
    "form",
    type=click.Choice(["terraform"]),
    help="Both templates as a module, in --directory, without WHAT.",
)
@click.option(
    "--directory", default="headrace", show_default=True, help="With --format terraform: the module's folder."
)
@click.option("--account", help="With a policy: the account's number; by default that of the credentials.")
@click.option("--permissions-boundary", help="With deployer-policy: the ARN that bounds the hosts' role.")
@click.option("--existing-database", help="With deployer-policy: the instance that `up` uses in place.")
@click.option("--existing-bucket", help="With deployer-policy: the bucket that `up` uses in place.")
def export(
    target: Target,
    what: str | None,
    form: str | None,
    directory: str,
    account: str | None,
    permissions_boundary: str | None,
    existing_database: str | None,
    existing_bucket: str | None,
) -> None:
    """Print a template, or an IAM policy: the two of who deploys, or that of who only connects.

    A template needs no AWS account; a policy neither, with --account and --region.
    """
    if (what is None) is (form is None):
        raise click.UsageError("Give either WHAT to print, or --format terraform.")
    if what is None:
        files = terraform.write(directory)
        target.result({"files": files}, "\n".join(files))
    elif what in templates.POLICIES:
        if account is not None and not re.fullmatch(r"[0-9]{12}", account):
            raise click.BadParameter(f"{account} is no account's number: 12 digits are.", param_hint="--account")
        cloud = target.cloud
        place = templates.Place(cloud.partition, account or cloud.account(), cloud.region, target.name)
        click.echo(templates.policy(what, place, permissions_boundary, existing_database, existing_bucket), nl=False)
    else:
        click.echo({"data": templates.data, "app": templates.app}[what](), nl=False)


def _show(target: Target, steps: list[plan.Step], quiet: bool = False) -> list[Preview]:
    """Preview the steps, and print the plan with its price."""
    previews = [execute.preview(target.cloud, step) for step in steps]
    data, deployed = next((step.parameters, step.seen) for step in steps if isinstance(step, plan.MakeStack))
    app = next(step.stack.parameters for step in steps if isinstance(step, plan.MakeApp))
    items = prices.estimate(data, app)
    value = {
        "name": target.name,
        "region": target.cloud.region,
        "steps": [{"what": one.what, "changes": [change._asdict() for change in one.changes]} for one in previews],
        "keys": data["Keys"],
        "monthly_usd": round(prices.billed(items), 2),
        "monthly_usd_without_allowance": round(prices.without_allowance(items), 2),
        "prices_of": prices.DATE,
    }
    if not quiet:
        lines = [*(aws_text.of_preview(one) for one in previews), "", prices.table(items, target.cloud.region)]
        if data["Keys"] == AWS_KEYS:
            lines += ["", f"{AWS_KEYS_LACK}."]
            if not deployed:
                key = f"--keys {OWN_KEY} makes a key of its own, for {prices.KEY:.2f}"
                lines.append(f"{key}; later that can't be changed.")
        target.result(value, "\n".join(lines))
    return previews


def _how_to_use(target: Target, found: dict[str, Any]) -> str:
    connect = "" if found["url"].startswith("https") else f"  headrace aws connect{_named(target)}\n"
    url = found["url"].partition(",")[0]
    connect = "".join(f"  in the VPC: {address}\n" for address in found["in_vpc"]) + connect
    return f"{connect}{_token_lines(target, url)}"


def _connected(target: Target, port: int) -> str:
    past = "".join(f"  export {name}={value}\n" for name, value in PAST_THE_TUNNEL.items())
    tokens = _token_lines(target, f"http://localhost:{port}")
    return f"MLflow is at http://localhost:{port} until Ctrl-C.\n{tokens}\n{_SLOW}{past}"


def _token_lines(target: Target, url: str) -> str:
    return (
        f"  export MLFLOW_TRACKING_URI={url}\n"
        f"  export MLFLOW_TRACKING_TOKEN=$(aws ssm get-parameter --region {target.cloud.region} --name "
        f"/{target.name}/ADMIN_TOKEN --with-decryption --query Parameter.Value --output text)"
    )


def _named(target: Target) -> str:
    return "" if target.name == "mlflow" else f" --name {target.name}"
