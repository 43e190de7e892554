#!/usr/bin/env python3
"""A storefront in another language: offers supply, places bids, prints what the market makes of them.

    walras up --no-demo                       # in another terminal
    pip install nats-py nkeys
    python examples/storefront.py --catalogue examples/catalogue.json --bids 2000

It speaks to Walras over NATS only, with three of the credentials that `walras up` leaves in its data folder:
as operator it opens the catalogue's markets, as hypervisor it offers servers, as storefront it places bids.
The catalogue has the shape of the public percentiles feed of Rackspace Spot: regions, their server classes,
and for each class a market price and the 20th, 50th and 80th percentile of the bids.
"""

import argparse
import asyncio
import json
import random
import sys
import time
import uuid
from dataclasses import dataclass, field
from decimal import ROUND_UP, Decimal
from pathlib import Path

import nats
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout

COMMANDS_PER_ENVELOPE = 256
ANSWERS_PER_FETCH = 256
TICK = Decimal("0.001")


@dataclass(frozen=True)
class Listing:
    """One market of the catalogue."""

    market: str
    price: Decimal
    percentiles: tuple[Decimal, Decimal, Decimal]


def read_catalogue(path):
    """The catalogue's markets, in a fixed order."""
    catalogue = json.loads(Path(path).read_text(), parse_float=Decimal)
    listings = []
    for region, about in sorted(catalogue["regions"].items()):
        for name, kind in sorted(about["serverclasses"].items()):
            percentiles = tuple(Decimal(kind[f"{percent}_percentile"]) for percent in (20, 50, 80))
            listings.append(Listing(f"{region}/{name}", Decimal(kind["market_price"]), percentiles))
    return listings


def money(amount):
    """A price as Walras wants it: text, on the $0.001 ladder, at least one rung."""
    return str(max(TICK, amount.quantize(TICK, rounding=ROUND_UP)))


class Party:
    """One principal's connection: sends commands, and repeats what has not been answered."""

    def __init__(self, role, principal, up):
        self.role, self.principal, self.up = role, principal, up
        self.unanswered = {}
        self.answers = {}
        self.repeated_answers = 0
        self.facts = []
        self.subject = f"walras.v1.command.market.{up['exchange']}.{role}.{principal}"
        self.connection = self.replay = None

    async def connect(self):
        self.connection = await nats.connect(
            self.up["nats_url"],
            nkeys_seed=self.up["credentials"][self.principal],
            inbox_prefix=f"_INBOX_{self.principal}".encode(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,
            error_cb=self.on_error,
            name=f"storefront.py {self.principal}",
        )
        self.stream = self.connection.jetstream(timeout=5)
        # The consumer was made by Walras: a storefront may read its own answers and create nothing.
        answers = self.connection.jetstream(domain="walras", timeout=5)
        self.replay = await answers.pull_subscribe_bind(consumer=self.principal, stream="walras-answer")

    async def on_error(self, error):
        if not isinstance(error, (NatsError, OSError)):
            print(f"{self.principal}: {error}", file=sys.stderr)

    async def close(self):
        await self.connection.close()

    async def send(self, commands):
        """Sends commands in envelopes. An id stays unanswered until its answer is read."""
        for command in commands:
            self.unanswered[command["id"]] = command
        for start in range(0, len(commands), COMMANDS_PER_ENVELOPE):
            envelope = json.dumps({"commands": commands[start : start + COMMANDS_PER_ENVELOPE]})
            try:
                await self.stream.publish(self.subject, envelope.encode(), headers={"Nats-Msg-Id": uuid.uuid4().hex})
            except (NatsError, OSError, asyncio.TimeoutError):
                pass  # Nobody knows whether it arrived: it stays unanswered and is repeated.

    async def listen(self, seconds):
        """Reads answers for at most so long, or until nothing is unanswered."""
        until = time.monotonic() + seconds
        while self.unanswered and time.monotonic() < until:
            try:
                messages = await self.replay.fetch(ANSWERS_PER_FETCH, timeout=1)
            except (NatsTimeout, NatsError, OSError, asyncio.TimeoutError):
                continue
            for message in messages:
                self.take(json.loads(message.data))
                try:
                    await message.ack()
                except (NatsError, OSError):
                    pass  # It comes again; an answer may be read twice.

    def take(self, told):
        for answer in told["answers"]:
            if answer["type"] not in ("Accepted", "Refused"):
                # After a failure of the broker a message may come again, or behind a later one: facts go by sequence.
                self.facts.append({"sequence": told["sequence"], **answer})
                continue
            known = self.answers.setdefault(answer.get("id"), answer)
            if known is not answer:
                self.repeated_answers += 1
                if known != answer:
                    raise AssertionError(f"two answers to one id: {known} and {answer}")
            self.unanswered.pop(answer.get("id"), None)

    async def settle(self, commands, seconds=120):
        """Sends commands and repeats them until every id is answered."""
        until = time.monotonic() + seconds
        await self.send(commands)
        await self.listen(5)
        while self.unanswered:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.principal}: {len(self.unanswered)} ids were not answered in {seconds} s")
            await self.send(list(self.unanswered.values()))
            await self.listen(5)


