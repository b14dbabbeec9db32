//! A flow's calls to models, joined to the flow's own exchange.
//!
//! One tap stands before the flow, another between the flow and its models. A call that passes the
//! second names the request it is made for ([`Key`]); it waits here until the flow's exchange comes
//! and takes it. A call belongs to the flow of its name that was under way when it began, so a name
//! that a client uses again and again still tells its requests apart. Where two flows of one name
//! overlap nobody can tell whose a call is: then neither gets any, because no figure is better than
//! a wrong one. A call that comes from prompt flow without a name belongs to the only exchange that
//! was under way when it began, if there was only one.
//!
//! Everything is bounded, by requests, by bytes and by time; the oldest goes first. Where something
//! was lost while a flow was under way, what it takes is marked incomplete. No I/O, no clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config;
use crate::domain::{Call, ExchangeId, JoinFate, SpanId};
use crate::metrics::Metrics;

mod aged;
mod key;
mod losses;
mod recent;
mod spans;
mod traced;
mod usage;

#[cfg(test)]
mod tests;

use aged::Aged;
pub use key::{Key, PROMPTFLOW_HEADER, run_id};
use losses::Losses;
pub use recent::{About, Recent, Seen, header_names};
pub use spans::{Heard, Home, SPANS_PER_EXCHANGE_MAX, Spans};
pub use traced::Traced;
pub use usage::{Account, account};

/// How long a call waits for its flow, and a settled flow is remembered: longer than flows take.
const KEPT: Duration = Duration::from_secs(3600);
/// Calls that may wait under one name.
const CALLS_PER_KEY_MAX: usize = 1000;
/// Flows remembered under one name.
const FLOWS_PER_KEY_MAX: usize = 16;
/// Bytes of all calls that wait.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A call on its way to its flow.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The request that it is made for.
    pub key: Key,
    /// The call's own exchange.
    pub id: ExchangeId,
    /// The tap that it passes.
    pub tap: Arc<str>,
    /// When its head had been read.
    pub began: Timestamp,
}

/// A flow that asks for its calls.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The names that its calls may bear.
    pub keys: Vec<Key>,
    /// The flow's exchange.
    pub id: ExchangeId,
    /// The tap that it passes; calls are of other taps.
    pub tap: Arc<str>,
    /// When its head had been read.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Spans that are none of its steps: the caller's, and the one that a tracer makes of it.
    pub outside: Vec<SpanId>,
}

/// What a flow takes.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Its calls, in the order in which they began.
    pub calls: Vec<Call>,
    /// False where calls may be missing.
    pub complete: bool,
}

/// Calls that wait for their flows.
#[derive(Debug)]
pub struct Join {
    requests_max: usize,
    metrics: Metrics,
    calls: Aged<Calls>,
    flows: Aged<VecDeque<Flow>>,
    bytes: usize,
    lost: Losses,
    /// Unnamed calls of which nobody knows whose they are.
    unclear: Losses,
}

#[derive(Debug, Default)]
struct Calls {
    slots: VecDeque<Slot>,
    lost_until: Option<Timestamp>,
}

/// A call; without its figures while they are being counted.
#[derive(Debug)]
struct Slot {
    id: ExchangeId,
    tap: Arc<str>,
    began: Timestamp,
    call: Option<Call>,
}

/// A flow that ended under a name.
#[derive(Clone, Copy, Debug)]
struct Flow {
    id: ExchangeId,
    began: Timestamp,
    ended: Timestamp,
    settled: bool,
    /// Another of the same name was under way at the same time.
    overlapped: bool,
}

impl Join {
    /// An empty table.
    pub fn new(settings: &config::Join, metrics: Metrics) -> Self {
        Self {
            requests_max: settings.requests_max.max(1),
            metrics,
            calls: Aged::default(),
            flows: Aged::default(),
            bytes: 0,
            lost: Losses::default(),
            unclear: Losses::default(),
        }
    }

