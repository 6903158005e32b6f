"""Another image for the hosts that run: upgrade and rollback, gated by health, host by host.

Either may be broken off at any point; run again, it continues from what the journal and the hosts show.
"""

from __future__ import annotations

from headrace.aws import database, hosts, images, journal, stacks, templates
from headrace.aws.client import Cloud
from headrace.aws.execute import settled
from headrace.aws.hosts import Host
from headrace.aws.journal import Journal
from headrace.aws.stacks import Say, Stack
from headrace.errors import AwsError, ConfigurationError, SchemaOutOfDate


def upgrade(cloud: Cloud, name: str, version: str, say: Say) -> str:
    """Put the image with this tag (or whole name) into service; its name by digest.

    A snapshot first; MLflow's own migrations where the schema is older; then each host swaps when the new server is
    healthy, and keeps the old one otherwise. Raises AwsError; then what runs is what ran before, unless the text says
    otherwise.
    """
    data, app = settled(cloud, f"{name}-data", say), settled(cloud, f"{name}-app", say)
    target, deployed = _pinned(cloud, name, version), app.parameters["Image"]
    if target == deployed and _fits(cloud, data, app, say):  # perhaps since a try that was broken off
        say(f"{target} is the image of the stack already; looking at each host")
        with hosts.kept(cloud, app, say):
            _swap(cloud, name, app, target, say)
        journal.end(cloud, name)
        return target
    record = journal.begin(cloud, name, deployed, target)
    if not record.migrating:
        database.snapshot(cloud, data, record.snapshot, say)
    try:
        with hosts.kept(cloud, app, say):
            record = _migrate(cloud, name, data, app, record, say)
            _swap(cloud, name, app, target, say)
    except AwsError as error:
        if not (now := journal.read(cloud, name)) or not now.migrating:
            journal.end(cloud, name)
            raise
        raise AwsError(
            f"{error}\nThe database was migrated before. As it was, it is in the snapshot {record.snapshot}; the old "
            "image needs it. Or put right what is wrong, and run `headrace aws upgrade` again: it continues.",
            error.code,
        ) from None
    journal.end(cloud, name)
    database.expire_snapshots(cloud, name, data, say)
    return target


def rollback(cloud: Cloud, name: str, say: Say) -> str:
    """Put the image before the last upgrade back into service; its name. The database stays as it is.

    Where an upgrade is under way, that is the image that it began with. Raises AwsError.
    """
    app = settled(cloud, f"{name}-app", say)
    record = journal.read(cloud, name)
    under_way = record is not None and record.source == app.parameters["Image"]
    previous = app.parameters["Image"] if under_way else app.parameters.get("PreviousImage", "")
    if not previous:
        raise AwsError(f"{app.name} in {cloud.region} has had one image only; there is nothing to go back to.")
    if record is not None and record.migrating:
        journal.want(cloud, name, previous)
    try:
        with hosts.kept(cloud, app, say):
            _swap(cloud, name, app, previous, say, previous=previous)
    except AwsError as error:
        if record is None or not record.migrating:
            raise
        raise AwsError(
            f"{error}\nAn upgrade has migrated the database; the old image needs the database of before: "
            f"`headrace aws restore --snapshot {record.snapshot}`, then this command again.",
            error.code,
        ) from None
    journal.end(cloud, name)
    return previous


def _pinned(cloud: Cloud, name: str, version: str) -> str:
    image = images.full_name(cloud, name, version)
    pinned = images.pinned(cloud, name, image)
    if pinned is None:
        raise AwsError(
            f"ECR in {cloud.region} has no image {image}. Push it first (container/publish.sh push, or the pipeline); "
            f"aws ecr describe-images --region {cloud.region} --repository-name {name} lists what is there."
        )
    return pinned


def _fits(cloud: Cloud, data: Stack, app: Stack, say: Say) -> bool:
    """Whether the schema is this Headrace's; that of a database which was adopted or restored may be older."""
    from headrace.database import prepare

    with database.as_master(cloud, data, hosts.wait_online(cloud, app, say)[0].id) as settings:
        try:
            prepare(settings, say)
        except SchemaOutOfDate as error:
            return error.newer
    return True


