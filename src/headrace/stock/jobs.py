"""MLflow's job runner: of the servers of one database one has it at a time, and another one when that is gone.

MLflow's runner takes up, when it starts, all that is unfinished in the database, whoever is at it, and asks the judges
of new traces once a minute: two of them would do everything twice. Which server has it, a lease says, in MLflow's own
table and by the database's clock. What another server is asked for waits in the database until the one with the runner
puts it into its queues; MLflow would do so at its next start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities._job import Job
    from mlflow.server.jobs.lock_manager import JobLockManager, SchedulerLease

LEASE = "headrace job runner"
# The lease is renewed so many times before it ends; where that fails, the runner stops one part before.
PARTS = 12
# What the runner has started looks for its parent once a second, and so does what that has started.
END_SECONDS = 5
# After its start the runner looks for what is older than itself.
RECOVERY_SECONDS = 120


class JobRunner(threading.Thread):
    """Has MLflow's job runner, a process that ends soon after this one, while this server has the lease.

    `environment`: what `mlflow server` sets for it. The lease lasts MLFLOW_SERVER_JOB_LEASE_TTL seconds. To be made
    before anything else runs: modules of MLflow's that two threads import at once may wait for each other for ever.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        from mlflow.environment_variables import MLFLOW_SERVER_JOB_LEASE_TTL
        from mlflow.server import handlers
        from mlflow.server.jobs import lock_manager, utils

        self._mlflow: Any = utils
        self._lock_manager: Any = lock_manager.JobLockManager
        self._job_store = handlers._get_job_store
        super().__init__(name="job runner", daemon=True)
        self._environment = environment
        self._seconds = max(PARTS, round(MLFLOW_SERVER_JOB_LEASE_TTL.get()))
        self._leases: JobLockManager | None = None
        self._lease: SchedulerLease | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._last_moment: threading.Timer | None = None
        self._began_ms = 0.0
        self._left: set[str] = set()  # jobs that were in none of our queues at the last look
        self._changing = threading.Lock()
        self._ended = threading.Event()

    @property
    def is_here(self) -> bool:
        """Whether this server runs the jobs."""
        return self._process is not None

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self._look()
            except Exception as error:  # a database that is away
                _say(f"MLflow's jobs: {error!r:.300}")
            self._ended.wait(self._seconds / PARTS)
        self._stop()
        with suppress(Exception):  # else the lease ends by itself
            if self._leases is not None and self._lease is not None:
                self._leases.renew_scheduler_lease(self._lease, END_SECONDS)

    def end(self) -> None:
        """End the process, and let another server have the lease soon, where the database answers."""
        self._ended.set()
        if self.is_alive():
            self.join(END_SECONDS)
        self._stop()

    def _look(self) -> None:
        if self._leases is None:
            self._leases = self._lock_manager(self._job_store())
        began = time.monotonic()
        if self._lease is None:
            self._lease = self._leases.acquire_scheduler_lease(LEASE, self._seconds)
        else:
            self._lease = self._leases.renew_scheduler_lease(self._lease, self._seconds)
        if self._lease is None:
            self._stop()
            return
        self._stop_at(began + self._seconds * (PARTS - 1) / PARTS)
        if self._process is None or self._process.poll() is not None:
            self._start()
        else:
            self._take_up()

    def _start(self) -> None:
        if self._mlflow._get_huey_redis_url() is None:  # else the queues are not ours alone
            for queue in self._queues():
                queue.flush()  # the runner begins with all that is unfinished in the database
        self._began_ms, self._left = time.time() * 1000, set()
        with self._changing:
            if not self._ended.is_set():
                self._process = self._mlflow._launch_job_execution_runner(self._environment, os.getpid())
                _say("this server runs MLflow's jobs")

    def _stop(self) -> None:
        with self._changing:
            if self._process is not None:
                self._process.terminate()
                try:
                    self._process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
                self._process = None
                _say("this server runs MLflow's jobs no longer")

    def _stop_at(self, when: float) -> None:
        """A database that is silent may hold the thread that would renew the lease for longer than it lasts."""
        if self._last_moment is not None:
            self._last_moment.cancel()
        self._last_moment = threading.Timer(when - time.monotonic(), self._stop)
        self._last_moment.daemon = True
        self._last_moment.start()

    def _take_up(self) -> None:
        """What other servers were asked for: what is in none of our queues, now and at the last look.

        From a queue to its start a job needs no time; one that is done already, or twice in a queue, does not start.
        """
        if self._mlflow.get_job_execution_engine() == "executor":  # which looks into the database by itself
            return
        waiting: dict[str, tuple[Job, str | None]] = {}
        now_ms = time.time() * 1000
        takes_old_ones = now_ms > self._began_ms + RECOVERY_SECONDS * 1000

        def note(job: Job, workspace: str | None) -> None:
            if takes_old_ones or job.creation_time > self._began_ms:
                waiting[job.job_id] = job, workspace

        pending = [self._mlflow.JobStatus.PENDING]
        self._mlflow._for_each_unfinished_job(self._job_store(), pending, int(now_ms), note)
        queued = {task.args[0] for queue in self._queues() for task in (*queue.pending(), *queue.scheduled())}
        left = waiting.keys() - queued
        for job_id in left & self._left:
            self._enqueue(*waiting[job_id])
        self._left = left

    def _queues(self) -> list[Any]:
        names = self._mlflow._job_name_to_fn_fullname_map
        return [self._mlflow._get_or_init_huey_instance(name).instance for name in names]

    def _enqueue(self, job: Job, workspace: str | None) -> None:
        """As MLflow's runner at its start (_enqueue_unfinished_jobs in mlflow/server/jobs/utils.py)."""
        mlflow = self._mlflow
        with_workspaces = mlflow.MLFLOW_ENABLE_WORKSPACES.get()
        place = (job.workspace or workspace or mlflow.DEFAULT_WORKSPACE_NAME) if with_workspaces else None
        function = mlflow._load_function(mlflow.get_job_fn_fullname(job.job_name))
        mlflow._get_or_init_huey_instance(job.job_name).submit_task(
            job.job_id, place, job.job_name, json.loads(job.params), job.timeout, function._job_fn_metadata.exclusive
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