    /// A call has ended; its figures follow by [`Self::arrive`]. False where its flow has been
    /// settled already: it is counted as late, and nothing needs to follow.
    pub fn expect(&mut self, ticket: &Ticket, now: Instant) -> bool {
        let mut flows = self.flows.get(&ticket.key).into_iter().flatten();
        if flows.any(|flow| flow.settled && flow.spans(ticket.began)) {
            self.tell(JoinFate::Late, 1);
            return false;
        }
        let Ticket { key, id, tap, began } = ticket;
        let slot = Slot { id: *id, tap: Arc::clone(tap), began: *began, call: None };
        self.bytes += slot.bytes();
        let calls = self.calls.entry(key, now);
        calls.slots.push_back(slot);
        if calls.slots.len() > CALLS_PER_KEY_MAX
            && let Some(oldest) = calls.slots.pop_front()
        {
            calls.lost_until = calls.lost_until.max(Some(oldest.began));
            self.bytes -= oldest.bytes();
            self.tell(JoinFate::Evicted, 1);
        }
        self.keep_bounds();
        true
    }

    /// What an expected call turned out to have spent.
    pub fn arrive(&mut self, ticket: &Ticket, call: Call) {
        let calls = self.calls.get_mut(&ticket.key);
        let slot = calls.and_then(|calls| calls.slots.iter_mut().rfind(|s| s.id == ticket.id));
        // One that is gone was counted when it went.
        let Some(slot) = slot else { return };
        self.bytes -= slot.bytes();
        slot.call = Some(call);
        self.bytes += slot.bytes();
        self.keep_bounds();
    }

    /// An expected call will not arrive.
    pub fn abandon(&mut self, ticket: &Ticket) {
        if let Some(calls) = self.calls.get_mut(&ticket.key) {
            calls.slots.retain(|slot| {
                let stays = slot.id != ticket.id;
                self.bytes -= if stays { 0 } else { slot.bytes() };
                stays
            });
            if calls.slots.is_empty() {
                self.calls.remove(&ticket.key);
            }
        }
        self.tell(JoinFate::Evicted, 1);
        self.lost(ticket.began);
    }

    /// An exchange that began at `began` was lost before anyone looked at it: it may have been a call.
    pub fn lost(&mut self, began: Timestamp) {
        self.lost.add(began);
    }

    /// An unnamed call began at `began` while it could have been made for several requests, or for none.
    pub fn unclear(&mut self, began: Timestamp) {
        self.unclear.add(began);
        self.tell(JoinFate::Orphan, 1);
    }

    /// A flow has ended, and will [`Self::take`] what is its own.
    pub fn announce(&mut self, claim: &Claim, now: Instant) {
        // What is unnamed is one flow's only in any case: no two were under way when it began.
        for key in claim.keys.iter().filter(|key| **key != Key::Unnamed) {
            let flows = self.flows.entry(key, now);
            let overlapping = flows.iter_mut().filter(|flow| flow.overlaps(claim));
            let overlapped = overlapping.map(|flow| flow.overlapped = true).count() > 0;
            let Claim { id, began, ended, .. } = *claim;
            flows.push_back(Flow { id, began, ended, settled: false, overlapped });
            if flows.len() > FLOWS_PER_KEY_MAX {
                flows.pop_front();
            }
        }
        while self.flows.len() > self.requests_max {
            self.flows.pop_oldest();
        }
    }

    /// True where a call of the flow's is here, arrived or not.
    pub fn holds(&self, claim: &Claim) -> bool {
        self.slots(claim).next().is_some()
    }

    /// True where a call of the flow's has ended and has not arrived.
    pub fn awaits(&self, claim: &Claim) -> bool {
        self.slots(claim).any(|slot| slot.call.is_none())
    }

