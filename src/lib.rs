//! flowtap: an inference-proxy sidecar. It sees every LLM request, counts tokens, keeps an honest
//! sample, and never touches traffic.
//!
//! The modules stand in paragraphs, bottom up: a module may `use crate::x` only if `x` stands in an
//! earlier paragraph (`tests/tidy.rs` holds us to it). docs/ARCHITECTURE.md tells what each room is for.
//! Without the feature `hub` it is the sidecar alone.

pub mod domain;

pub mod config;

pub mod drain;
pub mod memory;
pub mod metrics;
#[cfg(feature = "hub")]
pub mod reach;
pub mod trace;

pub mod capture;
pub mod dialect;
pub mod inject;
pub mod redact;
pub mod tokens;

pub mod bucket;
pub mod join;
pub mod ledger;
pub mod queue;
pub mod rollup;
pub mod sample;

pub mod spool;
#[cfg(feature = "hub")]
pub mod store;

#[cfg(feature = "hub")]
pub mod alert;
pub mod archive;
#[cfg(feature = "hub")]
pub mod evaluate;
pub mod export;
#[cfg(feature = "hub")]
pub mod ingest;
#[cfg(feature = "hub")]
pub mod monitor;
pub mod pipeline;

#[cfg(feature = "hub")]
pub mod replay;

pub mod collector;
pub mod console;
pub mod injector;
pub mod proxy;

pub mod app;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
