//! What the tests share: scripted peers, raw clients, processes that end with the test.

pub mod api;
pub mod books;
pub mod certs;
pub mod judge;
pub mod multiplexed;
pub mod process;
pub mod servers;
pub mod tap;
pub mod wire;
