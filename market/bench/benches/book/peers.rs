//! Other order books on the same stream: buy side only, so that nothing ever crosses, and supply events skipped. They
//! keep the book; they compute no clearing price and no winners.

use matchcore::{
    AmendCmd, AmendPatch, CancelCmd, Command, CommandKind, CommandMeta, CommandOutcome, LimitOrder,
    LimitOrderPatch, NewOrder, OrderFlags, OrderId, OrderKind, Price, Quantity, QuantityPolicy,
    SequenceNumber, Side, SubmitCmd, TimeInForce, Timestamp,
};
use obcore::{Instruction, Msg, OrderInterface};

use crate::stream::{Event, Stream};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Order {
    id: u64,
    price: u64,
    quantity: u64,
    remaining: u64,
}

impl OrderInterface for Order {
    type I = u64;
    type N = u64;
    type O = u64;

    fn id(&self) -> &u64 {
        &self.id
    }

    fn is_buy(&self) -> bool {
        true
    }

    fn price(&self) -> u64 {
        self.price
    }

    fn quantity(&self) -> u64 {
        self.quantity
    }

    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn fill(&mut self, quantity: u64) {
        self.remaining -= quantity;
    }

    fn owner(&self) -> &u64 {
        &self.id
    }
}

/// obcore by its cheapest path: instructions applied without evaluating them first. It has no amendment: a re-price is
/// a deletion and an insertion.
pub(crate) struct Obcore {
    book: obcore::OrderBook<Order>,
    units: Vec<u64>,
}

impl Obcore {
    pub(crate) fn new(stream: &Stream) -> Self {
        let mut peer = Self { book: obcore::OrderBook::default(), units: Vec::new() };
        peer.run(&stream.standing);
        peer
    }

    fn insert(&mut self, bid: u32, rung: u32, quantity: u64) {
        let order = Order { id: u64::from(bid), price: u64::from(rung), quantity, remaining: quantity };
        self.book.apply(Instruction::Insert(order, quantity));
    }

    pub(crate) fn run(&mut self, events: &[Event]) -> u64 {
        for &event in events {
            match event {
                Event::Add { bid, rung, units } => {
                    let units = u64::from(units);
                    if bid as usize == self.units.len() {
                        self.units.push(units);
                    } else {
                        self.units[bid as usize] = units;
                    }
                    self.insert(bid, rung, units);
                }
                Event::Cancel { bid } => {
                    self.book.apply(Instruction::Delete(u64::from(bid), Msg::UserCancelled));
                }
                Event::Reprice { bid, rung } => {
                    self.book.apply(Instruction::Delete(u64::from(bid), Msg::UserCancelled));
                    self.insert(bid, rung, self.units[bid as usize]);
                }
                Event::Supply { .. } => (),
            }
        }
        self.book.len() as u64
    }
}

/// matchcore by its commands. An order's id is the sequence number of its submission.
pub(crate) struct Matchcore {
    book: matchcore::OrderBook,
    ids: Vec<u64>,
    sequence: u64,
}

impl Matchcore {
    pub(crate) fn new(stream: &Stream) -> Self {
        let mut peer = Self { book: matchcore::OrderBook::new("bench"), ids: Vec::new(), sequence: 0 };
        peer.run(&stream.standing);
        peer
    }

    fn execute(&mut self, kind: CommandKind) -> bool {
        let meta = CommandMeta {
            sequence_number: SequenceNumber(self.sequence),
            timestamp: Timestamp(self.sequence),
        };
        self.sequence += 1;
        matches!(self.book.execute(&Command { meta, kind }), CommandOutcome::Rejected(_))
    }

    pub(crate) fn run(&mut self, events: &[Event]) -> u64 {
        let mut rejected = 0;
        for &event in events {
            let kind = match event {
                Event::Add { bid, rung, units } => {
                    if bid as usize == self.ids.len() {
                        self.ids.push(self.sequence);
                    } else {
                        self.ids[bid as usize] = self.sequence;
                    }
                    CommandKind::Submit(SubmitCmd {
                        order: NewOrder::Limit(LimitOrder::new(
                            Price(u64::from(rung)),
                            QuantityPolicy::Standard { quantity: Quantity(u64::from(units)) },
                            OrderFlags::new(Side::Buy, false, TimeInForce::Gtc),
                        )),
                    })
                }
                Event::Cancel { bid } => CommandKind::Cancel(CancelCmd {
                    order_id: OrderId(self.ids[bid as usize]),
                    order_kind: OrderKind::Limit,
                }),
                Event::Reprice { bid, rung } => CommandKind::Amend(AmendCmd {
                    order_id: OrderId(self.ids[bid as usize]),
                    patch: AmendPatch::Limit(LimitOrderPatch::new().with_price(Price(u64::from(rung)))),
                }),
                Event::Supply { .. } => continue,
            };
            rejected += u64::from(self.execute(kind));
        }
        assert_eq!(rejected, 0, "matchcore refused an event");
        rejected
    }
}
