//! The integration tests: one binary, whose modules bear the names of what they hold to account.

mod support;

mod api;
mod archive;
mod bucket;
mod cli;
mod config;
mod drain;
mod evaluate;
mod export;
mod faults;
mod feedback;
mod fixtures;
mod http2;
mod hub;
mod include_usage;
mod inject;
mod join;
mod main_job;
mod peers;
mod proxy;
mod secrets;
mod streams;
mod telemetry;
mod tls;
mod uploads;
mod usage;
mod ways;
