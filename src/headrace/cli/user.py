"""`headrace user`: who may use the server, and what each may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import msgspec

from headrace.auth.objects import (
    EXPERIMENT_OF,
    IS_WORKSPACE,
    experiment_number,
    model_key,
    workspaces_of_experiments,
)
from headrace.auth.principals import PERMISSIONS, ROLES
from headrace.cli.accounts import (
    as_json,
    ask_password,
    in_one_line,
    no_such_user,
    print_table,
    to_look_at_accounts,
    with_accounts,
)
from headrace.entities import DEFAULT_WORKSPACE

if TYPE_CHECKING:
    from headrace.auth.accounts import Accounts


_role = click.Choice(list(ROLES))


@click.group()
def user() -> None:
    """Add users, change what they may do, and make tokens for them.

    Works on the server's database, with the server running or not; running servers follow within 5 seconds.
    """


@user.command()
@click.argument("name")
@click.option("--role", type=_role, default="viewer", show_default=True, help="What they may do on the server.")
@click.option("--group", "groups", multiple=True, help="A group that they are in; may be repeated.")
@click.option("--no-password", is_flag=True, help="They sign in with tokens only.")
@with_accounts
async def add(accounts: Accounts, name: str, role: str, groups: tuple[str, ...], no_password: bool) -> None:
    """Add a user. The password is asked for, or read from the standard input."""
    if not name.strip() or len(name) > 256 or ":" in name or not name.isprintable():
        raise click.ClickException("A user's name has 1 to 256 printable characters, and no colon.")
    password = None if no_password else ask_password()
    if not await accounts.add_user(name, role, password):
        raise click.ClickException(f"There is a user {name} already.")
    if groups:
        await accounts.set_groups(name, groups)
    click.echo(f"{name} is a user with the role {role}.")


@user.command("list")
@as_json
@to_look_at_accounts
async def show(accounts: Accounts, json: bool) -> None:
    """List the users."""
    rows = [
        {
            "name": each.name,
            "role": each.role,
            "groups": each.groups,
            "password": "yes" if each.password else "no",
            "created_at": each.created_at,
            "disabled_at": each.disabled_at,
        }
        for each in await accounts.users()
    ]
    print_table(rows, json)


@user.command()
@click.argument("name")
@with_accounts
async def disable(accounts: Accounts, name: str) -> None:
    """Lock a user out: password, tokens and sessions stop working."""
    if not await accounts.disable(name, True):
        raise no_such_user(name)
    click.echo(f"{name} is locked out.")


@user.command()
@click.argument("name")
@with_accounts
async def enable(accounts: Accounts, name: str) -> None:
    """Let a user in again, with the password and the tokens of before."""
    if not await accounts.disable(name, False):
        raise no_such_user(name)
    click.echo(f"{name} may come in again.")


@user.command()
@click.argument("name")
@with_accounts
async def password(accounts: Accounts, name: str) -> None:
    """Set a user's password, which ends their sessions. It is asked for, or read from the standard input."""
    if not await accounts.set_password(name, ask_password()):
        raise no_such_user(name)
    click.echo(f"{name} has a new password.")


@user.command()
@click.argument("name")
@click.argument("role", type=_role)
@with_accounts
async def role(accounts: Accounts, name: str, role: str) -> None:
    """Give a user another role on the server."""
    if not await accounts.set_role(name, role):
        raise no_such_user(name)
    click.echo(f"{name} is a user with the role {role}.")


@user.command()
@click.argument("name")
@click.argument("group", nargs=-1)
@with_accounts
async def groups(accounts: Accounts, name: str, group: tuple[str, ...]) -> None:
    """Set the groups that a user is in; none takes them out of all."""
    if await accounts.user(name) is None:
        raise no_such_user(name)
    await accounts.set_groups(name, group)
    click.echo(f"{name} is in {', '.join(sorted(set(group))) or 'no group'}.")


@user.command()
@click.argument("name")
@click.option("--name", "label", default="token", show_default=True, help="What the token is for, such as a machine.")
@click.option("--role", type=_role, help="The most that the token may do.  [default: what its user may]")
@click.option("--days", type=click.IntRange(1, 3650), help="For how long it is valid.  [default: until it is revoked]")
@as_json
@with_accounts
async def token(accounts: Accounts, name: str, label: str, role: str | None, days: int | None, json: bool) -> None:
    """Make a token for a user. It is printed this once, and can't be shown again."""
    from headrace.auth.setup_process import make_token
    from headrace.clock import DAY_MS, now_ms

    if await accounts.user(name) is None:
        raise no_such_user(name)
    scope = role or "user"
    expires_at = None if days is None else now_ms() + days * DAY_MS
    made = await make_token(accounts, name, label, scope, expires_at)
    if json:
        print_table([{"token": made, "user": name, "name": label, "role": scope, "expires_at": expires_at}], json)
    else:
        click.echo(made)


@user.command()
@click.argument("name")
@click.option(
    "--url",
    envvar="MLFLOW_TRACKING_URI",
    default="http://localhost:5000",
    show_default=True,
    help="The server's address, as the browser sees it.  [env: MLFLOW_TRACKING_URI]",
)
@with_accounts
async def link(accounts: Accounts, name: str, url: str) -> None:
    """Make a link that signs a user in with a browser, once, within an hour: for a password that was forgotten, too.

    Where it leads, the user may set a new password.
    """
    from headrace.auth.setup_process import make_link

    found = await accounts.user(name)
    if found is None:
        raise no_such_user(name)
    if found.disabled_at is not None:
        raise click.ClickException(f"{name} is locked out. `headrace user enable {name}` lets them in again.")
    if urlsplit(url).scheme not in ("http", "https"):
        raise click.UsageError(f"--url is the server's address, such as https://mlflow.example.com, not {url}.")
    click.echo(await make_link(accounts, name, url))


