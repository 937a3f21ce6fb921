"""How is a webhook sent? By threads of the control process, so that no slow receiver holds up a plan or a manifest.

It is sent at least once. Redis has what is due until it is settled, and the sweep asks again. If Redis is lost, the
catalog says which jobs aren't settled. A receiver knows a repetition by its webhook-id.
"""

import logging
import secrets
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from jobs.logs import bound, event
from jobs.settings import Settings
from jobs.state import State
from jobs.storage.catalog import Catalog
from jobs.storage.schedule_store import Key, ScheduleStore
from jobs.webhooks import policy, signing
from jobs.webhooks.fair_queue import FairQueue
from jobs.webhooks.ssrf_safe_post import post
from schemas.errors import NightshiftError, Permanent, Transient

_log = logging.getLogger(__name__)
#: Webhooks sent at once; of one tenant.
_SENDERS, _OF_A_TENANT = 8, 4


@dataclass(frozen=True)
class _Notice:
    """A webhook, by its id: that of the job, or the one that a run has for it. `output` is where its subject lies."""

    id: str
    output: str
    url: str
    tenant: str
    body: bytes


class Notifier:
    """Sends what is due. Threads may share one. It starts its own threads at the first webhook."""

    def __init__(self, settings: Settings, state: State, catalog: Catalog) -> None:
        self._settings = settings
        self._state = state
        self._catalog = catalog
        self._schedules = ScheduleStore(catalog.uri, catalog.storage)
        self._asked: FairQueue[tuple[str, str]] = FairQueue(_OF_A_TENANT)
        self._in_hand: set[str] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def submit(self, job: str, output: str) -> None:
        """Have a job's webhook sent soon, unless it is in hand already."""
        is_run = self._schedules.is_record(output)
        tenant = self._schedules.tenant_of(output) if is_run else self._state.jobs.tenant(job)
        with self._lock:
            if job in self._in_hand:
                return
            self._in_hand.add(job)
            while len(self._threads) < _SENDERS:
                # A process that ends waits for none of them: what they had in hand comes due again.
                thread = threading.Thread(target=self._send_all, name="notifier", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._asked.put(tenant, (job, output))

    def _send_all(self) -> None:
        while True:
            tenant, (job, output) = self._asked.get()
            try:
                self.deliver(job, output)
            except NightshiftError as error:  # Redis or the storage is away: it comes due again
                event(_log, "webhook_put_off", logging.WARNING, job=job, error=error.message)
            except Exception:  # noqa: BLE001 (the thread has others to send)
                _log.exception("webhook_put_off")
            finally:
                with self._lock:
                    self._in_hand.discard(job)
                self._asked.done(tenant)

    def deliver(self, job: str, output: str) -> None:
        """Send a job's webhook once, unless it is settled, and note what came of it.

        Raise ServiceUnavailable or Transient if Redis or the storage is away. The webhook is then due again.
        """
        owner = secrets.token_hex(8)
        with bound(job=job), self._state.locks.alone(f"notify:{job}", owner, self._settings.lease_s) as is_alone:
            if not is_alone:
                return
            try:
                notice = self._notice(job, output)
            except Permanent as error:
                event(_log, "webhook_given_up", logging.ERROR, error=error.message)
                self._settle(job, output)
                return
            if notice is None or self._catalog.is_marked(job):
                self._state.webhooks.settle(job)
                return
            tries = self._state.webhooks.begin(job)
            if tries is not None:
                self._try(notice, tries)

    def _notice(self, id: str, output: str) -> "_Notice | None":
        """Return what is to be sent; None if the job, or the schedule, wants no webhook."""
        if self._schedules.is_record(output):
            return self._run_notice(id, output)
        job = self._catalog.job(id)
        manifest = None if job is None else self._catalog.folder(job.output).read_manifest()
        if job is None or manifest is None:
            raise Permanent(f"there is no job {id} with a manifest", code="job_gone")
        notify = job.spec.notify
        return None if notify is None else _Notice(id, output, str(notify), job.tenant, signing.body(job, manifest))

    def _run_notice(self, id: str, uri: str) -> "_Notice | None":
        record = self._schedules.record_at(uri)
        key = Key(record.tenant, record.schedule)
        end = self._schedules.ended(key, record.run)
        if end is None:
            raise Permanent(f"the run at {uri} has not ended", code="run_open")
        notify = self._schedules.version(key, record.number).schedule.notify
        return None if notify is None else _Notice(id, uri, str(notify), key.tenant, signing.run_body(record, end))

    def _try(self, notice: "_Notice", tries: int) -> None:
        host = (urlsplit(notice.url).hostname or "").lower()  # the rest of a URL may be a secret
        wait: float | None = None
        try:
            if tries > self._settings.notify_tries:  # whatever ended the process each time
                raise Permanent("its tries ended without an outcome")
            status = self._send(notice, host)
        except Permanent as error:
            why = error.message
        except NightshiftError as error:
            why, wait = error.message, policy.next_try_s(tries, self._settings)
        else:
            if 200 <= status < 300:
                event(_log, "webhook_delivered", host=host, status=status, tries=tries)
                self._settle(notice.id, notice.output)
                return
            redirect = "; redirects are not followed" if 300 <= status < 400 else ""
            why, wait = f"{host} answered {status}{redirect}", policy.next_try_s(tries, self._settings)
        if wait is None:
            event(_log, "webhook_given_up", logging.ERROR, host=host, tries=tries, error=why)
            self._settle(notice.id, notice.output)
        else:
            event(_log, "webhook_failed", logging.WARNING, host=host, tries=tries, next_s=wait, error=why)
            self._state.webhooks.again(notice.id, wait)

    def _send(self, notice: "_Notice", host: str) -> int:
        settings = self._settings
        if settings.notify_secret is None:
            raise Transient("NIGHTSHIFT_NOTIFY_SECRET, which signs webhooks, isn't set for the control process")
        policy.check_host(host, settings)
        key = signing.signing_key(settings.notify_secret.get_secret_value(), notice.tenant)
        headers = signing.headers(notice.id, notice.body, key, time.time())
        return post(notice.url, notice.body, headers, settings.notify_timeout_s, settings.notify_networks)

    def _settle(self, job: str, output: str) -> None:
        """Mark the job, then settle in Redis: a webhook that only Redis knew to be settled would be sent again."""
        try:
            folder = None if self._schedules.is_record(output) else self._catalog.folder(output)
            self._catalog.mark_ended(job, folder)
        except NightshiftError as error:
            event(_log, "end_not_marked", logging.WARNING, error=error.message)
        self._state.webhooks.settle(job)
