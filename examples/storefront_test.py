#!/usr/bin/env python3
"""Drives storefront.py's parties against a real `walras up --no-demo` that is killed again and again.

Every process gets SIGKILL several times in the middle, the broker and the database included. At the end: every
id answered exactly once, no market oversold, prices equal to a slow recomputation from the accepted bids, and
the journal audits. Run by `cargo xtask test`; by hand:

    python examples/storefront_test.py --walras target/debug/walras --bids 3000 --kills 4
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from storefront import Party, follow_reports, make_plan, print_markets, read_catalogue  # noqa: E402

START_SECONDS = 60
SETTLE_SECONDS = 300


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Postgres:
    """A PostgreSQL of our own. It refuses to run as root, so it runs as the user postgres there."""

    def __init__(self, folder):
        self.folder, self.port = folder / "postgres", free_port()
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self.process = None

    @staticmethod
    def programs():
        found = shutil.which("postgres")
        candidates = [Path(found).parent] if found else []
        candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        real = [folder for folder in candidates if (folder / "initdb").exists() and (folder / "postgres").exists()]
        return real[-1] if real else None

    def create(self):
        self.folder.mkdir()
        if self.as_user:
            shutil.chown(self.folder, "postgres")
            for parent in (self.folder.parent,):
                parent.chmod(0o755)
        command = [self.programs() / "initdb", "-D", self.folder / "data", "-U", "walras", "-A", "trust"]
        subprocess.run([*self.as_user, *map(str, command)], check=True, stdout=subprocess.DEVNULL)

    def start(self):
        command = [self.programs() / "postgres", "-D", self.folder / "data", "-p", self.port, "-k", self.folder]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=64MB"]
        log = open(self.folder.parent / "postgres.log", "ab")
        self.process = subprocess.Popen([*self.as_user, *map(str, command)], stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        ready = [str(self.programs() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > until:
                raise TimeoutError("PostgreSQL did not start")
            time.sleep(0.1)

    def kill(self):
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        self.process.wait()
        # Its children notice that the postmaster is gone and end; until then it would not start again.
        until = time.monotonic() + START_SECONDS
        while subprocess.run(["pgrep", "-f", "--", f"-p {self.port} "], check=False, stdout=subprocess.DEVNULL).returncode == 0:
            if time.monotonic() > until:
                raise TimeoutError("PostgreSQL's children did not end")
            time.sleep(0.1)

    def url(self):
        return f"postgres://walras@127.0.0.1:{self.port}/postgres"


class Walras:
    """`walras up --no-demo` as a process group that can be killed and started again."""

    def __init__(self, binary, folder, database_url):
        self.folder, self.data = folder, folder / "walras"
        self.command = [binary, "up", "--no-demo", "--data-dir", str(self.data), "--listen", f"127.0.0.1:{free_port()}"]
        self.command += ["--set", f"bus.port={free_port()}", "--set", "admin.listen=127.0.0.1:0"]
        if database_url:
            self.command += ["--database-url", database_url]
        self.process = None

    def start(self):
        (self.data / "up.json").unlink(missing_ok=True)
        log = open(self.folder / "walras.log", "ab")
        # Whatever cluster somebody works with, this test leaves it alone.
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        self.process = subprocess.Popen(
            self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )
        until = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"walras ended with {self.process.returncode}: see {self.folder}/walras.log")
            if (self.data / "up.json").exists():
                return json.loads((self.data / "up.json").read_text())
            if time.monotonic() > until:
                raise TimeoutError("walras did not come up")
            time.sleep(0.05)

    def broker_pid(self):
        return json.loads((self.data / "up.json").read_text())["broker_pid"]

    def kill(self):
        broker = self.broker_pid()
        self.process.kill()
        self.process.wait()
        until = time.monotonic() + 10
        while is_running(broker):
            if time.monotonic() > until:
                raise AssertionError("the broker outlived the walras that started it")
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=30)
        if code != 0:
            raise AssertionError(f"walras ended with {code} after SIGTERM")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def torment(walras, postgres, kills, chance, settled):
    """Kills everything several times, at instants drawn by chance, and starts it again."""
    for number in range(kills):
        try:
            await asyncio.wait_for(asyncio.shield(settled.wait()), chance.uniform(0.3, 2.0))
        except asyncio.TimeoutError:
            pass
        kind = number % (3 if postgres else 2)
        if kind == 1:
            print(f"kill {number + 1}: the broker alone")
            os.kill(walras.broker_pid(), signal.SIGKILL)
            continue
        if kind == 2:
            print(f"kill {number + 1}: the database alone")
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)
            continue
        print(f"kill {number + 1}: walras, its broker" + (" and the database" if postgres else ""))
        await asyncio.to_thread(walras.kill)
        if postgres:
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(walras.start)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def check_answers(party, commands):
    """Every id was answered, with one content however often it was asked."""
    asked = {command["id"] for command in commands}
    check(set(party.answers) == asked, f"{party.principal}: ids without an answer, or answers without an id")
    refused = [answer for answer in party.answers.values() if answer["type"] == "Refused"]
    check(not refused, f"{party.principal}: refused: {refused[:3]}")


def slow_price(limits, supply):
    """The lowest accepted limit where supply ends, else the reserve; and how many units sell."""
    reserve = Decimal("0.001")
    units = sorted((limit for limit, quantity in limits for _ in range(quantity)), reverse=True)
    winners = [limit for limit in units if limit >= reserve][:supply]
    if supply == 0:
        return None, 0
    return (winners[-1] if len(winners) == supply else reserve), len(winners)


def check_markets(plan, statuses):
    """Prices and sales as a slow recomputation has them, from the bids alone."""
    supplies = {offer["market"]: offer["units"] for offer in plan.supplies}
    limits = {market: [] for market in supplies}
    for bid in plan.bids:
        option = bid["options"][0]
        limits[option["market"]].append((Decimal(option["limit"]), bid["quantity"]))
    for market, supply in supplies.items():
        status = statuses[market]
        price, sold = slow_price(limits[market], supply)
        check(status["supply"] == supply, f"{market}: supply {status['supply']}, offered {supply}")
        check(status["sold"] <= supply, f"{market}: oversold")
        check(status["sold"] == sold, f"{market}: sold {status['sold']}, recomputed {sold}")
        shown = None if status["price"] is None else Decimal(status["price"])
        check(shown == price, f"{market}: price {shown}, recomputed {price}")


def check_leases(plan, facts):
    """Leases that are held and not leaving, counted from what the storefront was told, never exceed supply."""
    held, seen = {}, set()
    for fact in sorted(facts, key=lambda fact: fact["sequence"]):
        mark = json.dumps(fact, sort_keys=True)
        if mark in seen:
            continue  # After a crash a message may come twice.
        seen.add(mark)
        span = fact.get("leases")
        leases = range(span["first"], span["first"] + span["units"]) if span else ()
        for lease in leases:
            if fact["type"] in ("Awarded", "NoticeWithdrawn"):
                held[lease] = fact["market"]
            elif fact["type"] in ("NoticeGiven", "Released"):
                held.pop(lease, None)
    supplies = {offer["market"]: offer["units"] for offer in plan.supplies}
    for market, supply in supplies.items():
        count = sum(where == market for where in held.values())
        check(count <= supply, f"{market}: {count} leases held, supply {supply}")
    return len(held)


def get_json(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


async def settled_statuses(up, plan, statuses_url):
    """The markets' status once the last round has reached the gateway."""
    wanted = {}
    for bid in plan.bids:
        wanted[bid["options"][0]["market"]] = wanted.get(bid["options"][0]["market"], 0) + bid["quantity"]
    until = time.monotonic() + START_SECONDS
    while True:
        statuses = {status["market"]: status for status in (await asyncio.to_thread(get_json, statuses_url))["markets"]}
        if all(statuses.get(market, {}).get("wanted") == units for market, units in wanted.items()):
            return statuses
        if time.monotonic() > until:
            raise TimeoutError(f"the gateway at {up['gateway_url']} has not caught up")
        await asyncio.sleep(0.2)


