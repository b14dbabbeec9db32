//! Whether the pipeline is so far behind that exchanges would soon be lost whole.
//!
//! A sample costs many times what an exchange's figures cost. So it is samples that are given up first, and
//! the figures of all exchanges stay complete as long as the processor allows for them. What is given up is
//! entered in the books.

use crate::domain::{Exchange, MemoryBudget};

/// How far behind it may be.
pub struct Pressure {
    waiting_max: usize,
    bytes_max: u64,
    /// What an exchange of the latest batch holds, on average.
    bytes_each: u64,
}

impl Pressure {
    /// High where more than three quarters of `waiting_max` exchanges wait, or those that do hold more than
    /// three quarters of `budget`: a burst that fits is no pressure, and figures take so little time that the
    /// last quarter is enough for them.
    pub fn new(waiting_max: usize, budget: &MemoryBudget) -> Self {
        let (waiting_max, bytes_max) = (waiting_max / 4 * 3, budget.bytes_max() / 4 * 3);
        Self { waiting_max, bytes_max, bytes_each: 0 }
    }

    /// Takes the measure of a batch.
    pub fn weigh(&mut self, batch: &[Box<Exchange>]) {
        let held =
            |exchange: &Exchange| exchange.request.held_bytes() + exchange.response.held_bytes();
        let bytes: u64 = batch.iter().map(|exchange| held(exchange)).sum();
        self.bytes_each = bytes / (batch.len() as u64).max(1);
    }

    /// True where `waiting` exchanges are too many.
    pub fn is_high(&self, waiting: usize) -> bool {
        waiting > self.waiting_max || waiting as u64 * self.bytes_each > self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_high_by_number_or_by_bytes() {
        let mut pressure = Pressure::new(100, &MemoryBudget::new(1000));
        assert!(!pressure.is_high(75) && pressure.is_high(76));
        pressure.bytes_each = 100;
        assert!(!pressure.is_high(7) && pressure.is_high(8));
        pressure.weigh(&[]);
        assert!(!pressure.is_high(75), "nothing is held by none");
    }
}