@user.command("import")
@click.argument("file")
@click.option("--role", type=_role, default="viewer", show_default=True, help="Of those who are no administrators.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@with_accounts
async def import_users(accounts: Accounts, file: str, role: str, dry_run: bool) -> None:
    """Take over the users of MLflow's basic-auth from its FILE basic_auth.db, with passwords and permissions.

    Passwords stay as they are. Who is here already is left alone, so it may be done again.
    """
    from headrace.auth.basic_auth import read

    users = read(file)
    experiments = {grant.object for each in users for grant, _ in each.grants if grant.kind == "experiment"}
    homes = await workspaces_of_experiments(accounts.store, experiments)
    for each in users:
        shown = in_one_line(each.name)
        if await accounts.user(each.name) is not None:
            click.echo(f"{shown}: is here already, left alone")
            continue
        as_role = "admin" if each.is_admin else role
        grants, left_out = [], list(each.left_out)
        for grant, place in each.grants:
            if grant.kind == "experiment" and homes.get(grant.object, place) != place:
                left_out.append(f"{grant.permission} on experiment {grant.object}, which is not in {place}")
            else:
                grants.append(grant)
        if not dry_run:
            for grant in grants:  # first: broken off here, who is not a user yet is taken over the next time
                await accounts.grant(grant)
            await accounts.add_user(each.name, as_role, each.password)
        told = "".join(f"; not taken over: {text}" for text in left_out)
        password = "the password as it was" if each.password else "no password, for its hash is of an unknown kind"
        click.echo(f"{shown}: {as_role}, {password}, {len(grants)} permissions{in_one_line(told)}")
    if dry_run:
        click.echo("Nothing was changed (--dry-run).")


_permission = click.Choice(list(PERMISSIONS))
_group = click.option("--group", is_flag=True, help="NAME is a group.")
_experiment = click.option("--experiment", help="The experiment's id or name.")
_model = click.option("--model", help="The registered model's name.")
_workspace = click.option("--workspace", help="Where the experiment or the model is; alone: all that is in it.")


@user.command()
@click.argument("name")
@click.argument("permission", type=_permission)
@_group
@_experiment
@_model
@_workspace
@with_accounts
async def grant(
    accounts: Accounts,
    name: str,
    permission: str,
    group: bool,
    experiment: str | None,
    model: str | None,
    workspace: str | None,
) -> None:
    """Let a user (or a group) read, edit or manage one experiment or registered model, or a workspace."""
    from headrace.auth.accounts import Grant

    if not group and await accounts.user(name) is None:
        raise no_such_user(name)
    if workspace is not None and not await accounts.store.rows(IS_WORKSPACE(name=workspace)):
        raise click.ClickException(f"There is no workspace {workspace}.")
    kind, object_id = await _object(accounts, experiment, model, workspace)
    await accounts.grant(Grant(_grantee(name, group), kind, object_id, permission))
    click.echo(f"{name} may {permission} the {kind} {object_id}.")


@user.command()
@click.argument("name")
@_group
@_experiment
@_model
@_workspace
@with_accounts
async def revoke(
    accounts: Accounts, name: str, group: bool, experiment: str | None, model: str | None, workspace: str | None
) -> None:
    """Take back what was granted to a user (or a group) on one experiment or registered model, or a workspace."""
    kind, object_id = await _object(accounts, experiment, model, workspace)
    if not await accounts.revoke_grant(_grantee(name, group), kind, object_id):
        raise click.ClickException(f"Nothing was granted to {name} on the {kind} {object_id}.")
    click.echo(f"{name} has no permission on the {kind} {object_id} any more.")


@user.command("grants")
@as_json
@to_look_at_accounts
async def show_grants(accounts: Accounts, json: bool) -> None:
    """List what is granted to whom."""
    rows = [msgspec.to_builtins(each) for each in await accounts.grants()]
    print_table(rows if json else await _with_names(accounts, rows), json)


async def _with_names(accounts: Accounts, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with the names of their experiments, which a grant knows by its id; `-` where it is gone."""
    from headrace.db.names import names_of_experiments

    ids = (row["object"] for row in rows if row["kind"] == "experiment")
    names = await names_of_experiments(accounts.store, ids)
    return [
        row | {"name": names.get(int(row["object"])) if row["kind"] == "experiment" else row["object"]} for row in rows
    ]


def _grantee(name: str, group: bool) -> str:
    return f"{'group' if group else 'user'}:{name}"


async def _object(
    accounts: Accounts, experiment: str | None, model: str | None, workspace: str | None
) -> tuple[str, str]:
    """Kind and id. An experiment's id wins over a name of the same digits. Raises ClickException."""
    if experiment is not None and model is not None:
        raise click.UsageError("Name either an --experiment or a --model.")
    if model is not None:
        return "model", model_key(workspace or DEFAULT_WORKSPACE, model)
    if experiment is None:
        if workspace is None:
            raise click.UsageError("Name an --experiment, a --model or a --workspace.")
        return "workspace", workspace
    if experiment.isascii() and experiment.isdecimal():
        if (number := experiment_number(experiment)) is None:
            raise click.ClickException(f"There is no experiment {experiment}.")
        return "experiment", str(number)
    place = workspace or DEFAULT_WORKSPACE
    rows = await accounts.store.rows(EXPERIMENT_OF["experiment-name"](ids=[experiment], workspace=place))
    if not rows:
        where = f" in the workspace {place}" if workspace else ""
        raise click.ClickException(f"There is no experiment {experiment}{where}.")
    return "experiment", str(rows[0][1])
