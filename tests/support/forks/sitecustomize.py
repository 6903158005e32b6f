"""Python imports this before its program: see tests/support/fork_server.py. Every start of a server pays for it."""

import os
import sys

MODULES = (
    *("headrace.stock.launch", "headrace.stock.migrate", "headrace.copy.server", "headrace.copy.filestore"),
    *("headrace.copy.tensorboard", "headrace.copy.wandb"),
    *("tests.support.stock", "tests.support.stock_tables"),
    *("mlflow.server.jobs._job_runner", "huey.bin.huey_consumer", "mlflow.server.jobs._job_subproc_entry"),
)


def kind_of(arguments: "list[str]") -> str:
    match arguments:
        case ["-m", module] if module in MODULES:
            return "server"
        case [script, "aws"] if script.endswith("/headrace"):
            return "aws"
    return "client"


folder, kinds = os.path.split(os.environ.get("TESTS_FORK_SERVERS", ""))
is_new = os.environ.pop("TESTS_NEW_INTERPRETER", "")
if folder and not is_new and (kind := kind_of(sys.orig_argv[1:3])) in kinds.split("+"):
    if "+" not in kinds:  # else its children are forks, too
        del os.environ["TESTS_FORK_SERVERS"]
    import json
    import signal
    import socket

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        os.umask(umask := os.umask(0o022))
        request = {
            "stand_in": os.getpid(),
            "arguments": sys.orig_argv,
            "path": sys.path,
            "environ": dict(os.environ),
            "folder": os.getcwd(),
            "umask": umask,
        }
        channel.connect(f"{folder}/{kind}")
        socket.send_fds(channel, [json.dumps(request).encode()], [0, 1, 2])
        waits = channel.recv(100) == b"wait"
        if waits:
            for number in SIGNALS:
                signal.signal(number, lambda number, _: channel.send(bytes([number])))
            os.closerange(0, 3)  # whoever reads the other ends sees the fork's end
            code = int(channel.recv(100) or -signal.SIGKILL)
    except BaseException as error:  # which Python would pass over
        print(f"no fork: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    if waits:
        if code < 0:
            if code != -signal.SIGKILL:
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)
    channel.close()
