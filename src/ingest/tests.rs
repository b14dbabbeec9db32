//! The worker by itself.