def _migrate(cloud: Cloud, name: str, data: Stack, app: Stack, record: Journal, say: Say) -> Journal:
    """Run MLflow's migrations of this machine's Headrace where the schema is older; the journal, as it is then.

    No server runs meanwhile. However the migrations fail, the servers start again.
    """
    from headrace.database import prepare
    from headrace.database import upgrade as migrate

    running = hosts.wait_online(cloud, app, say)
    with database.as_master(cloud, data, running[0].id) as settings:
        try:
            prepare(settings, say)
        except SchemaOutOfDate as error:
            if error.newer:
                raise AwsError(f"{error}\nRun this with the Headrace that the new image was built from.") from None
            say(f"{error}\nStopping the servers and running MLflow's migrations")
        else:
            return record
        record = journal.write(cloud, name, record._replace(migrating=True))
        journal.want(cloud, name, record.target)  # a host that comes meanwhile must not start the old image
        try:
            running = hosts.wait_online(cloud, app, say)  # with those that came before they could know that
            hosts.stop_servers(cloud, running, say)
            migrate(settings)
        except BaseException as error:  # Ctrl-C and a lost tunnel, too
            _take_back(cloud, name, data, running, record, say)
            if isinstance(error, ConfigurationError):
                raise AwsError(str(error)) from None
            raise
    return record


def _take_back(cloud: Cloud, name: str, data: Stack, running: list[Host], record: Journal, say: Say) -> None:
    """After migrations that did not end well: the servers start again, on the schema of before.

    All migrations are one transaction. Where nobody can be asked whether it was committed after all, the journal keeps
    that it may have been; a server that does not fit its schema does not start.
    """
    from headrace.database import prepare

    unchanged = False
    try:
        with database.as_master(cloud, data, running[0].id) as settings:  # the tunnel of before may have ended
            prepare(settings, say)
    except SchemaOutOfDate:
        unchanged = True
    except Exception as error:  # whatever it is, the servers are started
        say(f"What the migrations have left could not be looked at: {error}")
    else:
        say(f"The database is migrated. `headrace aws upgrade {record.target}` goes on from there.")
        return
    hosts.start_servers(cloud, running, say)
    if unchanged:
        journal.write(cloud, name, record._replace(migrating=False))
        journal.want(cloud, name, None)
        say("The servers run again, on the database as it was.")


def _swap(cloud: Cloud, name: str, app: Stack, image: str, say: Say, previous: str | None = None) -> None:
    """Host by host; where one refuses the image, those before it go back. Then new hosts start with it, too.

    `previous` is what `rollback` goes back to from then on; by default what the stack has run until now.
    """
    deployed = app.parameters["Image"]
    swapped: list[Host] = []
    for host in hosts.wait_online(cloud, app, say):
        try:
            _put(cloud, name, host, image, say)
        except AwsError as error:
            text = f"{image} was not put into service; {deployed} runs on.\n{error}"
            for done in reversed(swapped):
                try:
                    _put(cloud, name, done, deployed, say)
                except AwsError as another:
                    text += f"\nAnd {done.id} could not go back to it: {another}"
            raise AwsError(text, error.code) from None
        swapped.append(host)
    if previous is None:
        previous = deployed if deployed != image else app.parameters.get("PreviousImage", "")
    now = settled(cloud, app.name, say)  # `up` may have changed something else meanwhile
    parameters = {**now.parameters, "Image": image, "PreviousImage": previous}
    stacks.execute(cloud, stacks.propose(cloud, app.name, templates.app(), parameters), say)
    images.keep(cloud, name, image, previous, say)
    # a host that has come meanwhile, in the place of a broken one, came with the old image
    for host in hosts.wait_online(cloud, app, say):
        if host.id not in {done.id for done in swapped}:
            _put(cloud, name, host, image, say)


def _put(cloud: Cloud, name: str, host: Host, image: str, say: Say) -> None:
    """Changes nothing on a host that runs the image already."""
    hosts.run(cloud, host.id, hosts.run_container(name, cloud.region, image), f"put {image} into service", say)
