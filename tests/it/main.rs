//! The integration tests: one binary, whose modules bear the names of what they hold to account.

mod support;

mod archive;
mod bucket;
mod cli;
mod config;
mod join;
mod main_job;
mod peers;
mod proxy;
mod streams;
mod telemetry;
