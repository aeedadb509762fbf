"""A look at what a server offers to this box, for `asd-daemon check`: nothing is fetched, kept or remembered."""

from __future__ import annotations

from datetime import datetime

from asd_daemon.errors import RolloutError
from asd_daemon.judge.bundle.signature import read_public_key
from asd_daemon.rollout.downloading import BundleServer
from asd_daemon.rollout.fetching import FetchJob
from asd_daemon.rollout.offer import read_offer, refuse_stale, why_not_yet


def offered_words(job: FetchJob, now: datetime) -> str:
    """What is offered to a box, and whether it is its turn.

    Args:
        job: what it would fetch.
        now: UTC time.

    Raises:
        BundleError: the key can't be read, the server does not answer, or its answer is not to be believed.
    """
    read_public_key(job.key)  # before the server is asked
    found = BundleServer(job.url, job.ca_file, insecure=job.insecure, silent_s=job.silent_s).offer(None)
    if found is None:
        raise RolloutError(f"{job.url}: says that nothing has changed, but was not asked so")
    offer = read_offer(found.content, job.url, job.key)
    refuse_stale(offer, job.url, highest=job.highest, now=now)
    offered = offer.channel(job.channel, job.url)
    waits = why_not_yet(offered, job.node, job.ring, now)
    turn = "for this box" if waits is None else f"not yet for this box: {waits}"
    return f"{job.url}: {offered.words} on channel {job.channel}, {turn}; believed until {offer.expires:%Y-%m-%d}"
