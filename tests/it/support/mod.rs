//! What the tests share: scripted peers, raw clients, processes that end with the test.
//! (being built)

pub mod servers;