    /// The calls of a flow that was announced. What has not arrived by now is late.
    pub fn take(&mut self, claim: &Claim) -> Taken {
        let mut slots = Vec::new();
        let (began, ended) = (claim.began, claim.ended);
        let mut lost = self.lost.touch(began, ended);
        for key in &claim.keys {
            let is_clear = *key == Key::Unnamed || self.settle(key, claim.id);
            lost |= *key == Key::Unnamed && self.unclear.touch(began, ended);
            let Some(calls) = self.calls.get_mut(key).filter(|_| is_clear) else { continue };
            lost |= calls.lost_until >= Some(began);
            let (own, rest) = calls.slots.drain(..).partition::<Vec<_>, _>(|s| claim.owns(s));
            calls.slots.extend(rest);
            if calls.slots.is_empty() {
                self.calls.remove(key);
            }
            slots.extend(own);
        }
        self.bytes -= slots.iter().map(Slot::bytes).sum::<usize>();
        slots.sort_by_key(|slot| slot.began);
        let found = slots.len();
        let calls: Vec<Call> = slots.into_iter().filter_map(|slot| slot.call).collect();
        let late = found - calls.len();
        self.tell(JoinFate::Joined, calls.len());
        self.tell(JoinFate::Late, late);
        Taken { calls, complete: late == 0 && !lost }
    }

    /// Lets go of what has waited too long.
    pub fn expire(&mut self, now: Instant) {
        let limit = now.checked_sub(KEPT);
        let is_old = |since: Option<Instant>| since.is_some_and(|since| Some(since) < limit);
        while is_old(self.calls.oldest()) {
            self.forget_oldest(JoinFate::Orphan);
        }
        while is_old(self.flows.oldest()) {
            self.flows.pop_oldest();
        }
    }

    /// No flow comes any more: what still waits has none.
    pub fn close(&mut self) {
        while self.calls.len() > 0 {
            self.forget_oldest(JoinFate::Orphan);
        }
    }

    /// Names under which calls wait.
    pub fn requests(&self) -> usize {
        self.calls.len()
    }

    fn slots<'a>(&'a self, claim: &'a Claim) -> impl Iterator<Item = &'a Slot> {
        let calls = claim.keys.iter().filter_map(|key| self.calls.get(key));
        calls.flat_map(|calls| &calls.slots).filter(|slot| claim.owns(slot))
    }

    /// Marks a flow as settled; true where its calls can be told from those of others.
    fn settle(&mut self, key: &Key, id: ExchangeId) -> bool {
        let flows = self.flows.get_mut(key);
        let flow = flows.and_then(|flows| flows.iter_mut().rfind(|flow| flow.id == id));
        flow.is_some_and(|flow| {
            flow.settled = true;
            !flow.overlapped
        })
    }

    fn keep_bounds(&mut self) {
        while self.calls.len() > self.requests_max || self.bytes > BYTES_MAX {
            if !self.forget_oldest(JoinFate::Evicted) {
                return;
            }
        }
    }

    fn forget_oldest(&mut self, fate: JoinFate) -> bool {
        let Some(calls) = self.calls.pop_oldest() else { return false };
        self.tell(fate, calls.slots.len());
        for slot in &calls.slots {
            self.bytes -= slot.bytes();
            self.lost(slot.began);
        }
        true
    }

    fn tell(&self, fate: JoinFate, calls: usize) {
        self.metrics.joined(fate, calls as u64);
    }
}

impl Claim {
    /// A call of another tap that began while the flow was under way.
    fn owns(&self, slot: &Slot) -> bool {
        slot.tap != self.tap && (self.began..=self.ended).contains(&slot.began)
    }
}

impl Flow {
    fn spans(&self, time: Timestamp) -> bool {
        (self.began..=self.ended).contains(&time)
    }

    fn overlaps(&self, other: &Claim) -> bool {
        self.began <= other.ended && other.began <= self.ended
    }
}

impl Slot {
    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let names = self.call.as_ref().map_or(0, |call| text(&call.model) + text(&call.deployment));
        size_of::<Self>() + names
    }
}