@dataclass
class Plan:
    """Everything the example asks of the market, made from one seed."""

    markets: list = field(default_factory=list)
    supplies: list = field(default_factory=list)
    bids: list = field(default_factory=list)


def make_plan(listings, bids, tenants, source, run, seed):
    """Supply for a little less than half of the demand, and bids spread around each market's percentiles."""
    chance = random.Random(seed)
    plan = Plan()
    for number, listing in enumerate(listings):
        settings = {"reserve": "0.001", "notice_seconds": 360}
        plan.markets.append(
            {"type": "DefineMarket", "id": f"define-{run}-{number}", "market": listing.market, "settings": settings}
        )
        units = max(1, int(bids * 2.5 * 0.45 / len(listings) * chance.uniform(0.5, 1.5)))
        plan.supplies.append(
            {
                "type": "SupplyOffered",
                "id": f"supply-{run}-{number}",
                "source": source,
                "generation": int(time.time() * 1_000_000),
                "market": listing.market,
                "units": units,
            }
        )
    for number in range(bids):
        listing = chance.choice(listings)
        low, middle, high = listing.percentiles
        spread = Decimal(str(round(chance.uniform(0.6, 1.4), 3)))
        limit = money(chance.choice((listing.price, low, middle, middle, high)) * spread)
        plan.bids.append(
            {
                "type": "PlaceBid",
                "id": f"bid-{run}-{number}",
                "tenant": chance.choice(tenants),
                "cluster": f"cluster-{chance.randrange(20)}",
                "pool": "workers",
                "quantity": chance.randrange(1, 5),
                "options": [{"market": listing.market, "limit": limit}],
            }
        )
    return plan


async def follow_reports(connection, exchange, reports):
    """Keeps the newest public report of every market in `reports`, from now on."""

    async def take(message):
        report = json.loads(message.data)
        reports[report["market"]] = report

    await connection.subscribe(f"walras.v1.price.{exchange}.>", cb=take)
    await connection.flush()


def print_markets(listings, reports):
    print(f"{'market':44} {'price':>8} {'reserve':>8} {'to win':>8} {'sold':>6} {'supply':>6} {'wanted':>6}")
    for listing in listings:
        report = reports.get(listing.market)
        if report is None:
            print(f"{listing.market:44} {'-':>8}")
            continue
        price, to_win = report["price"] or "-", report["lowest_winning_bid"] or "-"
        print(
            f"{listing.market:44} {price:>8} {report['reserve']:>8} {to_win:>8}"
            f" {report['sold']:>6} {report['supply']:>6} {report['wanted']:>6}"
        )


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--catalogue", default=Path(__file__).with_name("catalogue.json"))
    parser.add_argument("--data-dir", default="walras-data", type=Path, help="where `walras up` keeps its data")
    parser.add_argument("--bids", default=2000, type=int)
    parser.add_argument("--seed", default=1, type=int)
    arguments = parser.parse_args()

    up = json.loads((arguments.data_dir / "up.json").read_text())
    listings = read_catalogue(arguments.catalogue)
    run = uuid.uuid4().hex[:8]
    operator, hypervisor, storefront = (
        Party(role, up["parties"][role], up) for role in ("operator", "hypervisor", "storefront")
    )
    for party in (operator, hypervisor, storefront):
        await party.connect()
    plan = make_plan(listings, arguments.bids, up["tenants"], hypervisor.principal, run, arguments.seed)

    reports = {}
    await follow_reports(storefront.connection, up["exchange"], reports)
    await operator.settle(plan.markets)
    await hypervisor.settle(plan.supplies)
    started = time.monotonic()
    await storefront.settle(plan.bids)
    seconds = time.monotonic() - started
    await asyncio.sleep(1)  # The reports of the last round are on their way.
    print_markets(listings, reports)
    accepted = sum(answer["type"] == "Accepted" for answer in storefront.answers.values())
    won = sum(fact["leases"]["units"] for fact in storefront.facts if fact["type"] == "Awarded")
    print(f"{accepted} of {len(plan.bids)} bids accepted in {seconds:.1f} s; {won} units awarded")
    for party in (operator, hypervisor, storefront):
        await party.close()


if __name__ == "__main__":
    asyncio.run(main())