async def run(arguments, folder):
    chance = random.Random(arguments.seed)
    postgres = None
    if arguments.postgres:
        postgres = Postgres(folder)
        postgres.create()
        postgres.start()
    walras = Walras(arguments.walras, folder, postgres.url() if postgres else None)
    try:
        up = walras.start()
        listings = read_catalogue(arguments.catalogue)
        parties = [Party(role, up["parties"][role], up) for role in ("operator", "hypervisor", "storefront")]
        for party in parties:
            await party.connect()
        operator, hypervisor, storefront = parties
        plan = make_plan(listings, arguments.bids, up["tenants"], hypervisor.principal, "t", arguments.seed)
        reports = {}
        await follow_reports(storefront.connection, up["exchange"], reports)
        await operator.settle(plan.markets, SETTLE_SECONDS)
        await hypervisor.settle(plan.supplies, SETTLE_SECONDS)

        settled = asyncio.Event()
        tormenting = asyncio.create_task(torment(walras, postgres, arguments.kills, chance, settled))
        portion = max(1, len(plan.bids) // (arguments.kills * 2 + 1))
        for start in range(0, len(plan.bids), portion):
            await storefront.settle(plan.bids[start : start + portion], SETTLE_SECONDS)
            if not tormenting.done():
                await asyncio.sleep(chance.uniform(0, 0.5))
        settled.set()
        await tormenting
        # Every id once more: each must get the answer it had.
        await storefront.settle(plan.bids, SETTLE_SECONDS)
        check(storefront.repeated_answers >= len(plan.bids), "repeated ids were not answered again")

        for party, commands in zip(parties, (plan.markets, plan.supplies, plan.bids)):
            check_answers(party, commands)
        statuses = await settled_statuses(up, plan, up["gateway_url"] + "/v1/markets")
        check_markets(plan, statuses)
        held = check_leases(plan, storefront.facts)
        for party in parties:
            await party.close()
        walras.stop()
    finally:
        if walras.process and walras.process.poll() is None:
            walras.process.kill()
    audit = [arguments.walras, "replay", "--audit", "--data-dir", str(walras.data)]
    if postgres:
        audit += ["--database-url", postgres.url()]
    audited = subprocess.run(audit, check=False, capture_output=True, text=True)
    print(audited.stdout.strip() or audited.stderr.strip())
    check(audited.returncode == 0, f"the audit ended with {audited.returncode}")
    if postgres:
        postgres.kill()
    if arguments.verbose:
        print_markets(listings, statuses)
    database = "PostgreSQL" if postgres else "SQLite"
    print(
        f"{database}: {len(plan.bids)} bids in {len(plan.supplies)} markets, {arguments.kills} kills,"
        f" {storefront.repeated_answers} answers repeated alike, {held} leases held: all as it must be"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walras", required=True, help="the binary")
    parser.add_argument("--catalogue", default=Path(__file__).with_name("catalogue.json"), type=Path)
    parser.add_argument("--bids", default=3000, type=int)
    parser.add_argument("--kills", default=4, type=int)
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--postgres", action="store_true", help="journal in a PostgreSQL that is killed too")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    parser.add_argument("--verbose", action="store_true", help="print every market")
    arguments = parser.parse_args()
    if arguments.postgres and Postgres.programs() is None:
        if os.environ.get("WALRAS_REQUIRE_POSTGRES") == "1":
            sys.exit("PostgreSQL is required and not installed")
        print("skipped: PostgreSQL is not installed")
        return
    folder = Path(tempfile.mkdtemp(prefix="walras-storefront-"))
    try:
        asyncio.run(run(arguments, folder))
    except BaseException:
        log = folder / "walras.log"
        if log.exists():
            print(*log.read_text(errors="replace").splitlines()[-60:], sep="\n", file=sys.stderr)
        raise
    finally:
        if arguments.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
