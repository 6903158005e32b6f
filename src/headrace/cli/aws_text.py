"""What `headrace aws` shows of a plan and of a deployment, as lines for people."""

from __future__ import annotations

from typing import Any

from headrace.aws.execute import Preview


def of_preview(preview: Preview) -> str:
    """A step of a plan, with what it changes."""
    lines = [f"{'  ' if preview.nothing else '* '}{preview.what}"]
    for change in preview.changes:
        why = f" ({', '.join(change.why)})" if change.why else ""
        mark = "REPLACE" if change.replaced else change.action.lower()
        lines.append(f"    {mark:<8}{change.resource}  {change.type.removeprefix('AWS::')}{why}")
    return "\n".join(lines)


def of_status(found: dict[str, Any]) -> str:
    """All that aws/status.py has found, a line each."""
    lines = []
    for part in ("data", "app"):
        stack = found[part]
        said = "not there" if stack is None else f"{stack['stack']}: {stack['status']} {stack['reason']}".rstrip()
        lines.append(f"{part:<9}{said}")
        lines += [f"         changed by hand: {line}" for line in (stack or {}).get("drift", [])]
    if "database" in found:
        database = found["database"]
        lines.append(f"database {database['DBInstanceIdentifier']}: {database['DBInstanceStatus']}")
        lines += [
            f"database {one}: put aside by a restore, and not in use; `headrace aws restore --delete-old` deletes it"
            for one in found["put_aside"]
        ]
        lines.append(f"bucket   {found['bucket']}")
        lines.append(f"keys     {found['keys']}")
        lines += [f"in place {one}: it was there before, and stays after `down`" for one in found["in_place"]]
    if "hosts" in found:
        lines.append(f"image    {found['image']}")
        for host in found["hosts"]:
            reach = "reachable" if host["online"] else "NOT reachable by Session Manager"
            lines.append(f"host     {host['id']}: {host['state']}, {host['health']}, {reach}")
        if found["suspended"]:
            lines.append(
                f"group    {', '.join(found['suspended'])} suspended, by an upgrade or restore under way, or killed: "
                "`headrace aws upgrade`, `rollback` or `up` resumes"
            )
        if found["upgrade"] is not None:
            target = found["upgrade"]["target"]
            lines.append(
                f"upgrade  to {target} is under way, or was broken off: `headrace aws upgrade {target}` continues it, "
                "`headrace aws rollback` takes it back"
            )
        lines += [f"setting  {name}={value}" for name, value in found["settings"].items()]
        lines += [f"alarm    {what}: {state}" for what, state in found["alarms"].items() if state != "OK"]
        if found["silenced"]:
            lines.append("alarms   send nothing since an `up` that was broken off: `headrace aws up` finishes it")
        lines += [f"mail     {line}" for line in unconfirmed(found)]
        lines += [f"old      {line}" for line in found["old"]]
        lines.append(f"url      {found['url']}")
        lines += [f"in VPC   {address}" for address in found["in_vpc"]]
    return "\n".join(lines)


def unconfirmed(found: dict[str, Any]) -> list[str]:
    """A line for each who gets no alarm yet."""
    return [
        f"{address} gets no alarm until the link in the mail of AWS Notifications is followed"
        for address in found["unconfirmed"]
    ]
