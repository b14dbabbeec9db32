//! The integration tests: one binary, whose modules bear the names of what they hold to account. They
//! need the whole program.
#![cfg(feature = "hub")]

mod support;

mod alert;
mod api;
mod archive;
mod bucket;
mod cli;
mod collector;
mod config;
mod console;
mod crash;
mod dashboards;
mod disk;
mod downloads;
mod drain;
mod evaluate;
mod export;
mod faults;
mod feedback;
mod fidelity;
mod fixtures;
mod floods;
mod framing;
mod grace;
mod hardship;
mod helm;
mod http2;
mod hub;
mod image;
mod include_usage;
mod inject;
mod injector;
mod join;
mod main_job;
mod memory;
mod monitor;
mod outage;
mod peers;
mod proxy;
mod replay;
mod reuse;
mod secrets;
mod sidecar;
mod soak;
mod spark;
mod stalls;
mod streams;
mod telemetry;
mod tls;
mod uploads;
mod usage;
mod ways;
